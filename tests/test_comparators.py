"""Best fixed points against SciPy's solvers, and their certificates."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize

from numbelief.online import (
    AbsoluteLosses,
    CallbackLosses,
    HingeLosses,
    LinearLosses,
    LogisticLosses,
    PortfolioLosses,
    SquaredLosses,
    best_fixed,
    best_per_segment,
    checkpoints,
    curve,
)
from numbelief.sets import Ball, Box, HalfSpace, Intersection, L1Ball, Product, Simplex

CALLBACK = CallbackLosses(lambda t, x: (-x[0], np.array([-1.0])), 1, 2, oblivious=True)
T, N = 60, 3
SHIFT = np.array([1.0, 0.0, 0.0])
RANDOM = np.random.default_rng(11)
TABLE = RANDOM.normal(size=(T, N))
TARGETS = TABLE @ [1.0, -2.0, 0.5] + 0.3 * RANDOM.normal(size=T)
LABELS = np.where(TARGETS + RANDOM.normal(size=T) > 0, 1, -1)
RELATIVES = np.exp(0.05 * RANDOM.normal(size=(T, N)) + [0.01, 0.0, 0.012])

LOSSES = {
    "linear": LinearLosses(TABLE),
    "squared": SquaredLosses(TABLE + SHIFT),
    "least squares": SquaredLosses(TARGETS, TABLE),
    "absolute": AbsoluteLosses(TABLE + SHIFT),
    "absolute error": AbsoluteLosses(TARGETS, TABLE),
    "hinge": HingeLosses(TABLE, LABELS),
    "logistic": LogisticLosses(TABLE, LABELS),
    "portfolio": PortfolioLosses(RELATIVES),
}
SETS = {
    "box": Box(-0.4, 0.7),
    "wide box": Box(-20, 20),
    "ball": Ball(0.8),
    "ball elsewhere": Ball(0.5, [1.0, 0.5, 0.0]),
    "simplex": Simplex(),
    "l1 ball": L1Ball(0.9),
    "product": Product([Box(0, 1), Simplex()], [1, 2]),
    "cut box": Intersection(Box(-1, 1), HalfSpace([1.0, 1.0, 0.0], 0.25)),
    "cut ball": Intersection(Ball(1.0), HalfSpace([1.0, 0.0, 0.0], 0.25)),
}
PORTFOLIO_SETS = ("simplex",)
GAMES = [
    (loss, name)
    for loss in LOSSES
    for name in SETS
    if loss != "portfolio" or name in PORTFOLIO_SETS
]


def random_points(feasible_set, count=300):
    """Points of the set, of which some lie on its boundary."""
    return [feasible_set.project(2 * RANDOM.normal(size=N)) for _ in range(count)]


def descended(losses, feasible_set, x):
    """A slow independent attempt to find something lower: random steps that go down."""
    value, size = losses.total(x)[0], 0.3
    for _ in range(100):
        new = feasible_set.project(x + size * RANDOM.normal(size=N))
        lower = losses.total(new)[0]
        if lower < value:
            x, value = new, lower
        else:
            size *= 0.9
    return value


@pytest.mark.parametrize(("loss", "name"), GAMES)
def test_the_certificate_holds_for_every_loss_and_set(loss, name):
    losses, feasible_set = LOSSES[loss], SETS[name]
    best = best_fixed(losses, feasible_set)
    assert feasible_set.contains(best.x, 1e-9)
    assert best.value == pytest.approx(losses.total(best.x)[0], rel=1e-12, abs=1e-12)
    assert best.gap >= 0
    rounding = 1e-10 * max(1, abs(best.value))
    points = random_points(feasible_set, 50)
    assert min(losses.total(x)[0] for x in points) >= best.lower - rounding
    assert descended(losses, feasible_set, best.x) >= best.lower - rounding
    # What is proved to fewer digits: losses with corners on round sets, and sets whose
    # linear minimum is only bounded.
    if name == "cut ball":
        assert not best.exact
    if loss in ("absolute", "absolute error", "hinge"):
        assert best.gap <= 1e-4 * T
    else:
        assert best.converged


SOLVED = ("box", "wide box", "ball", "ball elsewhere", "simplex")


def solved(losses, name):
    """The minimum as SLSQP finds it."""
    constraints = {
        "ball": [NonlinearConstraint(lambda x: x @ x, -np.inf, 0.64)],
        "ball elsewhere": [
            NonlinearConstraint(lambda x: ((x - [1.0, 0.5, 0.0]) ** 2).sum(), -np.inf, 0.25)
        ],
        "simplex": [LinearConstraint(np.ones((1, N)), 1, 1)],
    }.get(name, [])
    bounds = {"box": [(-0.4, 0.7)] * N, "wide box": [(-20, 20)] * N, "simplex": [(0, 1)] * N}
    result = minimize(
        lambda x: losses.total(x)[0],
        SETS[name].project(np.full(N, 0.3)),
        jac=lambda x: losses.total(x)[1],
        method="SLSQP",
        bounds=bounds.get(name),
        constraints=constraints,
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return losses.total(SETS[name].project(result.x))[0]


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("loss", ["linear", "squared", "least squares", "logistic", "portfolio"])
def test_smooth_losses_against_slsqp(loss, name):
    if loss == "portfolio" and name not in PORTFOLIO_SETS:
        pytest.skip("a portfolio has positive parts")
    losses = LOSSES[loss]
    best, value = best_fixed(losses, SETS[name]), solved(losses, name)
    assert value == pytest.approx(best.value, rel=1e-6, abs=1e-6)
    assert best.lower <= value + 1e-9 * abs(value)


@pytest.mark.parametrize("name", ["box", "wide box", "simplex", "l1 ball", "product", "cut box"])
@pytest.mark.parametrize("loss", ["absolute error", "hinge"])
def test_a_linear_program_is_solved_to_rounding(loss, name):
    best = best_fixed(LOSSES[loss], SETS[name])
    assert best.converged
    assert best.gap <= 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(-2, 1), st.floats(0, 3), st.integers(0, 99))
def test_the_running_median(rounds, low, width, seed):
    targets = np.random.default_rng(seed).normal(size=rounds).round(1)
    losses, interval = AbsoluteLosses(targets), Box(low, low + width)
    best = best_fixed(losses, interval)
    assert best.exact
    corners = np.clip(np.append(targets, [low, low + width]), low, low + width)
    assert best.value <= min(losses.total([x])[0] for x in corners) + 1e-12


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 999),
    st.sampled_from(["least squares", "absolute error", "hinge", "logistic"]),
    st.sampled_from(["box", "ball", "simplex", "l1 ball"]),
    st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_no_point_is_below_the_certificate(seed, loss, name, scale):
    random = np.random.default_rng(seed)
    table = random.normal(size=(12, N)) * scale
    y = random.choice([-1.0, 1.0], size=12)
    losses = type(LOSSES[loss])(*((table, y) if loss in ("hinge", "logistic") else (y, table)))
    best = best_fixed(losses, SETS[name])
    for x in [*random_points(SETS[name], 40), best.x]:
        assert losses.total(x)[0] >= best.lower - 1e-10 * max(1, best.value)


def test_closed_forms():
    assert best_fixed(LOSSES["linear"], Box(-1, 1)).x == pytest.approx(-np.sign(TABLE.sum(0)))
    mean = LOSSES["squared"].data[0].mean(axis=0)
    assert best_fixed(LOSSES["squared"], Box(-9, 9)).x == pytest.approx(mean, rel=1e-13)
    medians = np.median(LOSSES["absolute"].data[0], axis=0)
    assert best_fixed(LOSSES["absolute"], Box(-9, 9)).x == pytest.approx(medians)
    for loss in ("linear", "squared", "absolute"):
        best = best_fixed(LOSSES[loss], Box(-9, 9))
        assert (best.exact, best.converged, best.gap) == (True, True, 0)
    assert not best_fixed(LOSSES["squared"], SETS["cut box"]).exact


def test_float32_data():
    double = LogisticLosses(TABLE, LABELS)
    single = LogisticLosses(TABLE.astype(np.float32), LABELS)
    best = best_fixed(single, Ball(0.8))
    assert best.converged
    assert best.x == pytest.approx(best_fixed(double, Ball(0.8)).x, abs=1e-5)


def test_least_squares_need_no_bounded_set():
    best = best_fixed(LOSSES["least squares"], Box())
    expected = np.linalg.lstsq(TABLE, TARGETS, rcond=None)[0]
    assert best.x == pytest.approx(expected, rel=1e-8)
    assert best.converged
    assert best.passes <= 4


def test_an_unbounded_set_proves_only_a_sign():
    separable = LogisticLosses([[1.0]], [1])
    best = best_fixed(separable, Box())
    assert not best.exact
    assert 0 <= best.lower <= best.value <= np.log(2)
    assert best_fixed(CALLBACK, Box()).gap == np.inf
    with pytest.raises(ValueError, match="falls without end"):
        best_fixed(LinearLosses([1.0]), Box())


def test_a_comparator_that_is_not_good_enough_says_so():
    best = best_fixed(LOSSES["hinge"], Ball(0.8), tol=1e-15)
    assert not best.converged
    assert 0 < best.gap < 1e-2


# ---- callbacks


def logistic(t, x):
    z = LABELS[t - 1] * (TABLE[t - 1] @ x)
    return np.log1p(np.exp(-z)), -LABELS[t - 1] / (1 + np.exp(z)) * TABLE[t - 1]


@pytest.mark.parametrize("function", [logistic, numba.njit(logistic)], ids=["Python", "compiled"])
@pytest.mark.parametrize("name", ["ball", "box"])
def test_an_oblivious_callback_has_a_comparator(function, name):
    losses = CallbackLosses(function, N, T, oblivious=True)
    best, table = best_fixed(losses, SETS[name]), best_fixed(LOSSES["logistic"], SETS[name])
    assert best.converged
    assert best.value == pytest.approx(table.value, abs=1e-6)


def test_corners_that_a_callback_hides_widen_the_interval():
    def distance(t, x):
        value, gradient = LOSSES["absolute error"](t, x)
        return value, gradient

    losses = CallbackLosses(distance, N, T, oblivious=True)
    exact = best_fixed(LOSSES["absolute error"], Box(-20, 20))
    best = best_fixed(losses, Box(-20, 20))
    assert exact.converged
    assert not best.converged
    assert best.lower <= exact.lower + 1e-9


# ---- curves and segments


def test_checkpoints():
    grid = checkpoints(3_000_000)
    assert (grid[0], grid[-1]) == (1, 3_000_000)
    assert (np.diff(grid) > 0).all()
    assert (grid[1:] / grid[:-1] <= 2).all()
    assert grid.sum() < 4.5 * 3_000_000
    assert checkpoints(1).tolist() == [1]
    assert checkpoints(2).tolist() == [1, 2]


@pytest.mark.parametrize("loss", ["linear", "squared", "least squares", "logistic"])
def test_a_curve_reads_the_data_a_constant_number_of_times(loss):
    passes = []
    for repeat in (4, 64):
        random = np.random.default_rng(2)
        table = random.normal(size=(T * repeat, N))
        y = random.choice([-1.0, 1.0], size=T * repeat)
        losses = {
            "linear": lambda: LinearLosses(table),  # noqa: B023
            "squared": lambda: SquaredLosses(table),  # noqa: B023
            "least squares": lambda: SquaredLosses(y, table),  # noqa: B023
            "logistic": lambda: LogisticLosses(table, y),  # noqa: B023
        }[loss]()
        bests = curve(losses, Ball(0.05))
        assert all(best.converged for best in bests)
        assert [best.rounds for best in bests] == checkpoints(losses.rounds).tolist()
        passes.append(sum(best.passes * best.rounds for best in bests) / losses.rounds)
    assert max(passes) <= 20
    assert passes[1] <= 1.5 * passes[0]


def test_a_curve_is_what_each_search_finds():
    for best in curve(LOSSES["logistic"], Ball(0.8), at=[3, 20, T]):
        alone = best_fixed(LOSSES["logistic"], Ball(0.8), best.rounds)
        assert best.value == pytest.approx(alone.value, abs=1e-6)


def test_the_best_point_of_each_segment():
    losses = LOSSES["squared"]
    bests = best_per_segment(losses, Box(-9, 9), [0, 10, 11, T])
    for best, a, b in zip(bests, (0, 10, 11), (10, 11, T), strict=True):
        assert best.x == pytest.approx(losses.data[0][a:b].mean(axis=0))
        assert best.rounds == b - a
    points = np.concatenate([np.tile(best.x, (best.rounds, 1)) for best in bests])
    assert losses.along(points).sum() == pytest.approx(sum(best.value for best in bests))
    assert sum(best.value for best in bests) <= best_fixed(losses, Box(-9, 9)).value


def test_a_far_start_is_no_worse_than_none():
    separable = LogisticLosses([[1.0, 0.0], [-1.0, 1.0]], [1, 1])
    half = HalfSpace([0.0, 1.0], 5.0)
    best = best_fixed(separable, half, start=[500.0, -500.0])
    assert 0 <= best.lower <= best.value <= 2 * np.log(2)


def test_a_tolerance_is_relative_to_the_losses():
    small = SquaredLosses(1e-5 * TABLE)
    for name in ("cut ball", "cut box", "ball"):
        best = best_fixed(small, SETS[name])
        assert best.gap <= 1e-8 * small.total(np.zeros(N))[0]


def test_a_portfolio_starts_where_its_loss_is_finite():
    best = best_fixed(LOSSES["portfolio"], Box(0, 1))
    assert best.x == pytest.approx(np.ones(N), abs=1e-6)


def test_a_comparator_is_a_point_of_the_set():
    capped = Intersection(Simplex(), Box(0, 0.6))
    best = best_fixed(SquaredLosses(np.tile([1e4, -50.0, -1e4], (20, 1))), capped)
    assert capped.contains(best.x)
    assert best.x == pytest.approx([0.6, 0.4, 0.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: best_fixed(TABLE, Box()), TypeError, "losses must be Losses, got ndarray"),
        (lambda: best_fixed(CallbackLosses(abs, 1, 2), Box()), ValueError, "oblivious=True"),
        (lambda: best_fixed(LOSSES["hinge"], Box(), 61), ValueError, "number of rounds, 60"),
        (lambda: best_fixed(LOSSES["hinge"], Box(), tol=0), ValueError, "tol must be above 0"),
        (lambda: best_fixed(LOSSES["hinge"], Box(), start=[1]), ValueError, "start must have"),
        (lambda: checkpoints(0), ValueError, "rounds must be at least 1"),
        (lambda: checkpoints(9, 1), ValueError, "ratio must be a finite number above 1"),
        (lambda: best_per_segment(LOSSES["hinge"], Box(), [0]), ValueError, "at least two"),
        (lambda: best_per_segment(LOSSES["hinge"], Box(), [0, 61]), ValueError, "at most 60"),
        (lambda: best_per_segment(LOSSES["hinge"], Box(), [1, 9]), ValueError, "increase from 0"),
        (lambda: best_per_segment(3, Box(), [0, 9]), TypeError, "a table of losses"),
        (
            lambda: curve(CallbackLosses(abs, 1, oblivious=True), Box()),
            ValueError,
            "at must be given",
        ),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
