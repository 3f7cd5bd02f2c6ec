import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.models import resnet18


@pytest.mark.parametrize(
    ("stem", "size", "classes", "trainable"),
    # the published sizes of both networks
    [("cifar", 32, 10, 11_173_962), ("imagenet", 224, 1000, 11_689_512)],
)
def test_number_of_parameters(stem, size, classes, trainable):
    model = resnet18((size, size, 3), classes, stem=stem)
    assert (
        sum(np.prod(weight.shape) for weight in model.trainable_weights)
        == trainable
    )


@pytest.mark.parametrize(
    ("stem", "sizes"), [("cifar", [32, 16, 8, 4]), ("imagenet", [8, 4, 2, 1])]
)
def test_resolution_and_width_of_the_stages(stem, sizes):
    model = resnet18((32, 32, 3), 6, stem=stem, width=4)
    for stage, size in enumerate(sizes):
        relu = model.get_layer(f"stage{stage}_block1_relu")
        assert tuple(relu.output.shape) == (None, size, size, 4 * 2**stage)
    logits = model(np.ones((2, 32, 32, 3), np.float32)).numpy()
    assert logits.shape == (2, 6) and np.isfinite(logits).all()


def test_unknown_stem():
    with pytest.raises(errors.ConfigError, match="'cifar' or 'imagenet'"):
        resnet18((32, 32, 3), 6, stem="tiny")
