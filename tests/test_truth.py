"""What a result, an argument or a file says is true: cases by kind, each with its right value."""

import contextlib
import copy
import functools
import json
import math
import os
import pickle
import stat

import numpy as np
import pytest
from numba import njit
from scipy.optimize import OptimizeWarning

from numbelief import (
    SGD,
    AdaBelief,
    Adam,
    Optimizer,
    minimize,
    minimize_many,
    minimize_stochastic,
    online,
    schedules,
    sets,
)

# ---- no success where there is no solution -----------------------------------------------------

# The sum of (x - i)^2, smallest at 0, 1, ..., in several ways of spoiling x.


def subtracts(x):
    x -= np.arange(x.size)
    x *= x
    return x.sum()


def overwrites(x):
    value = ((x - np.arange(x.size)) ** 2).sum()
    x[:] = np.nan
    return value


def permutes(x):
    value = ((x - np.arange(x.size)) ** 2).sum()
    x[:] = x[::-1].copy()
    return value


@pytest.mark.parametrize("jac", [None, "2-point", "3-point", "cs"])
@pytest.mark.parametrize("fun", [subtracts, overwrites, permutes])
@pytest.mark.parametrize("bounds", [None, [(-9, 9)] * 4])
def test_fun_may_write_to_its_x(fun, jac, bounds):
    res = minimize(fun, np.full(4, 1.5), jac=jac, bounds=bounds)
    assert res.success
    np.testing.assert_allclose(res.x, np.arange(4), atol=1e-4)


@pytest.mark.parametrize("jac", [None, "3-point"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_differences_see_the_precision_of_fun(jac, dtype):
    """SciPy takes steps for the coarser of both dtypes; shorter ones are lost in fun."""
    res = minimize(
        lambda x: ((x.astype(dtype) - dtype(2)) ** 2).sum(), np.full(2, 5.0), jac=jac, tol=0.05
    )
    np.testing.assert_allclose(res.x, 2, atol=0.1)


def penalized(x):
    """Falls towards 2, beyond which all is forbidden, and flat."""
    return 1e25 if x[0] > 2 else 1.9 - 0.45 * x[0]


def penalized_grad(x):
    return np.array([0.0 if x[0] > 2 else -0.45])


@njit
def penalized_fill(x, grad):
    grad[0] = 0.0 if x[0] > 2 else -0.45
    return 1e25 if x[0] > 2 else 1.9 - 0.45 * x[0]


@pytest.mark.parametrize("iterate", ["best", "average"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_flat_penalty_is_no_solution(compiled, iterate):
    fun, jac = (penalized_fill, "inplace") if compiled else (penalized, penalized_grad)
    options = {"iterate": iterate, "maxiter": 3000}
    res = minimize(fun, [0.0], jac=jac, method=SGD(0.5), options=options)
    assert not res.success
    assert res.fun == penalized(res.x) < 2
    assert res.jac == penalized_grad(res.x) == -0.45


@pytest.mark.parametrize("iterate", ["best", "average"])
def test_rows_with_a_flat_penalty_are_not_solved(iterate):
    options = {"iterate": iterate, "maxiter": 3000}
    res = minimize_many(penalized_fill, [[0.0]], jac="inplace", method=SGD(0.5), options=options)
    assert not res.success.any()
    assert res.fun == penalized(res.x[0]) < 2


def test_the_last_point_is_returned_where_it_is_the_best_to_rounding():
    res = minimize(lambda x: 1e6 + float(x @ x), [1.0], jac=lambda x: 2 * x, method=SGD(0.1))
    assert res.success
    assert abs(res.jac[0]) <= 1e-5


def test_rounding_in_fun_does_not_keep_a_run_from_its_end():
    """A sum of 2e5 float32 terms is good to 1e-4: a flat point need not have the lowest value."""
    random = np.random.default_rng(0)
    a = random.normal(size=200_000).astype(np.float32)
    b = 3 * a + random.normal(size=a.size).astype(np.float32)

    def least_squares(x):
        r = a * x[0] + x[1] - b
        value = np.cumsum(r * r, dtype=np.float32)[-1] / np.float32(a.size)
        return value, np.array([r @ a, r.sum()], np.float32) * np.float32(2 / a.size)

    options = {"gtol": 1e-3, "maxiter": 500}
    x0 = np.zeros(2, np.float32)
    res = minimize(least_squares, x0, jac=True, method=SGD(0.2), options=options)
    assert res.success
    assert abs(res.jac).max() <= 1e-3
    assert (res.jac == least_squares(res.x)[1]).all()


def square(x):
    return float((x - 1) @ (x - 1)), 2 * (x - 1)


RATES = {
    "rises slowly": (lambda t: 1e-7 * t, False),
    "falls": (schedules.inverse_sqrt(0.5), True),
    "never moves": (lambda t: 0.0, False),
    "waits": (lambda t: 0.0 if t < 9 else 0.1, True),
    "cosine that ends": (schedules.cosine(0.01, 50), False),
    "halves": (schedules.exponential(0.1, 0.5), False),
    "warms up": (schedules.warmup(schedules.constant(0.1), 100), True),
    "constant": (schedules.constant(0.1), True),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", RATES)
def test_a_rate_of_0_is_no_convergence(name, dtype):
    rate, solved = RATES[name]
    options = {"xtol": 1e-6, "gtol": 0, "maxiter": 400}
    res = minimize(square, np.zeros(3, dtype), jac=True, method=SGD(rate), options=options)
    assert res.success == solved
    if solved:
        np.testing.assert_allclose(res.x, 1, atol=1e-4)


def test_steps_that_overshoot_do_not_converge_by_ftol():
    steep = {"jac": True, "method": Adam(lambda t: 10 / t)}
    options = {"ftol": 1e-8, "maxiter": 300, "gtol": 0}
    res = minimize(
        lambda x: (50 * float(x @ x), 100 * x), np.full(3, 0.01), options=options, **steep
    )
    assert res.nit > 100  # the first 50 steps find nothing better than x0
    assert not res.success or abs(res.jac).max() < 0.01


@pytest.mark.parametrize("compiled", [False, True])
def test_an_error_of_a_later_rate_waits_for_its_step(compiled):
    def rate(t):
        if t == 5:
            raise ValueError("no fifth rate")
        return 0.1

    @njit
    def fill(x, grad):
        grad[:] = 2 * (x - 1)
        return ((x - 1) ** 2).sum()

    fun, jac = (fill, "inplace") if compiled else (square, True)
    run = functools.partial(minimize, fun, np.zeros(2), jac=jac, method=SGD(rate))
    assert run(options={"maxiter": 4}).nit == 4
    with pytest.raises(ValueError, match="no fifth rate") as caught:
        run()
    assert caught.value.intermediate_result.nit == 4
    if compiled:
        X0 = np.zeros((3, 2))
        res = minimize_many(fill, X0, jac=jac, method=SGD(rate), options={"maxiter": 4})
        assert (res.nit == 4).all()


def test_ftol_on_a_resumed_run_waits_for_its_window(tmp_path):
    path = tmp_path / "run"
    first = {"maxiter": 80, "checkpoint": path}
    minimize(square, np.zeros(3), jac=True, method=SGD(1e-3), options=first)
    res = minimize(
        square, np.zeros(3), jac=True, method=SGD(1e-3),
        options={"maxiter": 200, "resume": path, "ftol": 1e-3, "gtol": 0},
    )  # fmt: skip
    assert (res.success, res.nit) == (False, 200)  # it falls by more than 1e-3 in 50 iterations


# ---- no wrong numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [SGD(0.1), AdaBelief(0.1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_infinite_limit_is_none(rule, dtype):
    g = np.array([3.0, -1e30], dtype)
    ends = []
    for limits in ({}, {"max_norm": math.inf}, {"max_value": math.inf}):
        x = np.ones(2, dtype)
        Optimizer(rule, x, **limits).step(g)
        ends.append(x.tobytes())
        res = minimize(square, np.zeros(2), jac=True, options=limits)
        ends.append(res.x.tobytes())
    assert len(set(ends[::2])) == len(set(ends[1::2])) == 1


MASKED = np.ma.array([1.0, 2.0], mask=[False, True])


@pytest.mark.parametrize(
    "call",
    [
        lambda: minimize(square, MASKED, jac=True),
        lambda: minimize(lambda x: MASKED[1], [1.0], jac="2-point"),
        lambda: minimize(lambda x: MASKED[:1], [1.0], jac="2-point"),
        lambda: minimize(lambda x: 1.0, [1.0, 2.0], jac=lambda x: MASKED),
        lambda: minimize(lambda x: (1.0, MASKED), [1.0, 2.0], jac=True),
        lambda: Optimizer(Adam(), np.ones(2)).step(MASKED),
        lambda: Optimizer(Adam(), MASKED.copy()),
        lambda: minimize_many(square, np.ma.array([[1.0]], mask=True), jac=True),
        lambda: minimize_stochastic(
            lambda x, a: (1.0, x), np.ones(2), MASKED, batch_size=1, epochs=1, jac=True
        ),
        lambda: sets.Box(MASKED, 3.0),
        lambda: sets.Ball(1.0).project(MASKED),
    ],
)
def test_masked_arrays_are_refused(call):
    with pytest.raises(TypeError, match="must not be a masked array"):
        call()


@pytest.mark.parametrize(("period", "factor"), [(10, 2), (1, 2), (7, 3), (3, 10)])
def test_sgdr_restarts_at_every_whole_number(period, factor):
    schedule, begins, length = schedules.sgdr(1.0, period, factor), 1, period
    while begins + length < 2**53:
        assert schedule(begins) == 1.0
        assert schedule(begins + length - 1) < 0.9 or length < 4
        begins, length = begins + length, length * factor


@pytest.mark.parametrize(
    ("x", "inside"),
    [([0.5, 0.5], True), ([0.5, 1.5], False), ([np.nan, 0.5], False), ([[0.5, 1], [0, 0]], True)],
)
def test_a_box_contains_points_of_its_size(x, inside):
    assert sets.Box([0, 0], [1, 1]).contains(x) is inside


def test_a_box_has_no_points_at_infinity():
    assert not sets.Box().contains([np.inf])
    assert not sets.Box().contains([np.nan, 1.0])
    for x in ([0.5], [0.5] * 3, 0.5):
        with pytest.raises(ValueError, match="x must have 2 coordinates"):
            sets.Box([0, 0], [1, 1]).contains(x)


def test_a_copy_is_an_optimizer_of_its_own():
    opt = Optimizer(Adam(0.1), np.ones(3), bounds=[(-2, 2)] * 3)
    opt.step(np.ones(3))
    for other in (copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        before = opt.x.tobytes(), opt.t
        other.step(np.ones(3))
        assert (opt.x.tobytes(), opt.t) == before
        assert other.t == opt.t + 1
        assert not np.shares_memory(opt.x, other.x)


@pytest.mark.parametrize("name", ["rule", "x", "learning_rate", "inner", "feasible_set", "t"])
def test_what_an_optimizer_is_made_of_cannot_be_set(name):
    opt = Optimizer(Adam(0.1), np.ones(3))
    with pytest.raises(AttributeError):
        setattr(opt, name, 0.5)


# ---- errors that say what is wrong --------------------------------------------------------------

HUGE = 10**400
ARRAY = np.array([1.0, 2.0])


@pytest.mark.parametrize(
    "options",
    [
        {name: ARRAY}
        for name in (
            "maxiter", "gtol", "ftol", "xtol", "target", "maxtime", "disp", "progress", "iterate",
            "return_all", "history", "checkpoint", "checkpoint_every", "resume", "compiled",
            "max_norm", "max_value", "finite_difference", "beta1", "amsgrad",
        )
    ] + [{"learning_rate": np.ones((2, 2))}],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_options_are_checked_before_any_work(options):
    calls = []

    def fun(x):
        calls.append(x)
        return square(x)

    with pytest.raises((TypeError, ValueError)) as caught:
        minimize(fun, [0.0, 1.0], jac=True, options=options)
    assert next(iter(options)) in str(caught.value)
    assert "ambiguous" not in str(caught.value)
    assert not calls


@pytest.mark.parametrize("name", ["target", "max_norm", "max_value", "bounds", "feasible_set"])
def test_an_optimizer_checks_its_arguments(name):
    with pytest.raises((TypeError, ValueError)) as caught:
        Optimizer(Adam(), np.ones(3), **{name: ARRAY})
    assert name in str(caught.value)
    assert "ambiguous" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: minimize(square, [0.0], jac=True, options={"gtol": HUGE}),
        lambda: minimize(square, [0.0], jac=True, tol=HUGE),
        lambda: minimize(square, [0.0], jac=True, options={"maxtime": HUGE}),
        lambda: Adam(HUGE),
        lambda: Adam(beta1=HUGE),
        lambda: Optimizer(Adam(), np.ones(2), max_norm=HUGE),
        lambda: schedules.constant(HUGE),
        lambda: schedules.cosine(0.1, HUGE),
    ],
)
def test_integers_beyond_floats_are_refused(call):
    with pytest.raises(ValueError, match=r"must be .* got an? (larger )?integer"):
        call()


# ---- online -------------------------------------------------------------------------------------


def quartic(z, y):
    gap = z - y
    return gap**4, 4 * gap**3, 12 * gap**2


@pytest.mark.parametrize(
    "base",
    [
        online.LinearLosses, online.SquaredLosses, online.AbsoluteLosses, online.LogisticLosses,
        online.HingeLosses, online.PortfolioLosses,
    ],
)  # fmt: skip
def test_another_formula_inherits_no_proofs(base):
    """What a class of losses knows of its formula is not true of another formula."""

    class Quartic(base):
        loss = staticmethod(quartic)

        def __init__(self, targets):
            online.Losses.__init__(self, targets=targets)

    targets = np.random.default_rng(0).uniform(-1, 1, 60)
    result = online.play(SGD(0.05), Quartic(targets), sets.Box(-1, 1))
    grid = np.linspace(-1, 1, 4001)
    least = ((grid[:, None] - targets) ** 4).sum(axis=1).min()
    true = result.loss.sum() - least
    assert result.regret.final.lower <= true + 1e-4  # the grid's spacing
    assert true <= result.regret.final.upper + 1e-4


def test_what_a_subclass_says_of_its_own_formula_holds():
    class Mine(online.SquaredLosses):
        nonnegative = True
        loss = staticmethod(quartic)

    assert Mine.nonnegative
    assert not Mine.quadratic
    assert not Mine.smooth


@pytest.mark.parametrize(
    "options",
    [{"max_norm": 1.0}, {"maxtime": 3}, {"patience": 2}, {"checkpoint": "x"}, {"progress": True}],
)
def test_a_game_refuses_options_that_it_does_not_have(options):
    losses = online.LinearLosses(np.ones((5, 1)))
    for method in ("adam", SGD(0.1)):
        with pytest.raises(ValueError, match="options"):
            online.play(method, losses, sets.Box(-1, 1), options=options)
    online.play("adam", losses, sets.Box(-1, 1), options={"learning_rate": 0.1, "beta1": 0.5})


# ---- what is printed and warned ------------------------------------------------------------------


def test_rows_are_silent(capsys):
    minimize_many(square, np.ones((3, 1)), jac=True, options={"disp": True, "compiled": False})
    assert capsys.readouterr().out.count("\n") == 1


def test_a_warning_comes_once():
    with pytest.warns(UserWarning, match="beta1=0") as caught:
        rule = AdaBelief(beta1=0, weight_decay=0.1)
    assert len(caught) == 1
    with pytest.warns(OptimizeWarning, match="weight_decay") as caught:
        minimize(square, [0.0], jac=True, method=rule)
    assert not [each for each in caught if "beta1" in str(each.message)]


# ---- files --------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A file of an optimizer after a few steps, and its arrays and header."""
    path = tmp_path / "run.npz"
    opt = Optimizer(AdaBelief(0.1), np.ones(3), bounds=[(-2, 2)] * 3)
    for _ in range(3):
        opt.step(opt.x.copy())
    opt.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return path, arrays


def rewrite(path, arrays, **changes):
    header = json.loads(str(arrays["numbelief"]))
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value
        else:
            header[name] = value
    np.savez(path, **{**arrays, "numbelief": np.array(json.dumps(header))})


def clock_of(arrays, **fields):
    clock = arrays["clock"].copy()
    for name, value in fields.items():
        clock[name] = value
    return clock


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rule", None), ("rule", 3), ("rule", {}), ("rule", {"name": "adam"}),
        ("rule", {"name": ["adam"], "hyperparameters": {}}),
        ("rule", {"name": "adam", "hyperparameters": {"learning_rate": {"kind": "fast"}}}),
        ("rule", {"name": "adam", "hyperparameters": {"learning_rate": 0.1, "beta1": 7}}),
        ("max_norm", -1), ("max_norm", "much"), ("max_value", [1, 2]), ("n", {}), ("dtype", 8),
        ("lower", np.zeros((3, 3))), ("upper", np.full(3, np.nan)), ("x", np.zeros(0)),
        ("state", np.zeros(7)), ("clock", np.zeros(1)), ("t", -5), ("bias1", 3.0),
        ("beta2", np.nan),
    ],
)  # fmt: skip
def test_a_crafted_file_is_a_value_error(name, value, saved):
    path, arrays = saved
    if name in ("t", "bias1", "beta2"):
        name, value = "clock", clock_of(arrays, **{name: value})
    rewrite(path, arrays, **{name: value})
    x = np.full(3, 9.0)
    with pytest.raises(ValueError, match="checkpoint"):
        Optimizer.load(path, x)
    assert (x == 9).all()


@pytest.fixture
def run_file(tmp_path):
    """The file of a run, its arrays, and a call that goes on with it."""
    path = tmp_path / "run.npz"
    given = {"jac": True, "method": Adam(0.05)}
    kept = {"history": True, "return_all": True, "gtol": 0}
    minimize(square, np.zeros(3), options={"maxiter": 6, "checkpoint": path, **kept}, **given)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}

    def go_on():
        return minimize(
            square, np.zeros(3), options={"maxiter": 9, "resume": path, **kept}, **given
        )

    return path, arrays, go_on


@pytest.mark.parametrize("value", [-1, -5, -(10**9)])
@pytest.mark.parametrize("name", ["nit", "best_nit", "still"])
def test_counts_of_a_file_are_not_negative(name, value, run_file):
    path, arrays, go_on = run_file
    arrays["control"][name] = value
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="is not a readable numbelief checkpoint"):
        go_on()


def test_a_file_may_have_its_arrays_in_any_order_of_memory(run_file):
    path, arrays, go_on = run_file
    usual = go_on()
    turned = {name: np.asfortranarray(each) for name, each in arrays.items() if each.ndim > 1}
    np.savez(path, **(arrays | turned))
    other = go_on()
    assert usual.x.tobytes() == other.x.tobytes()
    assert square(other.x)[0] == other.fun
    np.testing.assert_array_equal(usual.allvecs, other.allvecs)


@pytest.mark.parametrize(("name", "value"), [("pairs", -(10**12)), ("probes", 10**12)])
def test_a_search_of_a_file_is_one_that_can_be(name, value, tmp_path):
    path = tmp_path / "run.npz"
    minimize(square, np.zeros(3), jac=True, options={"maxiter": 1, "checkpoint": path})
    with np.load(path) as file:
        arrays = {each: file[each] for each in file.files}
    arrays["search"][name] = value
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="is not a readable numbelief checkpoint"):
        minimize(square, np.zeros(3), jac=True, options={"resume": path})


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_with_more_in_it_is_refused(compressed, saved):
    path, arrays = saved
    save = np.savez_compressed if compressed else np.savez
    save(path, **arrays, more=np.zeros(1000))
    with pytest.raises(ValueError, match="is not a readable numbelief checkpoint"):
        Optimizer.load(path, np.ones(3))
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match="compressed"):
        Optimizer.load(path, np.ones(3))


def test_flipped_bytes_are_a_value_error_or_nothing(saved):
    path, _ = saved
    good, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        bad = bytearray(good)
        bad[random.integers(len(bad))] ^= 1 << random.integers(8)
        path.write_bytes(bad)
        with contextlib.suppress(ValueError):
            Optimizer.load(path, np.ones(3))


def test_what_differs_is_named_and_no_damage(saved):
    path, _ = saved
    for rule, message in (
        (Adam(), "rule adabelief in the file"),
        (AdaBelief(0.2), "learning_rate"),
    ):
        with pytest.raises(ValueError, match="does not match") as caught:
            Optimizer.load(path, np.ones(3), rule=rule)
        assert message in str(caught.value)
        assert "damaged" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="links, modes and devices of POSIX")
def test_saving_leaves_links_modes_and_other_files(tmp_path):
    opt = Optimizer(Adam(), np.ones(2))
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"")
    target.chmod(0o600)
    link.symlink_to(target)
    mine = [tmp_path / f"target.{middle}.tmp" for middle in ("old", "0123abcd", "x.numbelief")]
    left = tmp_path / "target.0123abcd.numbelief.tmp"
    for path in (*mine, left):
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    opt.save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert Optimizer.load(link, np.zeros(2)).t == Optimizer.load(target, np.zeros(2)).t == 0
    assert all(path.exists() for path in mine)
    assert not left.exists()
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(OSError, match="must be a regular file"):
            opt.save(path)
        with pytest.raises(OSError, match="must be a regular file"):
            minimize(square, [0.0], jac=True, options={"checkpoint": path})
