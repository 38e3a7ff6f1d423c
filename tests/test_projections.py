"""Projections and what else sets can do, against exact arithmetic and linear programs."""

import dataclasses
import itertools
import pickle
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from cases import in_turns
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from numbelief.sets import (
    Affine,
    Ball,
    Box,
    BoxHyperplane,
    HalfSpace,
    Intersection,
    L1Ball,
    Product,
    Simplex,
)
from numbelief.sets.projector import Projector

EPS = {np.float64: 2.0**-52, np.float32: 2.0**-23}


# ---- exact arithmetic: the nearest point from its definition -------------------------------------


def cut_exactly(y, a, lower, upper, c, b, equality):
    """The multiplier at which clip(y - t c / a) meets the hyperplane, among all corners."""
    y, a, c = ([Fraction(float(v)) for v in each] for each in (y, a, c))
    b = Fraction(float(b))

    def at(t):
        x = [v - t * k / w for v, k, w in zip(y, c, a, strict=True)]
        x = [
            max(v, Fraction(float(e))) if e > -np.inf else v for v, e in zip(x, lower, strict=True)
        ]
        return [
            min(v, Fraction(float(e))) if e < np.inf else v for v, e in zip(x, upper, strict=True)
        ]

    def excess(t):
        return sum(k * v for k, v in zip(c, at(t), strict=True)) - b

    if (not equality and excess(0) <= 0) or excess(0) == 0:
        return at(Fraction(0))
    corners = sorted(
        (v - Fraction(float(e))) * w / k
        for v, w, k, ends in zip(y, a, c, zip(lower, upper, strict=True), strict=True)
        for e in ends
        if k != 0 and np.isfinite(e)
    )
    corners = corners or [Fraction(0)]
    points = [corners[0] - 1, *corners, corners[-1] + 1]
    for left, right in itertools.pairwise(points):
        if excess(left) >= 0 >= excess(right):
            break
    else:
        left, right = points[:2] if excess(points[0]) < 0 else points[-2:]
    first, last = excess(left), excess(right)
    if first == last:
        return at(left)
    return at(left + (right - left) * first / (first - last))


def ball_exactly(y, a, center, radius):
    with localcontext(prec=700):
        d = [Decimal(float(v)) - Decimal(float(c)) for v, c in zip(y, center, strict=True)]
        a, r = [Decimal(float(w)) for w in a], Decimal(float(radius))

        def at(t):
            return [v * w / (w + t) for v, w in zip(d, a, strict=True)]

        if sum(v * v for v in d) <= r * r:
            return [Fraction(float(v)) for v in y]
        if r == 0:
            return [Fraction(float(c)) for c in center]
        low, high = Decimal(0), max(a) * (sum(abs(v) for v in d) / r + 1)
        for _ in range(2200):  # bisection
            middle = (low * high).sqrt() if low > 0 else high / 10**20
            if low == 0 and middle < Decimal(10) ** -650:
                break
            if sum(v * v for v in at(middle)) > r * r:
                low = middle
            else:
                high = middle
            if low > 0 and high / low - 1 < Decimal(10) ** -40:
                break
        shifted = (v + Decimal(float(c)) for v, c in zip(at(high), center, strict=True))
        return [Fraction(v) for v in shifted]


def affine_exactly(y, a, A, b):
    """Gauss on A diag(1 / a) A' mu = A y - b."""
    A = [[Fraction(float(v)) for v in row] for row in A]
    y, a, b = ([Fraction(float(v)) for v in each] for each in (y, a, b))
    m, n = len(A), len(y)
    M = [
        [sum(A[j][i] * A[k][i] / a[i] for i in range(n)) for k in range(m)]
        + [sum(A[j][i] * y[i] for i in range(n)) - b[j]]
        for j in range(m)
    ]
    for j in range(m):
        p = next(k for k in range(j, m) if M[k][j] != 0)
        M[j], M[p] = M[p], M[j]
        M[j] = [v / M[j][j] for v in M[j]]
        for k in range(m):
            if k != j:
                M[k] = [v - M[k][j] * w for v, w in zip(M[k], M[j], strict=True)]
    mu = [row[-1] for row in M]
    return [y[i] - sum(A[j][i] * mu[j] for j in range(m)) / a[i] for i in range(n)]


def exactly(s, y, a):
    """The nearest point of any set that is neither a product nor an intersection."""
    n = len(y)
    zero, one, no_end = np.zeros(n), np.ones(n), np.full(n, np.inf)
    if isinstance(s, Ball):
        return ball_exactly(y, a, np.broadcast_to(s.center, n), s.radius)
    if isinstance(s, Affine):
        return affine_exactly(y, a, s.A, s.b)
    if isinstance(s, Simplex):
        return cut_exactly(y, a, zero, no_end, one, s.total, True)
    if isinstance(s, HalfSpace):
        return cut_exactly(y, a, -no_end, no_end, s.normal, s.offset, False)
    if isinstance(s, BoxHyperplane):
        return cut_exactly(y, a, s.lower, s.upper, s.normal, s.offset, s.equality)
    center = np.broadcast_to(s.center, n)
    d = [Fraction(float(v)) - Fraction(float(c)) for v, c in zip(y, center, strict=True)]
    size = cut_exactly([abs(v) for v in d], a, zero, no_end, one, s.radius, False)
    signed = [v if e >= 0 else -v for v, e in zip(size, d, strict=True)]
    return [v + Fraction(float(c)) for v, c in zip(signed, center, strict=True)]


def assert_nearest(s, y, a, ulps=64):
    """Nearer to the exact point, in the metric, than rounding y and x could move it."""
    dtype = np.float32 if y.dtype == np.float32 else np.float64
    x = s.project(y, a)
    assert x.dtype == dtype
    weights = np.broadcast_to(1.0 if a is None else a, y.shape)
    expected = exactly(s, y, weights)
    root = np.sqrt(weights / weights.max())
    off = np.array([float(Fraction(float(v)) - e) for v, e in zip(x, expected, strict=True)])
    size = [max(abs(float(v)), abs(float(e))) for v, e in zip(y, expected, strict=True)]
    size = np.array(size) + np.abs(getattr(s, "center", 0.0))
    unit = size.max() or 1.0
    off, size = off / unit, size / unit
    # A rounding error of a light coordinate is another one's of the heavy, by the constraint.
    allowed = ulps * EPS[dtype] * max(np.linalg.norm(root * size), (root * size).max())
    constraint = ulps * EPS[dtype] * size.max() * root.min()
    assert np.linalg.norm(root * off) <= allowed + constraint, (x, off, root)
    return x


# ---- sets at n coordinates -----------------------------------------------------------------------


def some_sets(n, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    c = np.where(rng.random(n) < 0.2, 0.0, rng.standard_normal(n))
    c[0] = 1.5
    inside = rng.uniform(-1, 1, n)
    A = rng.standard_normal((max(1, n // 3), n))
    return {
        "box": Box(-scale, scale),
        "ball": Ball(scale),
        "ball elsewhere": Ball(scale, scale * inside),
        "l1 ball": L1Ball(scale),
        "l1 ball elsewhere": L1Ball(scale, scale * inside),
        "simplex": Simplex(scale),
        "half-space": HalfSpace(c, -0.3 * scale),
        "affine": Affine(A, scale * (A @ inside)),
        "box with equation": BoxHyperplane(-scale, scale, c, scale * (c @ inside)),
        "box with inequality": BoxHyperplane(-scale, scale, c, scale * (c @ inside), False),
        "one-sided": BoxHyperplane(0.0, np.inf, np.abs(c), scale, True),
    }


NAMES = list(some_sets(3))
METRICS = {
    "none": lambda rng, n: None,
    "mild": lambda rng, n: 10 ** rng.uniform(-2, 2, n),
    "extreme": lambda rng, n: 10 ** rng.uniform(-16, 16, n),
    "two kinds": lambda rng, n: np.where(np.arange(n) % 2, 1e16, 1e-16),
}


def check_everywhere(s, y, a):
    """Feasibility, idempotence, the dtype, y as it was, and the same bits by address."""
    before = y.copy()
    x = s.project(y, a)
    np.testing.assert_array_equal(y, before)
    assert x.dtype == y.dtype
    assert s.contains(x), x
    np.testing.assert_array_equal(bits(s.project(x, a)), bits(x))
    np.testing.assert_array_equal(bits(s.project(x)), bits(x))
    return x


def bits(x):
    return x.view(np.int64 if x.dtype == np.float64 else np.int32)


# In single precision only one of each kind of projection; -m thorough has all.
SINGLE = ("box", "ball elsewhere", "simplex", "affine", "box with inequality")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=in_turns(dtype == np.float32 and name not in SINGLE))
        for name in NAMES
        for dtype in (np.float64, np.float32)
    ],
)
def test_projections(name, dtype, metric):
    for n in (1, 2, 3, 7):
        for seed in range(4):
            rng = np.random.default_rng(100 * n + seed)
            s = some_sets(n, seed)[name]
            a = METRICS[metric](rng, n)
            y = (10.0 ** rng.integers(-3, 3) * rng.standard_normal(n)).astype(dtype)
            if seed == 3:
                y = np.round(y)  # ties
            x = check_everywhere(s, y, a)
            if name != "box" and dtype == np.float64:
                assert_nearest(s, y, a)
            other = rng.standard_normal(n).astype(dtype)
            weights = 1.0 if a is None else a
            apart = np.sqrt((weights * (x - s.project(other, a)).astype(float) ** 2).sum())
            most = np.sqrt((weights * (y - other).astype(float) ** 2).sum())
            assert apart <= most * (1 + 64 * EPS[dtype]) + 8 * EPS[dtype] * np.sqrt(
                (weights * (y**2 + x**2)).astype(float).sum() + np.max(weights)
            )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "box"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_projections_of_anything(name, data):
    n = data.draw(st.integers(1, 6))
    numbers = st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1.0, -1.0, 0.5])
    y = np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)))
    exponents = st.integers(-16, 16)
    a = 10.0 ** np.array(data.draw(st.lists(exponents, min_size=n, max_size=n)), float)
    s = some_sets(n, data.draw(st.integers(0, 5)))[name]
    check_everywhere(s, y, a)
    assert_nearest(s, y, a)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("name", NAMES)
def test_tiny_and_huge_sets(name, scale):
    rng = np.random.default_rng(0)
    for a in (None, 10 ** rng.uniform(-16, 16, 5)):
        s = some_sets(5, 1, scale)[name]
        for size in (1.0, scale):
            y = size * rng.standard_normal(5)
            x = s.project(y, a)
            assert s.contains(x)
            np.testing.assert_array_equal(bits(s.project(x, a)), bits(x))
        if name != "box":
            assert_nearest(s, y, a)


FAR = [
    (L1Ball(1.0), [1e16], None, [1.0]),
    (L1Ball(1.0), [1e16, -5e15], None, [1.0, 0.0]),
    (L1Ball(1.0, center=5.0), [1e16, 5.0, 5.0], None, [6.0, 5.0, 5.0]),
    (L1Ball(1e-100), [1e-92, 1e-93], None, [1e-100, 0.0]),
    (L1Ball(1.0), [1e17, -1e17], [1.0, 1.0 + 1e-9], [0.0, -1.0]),
    (BoxHyperplane(0.0, 2.0, [1.0, 1.0], 1.0, equality=False), [1e16, 5e15], None, [1.0, 0.0]),
    (Ball(1.0), [3e300, -4e300], None, [0.6, -0.8]),
    (Ball(1e-300), [3e9, -4e9], None, [6e-301, -8e-301]),
    (Ball(1.0, center=[1.0, 0.0]), [1e300, 0.0], None, [2.0, 0.0]),
    (Ball(5.0), [-1e308, 1e308], [3.0, 4.0], [-3.0, 4.0]),
    (Ball(0.0), [1e300, 1.0], None, [0.0, 0.0]),
    (Ball(1.0), [1e305, 0.6], [1e-300, 1e300], [0.8, 0.6]),
    (Ball(1.0), [1e305, 3.0], [1e-300, 1e300], [0.0, 1.0]),
    (Simplex(1e290), [-8e289, 6e289], [5e-12, 1e15], [4e289, 6e289]),
]


@pytest.mark.parametrize(("place", "y", "metric", "nearest"), FAR)
def test_from_very_far_away(place, y, metric, nearest):
    x = place.project(y, metric)
    np.testing.assert_allclose(x, nearest, rtol=1e-15, atol=0)


def test_from_very_far_away_in_single_precision():
    y = np.array([1e17, -3.0], np.float32)
    for place in (L1Ball(1.0), Ball(1.0)):
        np.testing.assert_allclose(place.project(y), [1, 0], atol=1e-16)


def test_one_flat_constraint_is_exact_in_any_metric():
    place = Intersection(Box(-1, 1), HalfSpace([1.0, 2.0], -1))
    x = place.project([1.0, 1.0], [1e-10, 1e10])
    np.testing.assert_allclose(x, [-1, 0], atol=1e-15)
    same = BoxHyperplane(-1, 1, [1.0, 2.0], -1, equality=False)
    np.testing.assert_array_equal(same.project([1.0, 1.0], [1e-10, 1e10]), x)


def test_a_metric_that_is_too_much_is_not_called_an_empty_set():
    place = Intersection(Ball(1.0), HalfSpace([0.34, 0.47], 0.14))
    with pytest.raises(ValueError, match="residual is .* metric's weights differ too much"):
        place.project([2.5, 5.5], [1e10, 1e-10])


@pytest.mark.parametrize("name", ["ball", "l1 ball", "simplex", "box with equation"])
def test_large_n(name):
    n = 50_000
    rng = np.random.default_rng(0)
    y = rng.standard_normal(n)
    for a in (None, 10 ** rng.uniform(-3, 3, n), 10 ** rng.uniform(-16, 16, n)):
        s = {
            "ball": Ball(10.0), "l1 ball": L1Ball(500.0), "simplex": Simplex(3.0),
            "box with equation": BoxHyperplane(-0.5, 1.0, np.ones(n), 1000.0),
        }[name]  # fmt: skip
        x = check_everywhere(s, y, a)
        # No point of the set lies further along the way back to y.
        back = (1.0 if a is None else a) * (y - x)
        best = s.linear_minimum(-back)
        scale = np.abs(back * x).sum() + np.abs(back * best).sum()
        assert back @ best - back @ x <= 1e-10 * scale


def test_a_feasible_point_keeps_its_bits():
    n = 1000
    x = np.full(n, 1 / n)
    x[::3] = -0.0
    points = {
        Simplex(np.sum(x)): x, Box(0, 1): x, Ball(): -x, L1Ball(): -x, Ball(1.0, 0.5): x + 0.5,
        L1Ball(1.0, 0.1 * np.ones(n)): x + 0.1, HalfSpace(np.ones(n), 1.0): x,
        BoxHyperplane(0, 1, np.ones(n), np.sum(x)): x, Affine(np.ones(n), np.sum(x)): x,
        Intersection(Box(0, 1), HalfSpace(np.ones(n), 1.0)): x,
        Product([Simplex(np.sum(x)), Ball()], [n, n]): np.concatenate([x, -x]),
    }  # fmt: skip
    for s, point in points.items():
        if isinstance(s, Ball) and s.center.any():
            point = 0.5 + x / 40
        for given_point in (point, point.astype(np.float32)):
            np.testing.assert_array_equal(bits(s.project(given_point)), bits(given_point))


def test_adagrad_needs_its_own_metric():
    """Duchi et al.: on a constant loss the Euclidean projection takes every step back."""
    g, s = np.array([0.1, 1.0]), Simplex()

    def regret(own_metric):
        x, squares, total = np.array([0.5, 0.5]), np.zeros(2), 0.0
        for _ in range(10_000):
            total += g @ x - 0.1
            squares += g * g
            a = np.sqrt(squares)
            x = s.project(x - g / a, a if own_metric else None)
        return total

    assert regret(True) == pytest.approx(0.45, abs=0.01)
    assert regret(False) == pytest.approx(4500, rel=0.01)


# ---- steps, as loops give them -------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("half-space", "affine")])
def test_a_step_of_0_keeps_a_coordinate(name):
    s = some_sets(4, 1)[name]
    start = s.project(np.array([0.2, 0.1, 0.3, 0.1]))
    y = start + np.array([0.0, 5.0, -4.0, 0.3])
    steps = np.array([0.0, 1.0, 1.0, 1.0])
    x = y.copy()
    assert s.projector(4, np.float64)(x, steps) == 0
    assert x[0] == y[0] and s.contains(x)
    steps[0] = 1e-30
    close = y.copy()
    s.projector(4, np.float64)(close, steps)
    np.testing.assert_allclose(x, close, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_steps_of_0_that_cannot_reach_the_set(name):
    s = some_sets(3, 1)[name]
    x = np.array([7.0, 8.0, 9.0])
    assert s.projector(3, np.float64)(x, np.zeros(3)) == 0
    np.testing.assert_allclose(x, s.project([7.0, 8.0, 9.0]), atol=1e-12)
    x = np.array([7.0, 8.0, 9.0])
    assert s.projector(3, np.float64)(x, np.array([0.0, 0.0, 1.0])) == 0
    assert s.contains(x)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", NAMES)
def test_nan_does_not_hang(name, dtype):
    both = {name: some_sets(3)[name]}
    both["twice"] = Intersection(both[name], Box())
    for s in both.values():
        projector = s.projector(3, dtype)
        for bad in (np.nan, np.inf):
            for others in (2.0, 0.5):
                x = np.array([others, bad, others], dtype)
                projector(x, np.ones(3, dtype))
                assert np.isnan(x).any() or bad == np.inf
        x = np.array([1.0, 5.0, 2.0], dtype)
        projector(x, np.array([1.0, np.nan, 1.0], dtype))


@pytest.mark.parametrize("center", [0.0, 0.5, [0.0, 1.0]])
def test_a_ball_of_one_point(center):
    point = np.broadcast_to(np.array(center), 2)
    for y in (point, [3.0, 4.0], [np.finfo(float).max, 1.0]):
        np.testing.assert_array_equal(Ball(0.0, center).project(y, [1.0, 2.0]), point)


def test_projectors_check_what_they_are_given():
    projector = Simplex().projector(3, np.float32)
    assert isinstance(projector, Projector)
    good = np.ones(3, np.float32)
    for bad in (np.ones(3), np.ones(4, np.float32), np.ones(6, np.float32)[::2]):
        with pytest.raises(ValueError, match="must be a contiguous array of 3 float32"):
            projector(bad, good)
        with pytest.raises(ValueError, match="steps must be a contiguous array of 3 float32"):
            projector(good, bad)
    good.flags.writeable = False
    with pytest.raises(ValueError, match="x must be writable"):
        projector(good, np.ones(3, np.float32))
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        Simplex().projector(3, np.int64)


# ---- what a set says of itself -------------------------------------------------------------------


def test_what_a_set_says_of_its_projection():
    disk = Intersection(Ball(), HalfSpace([1.0, 0.0], 0.5))
    for s in some_sets(2).values():
        assert s.exact
        assert s.separable == isinstance(s, Box)
    assert not disk.exact
    assert Product([Ball(), Simplex()], [2, 1]).exact
    assert not Product([Ball(), disk], [2, 2]).exact


# ---- sets made of sets ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_product_is_its_parts(dtype):
    rng = np.random.default_rng(0)
    inner = Product([Ball(), Box(0, 1)], [2, 1])
    s = Product([Simplex(), inner, Intersection(Ball(), Box(0, 1))], [3, 3, 2])
    y, a = (3 * rng.standard_normal(8)).astype(dtype), 10 ** rng.uniform(-3, 3, 8)
    x = s.project(y, a)
    assert x.dtype == dtype and s.contains(x) and s.size == 8
    # The weights are rounded in other units for the whole.
    close = {"rtol": 4 * EPS[dtype], "atol": 4 * EPS[dtype]}
    np.testing.assert_allclose(x[:3], Simplex().project(y[:3], a[:3]), **close)
    np.testing.assert_allclose(x[3:5], Ball().project(y[3:5], a[3:5]), **close)
    np.testing.assert_allclose(x[5:6], Box(0, 1).project(y[5:6]), **close)
    expected = [1, 1, 1, 2, 2, 1, 1, 1]
    np.testing.assert_allclose(s.diameter(), expected, rtol=1e-12)
    assert s.diameter(norm=2) == pytest.approx(np.sqrt(2 + (4 + 1) + 2))
    g = np.array([3, 1, 2, 0.6, 0.8, 1, 0, 0.0])
    np.testing.assert_allclose(s.linear_minimum(g), [0, 1, 0, -0.6, -0.8, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(inner.linear_minimum(g[3:6]), [-0.6, -0.8, 0])


@pytest.mark.parametrize("metric", ["none", "mild"])
def test_intersections_against_slsqp(metric):
    rng = np.random.default_rng(3)
    for _ in range(6):
        c, y = rng.standard_normal(4), 2 * rng.standard_normal(4)
        a = METRICS[metric](rng, 4)
        weights = np.ones(4) if a is None else a / a.max()
        s = Intersection(Ball(1.5), HalfSpace(c, 0.2), Box(-0.8, 0.9), tol=1e-14)
        x = s.project(y, a)
        assert s.contains(x)
        np.testing.assert_array_equal(s.project(x, a), x)
        found = minimize(
            lambda v, w, y: (w * (v - y) ** 2).sum(),
            np.zeros(4),
            (weights, y),
            "SLSQP",
            lambda v, w, y: 2 * w * (v - y),
            bounds=[(-0.8, 0.9)] * 4,
            constraints=[
                {"type": "ineq", "fun": lambda v: 1.5**2 - v @ v, "jac": lambda v: -2 * v},
                {"type": "ineq", "fun": lambda v, c: 0.2 - c @ v, "jac": lambda v, c: -c,
                 "args": (c,)},
            ],
            options={"ftol": 1e-15, "maxiter": 1000},
        )  # fmt: skip
        np.testing.assert_allclose(x, found.x, atol=2e-5)
        mine, theirs = ((weights * (v - y) ** 2).sum() for v in (x, found.x))
        assert mine <= theirs * (1 + 1e-8)


def test_an_empty_intersection_says_so():
    with pytest.raises(ValueError, match="empty intersection"):
        Intersection(Box(0, 1), HalfSpace([1.0, 1.0], -1.0)).project([0.0, 0.0])
    with pytest.raises(ValueError, match=r"empty intersection"):
        Intersection(Ball(), Ball(1.0, [3.0, 0.0])).project([0.0, 0.0])
    apart = Intersection(Ball(), Ball(1.0, [1.5, 1.5]))
    with pytest.raises(ValueError, match=r"residual is .* no common point"):
        apart.project([0.0, 0.0])
    x = np.zeros(2)
    assert apart.projector(2, np.float64)(x, x + 1) > 0.05
    for s in (Intersection(Box(0, 1), Box(2, 3)), Intersection(Box(0, 1), HalfSpace([1, 1], -1))):
        with pytest.raises(ValueError, match="empty intersection"):
            s.diameter(2)


def test_an_intersection_never_stops_early_in_silence():
    early = Intersection(Ball(), HalfSpace([-1.0, 0.1], -0.9), maxiter=5)
    for s in (early, Product([Simplex(), early], [1, 2])):
        y = [1.0, 3.0] if s.size == 2 else [0.0, 1.0, 3.0]
        with pytest.warns(RuntimeWarning, match="not converged after .* the residual is"):
            s.project(y)


DISK = Intersection(Ball(), HalfSpace([1.0, 0.0], 0.5))
CAPPED = Intersection(Simplex(), Box(0, 0.6))


@pytest.mark.parametrize(
    ("s", "y", "expected"),
    [
        (CAPPED, [1e5, -5.0, -1e5], [0.6, 0.4, 0.0]),
        (CAPPED, [100.0, 0.3, -5.0], [0.6, 0.4, 0.0]),
        (CAPPED, [1e15, -5.0, 1.0], [0.6, 0.0, 0.4]),
        *((DISK, [far, far], [0.5, 0.75**0.5]) for far in (1.0, 1e3, 1e6, 1e12)),
        (Product([DISK, Box(-1, 1)], [2, 1]), [1e6, 1e6, 0.0], [0.5, 0.75**0.5, 0.0]),
        (
            Intersection(Ball(), HalfSpace([-1.0, 0.0], -(1 - 1e-9))),
            [0.0, 3.0],
            [1 - 1e-9, (2e-9 - 1e-18) ** 0.5],
        ),
        (Intersection(HalfSpace([1, 1], 0), HalfSpace([1, -1], 0)), [5.0, 0.0], [0.0, 0.0]),
        (Intersection(HalfSpace([0.01, 1], 0), HalfSpace([0.01, -1], 0)), [1.0, 1e-3], [0.0, 0.0]),
    ],
)
def test_intersections_from_afar(s, y, expected):
    x = check_everywhere(s, np.array(y), None)
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=2e-9)


def test_an_intersection_keeps_its_points_of_float32():
    s = Intersection(Ball(), HalfSpace([1.0, 0.7, 0.3], 0.4))
    check_everywhere(s, np.array([4.7504187, 3.9610829, 1.9000579], np.float32), None)


@settings(max_examples=50, deadline=None)
@example(81147, 1e5, 2)  # the one point 0
@given(st.integers(0, 10**6), st.sampled_from([0.1, 10.0, 1e5]), st.sampled_from([0, 2]))
def test_intersections_of_anything(seed, far, spread):
    """Around a common ball: feasible, idempotent, the same from a nearer point, and nearest."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    c, b = rng.standard_normal((2, n))
    size = np.linalg.norm(b)
    parts = [
        Ball(size + 0.2, b), L1Ball(np.abs(c).sum() + 1, c), HalfSpace(c, 0.1), Box(-0.3, 0.5),
        Affine(rng.standard_normal((1, n)), 0.0), BoxHyperplane(-0.2, 0.4, b, 0.0),
        Product([Ball(0.2), Box(-0.1, 1)], [1, n - 1]),
    ]  # fmt: skip
    s = Intersection(*(parts[i] for i in rng.choice(len(parts), 3, replace=False)))
    y, a = far * rng.standard_normal(n), 10 ** rng.uniform(-spread, spread, n)
    x = check_everywhere(s, y, a)
    close = {"rtol": 1e-7, "atol": 1e-9 + 1e-13 * far}
    np.testing.assert_allclose(s.project(x + 0.1 * (y - x), a), x, **close)
    back = a * (y - x)
    best = s.linear_minimum(-back)
    assert back @ (best - x) <= 1e-8 * np.linalg.norm(back)


# ---- diameters and linear minimization -----------------------------------------------------------


def test_diameters():
    cases = {
        Box([0, 1], [1, 4]): [1, 3, np.sqrt(10), 3],
        Ball(2.0): [4, 4, 4, 4],
        L1Ball(2.0): [4, 4, 4, 4],
        Simplex(2.0): [2, 2, 2 * np.sqrt(2), 2],
        Affine(np.eye(2), [1, 2]): [0, 0, 0, 0],
        BoxHyperplane(0, np.inf, [1, 2], 4): [4, 2, np.sqrt(20), 4],
        BoxHyperplane(0, 1, [1, 1], 0.5, False): [0.5, 0.5, np.sqrt(0.5), 0.5],
        BoxHyperplane([0, -np.inf], [1, np.inf], [1, 1], 0): [1, 1, np.sqrt(2), 1],
        Intersection(Ball(), Box(0, 5)): [1, 1, np.sqrt(2), 1],
        Intersection(Ball(), HalfSpace([1.0, 0.0], 0.5)): [1.5, 2, 2, 2],
        Intersection(Box(0, 1), Box(0.5, 3)): [0.5, 0.5, np.sqrt(0.5), 0.5],
        Intersection(HalfSpace([1, 1], 1), Box(0, np.inf)): [1, 1, np.sqrt(2), 1],
    }
    for s, (first, second, euclidean, largest) in cases.items():
        np.testing.assert_allclose(s.diameter(2), [first, second])
        assert s.diameter(2, norm=2) == pytest.approx(euclidean)
        assert s.diameter(2, norm=np.inf) == pytest.approx(largest)
    assert Ball(2.0).diameter(norm=2) == 4
    assert Simplex().diameter(1, norm=2) == 0


def test_diameters_of_cut_boxes_against_linear_programs():
    rng = np.random.default_rng(0)
    for i in range(10):
        lower, upper = -rng.random(4), rng.random(4)
        c = rng.standard_normal(4) * (rng.random(4) < 0.8)
        c[0] = 1.0
        s = BoxHyperplane(lower, upper, c, c @ rng.uniform(lower, upper), i % 3 > 0)
        row = {"A_eq" if s.equality else "A_ub": [c], "b_eq" if s.equality else "b_ub": [s.offset]}
        bounds = np.stack([lower, upper], 1)
        ends = [
            [linprog(sign * e, **row, bounds=bounds).fun * sign for sign in (1, -1)]
            for e in np.eye(4)
        ]
        np.testing.assert_allclose(s.diameter(), [high - low for low, high in ends], atol=1e-12)
        for g in rng.standard_normal((5, 4)):
            x = s.linear_minimum(g)
            assert s.contains(x)
            assert g @ x == pytest.approx(linprog(g, **row, bounds=bounds).fun, abs=1e-12)


@pytest.mark.parametrize("name", ["box", "ball elsewhere", "l1 ball elsewhere", "simplex"])
def test_linear_minimization_is_the_limit_of_projections(name):
    s = some_sets(4, 2)[name]
    for g in np.random.default_rng(0).standard_normal((5, 4)):
        x = s.linear_minimum(g)
        assert s.contains(x)
        np.testing.assert_allclose(x, s.project(-1e9 * g), atol=1e-6)
    assert s.contains(s.linear_minimum(np.zeros(4)))


def test_linear_minimization_of_unbounded_and_joint_sets():
    half = HalfSpace([1.0, 2.0], 4.0)
    assert half.linear_minimum([-1.0, -2.0]) @ [1, 2] == pytest.approx(4)
    assert half.contains(half.linear_minimum([0.0, 0.0]))
    plane = Affine([1.0, 2.0], 4.0)
    assert plane.linear_minimum([3.0, 6.0]) @ [3, 6] == pytest.approx(12)
    for s in (half, plane, Box(0, np.inf), Intersection(half, Box(-np.inf, 9.0))):
        with pytest.raises(ValueError, match="g must have a minimum over the set"):
            s.linear_minimum([1.0, 0.0] if s is not half else [1.0, 2.0]) if not isinstance(
                s, Box
            ) else s.linear_minimum([-1.0, 0.0])
    diamond = Intersection(L1Ball(1.0, [0.0, 0.5]), Box(0, 1), HalfSpace([0.0, 1.0], 1.2))
    np.testing.assert_allclose(diamond.linear_minimum([-0.1, -1.0]), [0.5, 1.0])
    np.testing.assert_allclose(
        Product([diamond, Box(0, 1)], [2, 1]).linear_minimum([-0.1, -1.0, 1.0]), [0.5, 1, 0]
    )


def test_linear_minima_of_sets_of_any_size():
    tiny = BoxHyperplane(0, np.inf, [1.0, 1.0, 1.0], 1e-9)
    np.testing.assert_allclose(tiny.linear_minimum([3.0, 1.0, 2.0]), [0, 1e-9, 0], rtol=1e-12)
    for size in (1e-8, 1e21):
        s = Intersection(Box(0, size), HalfSpace([1.0, 1.0], size))
        np.testing.assert_allclose(s.linear_minimum([-1.0, -2.0]), [0, size], atol=1e-12 * size)
        s = Intersection(Box(0, np.inf), HalfSpace([1.0, 1.0], size))
        np.testing.assert_allclose(s.linear_minimum([-1.0, -2.0]), [0, size], atol=1e-12 * size)
    line = BoxHyperplane(-np.inf, np.inf, [1.0, 2.0], 5.0)
    assert line.linear_minimum([1.0, 2.0]) @ [1, 2] == pytest.approx(5)
    with pytest.raises(ValueError, match="g must have a minimum"):
        line.linear_minimum([1.0, 2.5])
    half = BoxHyperplane([-np.inf, 0], [1, np.inf], [1.0, 1.0], 2.0, False)
    np.testing.assert_allclose(half.linear_minimum([-2.0, -1.0]), [1, 1])
    with pytest.raises(ValueError, match="g must have a minimum"):
        half.linear_minimum([1.0, -1.0])


def test_a_round_linear_minimum_is_proved():
    for g in np.random.default_rng(0).standard_normal((20, 2)):
        x, slack = DISK._least(g)
        at = np.linspace(0, 2 * np.pi, 100_001)
        points = np.stack([np.cos(at), np.sin(at)])
        points = np.hstack([points[:, points[0] <= 0.5], [[0.5, 0.5], [0.75**0.5, -(0.75**0.5)]]])
        assert DISK.contains(x)
        assert 0 <= slack <= 1e-12
        assert g @ x - slack <= (g @ points).min() <= g @ x + 1e-8


@pytest.mark.parametrize(
    ("A", "y", "a"),
    [
        ([[1.0, 2.0], [3.0, -1.0]], [5.0, 7.0], [1e-16, 1e16]),
        ([[1.0, 2.0, 1.0], [3.0, -1.0, 0.5]], [5.0, 7.0, 1.0], [1e16, 1e16, 1e-16]),
    ],
)
def test_equations_in_metrics_that_hide_one(A, y, a):
    s = Affine(A, [1.0, 1.0])
    assert s.contains(s.project(y, a))
    assert_nearest(s, np.array(y), np.array(a), ulps=1024)


# ---- what sets refuse ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Ball(-1.0), ValueError, "radius must be at least 0, got -1"),
        (lambda: Ball(np.nan), ValueError, "radius must be finite, got nan"),
        (lambda: Ball("one"), TypeError, "radius must hold real numbers"),
        (lambda: Ball([1.0]), TypeError, "radius must be a number"),
        (lambda: Ball(1.0, [[0.0]]), ValueError, r"center must be a number or have shape \(n,\)"),
        (lambda: L1Ball(np.inf), ValueError, "radius must be finite, got inf"),
        (lambda: L1Ball(1.0, [0.0, np.nan]), ValueError, "center must be finite.*index 1"),
        (lambda: Simplex(-1), ValueError, "total must be at least 0"),
        (lambda: HalfSpace([0.0, 0.0], 1), ValueError, "normal must not be zero"),
        (lambda: HalfSpace(1.0, 1), ValueError, r"normal must have shape \(n,\), got \(\)"),
        (lambda: HalfSpace([1.0], np.nan), ValueError, "offset must be finite"),
        (lambda: Affine([[1.0, 1.0]] * 2, [0, 1]), ValueError, "must have a solution"),
        (lambda: Affine([[0.0, 0.0]], 1), ValueError, "must have a solution"),
        (lambda: Affine([[1.0, 1.0]], [0, 1]), ValueError, r"b must have shape \(1,\)"),
        (lambda: Affine(np.zeros((0, 2)), []), ValueError, r"A must have shape \(m, n\)"),
        (lambda: BoxHyperplane(0, 1, [1, 1], 3), ValueError, "the set is empty"),
        (lambda: BoxHyperplane(0, 1, [1, 1], -1, False), ValueError, "the set is empty"),
        (lambda: BoxHyperplane([0, 0, 0], 1, [1, 1], 1), ValueError, "the shape of normal"),
        (lambda: BoxHyperplane(0, 1, [1, 1], 1, "yes"), TypeError, "equality must be a bool"),
        (lambda: Product([Simplex()], [2, 3]), ValueError, "one number for each of 1 sets"),
        (lambda: Product([HalfSpace([1, 1], 0)], [3]), ValueError, r"sizes\[0\] must have 2"),
        (lambda: Product([Simplex()], [2.5]), TypeError, r"sizes\[0\] must be an integer"),
        (lambda: Product([1], [1]), TypeError, r"sets\[0\] must be a set"),
        (lambda: Intersection(), ValueError, "at least one set"),
        (lambda: Intersection((0, 1)), TypeError, r"sets\[0\] must be a set"),
        (lambda: Intersection(Ball(), maxiter=0), ValueError, "maxiter must be at least 1"),
        (
            lambda: Intersection(HalfSpace([1], 0), HalfSpace([1, 1], 0)),
            ValueError, r"one number of coordinates, got \[1, 2\]",
        ),
    ],
)  # fmt: skip
def test_bad_sets(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("s", [*some_sets(2).values(), Intersection(Box(0, 1), Ball())])
def test_bad_arguments(s):
    good = [0.1, 0.2]
    for y, metric, error, message in [
        ([np.nan, 1.0], None, ValueError, "y must be finite, got nan at index 0"),
        ([[1.0, 2.0, 3.0]], None, ValueError, "y must have one dimension"),
        (["a", "b"], None, TypeError, "y must hold real numbers"),
        ([1j, 0], None, TypeError, "y must hold real numbers"),
        (good, [1.0, 0.0], ValueError, "metric must be above 0, got 0.0 at index 1"),
        (good, [-1.0, 1.0], ValueError, "metric must be above 0, got -1.0 at index 0"),
        (good, [np.nan, 1.0], ValueError, "metric must be finite, got nan at index 0"),
        (good, [1.0, 1.0, 1.0], ValueError, r"metric must have shape \(2,\), got \(3,\)"),
        (good, "heavy", TypeError, "metric must hold real numbers"),
    ]:
        if isinstance(s, Box) and "dimension" in message:
            continue
        with pytest.raises(error, match=message):
            s.project(y, metric)
    if s.size is not None:
        with pytest.raises(ValueError, match="y must have 2 coordinates, as the set, got 3"):
            s.project([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="at least 1 coordinate"):
        s.project([])
    with pytest.raises(ValueError, match="g must be finite"):
        s.linear_minimum([np.inf, 1.0])
    with pytest.raises(ValueError, match="norm must be None, 2 or inf, got 3"):
        s.diameter(2, norm=3)
    assert not s.contains([np.nan, 1.0])


def test_unbounded_sets_have_no_diameter():
    for s in (Box(), HalfSpace([1, 1], 0), Affine([1, 1], 0), Product([Box(0)], [2])):
        for norm in (None, 2, np.inf):
            with pytest.raises(ValueError, match="must be bounded to have a diameter"):
                s.diameter(2, norm)
    with pytest.raises(ValueError, match="n must be given: this Simplex fits any"):
        Simplex().diameter()


@pytest.mark.parametrize("s", [*some_sets(2).values(), Intersection(Box(0, 1), Ball())])
def test_sets_are_immutable(s):
    for each in dataclasses.fields(s):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(s, each.name, 3)
        value = getattr(s, each.name)
        assert not (isinstance(value, np.ndarray) and value.flags.writeable)
    copy = pickle.loads(pickle.dumps(s))
    np.testing.assert_array_equal(copy.project([3.0, 4.0]), s.project([3.0, 4.0]))


def test_integers_and_weights_of_any_form():
    assert Simplex().project([1, 5]).dtype == np.float64
    for metric in (2, [1, 1], np.ones(2, np.float32), True):
        np.testing.assert_array_equal(Simplex().project([1, 1], metric), [0.5, 0.5])
    x = Simplex().project([1.0, 1.0], [1e-320, 1e300])
    np.testing.assert_allclose(x, [0.0, 1.0], atol=1e-15)
