"""Each claim where it is true, false or not to be told, by construction."""

import numpy as np
import pandas as pd
import pytest

from qgen_tf import errors
from qgen_tf.models import MODELS
from qgen_tf.study.statistics import claim_tests, claims, verdicts
from qgen_tf.study.statistics.claim_tests import Settings
from qgen_tf.study.statistics.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED
from tests.study.statistics.simulated_records import Truth, records

NOTHING = {8: 0.0, 4: 0.0, 2: 0.0}


def _verdict(claim, frame, **settings):
    return claims.CLAIMS[claim - 1](frame, Settings(**settings))


def _families(change):
    """Two families, the second of which quantization treats otherwise."""
    gap = {bits: value + change for bits, value in Truth().gap.items()}
    return pd.concat(
        [
            records(Truth(), num_floats=10, model="resnet20"),
            records(Truth(gap=gap), num_floats=8, model="cifar_vit", seed=1),
        ]
    )


@pytest.fixture(scope="module")
def true_frame():
    return pd.concat(
        [records(), records(num_floats=10, model="cifar_vit", seed=1)]
    )


@pytest.fixture(scope="module")
def true_verdicts(true_frame):
    return claims.all(true_frame)


def test_all_claims_are_supported_where_they_are_true(true_verdicts):
    assert [found.claim for found in true_verdicts] == list(range(1, 11))
    for found in true_verdicts:
        assert found.verdict == SUPPORTED, found
        assert found.parts and found.sentence.endswith(".")


def test_effects_are_those_that_were_put_in(true_verdicts):
    effects = {
        (found.claim, part.name): part.evidence
        for found in true_verdicts
        for part in found.parts
    }
    # of 0, 0, -2 and -4 points at 0, 2, 3 and 4 halvings
    slope = np.polyfit([0, 2, 3, 4], [0, 0, -2, -4], 1)[0]
    sharper = np.tanh(np.array([-0.3, -0.5, -0.8]) / 2).mean()
    rise = np.polyfit([0, 2, 3, 4], [0, 0.01, 0.1, 0.4], 1)[0]
    for key, effect in (
        ((1, ""), slope),
        ((2, ""), 0.0),
        ((3, "average_sharpness"), sharper),
        ((3, "pac_bayes_sigma"), sharper),
        ((4, ""), rise),
        ((5, ""), 1.0),
        ((8, ""), -2 / 3),
        ((9, "file and model"), 0.0),
        ((10, ""), 0.0),
    ):
        assert effects[key].effect == pytest.approx(effect, abs=0.1), key
        assert effects[key].low < effects[key].high
        assert effects[key].num_clusters == 30
    assert effects[2, ""].num_pairs == 30
    assert effects[3, "average_sharpness"].num_pairs == 90
    assert effects[1, ""].num_pairs == 30 * 6
    assert effects[7, ""].effect > 0.9


WRONG = {
    1: Truth(gap={8: 0, 4: 2, 2: 4}),
    2: Truth(gap={8: 1.5, 4: 0, 2: 0}),
    3: Truth(sharpness={8: 0.3, 4: 0.3, 2: 0.8}),
    4: Truth(loss={8: -0.1, 4: -0.2, 2: -0.4}),
    5: Truth(noise=-1.0),
    6: Truth(regularizer=-1.0),
    7: Truth(bound=-1.0),
    8: Truth(distorted={8: 1, 4: 2, 2: 4}),
    9: Truth(file=1.5),
}
# nothing but noise, of which few models tell nothing
UNCLEAR = {
    1: Truth(gap=NOTHING, spread=3.0),
    2: Truth(spread=3.0),
    3: Truth(sharpness=NOTHING),
    4: Truth(loss=NOTHING, spread=3.0),
    5: Truth(noise=0.0),
    6: Truth(regularizer=0.0),
    7: Truth(bound=0.0),
    8: Truth(spread=4.0),
    9: Truth(spread=3.0),
}


@pytest.mark.parametrize("claim", WRONG)
def test_a_claim_is_contradicted_where_it_is_false(claim):
    assert _verdict(claim, records(WRONG[claim])).verdict == CONTRADICTED


@pytest.mark.parametrize("claim", UNCLEAR)
def test_a_claim_is_undecided_where_noise_hides_it(claim):
    found = _verdict(claim, records(UNCLEAR[claim], num_floats=8, seed=2))
    assert found.verdict == UNDECIDED
    assert "after correction" in found.decisive.reason
    assert found.decisive.clusters_needed > 8


@pytest.mark.parametrize("claim", range(1, 10))
def test_a_claim_alone_is_supported_where_it_is_true(claim):
    assert _verdict(claim, records()).verdict == SUPPORTED


@pytest.mark.parametrize(
    ("claim", "column", "reason"),
    [
        (1, "gap", "no column 'gap'"),
        (2, "gap", "no column 'gap'"),
        (4, "train_loss", "no column 'train_loss'"),
        (5, "noise_power", "no column 'noise_power'"),
        (6, "regularization_hessian", "no column 'regularization_hessian'"),
        (7, "generalization_bound", "no column 'generalization_bound'"),
        (9, "file_gap", "no column 'file_gap'"),
        (9, "file_train_loss", "no column 'train_loss'"),
        (10, "model", "no column 'model'"),
    ],
)
def test_a_missing_column_is_named(claim, column, reason):
    found = _verdict(claim, records().drop(columns=column))
    assert found.verdict == UNDECIDED
    assert reason in found.reason


def test_missing_measures_and_test_sets_are_named():
    frame = records()
    bare = frame.drop(columns=["average_sharpness", "pac_bayes_sigma"])
    assert "'average_sharpness'" in _verdict(3, bare).reason
    clean = frame[[name for name in frame if "corrupted" not in name]]
    assert "corrupted test set" in _verdict(8, clean).reason
    assert "corrupted test set" in _verdict(9, clean).reason


@pytest.mark.parametrize("claim", range(1, 11))
def test_too_few_models_are_said_to_be_too_few(claim):
    frame = pd.concat(
        [
            records(num_floats=1),
            records(num_floats=1, model="cifar_vit", seed=1),
        ]
    )
    if claim < 10:
        frame = frame[frame["model"] == "nin"]
    found = _verdict(claim, frame)
    assert found.verdict == UNDECIDED
    assert "are too few" in found.reason


def test_a_model_of_8_bits_is_needed_for_the_second_claim():
    frame = records()
    found = _verdict(2, frame[frame["weight_bits"] != 8])
    assert found.verdict == UNDECIDED
    assert "no model of 8 bits" in found.reason
    # 4 bits in activations are not 8 bits
    frame.loc[frame["weight_bits"] == 8, "activation_bits"] = 4
    assert "no model of 8 bits" in _verdict(2, frame).reason


def test_a_margin_makes_an_equivalence():
    frame = records(Truth(gap={8: 1.0, 4: 0, 2: 0}))
    assert _verdict(2, frame, margin=0.5).verdict == CONTRADICTED
    assert _verdict(2, frame, margin=2.0).verdict == SUPPORTED


def test_claims_1_and_2_are_of_the_gap_within_a_cluster():
    """Float models of small gaps alone must not pull the trend."""
    frame = records()
    lonely = frame[frame["bits"] == "float"].assign(gap=-1000.0)
    lonely["twin_of"] += "-lonely"
    ours, theirs = (
        _verdict(1, chosen) for chosen in (frame, pd.concat([frame, lonely]))
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("change", "verdict"), [(0.0, SUPPORTED), (1.5, CONTRADICTED)]
)
def test_families_are_compared(change, verdict):
    found = _verdict(10, _families(change))
    assert found.verdict == verdict
    assert found.decisive.evidence.effect == pytest.approx(-change, abs=0.1)
    assert found.decisive.evidence.num_clusters == 18


def test_families_are_compared_at_the_bits_that_both_have():
    frame = _families(0.0)
    low = (frame["model"] == "cifar_vit") & (frame["weight_bits"] == 2)
    found = _verdict(10, frame[~low])
    assert found.verdict == SUPPORTED
    assert found.decisive.evidence.num_pairs == 18 * 2


def test_a_family_that_is_missing_is_named():
    assert "no transformers" in _verdict(10, records()).reason
    assert "no CNNs" in _verdict(10, records(model="swin_tiny")).reason


def test_every_model_is_of_a_family():
    families = [*claim_tests.CNNS, *claim_tests.TRANSFORMERS]
    assert sorted(families) == sorted(MODELS)


def test_files_are_judged_by_their_own_numbers():
    frame = records()
    frame["file_gap"] = frame["gap"]
    low = frame["weight_bits"] < 32
    frame.loc[low, "file_gap"] += 20.0
    parts = {part.name: part for part in _verdict(9, frame).parts}
    assert parts["file and model"].verdict == CONTRADICTED
    assert parts["the gap shrinks"].verdict == CONTRADICTED
    assert parts["8 bits equal float"].verdict == CONTRADICTED
    assert parts["training loss rises"].verdict == SUPPORTED
    assert parts["the regularizer (Hessian)"].verdict == SUPPORTED
    assert parts["distorted data"].verdict == SUPPORTED
    assert _verdict(1, frame).verdict == SUPPORTED


def test_files_have_no_number_of_the_model():
    frame = records()
    found = claim_tests.of_files(frame)
    np.testing.assert_array_equal(found["gap"], frame["file_gap"])
    assert "corrupted_blur_5_loss_gap" not in found
    assert "average_sharpness" in found
    assert not any(name.startswith("file_") for name in found)


def test_a_sharpness_below_zero_is_no_error():
    frame = records()
    frame["average_sharpness"] -= frame["average_sharpness"].median()
    frame["hessian_trace"] = 0.0
    found = _verdict(3, frame)
    parts = {part.name: part for part in found.parts}
    assert parts["average_sharpness"].evidence.effect < 0.0
    assert parts["hessian_trace"].evidence.effect == 0.0
    assert parts["hessian_trace"].verdict == UNDECIDED
    assert found.verdict == UNDECIDED


def test_all_corrects_for_the_number_of_all_tests(true_frame, true_verdicts):
    parts = verdicts.parts_frame(true_verdicts)
    alone = _verdict(1, true_frame)
    among = true_verdicts[0]
    assert among.parts[0].evidence == alone.parts[0].evidence
    assert (
        among.decisive.adjusted_p_value > 10 * alone.decisive.adjusted_p_value
    )
    assert parts["adjusted_p_value"].max() == pytest.approx(
        parts["p_value"].max()
    )
    assert len(verdicts.frame(true_verdicts)) == 10


def test_settings_reach_the_tests(true_frame):
    narrow = claims.all(true_frame, margin=1e-3, confidence=0.8, seed=1)
    wide = claims.all(true_frame)
    assert narrow[1].verdict != SUPPORTED == wide[1].verdict
    ours, theirs = (found[6].decisive.evidence for found in (narrow, wide))
    assert ours.low > theirs.low
    assert ours.standard_error != theirs.standard_error
    assert claims.all(true_frame) == wide


def test_false_verdicts_are_rare():
    """Where quantization does nothing, in 20 studies of 5 %."""
    nothing = Truth(
        gap=NOTHING,
        loss=NOTHING,
        sharpness=NOTHING,
        regularizer=0.0,
        bound=0.0,
        noise=0.0,
    )
    wrong = 0
    for seed in range(20):
        frame = records(nothing, num_floats=6, seed=seed)
        found = verdicts.corrected(
            [_verdict(claim, frame) for claim in (1, 3, 4, 5, 6, 7)],
            confidence=0.95,
        )
        wrong += any(
            part.verdict != UNDECIDED
            for verdict in found
            for part in verdict.parts
        )
    assert wrong <= 4


@pytest.mark.parametrize("confidence", [0.4, 1.0, float("nan")])
def test_confidence_is_a_share(confidence):
    with pytest.raises(errors.ConfigError, match="confidence is"):
        claims.all(records(num_floats=2), confidence=confidence)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_a_margin_is_positive(margin):
    with pytest.raises(errors.ConfigError, match="margin is"):
        claims.all(records(num_floats=2), margin=margin)
