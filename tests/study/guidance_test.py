"""Which bits to choose, on models whose accuracies are set by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from qgen_tf import errors
from qgen_tf.study import guidance
from qgen_tf.study.statistics.multiplicity import holm

_FLOAT = {"test": 90.0, "train": 98.0, "kilobytes": 60.0, "latency_ms": 1.0}


def _records(twins, num_models=4, **columns):
    """Returns records of float models that are alike, and of their twins.

    Args:
      twins: bits, such as "w4a8", to what its files have: `test` and `train`,
        the change in accuracy for each float model or one for all;
        `kilobytes`, `latency_ms`.
      num_models: float models.
      **columns: of all rows.
    """
    rows = []
    for model in range(num_models):
        for bits, settings in {"float": {}, **twins}.items():
            change = {
                split: np.broadcast_to(settings.get(split, 0.0), num_models)
                for split in ("test", "train")
            }
            test, train = (
                _FLOAT[split] + change[split][model]
                for split in ("test", "train")
            )
            is_float = bits == "float"
            rows.append(
                {
                    "run": f"{bits}-{model}",
                    "twin_of": f"float-{model}",
                    "bits": bits,
                    "weight_bits": 32 if is_float else int(bits[1]),
                    "activation_bits": 32 if is_float else 8,
                    "num_train": 1000,
                    "num_test": 100,
                    "file_test_accuracy": test,
                    "file_gap": train - test,
                    "kilobytes": settings.get("kilobytes", _FLOAT["kilobytes"]),
                    "latency_ms": settings.get(
                        "latency_ms", _FLOAT["latency_ms"]
                    ),
                    **columns,
                }
            )
    return pd.DataFrame(rows)


def _row(recommended, bits):
    return recommended.table.set_index("bits").loc[bits]


# changes with a mean of 0
_SPREAD = np.array([-0.3, -0.1, 0.1, 0.3])


def test_the_table_has_the_paired_tests():
    gains = {"w8a8": 0.1 + _SPREAD, "w4a8": 2.0 + 0.5 * _SPREAD}
    found = guidance.recommend(
        _records({bits: {"test": gain} for bits, gain in gains.items()})
    )
    p_values = holm(
        np.array(
            [
                scipy.stats.ttest_1samp(-gain, 0.5, alternative="less").pvalue
                for gain in gains.values()
            ]
        )
    )
    assert list(found.table["bits"]) == ["float", "w8a8", "w4a8"]
    for (bits, gain), p_value in zip(gains.items(), p_values, strict=True):
        row = _row(found, bits)
        half = scipy.stats.t(3).isf(0.025) * gain.std(ddof=1) / 2.0
        assert row["models"] == 4
        assert row["accuracy"] == pytest.approx(90.0 + gain.mean())
        for name, mean in (("accuracy", gain.mean()), ("gap", -gain.mean())):
            assert row[f"{name}_difference"] == pytest.approx(mean)
            assert row[f"{name}_difference_low"] == pytest.approx(mean - half)
            assert row[f"{name}_difference_high"] == pytest.approx(mean + half)
        assert row["p_value"] == pytest.approx(p_value)
    of_float = _row(found, "float")
    assert of_float["accuracy"] == 90.0 and of_float["kilobytes"] == 60.0
    assert math.isnan(of_float["gap_difference"])


def test_the_most_accurate_of_those_that_qualify_is_chosen():
    found = guidance.recommend(
        _records(
            {
                "w8a8": {"test": 0.2 * _SPREAD},
                "w4a8": {"test": 2.0 + _SPREAD, "kilobytes": 20.0},
                # more accurate still, but fits the training set even better
                "w2a8": {"test": 3.0 + _SPREAD, "train": 5.0},
            }
        )
    )
    assert found.choice == "w4a8"
    assert list(found.table["verdict"][1:]) == [
        *("no larger", "no larger", "larger")
    ]
    assert found.text.startswith(
        "Choose w4a8. Over 4 float models, its files are right on 92.00 % of "
        "the test examples, +2.00 [+1.59, +2.41] points from float's files (95 "
        "% interval). Their gap is -2.00 [-2.41, -1.59] points from float's: "
        "no larger than that, within 0.5 points (p = "
    )
    assert "A file has 20.0 kB instead of 60.0 kB and takes 1 ms" in found.text
    assert "w8a8: the gap is" in found.text
    assert "only 90.00 %" in found.text
    assert "w2a8: the gap is +2.00" in found.text and "is larger" in found.text
    assert "one float model" not in found.text


@pytest.mark.parametrize(
    ("costs", "choice"),
    [
        # size decides
        ({"w4a8": {"kilobytes": 30.0}}, "w4a8"),
        # sizes within 1 % are the same: latency decides
        ({"w4a8": {"kilobytes": 59.5}, "w2a8": {"latency_ms": 0.5}}, "w2a8"),
        # latencies within 5 % are the same: accuracy decides
        ({"w4a8": {"latency_ms": 0.96}, "w2a8": {"latency_ms": 0.97}}, "w8a8"),
        ({}, "w8a8"),
        # one whose latency was not measured does not win by it
        (
            {"w8a8": {"latency_ms": np.nan}, "w2a8": {"latency_ms": 3.0}},
            "w4a8",
        ),
    ],
)
def test_ties_go_to_the_smaller_then_the_faster(costs, choice):
    # paired differences of 0.1 points have both signs
    gains = {
        "w8a8": 0.2 + _SPREAD,
        "w4a8": 0.1 - _SPREAD,
        "w2a8": 0.05 + _SPREAD[::-1],
    }
    found = guidance.recommend(
        _records(
            {
                bits: {"test": gain} | costs.get(bits, {})
                for bits, gain in gains.items()
            }
        )
    )
    assert found.choice == choice
    assert "cannot be told from that" in found.text


def test_a_small_gain_in_every_pair_is_no_tie():
    found = guidance.recommend(
        _records(
            {
                "w8a8": {"test": 0.2 + 5.0 + _SPREAD},
                "w4a8": {"test": 5.0 + _SPREAD, "kilobytes": 1.0},
            }
        )
    )
    assert found.choice == "w8a8"
    assert "cannot be told" not in found.text


def test_without_enough_models_it_says_how_many():
    gain = -0.2 + 3.0 * _SPREAD
    found = guidance.recommend(_records({"w8a8": {"test": gain}}))
    assert found.choice is None
    row = _row(found, "w8a8")
    assert row["verdict"] == "cannot tell"
    # Evidence.clusters_needed: power 80 %, one-sided at 5 %
    z = scipy.stats.norm.isf(0.05)
    reach = (z + scipy.stats.norm.isf(0.2)) / (0.5 - 0.2)
    needed = math.ceil(gain.var(ddof=1) * reach**2 + z**2 / 2.0)
    assert row["models_needed"] == needed > 4
    assert "No bits can be recommended" in found.text
    assert f"{needed} float models with their twins would tell" in found.text
    assert "this is of 4" in found.text


def test_bits_of_which_twins_are_missing_are_named():
    records = _records({"w8a8": {}, "w2a8": {}})
    everything = guidance.recommend(records)
    assert "have a twin" not in everything.text
    missing = records["run"].isin(["w2a8-1", "w2a8-3"])
    found = guidance.recommend(records[~missing])
    assert "Of the 4 float models only 2 have a twin of w2a8 here" in found.text
    assert "twin of w8a8 here" not in found.text


def test_of_one_model_the_examples_decide():
    twins = {"w8a8": {"test": 1.0, "train": -1.0}}
    found = guidance.recommend(_records(twins, num_models=1))
    row = _row(found, "w8a8")

    def variance(accuracy, count):
        share = (accuracy / 100.0 * count + 2.0) / (count + 4.0)
        return 1e4 * share * (1.0 - share) / (count + 4.0)

    of_test = variance(90.0, 100) + variance(91.0, 100)
    of_train = variance(98.0, 1000) + variance(97.0, 1000)
    for name, value, spread in (
        ("accuracy", 1.0, of_test),
        ("gap", -2.0, of_test + of_train),
    ):
        half = 1.959964 * math.sqrt(spread)
        assert row[f"{name}_difference"] == value
        assert row[f"{name}_difference_low"] == pytest.approx(value - half)
        assert row[f"{name}_difference_high"] == pytest.approx(value + half)
    z = 2.5 / math.sqrt(of_test + of_train)
    assert row["p_value"] == pytest.approx(scipy.stats.norm.sf(z))
    assert found.choice is None
    assert "This is of one float model" in found.text
    many = _records(twins, num_models=1, num_train=10**6, num_test=10**6)
    assert guidance.recommend(many).choice == "w8a8"
    assert "This is of one float model" in guidance.recommend(many).text


def test_a_gap_that_is_larger_everywhere():
    found = guidance.recommend(
        _records({"w2a8": {"train": 1.5, "test": _SPREAD - 1.0}})
    )
    assert found.choice is None
    assert _row(found, "w2a8")["verdict"] == "larger"
    assert pd.isna(_row(found, "w2a8")["models_needed"])
    assert "which is larger" in found.text


def test_a_wider_margin_lets_more_qualify():
    records = _records({"w2a8": {"test": _SPREAD - 1.0}})
    assert guidance.recommend(records).choice is None
    assert guidance.recommend(records, margin=3.0).choice == "w2a8"


def test_order_and_names_do_not_matter():
    records = _records(
        {
            "w8a8": {"test": 0.2 + _SPREAD},
            "w4a8": {"test": 0.1 - _SPREAD, "kilobytes": 30.0},
        }
    )
    shuffled = records.sample(frac=1.0, random_state=0).assign(
        twin_of=lambda frame: "other " + frame["twin_of"]
    )
    ours, theirs = map(guidance.recommend, (records, shuffled))
    assert ours.text == theirs.text
    pd.testing.assert_frame_equal(ours.table, theirs.table)


def test_no_more_than_one_in_twenty_qualifies_falsely():
    generator = np.random.default_rng(0)
    trials = 100
    chosen = 0
    for _ in range(trials):
        # both gaps are larger by the margin, in truth
        twins = {
            bits: {"test": -0.5 + generator.normal(size=6)}
            for bits in ("w8a8", "w4a8")
        }
        found = guidance.recommend(_records(twins, num_models=6))
        chosen += found.choice is not None
    limit = scipy.stats.binom.isf(1e-3, trials, 0.05)
    assert 0 < chosen <= limit


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (_records({}), "no quantized model"),
        (
            _records({"w8a8": {}}).drop(columns="file_gap"),
            "no column 'file_gap'",
        ),
        (
            _records({"w8a8": {}}, num_models=1).drop(columns="num_test"),
            "no column 'num_test'",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(records, reason):
    found = guidance.recommend(records)
    assert found.choice is None and found.table.empty
    assert found.readable.empty
    assert found.text.startswith("No bits can be recommended: ")
    assert reason in found.text


def test_costs_may_be_missing():
    records = _records({"w8a8": {"test": 1.0 + _SPREAD}})
    found = guidance.recommend(records.drop(columns="latency_ms"))
    assert found.choice == "w8a8"
    assert "A file has 60.0 kB instead of 60.0 kB." in found.text
    assert found.table["latency_ms"].isna().all()


def test_the_readable_table():
    found = guidance.recommend(
        _records({"w4a8": {"test": 2.0 + _SPREAD, "kilobytes": 20.0}})
    )
    of_float, twin = found.readable.to_dict("records")
    assert twin == {
        "bits": "w4a8",
        "float models": "4",
        "test acc. of file [%]": "92.00",
        "minus float's [points]": "+2.00 [+1.59, +2.41]",
        "gap minus float's [points]": "-2.00 [-2.41, -1.59]",
        "gap": "no larger",
        "p": twin["p"],
        "models needed": "",
        "file [kB]": "20.0",
        "latency [ms]": "1",
    }
    assert float(twin["p"]) < 1e-3
    assert of_float["gap"] == of_float["p"] == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"margin": 0.0}, "margin is 0.0"), ({"confidence": 1.0}, "confidence")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(errors.ConfigError, match=message):
        guidance.recommend(_records({"w8a8": {}}), **settings)
