"""learning_rate="auto": against an oracle, on every rule, in every unit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import PROBLEMS, ROSENBROCK
from scipy import optimize
from scipy.optimize import OptimizeWarning

from numbelief import SGD, AdaBelief, Adam, Optimizer, Rule, minimize

sys.path.insert(0, str(Path(__file__).parent.parent / "asv_benchmarks"))
from smooth_problems import PROBLEMS as TABLE

BUILT_IN = {n: r for n, r in Rule.registry.items() if r.is_built_in()}


def wood(x):
    """A function of four variables with a saddle on the way (Colville 1968)."""
    a, b, c, d = np.asarray(x, float)
    value = (
        100 * (a**2 - b) ** 2 + (a - 1) ** 2 + (c - 1) ** 2 + 90 * (c**2 - d) ** 2
        + 10.1 * ((b - 1) ** 2 + (d - 1) ** 2) + 19.8 * (b - 1) * (d - 1)
    )  # fmt: skip
    grad = [
        400 * a * (a**2 - b) + 2 * (a - 1),
        -200 * (a**2 - b) + 20.2 * (b - 1) + 19.8 * (d - 1),
        2 * (c - 1) + 360 * c * (c**2 - d),
        -180 * (c**2 - d) + 20.2 * (d - 1) + 19.8 * (b - 1),
    ]
    return value, np.array(grad)


WOOD = np.array([-3.0, -1.0, -3.0, -1.0])


# ---- what it computes


@pytest.mark.parametrize(
    ("name", "bounded"),
    [
        *((name, False) for name in ("SGD", "Momentum", "Adagrad", "Adam", "AdaBelief", "LAMB")),
        *((name, True) for name in ("SGD", "AdaBelief", "LAMB")),
    ],
)
def test_against_the_oracle(name, bounded):
    rule = BUILT_IN[name.lower()]()
    steps = 12  # then two roundings have drifted apart
    given = {k: v for k, v in vars(rule).items() if k not in ("learning_rate",)}
    bounds = (np.full(4, -3.5), np.array([0.5, 2.0, 2.0, 0.25])) if bounded else None
    points, values, evaluations = reference.automatic(
        name, wood, WOOD, steps, bounds=bounds, **given
    )
    result = minimize(
        wood, WOOD, method=rule, jac=True, bounds=bounds and list(zip(*bounds, strict=True)),
        options={"maxiter": steps, "return_all": True, "history": True, "gtol": 0},
    )  # fmt: skip
    np.testing.assert_allclose(result.history.fun, values, rtol=1e-6)
    np.testing.assert_allclose(result.allvecs, points, rtol=1e-5, atol=1e-7)
    assert result.nfev == evaluations


def test_a_given_rate_is_used_as_given():
    x = ROSENBROCK.x0.copy()
    opt = Optimizer(Adam(0.02), x)
    for _ in range(50):
        opt.step(ROSENBROCK.grad(x))
    result = minimize(
        ROSENBROCK.fun, ROSENBROCK.x0, jac=ROSENBROCK.grad, method=Adam(0.02),
        options={"maxiter": 50, "iterate": "last"},
    )  # fmt: skip
    np.testing.assert_array_equal(result.x, x)


def test_the_optimizer_takes_the_papers_rate():
    x = np.ones(2)
    Optimizer(Adam("auto"), x).step(np.ones(2))
    assert x == pytest.approx(1 - Adam.default_rate, rel=1e-6)


def test_the_ways_to_say_auto():
    assert AdaBelief("auto") == AdaBelief() == AdaBelief(learning_rate=None)
    ways = (
        {"method": "adam"},
        {"method": "adam", "options": {"learning_rate": "auto"}},
        {"method": Adam()},
    )
    results = [minimize(wood, WOOD, jac=True, **way) for way in ways]
    results.append(optimize.minimize(wood, WOOD, jac=True, method=Adam()))
    assert len({result.x.tobytes() for result in results}) == 1
    with pytest.raises(TypeError, match="learning_rate must be a real number, got 'fast'"):
        Adam("fast")


# ---- what it achieves


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
@pytest.mark.parametrize("method", BUILT_IN)
def test_every_rule_solves_ordinary_problems(method, problem):
    result = minimize(problem.fun, problem.x0, jac=problem.grad, method=method)
    assert result.success, result
    np.testing.assert_allclose(result.x, problem.minimum, atol=2e-3)
    assert result.nfev < 400


def test_the_table_is_solved():
    """A part of the data profile at 4,000 gradients; of all, L-BFGS-B solves 134 of 142."""
    some = TABLE[::8]
    solved = 0
    for problem in some:
        first = problem.fun(problem.x0.copy(), np.empty(problem.x0.size), *problem.args)
        goal = problem.f_star + 1e-5 * (first - problem.f_star)
        result = minimize(
            problem.fun, problem.x0, problem.args, jac="inplace",
            options={"target": goal, "gtol": 0.0, "maxiter": 4000},
        )  # fmt: skip
        solved += result.fun <= goal and result.nfev <= 4000
    assert solved >= 0.95 * len(some)


@pytest.mark.parametrize(
    "method",
    ["adabelief", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("sgd", "lamb"))],
)
def test_single_precision(method):
    x0 = WOOD.astype(np.float32)
    result = minimize(wood, x0, jac=True, method=method, options={"gtol": 1e-3})
    assert result.x.dtype == np.float32
    assert result.fun < 1e-4, result


# ---- units


def path(fun_unit=1.0, x_unit=1.0, method="adabelief", x0=WOOD, offset=0.0, **options):
    """The values of the first iterations, in the units of the original problem."""

    def scaled(x):
        value, grad = wood(x / x_unit)
        return fun_unit * (value - offset), fun_unit / x_unit * grad

    options = {"maxiter": 15, "history": True, "gtol": 0.0, **options}
    result = minimize(scaled, x0 * x_unit, jac=True, method=method, options=options)
    return result.history.fun / fun_unit


@pytest.mark.parametrize("method", BUILT_IN)
@pytest.mark.parametrize("units", [(1e6, 1.0), (1e-6, 1.0), (1.0, 1e3), (1.0, 1e-3), (1e6, 1e-3)])
def test_units_do_not_matter(method, units):
    np.testing.assert_allclose(path(*units, method=method), path(method=method), rtol=1e-3)


def test_powers_of_two_change_no_bit():
    for units in ((2.0**20, 1.0), (2.0**-20, 1.0)):
        np.testing.assert_array_equal(path(*units, method="sgd"), path(method="sgd"))


@pytest.mark.parametrize("units", [(1e6, 1.0), (1e-6, 1.0), (1.0, 1e3), (1.0, 1e-3)])
def test_units_do_not_matter_from_zero(units):
    start = np.zeros(4)
    np.testing.assert_allclose(path(*units, x0=start), path(x0=start), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("method", sorted({*BUILT_IN} - {"lamb"}))
@pytest.mark.parametrize("units", [(1e6, 1.0), (1e-6, 1.0), (1.0, 1e3), (1.0, 1e-3)])
def test_units_do_not_matter_where_all_is_zero(units, method):
    """At x = 0 with fun = 0, where only the curvature has a unit of length."""
    zero = {"x0": np.zeros(4), "offset": wood(np.zeros(4))[0], "method": method}
    np.testing.assert_allclose(path(*units, **zero), path(**zero), rtol=1e-3, atol=1e-9)


def test_a_straight_start_from_zero():
    def straight(x):
        return -x.sum(), -np.ones(3)

    result = minimize(straight, np.zeros(3), jac=True, bounds=[(-1, 1e4)] * 3)
    np.testing.assert_array_equal(result.x, 1e4)


# ---- safety


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(BUILT_IN)), st.booleans())
def test_never_worse_than_the_start_and_inside(seed, method, bounded):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 6))
    weights, centre, x0 = 10 ** random.uniform(-3, 3, n), random.normal(size=n), np.zeros(n)
    x0[:] = random.normal(size=n) * 10 ** random.uniform(-2, 2)
    box = optimize.Bounds(np.minimum(x0, -0.5), np.maximum(x0, 0.5)) if bounded else None
    outside = []

    def fun(x):
        if bounded and not ((x >= box.lb) & (x <= box.ub)).all():
            outside.append(x)
        shifted = x - centre
        value = (weights * shifted**2).sum() + np.sin(3 * shifted).sum()
        return value, 2 * weights * shifted + 3 * np.cos(3 * shifted)

    result = minimize(fun, x0, jac=True, method=method, bounds=box, options={"maxiter": 60})
    assert result.fun <= fun(x0)[0]
    assert result.fun == fun(result.x)[0]
    assert not outside


def test_the_values_fall():
    for method in BUILT_IN:
        result = minimize(wood, WOOD, jac=True, method=method, options={"history": True})
        values = result.history.fun
        slack = 40 * np.finfo(float).eps * np.abs(values[:-1])
        assert (np.diff(values) <= slack).all(), method


def test_bounds_that_hold_at_the_minimum():
    bounds = [(-2, 0.5), (-2, 2), (None, None), (1.2, 3)]
    expected = optimize.minimize(wood, [0.0, 0, 0, 2], jac=True, bounds=bounds, method="L-BFGS-B")
    for method in BUILT_IN:
        result = minimize(wood, [0.0, 0, 0, 2], jac=True, bounds=bounds, method=method)
        assert result.success, (method, result)
        assert result.fun == pytest.approx(expected.fun, rel=1e-5), method


def test_a_start_in_a_corner():
    """The rule's first step may not move at all there."""

    def slope(x):
        return -x.sum() + (x**2).sum(), 2 * x - 1

    result = minimize(slope, np.zeros(3), jac=True, bounds=[(0, 2)] * 3)
    np.testing.assert_allclose(result.x, 0.5, atol=1e-5)
    result = minimize(slope, np.zeros(3), jac=True, bounds=[(-1, 0)] * 3)
    assert result.success
    np.testing.assert_array_equal(result.x, 0)


def barrier(x):
    """Not finite beyond 1, where the first trial may well lie."""
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = 1 - x
        return -np.log(inside).sum() + (x**2).sum(), 1 / inside + 2 * x


@pytest.mark.parametrize("method", BUILT_IN)
def test_a_trial_that_is_not_finite_is_shortened(method):
    result = minimize(barrier, np.array([-100.0, 0.99]), jac=True, method=method)
    assert result.success, result
    np.testing.assert_allclose(result.x, -0.366025, atol=1e-3)


@pytest.mark.parametrize("method", BUILT_IN)
def test_gradients_that_fall_by_a_hundred_orders(method):
    def steep(x):
        with np.errstate(over="ignore"):
            value = np.exp((x**2).sum())
        return value, 2 * x * value

    result = minimize(steep, np.array([15.0, 7.0]), jac=True, method=method)
    assert result.success, result
    np.testing.assert_allclose(result.x, 0, atol=1e-4)


def test_no_way_down_ends_with_status_2():
    def wrong_sign(x):
        return (x**2).sum(), -2 * x

    calls = []
    result = minimize(lambda x: (calls.append(1), wrong_sign(x))[1], np.ones(3), jac=True)
    assert (result.status, result.success, result.nit) == (2, False, 0)
    np.testing.assert_array_equal(result.x, 1)
    assert len(calls) < 200


def test_a_step_too_short_to_move_x_is_given_up():
    """A shortened trial equal to its base once passed for a step, again and again."""

    def steps(x):  # flat to within rounding almost everywhere
        return np.floor(1e3 * x**2).sum(), 2e3 * x

    result = minimize(steps, np.array([1.0, 0.3]), jac=True, options={"maxiter": 5000})
    assert result.nfev < 2000


def test_noise_ends_cleanly():
    random = np.random.default_rng(0)

    def noisy(x):
        return (x**2).sum() + 1e-3 * random.normal(), 2 * x + 1e-3 * random.normal(size=x.size)

    result = minimize(noisy, np.ones(4), jac=True, options={"maxiter": 500})
    assert result.status in (0, 1, 2)
    assert result.fun < 0.01


def test_finite_differences():
    for scheme in ("2-point", "3-point"):
        result = minimize(lambda x: wood(x)[0], WOOD, jac=scheme)
        assert result.fun < 1e-8


def test_clipping():
    for method, options in ((SGD(), {"max_norm": 1.0}), (Adam(), {"max_value": 0.1})):
        result = minimize(wood, WOOD, jac=True, method=method, options=options)
        assert result.fun < 1e-6, (method, result)


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay_needs_a_rate(decoupled):
    """The search looks at fun, to which no decay belongs."""
    decaying = Adam(weight_decay=0.5, decoupled=decoupled)
    with pytest.warns(OptimizeWarning, match="weight_decay=0.5 is left out"):
        result = minimize(wood, WOOD, jac=True, method=decaying)
    np.testing.assert_array_equal(result.x, minimize(wood, WOOD, jac=True, method=Adam()).x)
    adamw = minimize(wood, WOOD, jac=True, method="adamw")  # its default decay says nothing
    np.testing.assert_array_equal(result.x, adamw.x)


def test_a_stationary_start():
    result = minimize(lambda x: ((x**2).sum(), 2 * x), np.zeros(3), jac=True)
    assert (result.nit, result.nfev, result.success) == (0, 1, True)
    result = minimize(
        lambda x: ((x**2).sum(), 2 * x), np.zeros(3), jac=True, options={"gtol": 0.0, "maxiter": 3}
    )
    assert result.success
