"""Where data come from, and what is said when they do not."""

import os
import types
import zlib

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors
from qgen_tf.data import datasets

needs_cifar10 = pytest.mark.skipif(
    not os.path.isdir(
        os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "cifar10")
    ),
    reason="needs cifar10 in the folder that TFDS_DATA_DIR names",
)


def write_image(path, height=6, width=7, channels=3, value=None):
    """Writes a PNG or JPEG, random unless `value` is given."""
    random = np.random.RandomState(zlib.crc32(path.name.encode()))
    image = random.randint(0, 256, (height, width, channels)).astype(np.uint8)
    if value is not None:
        image[:] = value
    encode = tf.io.encode_png if path.suffix == ".png" else tf.io.encode_jpeg
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image).numpy())


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "validation"):
        for name in ("ant", "bee"):
            write_image(tmp_path / split / name / "0.png")
            write_image(tmp_path / split / name / "1.JPEG", 9, 5)
            write_image(tmp_path / split / name / "2.jpg", 5, 5, 1, 77)
    return tmp_path


def _images(stored):
    return [image.numpy() for image, _ in stored.images()]


def test_digits_are_all_there_and_split_once():
    source = datasets.digits()
    again = datasets.digits()
    assert (source.train.size, source.test.size) == (1347, 450)
    assert source.class_names == tuple("0123456789")
    images = np.stack(_images(source.train) + _images(source.test))
    assert images.shape == (1797, 8, 8, 1) and images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    np.testing.assert_array_equal(
        images, _images(again.train) + _images(again.test)
    )
    train, test = np.bincount(source.train.labels), source.test.labels
    np.testing.assert_allclose(train / 1347, np.bincount(test) / 450, atol=0.01)


def test_image_folder_of_any_format_and_size(folder):
    source = datasets.source(f"image_folder:{folder}")
    assert source.class_names == ("ant", "bee")
    for stored in (source.train, source.test):
        assert stored.size == 6
        pairs = list(stored.images())
        shapes = sorted(tuple(image.shape) for image, _ in pairs)
        assert shapes == [(5, 5, 3)] * 2 + [(6, 7, 3)] * 2 + [(9, 5, 3)] * 2
        assert sorted(int(label) for _, label in pairs) == [0] * 3 + [1] * 3
        gray = [image for image, _ in pairs if image.shape[0] == 5]
        assert all(np.abs(image.numpy() - 77.0).max() <= 2 for image in gray)


def test_test_is_preferred_to_validation(folder):
    for name in ("ant", "bee"):
        write_image(folder / "test" / name / "0.png")
    assert datasets.image_folder(str(folder)).test.size == 2


def test_missing_folder(tmp_path):
    with pytest.raises(errors.DataError, match="nowhere' names no folder"):
        datasets.source(f"image_folder:{tmp_path / 'nowhere'}")
    with pytest.raises(errors.DataError, match="'image_folder:' names no"):
        datasets.source("image_folder:")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_empty_class_folder_is_named(folder, split):
    for path in (folder / split / "bee").iterdir():
        path.unlink()
    with pytest.raises(errors.DataError, match=f"{split}/bee' is missing or"):
        datasets.image_folder(str(folder))


def test_class_of_one_split_only_is_named(folder):
    write_image(folder / "validation" / "cat" / "0.png")
    with pytest.raises(errors.DataError, match="train/cat' is missing or has"):
        datasets.image_folder(str(folder))


@pytest.mark.parametrize(
    ("old", "wanted"),
    [("train", '"train"'), ("validation", '"test" or "validation"')],
)
def test_wrong_split_names_are_listed(folder, old, wanted):
    (folder / old).rename(folder / "holdout")
    with pytest.raises(errors.DataError, match=f"{wanted} .*holdout"):
        datasets.image_folder(str(folder))


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        errors.DataError, match="'no_such_set' is unknown: use cifar10, cifar"
    ):
        datasets.source("no_such_set")


@pytest.mark.parametrize("name", ["no such set", "cifar10/no_such_config"])
def test_malformed_name(name):
    with pytest.raises(errors.DataError, match=f"dataset.name '{name}'"):
        datasets.source(name)


def test_data_that_cannot_be_downloaded(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def offline(builder):
        raise ConnectionError("no route to host\nand a long trace")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", offline
    )
    with pytest.raises(errors.DataError) as caught:
        datasets.source("cifar100")
    message = str(caught.value)
    assert "\n" not in message and "(no route to host)" in message
    assert str(tmp_path) in message
    assert "TFDS_DATA_DIR" in message and "tfds build cifar100" in message


def test_data_that_must_be_downloaded_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(errors.DataError) as caught:
        datasets.source("imagenet2012")
    message = str(caught.value)
    assert f"'imagenet2012' is not in {tmp_path}/imagenet2012/" in message
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar;" in message
    assert "register on https://image-net.org/" in message
    assert f"into {tmp_path}/downloads/manual (" in message
    assert f"`tfds build imagenet2012 --data_dir={tmp_path}`" in message
    assert "\n" not in message and ". " not in message


def test_package_that_preparing_needs_is_named(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def prepare(builder):
        raise ModuleNotFoundError("No module named 'zipper'", name="zipper")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", prepare
    )
    with pytest.raises(errors.DataError, match="`pip install zipper`, or set"):
        datasets.source("cifar100")


class _Builder:
    """A tfds builder of gray 4x4 images, all pixels the index of the image.

    Splits have 8 (train), 4 (test) and 6 (validation) examples, `empty` ones
    none.
    """

    data_dir = "unused"

    def __init__(
        self, hidden_test=False, splits=None, label_key="label", empty=()
    ):
        import tensorflow_datasets as tfds

        sizes = {"train": 8, "test": 4, "validation": 6}
        sizes |= dict.fromkeys(empty, 0)
        self._hidden_test = hidden_test
        self.info = types.SimpleNamespace(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(4, 4, 1)),
                    "label": tfds.features.ClassLabel(names=["a", "b"]),
                    "text": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", label_key),
            splits={
                split: types.SimpleNamespace(num_examples=sizes[split])
                for split in splits or sizes
            },
        )

    def download_and_prepare(self):
        pass

    def as_dataset(self, *, split, shuffle_files, decoders):
        assert not shuffle_files and list(decoders) == ["image"]
        size = self.info.splits[split].num_examples
        assert size  # tfds has a ValueError for an empty split
        hidden = self._hidden_test and split == "test"
        labels = [-1 if hidden else index % 2 for index in range(size)]
        images = [
            tf.io.encode_png(tf.fill([4, 4, 1], tf.constant(index, tf.uint8)))
            for index in range(size)
        ]
        return tf.data.Dataset.from_tensor_slices(
            {"image": images, "label": tf.constant(labels, tf.int64)}
        )


@pytest.fixture
def tfds_builder(monkeypatch):
    """Returns a function that sets what tfds.builder returns."""
    import tensorflow_datasets as tfds

    def use(**arguments):
        builder = _Builder(**arguments)
        monkeypatch.setattr(tfds, "builder", lambda *_, **__: builder)

    return use


def test_any_tfds_name_with_image_and_label(tfds_builder):
    tfds_builder()
    source = datasets.source("made_up")
    assert source.class_names == ("a", "b")
    assert (source.train.size, source.test.size) == (8, 4)
    pairs = [
        (image.numpy().tolist(), int(label))
        for image, label in source.train.images()
    ]
    assert pairs == [
        (np.full((4, 4, 1), index).tolist(), index % 2) for index in range(8)
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"hidden_test": True},
        {"splits": ("train", "validation")},
        {"empty": ("test",)},
    ],
)
def test_validation_serves_without_labeled_test(tfds_builder, arguments):
    tfds_builder(**arguments)
    assert datasets.source("made_up").test.size == 6


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"splits": ("test", "validation")}, '"train" .*: test, validation'),
        ({"splits": ("train",)}, '"test" or "validation" .*: train'),
        ({"empty": ("train",)}, '"train" .*: test, validation'),
        ({"empty": ("test", "validation")}, '"test" or .*: train'),
        ({"empty": ("train", "test", "validation")}, '"train" .*: none'),
    ],
)
def test_missing_split_lists_the_others(tfds_builder, arguments, wanted):
    tfds_builder(**arguments)
    with pytest.raises(errors.DataError, match=f"no labeled split {wanted}"):
        datasets.source("made_up")


def test_no_pair_of_image_and_label(tfds_builder):
    tfds_builder(label_key="text")
    with pytest.raises(errors.DataError, match="not one of 8-bit images"):
        datasets.source("made_up")


@needs_cifar10
def test_cifar10():
    source = datasets.source("cifar10")
    assert (source.train.size, source.test.size) == (50000, 10000)
    assert source.class_names[0] == "airplane"
    assert source.train.image_shape == (32, 32, 3)
