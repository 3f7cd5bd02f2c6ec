"""Holm's correction against a published example and its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qgen_tf.study.statistics.multiplicity import holm


def test_a_hand_computed_example():
    found = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])


def test_nothing_is_above_one():
    np.testing.assert_array_equal(holm(np.array([0.6, 0.7])), [1.0, 1.0])
    assert holm(np.array([])).size == 0


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
    st.floats(0.001, 0.999),
)
def test_it_rejects_as_holm_steps_down(p_values, level):
    """Reject while the smallest p left is at most level over their number."""
    rejected = set()
    for place in np.argsort(p_values, kind="stable"):
        if not p_values[place] * (len(p_values) - len(rejected)) <= level:
            break
        rejected.add(place)
    found = holm(np.array(p_values))
    assert set(np.flatnonzero(found <= level)) == rejected
    assert found == pytest.approx(np.maximum(found, p_values))
