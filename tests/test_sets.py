"""Box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds

from numbelief.sets import Box

ends = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e9, 1e9)),
    min_size=1,
    max_size=9,
)


@settings(deadline=None)  # the first example compiles
@given(ends)
def test_projection_is_the_nearest_point(triples):
    a, b, y = np.array(triples).T
    low, high = np.minimum(a, b), np.maximum(a, b)
    box = Box(low, high)
    x = box.project(y)
    assert box.contains(x)
    np.testing.assert_array_equal(box.project(x), x)
    # Optimality: what is left of y points out of the box.
    assert (np.abs(y - x)[(low < x) & (x < high)] == 0).all()
    assert ((y - x)[(x == low) & (low < high)] <= 0).all()
    assert ((y - x)[(x == high) & (low < high)] >= 0).all()


@given(ends)
def test_float32_limits_lie_inside(triples):
    a, b, _ = np.array(triples).T
    low, high = np.minimum(a, b), np.maximum(a, b)
    lower, upper = Box(low, high).limits(low.size, np.dtype(np.float32))
    wide = high - low > np.spacing(np.float32(1e6))
    assert (lower <= upper).all()
    assert (lower[wide] >= low[wide]).all()
    assert (upper[wide] <= high[wide]).all()


def test_every_form_of_bounds():
    expected = Box([-np.inf, 0], [1, np.inf])
    for bounds in (expected, Bounds([-np.inf, 0], [1, np.inf]), [(None, 1), (0, None)]):
        box = Box.from_bounds(bounds, 2)
        np.testing.assert_array_equal(box.lower, expected.lower)
        np.testing.assert_array_equal(box.upper, expected.upper)
    wide = Box.from_bounds(Bounds(0, 1), 3).limits(3, np.dtype(np.float64))
    np.testing.assert_array_equal(wide, [[0, 0, 0], [1, 1, 1]])


def test_a_box_does_not_change_with_the_arrays_it_was_made_of():
    low = np.zeros(2)
    box = Box(low, 1)
    low[:] = 5
    assert box.contains([0, 0])
    with pytest.raises(ValueError, match="read-only"):
        box.lower[0] = 3


def test_contains_takes_a_tolerance():
    assert not Box(0, 1).contains([1.01])
    assert Box(0, 1).contains([1.01], tol=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1, 0), ValueError, "must not exceed the upper bound, got 1.0 > 0.0 at index 0"),
        ((0, np.nan), ValueError, "upper must not be NaN"),
        ((np.inf, np.inf), ValueError, "no finite point"),
        (([0, 0], [1, 1, 1]), ValueError, r"one length, got \(2,\) and \(3,\)"),
        (("a", 1), TypeError, "lower must hold real numbers"),
        ((1j, 1), TypeError, "lower must hold real numbers"),
    ],
)
def test_bad_bounds(arguments, error, message):
    with pytest.raises(error, match=message):
        Box(*arguments)
