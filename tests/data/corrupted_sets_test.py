"""Corrupted test sets in files, and those that tfds has prepared."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from qgen_tf import errors
from qgen_tf.config import default_config
from qgen_tf.data import corrupted_sets, corruptions, examples
from qgen_tf.data.corrupted_sets import CorruptedSet

_PREPARED = 12  # examples

with registered.skip_registration():

    class Cifar10Corrupted(tfds.core.GeneratorBasedBuilder):
        """As that of tfds: image i of severity s is all i + s, class i % 10."""

        name = "cifar10_corrupted"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(name=name)
            for name in ("snow_2", "frosted_glass_blur_5", "fog_1")
        ]

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(32, 32, 3)),
                        "label": tfds.features.ClassLabel(num_classes=10),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            severity = int(self.builder_config.name[-1])
            for index in range(_PREPARED):
                image = np.full((32, 32, 3), index + severity, np.uint8)
                yield index, {"image": image, "label": index % 10}


def _config(name="cifar10", size=32, **fields):
    dataset = default_config().dataset
    dataset.update({"name": name, "image_size": size, **fields})
    return dataset


def _part(count=5, size=8, channels=1):
    generator = np.random.default_rng(0)
    shape = (count, size, size, channels)
    return examples.in_memory(
        "noise test",
        generator.integers(0, 256, shape, dtype=np.uint8),
        np.arange(count, dtype=np.int32)[::-1],
    )


def _arrays(part):
    pairs = list(part.images().as_numpy_iterator())
    assert len(pairs) == part.size
    return tuple(np.stack(values) for values in zip(*pairs, strict=True))


def _unused():
    raise AssertionError("the test set is read")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for config in Cifar10Corrupted.BUILDER_CONFIGS:
        Cifar10Corrupted(config=config, data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture
def data_dir(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))


@pytest.fixture
def empty_data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("count", [1, 5, 600])
def test_what_is_written_is_read(tmp_path, count):
    path = tmp_path / "set.npy"
    part = _part(count, channels=3)
    corrupted_sets.write(part, path)
    records = corrupted_sets.read(path)
    assert isinstance(records, np.memmap)
    images, labels = _arrays(part)
    np.testing.assert_array_equal(records["image"], images)
    np.testing.assert_array_equal(records["label"], labels)
    assert records["image"].dtype == np.uint8
    assert records["label"].dtype == np.int32


def test_a_damaged_file_is_none_or_still_the_same(tmp_path):
    path = tmp_path / "set.npy"
    part = _part(3, size=4)
    corrupted_sets.write(part, path)
    images, labels = _arrays(part)
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged.append(whole + b"\0")
    for place, byte in itertools.product(range(len(whole)), b"\0\n (5"):
        damaged.append(whole[:place] + bytes([byte]) + whole[place + 1 :])
    data_starts = len(whole) - 3 * (4 * 4 + 4 + 4)
    for place in range(data_starts, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        damaged.append(bytes(changed))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        records = corrupted_sets.read(path)
        if records is None:
            refused += 1
            continue
        # blanks in the header
        assert content[data_starts:] == whole[data_starts:]
        np.testing.assert_array_equal(records["image"], images)
        np.testing.assert_array_equal(records["label"], labels)
    assert refused > 0.8 * len(damaged)


@pytest.mark.parametrize(
    "array",
    [np.arange(3), np.array([{}]), np.zeros(2, [("image", "f4", (2, 2, 1))])],
)
def test_another_array_is_none(tmp_path, array):
    path = tmp_path / "set.npy"
    np.save(path, array, allow_pickle=True)
    assert corrupted_sets.read(path) is None


def test_a_missing_file_is_none(tmp_path):
    assert corrupted_sets.read(tmp_path / "set.npy") is None


def test_too_few_examples_are_an_error(tmp_path):
    part = dataclasses.replace(_part(), size=6)
    with pytest.raises(errors.DataError, match="has 5 examples instead of 6"):
        corrupted_sets.write(part, tmp_path / "set.npy")


@pytest.mark.parametrize(("asked", "given"), [(0, 5), (2, 2), (5, 5), (9, 5)])
def test_the_first_examples_are_corrupted_as_among_all(asked, given):
    wanted = CorruptedSet.of(
        _config("digits", 8), "shot_noise", 2, seed=3, num_examples=asked
    )
    assert wanted.source == "made"
    part = wanted.examples(_part)
    everything = corruptions.corrupted(
        _part(), "shot_noise", severity=2, seed=3
    )
    assert part.size == given
    for found, expected in zip(_arrays(part), _arrays(everything), strict=True):
        np.testing.assert_array_equal(found, expected[:given])


def test_sets_that_differ_have_files_that_differ():
    def name(kind="fog", severity=1, seed=0, num_examples=0, **fields):
        return CorruptedSet.of(
            _config(**{"name": "digits", **fields}),
            kind,
            severity,
            seed=seed,
            num_examples=num_examples,
        ).file_name

    others = [
        name(),
        name("contrast"),
        name(severity=2),
        name(seed=1),
        name(num_examples=10),
        name(name="cifar100"),
        name(size=16),
        name(num_test=10),
        name(center_crop=0.5),
    ]
    assert len(set(others)) == len(others)
    assert name(num_train=10, flip=True, normalization="imagenet") == name()
    assert name().startswith("fog-1-") and name().endswith(".npy")


@pytest.mark.parametrize(("kind", "severity"), [("snow", 2), ("fog", 1)])
@pytest.mark.usefixtures("data_dir")
def test_a_set_that_tfds_has_prepared_is_read(tmp_path, kind, severity):
    corrupted_sets.check(_config(), kind, severity)
    wanted = CorruptedSet.of(_config(), kind, severity)
    assert wanted.source == "cifar10_corrupted"
    part = wanted.examples(_unused)
    corrupted_sets.write(part, tmp_path / "set.npy")
    records = corrupted_sets.read(tmp_path / "set.npy")
    values = records["image"][:, 0, 0, 0].astype(int)
    # all images once, in an order of their own, each with its label
    assert sorted(values) == list(range(severity, severity + _PREPARED))
    assert (records["image"] == values[:, None, None, None]).all()
    np.testing.assert_array_equal(records["label"], (values - severity) % 10)


@pytest.mark.parametrize(
    ("num_test", "num_examples", "size"),
    [(0, 0, 12), (7, 0, 7), (0, 5, 5), (7, 5, 5), (5, 7, 5), (100, 100, 12)],
)
@pytest.mark.usefixtures("data_dir")
def test_as_many_are_read_as_would_be_made(num_test, num_examples, size):
    part, whole = (
        CorruptedSet.of(
            _config(num_test=tests), "snow", 2, num_examples=count
        ).examples(_unused)
        for tests, count in ((num_test, num_examples), (0, 0))
    )
    assert part.size == size
    for found, expected in zip(_arrays(part), _arrays(whole), strict=True):
        np.testing.assert_array_equal(found, expected[:size])


@pytest.mark.parametrize(
    ("dataset", "kind", "severity"),
    [
        (_config(), "fog", 2),  # another severity
        (_config(), "contrast", 1),  # another kind
        (_config(size=16), "fog", 1),
        (_config(center_crop=0.9), "fog", 1),
        (_config("cifar100"), "fog", 1),
    ],
)
@pytest.mark.usefixtures("data_dir")
def test_what_is_not_prepared_is_made(dataset, kind, severity):
    assert CorruptedSet.of(dataset, kind, severity).source == "made"


@pytest.mark.usefixtures("data_dir")
def test_the_source_is_part_of_the_name():
    read = CorruptedSet.of(_config(), "fog", 1)
    made = dataclasses.replace(read, source="made")
    assert read.file_name != made.file_name


def test_nothing_is_downloaded(empty_data_dir):
    corrupted_sets.check(_config(), "fog", 1)
    with pytest.raises(errors.ConfigError) as caught:
        corrupted_sets.check(_config(), "snow", 2)
    message = str(caught.value)
    assert f"cifar10_corrupted/snow_2 is not in {empty_data_dir}" in message
    assert str(corruptions.available()) in message
    assert not any(empty_data_dir.iterdir())


@pytest.mark.parametrize(
    ("dataset", "kind", "severity", "message"),
    [
        (_config("digits"), "snow", 2, "'snow' is unknown: choose one of"),
        (_config(size=16), "snow", 2, "'snow' is unknown"),
        (_config(), "snow", 3, "'snow' cannot be made here"),
        (_config(), "no/such kind", 2, "'no/such kind' cannot be made here"),
        (_config(), "snow", 6, "severity is 6"),
        (_config(), "fog", 1.0, "severity is 1.0"),
        (_config("digits"), "fog", 0, "severity is 0"),
    ],
)
@pytest.mark.usefixtures("data_dir")
def test_mistakes(dataset, kind, severity, message):
    for function in (corrupted_sets.check, CorruptedSet.of):
        with pytest.raises(errors.ConfigError, match=message):
            function(dataset, kind, severity)
