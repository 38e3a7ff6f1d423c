"""minimize: gradient forms, stopping, results, callbacks, checkpoints, SciPy's door."""

import copy
import gc
import subprocess
import sys
import textwrap
import weakref

import cases
import numba
import numpy as np
import pytest
import scipy.optimize
from problems import PROBLEMS, QUADRATIC, ROSENBROCK, rosenbrock, rosenbrock_grad
from scipy.optimize import Bounds, OptimizeResult, OptimizeWarning

from numbelief import AdaBelief, Adam, Rule, minimize, schedules, sets

FAST = {"maxiter": 300}


def both(x):
    return rosenbrock(x), rosenbrock_grad(x)


def inplace(x, grad):
    grad[:] = rosenbrock_grad(x)
    return rosenbrock(x)


@numba.njit
def compiled_fun(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


@numba.njit
def compiled_grad(x):
    gap = x[1] - x[0] ** 2
    return np.array([-2 * (1 - x[0]) - 400 * gap * x[0], 200 * gap])


# ---- every gradient form is the same run


def run(fun=rosenbrock, jac=rosenbrock_grad, **options):
    options = {"maxiter": 200, "history": True, **options}
    return minimize(fun, [-1.2, 1.0], jac=jac, method=Adam(0.01), options=options)


EXACT_FORMS = {
    "jac=True": (both, True),
    "inplace": (inplace, "inplace"),
    "list": (rosenbrock, lambda x: list(rosenbrock_grad(x))),
    "read-only": (rosenbrock, lambda x: np.broadcast_to(rosenbrock_grad(x), (2,))),
    "strided": (rosenbrock, lambda x: np.repeat(rosenbrock_grad(x), 2)[::2]),
    "big-endian": (rosenbrock, lambda x: rosenbrock_grad(x).astype(">f8")),
    "0-d fun": (lambda x: np.array(rosenbrock(x)), rosenbrock_grad),
    "1-element fun": (lambda x: np.array([rosenbrock(x)]), rosenbrock_grad),
    "writes to x": (lambda x: (rosenbrock(x), x.fill(7.0))[0], rosenbrock_grad),
}


@pytest.mark.parametrize("form", EXACT_FORMS)
def test_forms_agree_bit_for_bit(form):
    fun, jac = EXACT_FORMS[form]
    np.testing.assert_array_equal(run(fun, jac).history.fun, run().history.fun)


def test_compiled_functions_work():
    assert run(compiled_fun, compiled_grad).fun == pytest.approx(run().fun, rel=1e-9)


@pytest.mark.parametrize(("jac", "tolerance"), [(None, 1e-4), ("2-point", 1e-4), ("3-point", 1e-7)])
def test_finite_differences(jac, tolerance):
    res = run(jac=jac)
    assert res.fun == pytest.approx(run().fun, rel=tolerance)
    evaluations = {None: 3, "2-point": 3, "3-point": 5}[jac]
    assert (res.nfev, res.njev) == (evaluations * 201, 201)


def test_complex_step_is_exact():
    def smooth(x):
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    assert run(smooth, "cs").fun == pytest.approx(run().fun, rel=1e-12)


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finite_differences_stay_inside_the_bounds(jac, dtype):
    low, high = np.array([0.0, 1.0, 2.0, -1.0]), np.array([1e-9, 1.0, 9.0, 5.0])
    seen = []

    def fun(x):
        seen.append(x)
        return float(((x.astype(float) - 3) ** 2).sum())

    x0 = np.array([0.0, 1.0, 2.0, 5.0], dtype=dtype)
    res = minimize(fun, x0, jac=jac, bounds=Bounds(low, high), method=Adam(0.1), options=FAST)
    assert all((low <= x).all() and (x <= high).all() for x in seen)
    assert res.x[2] == pytest.approx(3, abs=1e-2)
    assert res.x[3] == pytest.approx(3, abs=1e-2)


@pytest.mark.parametrize("option", [{"rel_step": 1e-6}, {"abs_step": 1e-6}])
def test_finite_difference_steps(option):
    steps = []

    def fun(x):
        steps.append(x[0])
        return x[0] ** 2

    minimize(fun, [5.0], options={"maxiter": 0, "finite_difference": option})
    assert steps[1] - steps[0] == pytest.approx(1e-6 * (5 if "rel_step" in option else 1), rel=1e-6)


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_foreign_arrays(package):
    module = pytest.importorskip(package)
    if package == "torch":

        def grad(x):
            return module.tensor(rosenbrock_grad(x), requires_grad=True)

        def fun(x):
            return module.tensor(rosenbrock(x), requires_grad=True)

    else:

        def grad(x):
            return module.numpy.asarray(rosenbrock_grad(x))

        def fun(x):
            return module.numpy.asarray(rosenbrock(x))

    assert run(fun, grad).fun == pytest.approx(run().fun, rel=1e-4)


# ---- points, dtypes, shapes


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finds_the_minimum(problem, dtype):
    res = minimize(
        problem.fun, problem.x0.astype(dtype), jac=problem.grad, method=AdaBelief(problem.rate),
        options={"maxiter": 20_000, "gtol": 1e-3},
    )  # fmt: skip
    assert res.success
    assert res.status == 0
    assert res.x.dtype == dtype
    np.testing.assert_allclose(res.x, problem.minimum, atol=2e-2)


@pytest.mark.parametrize(
    "name", [n for n, r in Rule.registry.items() if "numbelief" in r.__module__]
)
def test_every_rule_by_name_improves(name):
    res = minimize(
        QUADRATIC.fun, QUADRATIC.x0, jac=QUADRATIC.grad, method=name.upper(),
        options={"learning_rate": 0.05, **FAST},
    )  # fmt: skip
    assert res.fun < 0.5 * QUADRATIC.fun(QUADRATIC.x0)
    np.testing.assert_array_equal(res.jac, QUADRATIC.grad(res.x))
    assert res.fun == QUADRATIC.fun(res.x)


def test_x0_is_never_written_and_integers_become_floats():
    x0 = np.array([3, -2, 1])
    res = minimize(QUADRATIC.fun, x0, jac=QUADRATIC.grad, options=FAST)
    assert res.x.dtype == np.float64
    assert x0.tolist() == [3, -2, 1]
    x0 = np.array([3.0, -2.0, 1.0])
    x0.flags.writeable = False
    assert minimize(QUADRATIC.fun, x0, jac=QUADRATIC.grad, options=FAST).x.shape == (3,)


def test_scalar_x0():
    res = minimize(lambda x: (x - 2) ** 2, 0.0, jac=lambda x: 2 * (x - 2), method=Adam(0.1))
    assert res.x.shape == (1,)
    assert res.x[0] == pytest.approx(2, abs=1e-4)


def test_float32_stays_float32():
    seen = set()

    def fun(x):
        seen.add(x.dtype)
        return QUADRATIC.fun(x)

    res = minimize(
        fun, np.float32([3, 2, 1]), jac=QUADRATIC.grad, options={"return_all": True, **FAST}
    )
    assert seen == {np.dtype("f4")}
    assert {res.x.dtype, res.jac.dtype, res.allvecs[-1].dtype} == {np.dtype("f4")}


def test_args():
    res = minimize(
        lambda x, a, b: float(a * (x - b) @ (x - b)), [0.0], (2.0, 3.0),
        jac=lambda x, a, b: 2 * a * (x - b), method=Adam(0.1),
    )  # fmt: skip
    assert res.x[0] == pytest.approx(3, abs=1e-4)
    one = minimize(lambda x, b: float((x - b) @ (x - b)), [0.0], 3.0, method=Adam(0.1))
    assert one.x[0] == pytest.approx(3, abs=1e-4)


def test_user_may_keep_the_points_it_was_given():
    kept = []

    def fun(x):
        kept.append(x)
        return rosenbrock(x)

    res = run(fun, return_all=True)
    np.testing.assert_array_equal(kept, res.allvecs)


# ---- stopping and results


def test_gtol_is_the_infinity_norm():
    res = minimize(QUADRATIC.fun, QUADRATIC.x0, jac=QUADRATIC.grad, method=Adam(0.05), tol=1e-3)
    assert res.success
    assert np.abs(res.jac).max() <= 1e-3
    assert res.message == "Optimization terminated successfully."


def test_gtol_sees_the_projected_gradient():
    res = minimize(
        QUADRATIC.fun, [0.5, 0.5, 0.5], jac=QUADRATIC.grad, bounds=[(0, 0.6)] * 3, method=Adam(0.1)
    )
    assert res.success
    np.testing.assert_allclose(res.x, [0.6] * 3)
    assert np.abs(res.jac).max() > 0.1


def test_gtol_at_the_start():
    res = minimize(QUADRATIC.fun, np.ones(3), jac=QUADRATIC.grad)
    assert (res.nit, res.nfev, res.njev, res.status) == (0, 1, 1, 0)


@pytest.mark.parametrize("options", [{"ftol": 1e-3}, {"xtol": 1e-3}, {"target": 0.1}], ids=str)
def test_other_tolerances(options):
    res = minimize(
        QUADRATIC.fun, QUADRATIC.x0, jac=QUADRATIC.grad, method=Adam(0.05),
        options={"gtol": 0, "maxiter": 5000, "history": True, **options},
    )  # fmt: skip
    assert res.success
    assert 0 < res.nit < 5000
    best = np.minimum.accumulate(res.history.fun)
    if "ftol" in options:
        assert best[-51] - best[-1] <= 1e-3
        assert best[-52] - best[-2] > 1e-3
    if "target" in options:
        assert best[-1] <= 0.1 < best[-2]


def test_maxiter_and_counts():
    res = run(maxiter=17, gtol=0)
    assert (res.nit, res.nfev, res.njev, res.status, res.success) == (17, 18, 18, 1, False)
    assert res.message == "Maximum number of iterations has been exceeded."
    assert run(maxiter=0).nit == 0


def test_maxtime():
    res = run(maxtime=0.05, maxiter=10**9, gtol=0)
    assert (res.status, res.success) == (1, False)
    assert "time" in res.message


def test_a_run_that_cannot_move_ends_with_status_2():
    res = minimize(
        rosenbrock, [-1.2, 1.0], jac=rosenbrock_grad, method="sgd",
        options={"learning_rate": 0.0, "maxiter": 5000},
    )  # fmt: skip
    assert (res.status, res.success, res.nit) == (2, False, 1000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["fun", "jac"])
@pytest.mark.parametrize("at", [0, 12])
@pytest.mark.parametrize("bounds", [None, [(-5, 5)] * 2])
def test_nonfinite_values_end_with_status_3_and_the_best_point(bad, where, at, bounds):
    calls = {"fun": -1, "jac": -1}

    def spoiled(name, value):
        calls[name] += 1
        return bad * np.ones_like(value) if name == where and calls[name] == at else value

    res = minimize(
        lambda x: float(spoiled("fun", rosenbrock(x))), [-1.2, 1.0],
        jac=lambda x: spoiled("jac", rosenbrock_grad(x)), bounds=bounds, method=Adam(0.01),
        options={"iterate": "last"},
    )  # fmt: skip
    assert (res.status, res.success, res.nit) == (3, False, at)
    assert f"iteration {at}" in res.message
    assert np.isfinite(res.x).all()
    if at:
        assert res.fun == rosenbrock(res.x)
        assert np.isfinite(res.jac).all()


def test_iterate():
    options = {"maxiter": 100, "gtol": 0, "return_all": True, "learning_rate": 0.2}
    results = {
        which: minimize(
            rosenbrock, [-1.2, 1.0], jac=rosenbrock_grad, method="adam",
            options={**options, "iterate": which},
        )
        for which in ("best", "last", "average")
    }  # fmt: skip
    points = np.array(results["best"].allvecs)
    values = [rosenbrock(x) for x in points]
    np.testing.assert_array_equal(results["best"].x, points[np.argmin(values)])
    np.testing.assert_array_equal(results["last"].x, points[-1])
    np.testing.assert_allclose(results["average"].x, points.mean(axis=0), rtol=1e-12)
    for res in results.values():
        assert res.fun == rosenbrock(res.x)
        np.testing.assert_array_equal(res.jac, rosenbrock_grad(res.x))


def test_history_and_allvecs():
    rate = schedules.inverse_sqrt(0.1)
    res = minimize(
        rosenbrock, [-1.2, 1.0], jac=rosenbrock_grad, method=Adam(rate),
        options={"maxiter": 30, "history": True, "return_all": True},
    )  # fmt: skip
    np.testing.assert_array_equal(res.history.fun, [rosenbrock(x) for x in res.allvecs])
    norms = [np.abs(rosenbrock_grad(x)).max() for x in res.allvecs]
    np.testing.assert_array_equal(res.history.gradient_norm, norms)
    assert np.isnan(res.history.learning_rate[0])
    np.testing.assert_array_equal(res.history.learning_rate[1:], [rate(t) for t in range(1, 31)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("as_set", [False, True])
def test_bounds_hold_at_every_point(dtype, as_set):
    low, high = np.array([-0.1, 0.1, 0.3]), np.array([0.1, 0.1, 0.7])
    box = {"feasible_set": sets.Box(low, high)} if as_set else {"bounds": Bounds(low, high)}
    res = minimize(
        QUADRATIC.fun, np.array([0.0, 0.1, 0.5], dtype), jac=QUADRATIC.grad, method=Adam(0.3),
        options={"return_all": True, "gtol": 0, **FAST}, **box,
    )  # fmt: skip
    for x in res.allvecs:
        inside = (low <= x) & (x <= high)
        inside[1] = x[1] == dtype(0.1)  # no float32 lies between two equal float64 bounds
        assert inside.all()
    np.testing.assert_allclose(res.x, high, rtol=1e-6)


def test_max_norm_and_max_value():
    steps = {}
    for option in ({"max_norm": 1.0}, {"max_value": 0.5}, {}):
        res = minimize(
            rosenbrock, [-1.2, 1.0], jac=rosenbrock_grad, method="sgd",
            options={"learning_rate": 1.0, "maxiter": 1, "return_all": True, **option},
        )  # fmt: skip
        steps[str(option)] = res.allvecs[1] - res.allvecs[0]
    g = rosenbrock_grad(np.array([-1.2, 1.0]))
    np.testing.assert_allclose(steps["{}"], -g)
    np.testing.assert_allclose(steps["{'max_norm': 1.0}"], -g / np.linalg.norm(g))
    np.testing.assert_allclose(steps["{'max_value': 0.5}"], -np.clip(g, -0.5, 0.5))


# ---- callbacks, printing, progress


def test_callback_of_a_point():
    points = []
    res = minimize(
        rosenbrock, [-1.2, 1.0], jac=rosenbrock_grad, callback=lambda xk: points.append(xk),
        options={"maxiter": 20, "return_all": True},
    )  # fmt: skip
    np.testing.assert_array_equal(points, res.allvecs[1:])


def test_callback_of_a_result_can_stop():
    seen = []

    def callback(intermediate_result):
        seen.append(intermediate_result)
        if intermediate_result.nit == 5:
            raise StopIteration

    res = minimize(rosenbrock, [-1.2, 1.0], jac=rosenbrock_grad, callback=callback)
    assert (res.status, res.success, res.nit) == (99, False, 5)
    assert res.message == "`callback` raised `StopIteration`."
    assert isinstance(seen[0], OptimizeResult)
    assert [r.fun for r in seen] == [rosenbrock(r.x) for r in seen]


def test_a_callback_does_not_change_the_run():
    plain = run()
    res = minimize(
        rosenbrock, [-1.2, 1.0], jac=rosenbrock_grad, method=Adam(0.01),
        callback=lambda x: x.fill(0), options={"maxiter": 200, "history": True},
    )  # fmt: skip
    np.testing.assert_array_equal(res.history.fun, plain.history.fun)


def test_disp_and_progress(capsys):
    run(disp=True, progress=True, maxiter=5)
    out = capsys.readouterr()
    assert "Maximum number of iterations" in out.out
    assert "Iterations: 5" in out.out
    assert "5/5" in out.err


def test_progress_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"numbelief\[progress\]"):
        run(progress=True)


# ---- failures midway


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, StopIteration])
def test_an_exception_is_the_users_own_and_carries_the_result(error, tmp_path):
    calls = [0]

    def fun(x):
        calls[0] += 1
        if calls[0] == 31:
            raise error("mine")
        return rosenbrock(x)

    with pytest.raises(error, match="mine") as caught:
        run(fun, checkpoint=tmp_path / "run.npz", checkpoint_every=10)
    partial = caught.value.intermediate_result
    assert partial.nit == 29
    assert partial.fun == rosenbrock(partial.x) < rosenbrock([-1.2, 1.0])
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
    rest = run(checkpoint=tmp_path / "run.npz", resume=True)
    np.testing.assert_array_equal(rest.history.fun, run().history.fun)


def test_nothing_hides_the_users_exception():
    class Stubborn(Exception):
        def __setattr__(self, name, value):
            raise TypeError("no")

    def fun(x):
        raise Stubborn("mine")

    with pytest.raises(Stubborn, match="mine"):
        run(fun)


def test_of_equal_values_the_flattest_point_is_returned():
    res = minimize(
        lambda x: np.float32(1) + (x * x).sum(), np.ones(3, np.float32), jac=lambda x: 2 * x,
        method=Adam(0.05), options={"gtol": 1e-6},
    )  # fmt: skip
    assert res.success
    assert np.abs(res.jac).max() <= 1e-6


@pytest.mark.parametrize(
    ("x0", "options"),
    [
        (np.full(2, 100, "f4"), {"jac": "2-point", "options": {"abs_step": 1e-9}}),
        (np.full(2, 1e9), {"jac": "3-point", "options": {"abs_step": 1e-9}}),
        (np.ones(2), {"jac": "3-point", "bounds": [(1, np.nextafter(1, 2))] * 2}),
    ],
)
def test_a_difference_step_that_rounding_loses(x0, options):
    step = {"finite_difference": options.pop("options")} if "options" in options else {}
    res = minimize(lambda x: float(x @ x), x0, options={"maxiter": 2, **step}, **options)
    assert np.isfinite(res.jac).all()


def test_a_big_endian_x0_works():
    res = minimize(QUADRATIC.fun, QUADRATIC.x0.astype(">f8"), jac=QUADRATIC.grad, options=FAST)
    assert res.x.dtype == np.float64
    assert res.x.dtype.isnative


# ---- checkpoints


EVERYTHING = {
    "history": True, "return_all": True, "iterate": "average", "xtol": 1e-14, "ftol": 1e-16,
}  # fmt: skip


@pytest.mark.parametrize("stop", [7, 20, 60])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_resumed_run_is_bit_identical(stop, dtype, tmp_path):
    def go(maxiter, **options):
        return minimize(
            rosenbrock, np.array([-1.2, 0.8], dtype), jac=rosenbrock_grad,
            method=AdaBelief(schedules.inverse_sqrt(0.1), amsgrad=True), bounds=[(-2, 0.9)] * 2,
            options={"maxiter": maxiter, **EVERYTHING, **options},
        )  # fmt: skip

    path = tmp_path / "run.npz"
    whole = go(100)
    go(stop, checkpoint=path, checkpoint_every=5)
    rest = go(100, checkpoint=path, resume=True)
    for name in ("x", "fun", "jac", "nit", "njev", "status"):
        np.testing.assert_array_equal(rest[name], whole[name], err_msg=name)
    np.testing.assert_array_equal(rest.allvecs, whole.allvecs)
    for name, values in whole.history.items():
        np.testing.assert_array_equal(rest.history[name], values)
    again = go(100, resume=path)
    assert again.nit == whole.nit


def test_resume_true_starts_anew_without_a_file(tmp_path):
    res = run(checkpoint=tmp_path / "none.npz", resume=True)
    assert res.nit == 200
    assert (tmp_path / "none.npz").exists()


def test_resume_refuses_another_run(tmp_path):
    path = tmp_path / "run.npz"
    run(checkpoint=path, maxiter=5)
    with pytest.raises(ValueError, match="learning_rate = 0.01 in the file, 0.02 given"):
        minimize(
            rosenbrock, [0.0, 0.0], jac=rosenbrock_grad, method=Adam(0.02), options={"resume": path}
        )
    with pytest.raises(ValueError, match="rule adam in the file, adabelief given"):
        minimize(rosenbrock, [0.0, 0.0], jac=rosenbrock_grad, options={"resume": path})
    with pytest.raises(ValueError, match="n = 2 in the file, 3 given"):
        minimize(
            rosenbrock,
            np.zeros(3),
            jac=rosenbrock_grad,
            method=Adam(0.01),
            options={"resume": path},
        )
    with pytest.raises(ValueError, match="bounds"):
        minimize(
            rosenbrock, [0.0, 0.0], jac=rosenbrock_grad, method=Adam(0.01), bounds=[(0, 1)] * 2,
            options={"resume": path},
        )  # fmt: skip
    with pytest.raises(ValueError, match="max_norm"):
        run(resume=path, max_norm=1.0)
    with pytest.raises(FileNotFoundError):
        run(resume=tmp_path / "missing.npz")


@pytest.mark.parametrize(("name", "change"), cases.DAMAGE)
def test_a_damaged_file_is_refused(name, change, tmp_path):
    def go(**options):
        return minimize(
            rosenbrock, [-1.2, 0.8], jac=rosenbrock_grad,
            options={"maxiter": 5, **EVERYTHING, **options},
        )  # fmt: skip

    path = tmp_path / "run.npz"
    go(checkpoint=path)
    cases.damage(path, name, change)
    with pytest.raises(ValueError, match="is not a readable numbelief checkpoint"):
        go(resume=path)


def test_a_checkpoint_that_cannot_be_written_fails_before_any_work(tmp_path):
    calls = []
    for path, error in (
        (tmp_path / "none" / "run.npz", FileNotFoundError),
        (tmp_path, IsADirectoryError),
        (3, TypeError),
        (b"run.npz", TypeError),
    ):
        with pytest.raises(error, match="checkpoint"):
            run(calls.append, checkpoint=path)
    with pytest.raises(TypeError, match="resume must be a path, got 3"):
        run(calls.append, resume=3)
    assert not calls


def test_killed_and_resumed(tmp_path):
    """SIGKILL at any moment leaves a checkpoint from which the run ends on the same bits."""
    script = textwrap.dedent("""
        import sys
        import numpy as np
        from numbelief import Adam, minimize
        from problems import rosenbrock, rosenbrock_grad
        res = minimize(rosenbrock, np.array([-1.2, 1.0]), jac=rosenbrock_grad, method=Adam(0.001),
                       options={"maxiter": 4000, "gtol": 0, "checkpoint": sys.argv[1],
                                "checkpoint_every": 20, "resume": True})
        print(res.x.tobytes().hex(), res.nit, res.nfev)
    """)
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": str(tmp_path)}

    def start(path):
        return subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=environment
        )

    whole, _ = start(tmp_path / "whole.npz").communicate()
    for wait in (1.0, 1.3, 1.6):
        process = start(tmp_path / "run.npz")
        try:
            process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    rest, _ = start(tmp_path / "run.npz").communicate()
    assert rest == whole != b""


# ---- SciPy's door


@pytest.mark.parametrize("jac", [rosenbrock_grad, None, "2-point", True])
def test_scipy_minimize_equals_minimize(jac):
    fun = both if jac is True else rosenbrock
    keywords = {"tol": 1e-4, "options": {"maxiter": 150, "history": True}}
    ours = minimize(fun, [-1.2, 1.0], jac=jac, method=Adam(0.05), **keywords)
    theirs = scipy.optimize.minimize(fun, [-1.2, 1.0], jac=jac, method=Adam(0.05), **keywords)
    np.testing.assert_array_equal(ours.history.fun, theirs.history.fun)
    assert (ours.nfev, ours.njev, ours.status) == (theirs.nfev, theirs.njev, theirs.status)


def test_scipy_minimize_passes_everything_on():
    points = []
    res = scipy.optimize.minimize(
        lambda x, a: float(((x - a) ** 2).sum()), [0.0, 0.0], (3.0,), jac=lambda x, a: 2 * (x - a),
        method=AdaBelief(0.1), bounds=[(None, 1), (0, None)], callback=points.append, tol=1e-6,
    )  # fmt: skip
    assert res.success
    np.testing.assert_allclose(res.x, [1, 3], atol=1e-5)
    assert len(points) == res.nit


def test_scipy_minimize_does_not_freeze_a_stochastic_objective():
    rng = np.random.default_rng(0)
    values = []

    def noisy(x):
        values.append(rng.normal())
        return values[-1], np.ones_like(x)

    res = scipy.optimize.minimize(
        noisy, [0.0], jac=True, method=Adam(0.0),  # with a rate of 0, x never moves
        options={"maxiter": 20, "gtol": 0, "history": True},
    )  # fmt: skip
    np.testing.assert_array_equal(res.history.fun, values)
    assert len(set(values)) == 21


def test_scipy_warns_of_constraints_and_hessians():
    constraint = {"type": "eq", "fun": lambda x: x[0]}
    with pytest.warns(RuntimeWarning, match="constraints"):
        scipy.optimize.minimize(
            rosenbrock, [0.0, 0.0], method=Adam(), constraints=constraint, options=FAST
        )
    with pytest.warns(RuntimeWarning, match="Hessian"):
        scipy.optimize.minimize(
            rosenbrock, [0.0, 0.0], method=Adam(), hess=lambda x: x, options=FAST
        )


def test_basinhopping_and_dual_annealing():
    def bumpy(x):
        return float((x**2).sum() + 3 * np.sin(5 * x).sum())

    def grad(x):
        return 2 * x + 15 * np.cos(5 * x)

    local = {"method": Adam(0.02), "jac": grad, "options": {"maxiter": 500}}
    hopped = scipy.optimize.basinhopping(
        bumpy, [2.0, 2.0], niter=40, stepsize=1.5, minimizer_kwargs=local, rng=1
    )
    annealed = scipy.optimize.dual_annealing(
        bumpy, [(-3, 3)] * 2, maxiter=50, minimizer_kwargs=local, rng=1
    )
    assert hopped.fun == pytest.approx(annealed.fun, abs=1e-4)
    assert annealed.fun == pytest.approx(
        2 * min(bumpy(np.array([t])) for t in np.linspace(-3, 3, 9999)), abs=1e-3
    )


# ---- bad input


ARGUMENTS = {
    "NaN": ({"x0": [1.0, np.nan]}, ValueError, "x0 must be finite, got nan at index 1"),
    "inf": ({"x0": [np.inf, 1.0]}, ValueError, "x0 must be finite, got inf at index 0"),
    "2-D": ({"x0": np.ones((2, 2))}, ValueError, "'x0' must only have one dimension"),
    "empty": ({"x0": []}, ValueError, "x0 must not be empty"),
    "complex": ({"x0": [1j]}, TypeError, "x0 must hold .* got dtype complex128"),
    "object": ({"x0": np.array([1.0, None])}, TypeError, "x0 must hold .* got dtype object"),
    "strings": ({"x0": ["a", "b"]}, TypeError, "x0 must hold .* got dtype <U1"),
    "float16": ({"x0": np.ones(2, "f2")}, TypeError, "x0 must hold .* got dtype float16"),
    "fun": ({"fun": 3}, TypeError, "fun must be callable, got 3"),
    "jac string": ({"jac": "4-point"}, ValueError, "jac must be .* got '4-point'"),
    "jac type": ({"jac": 3.0}, TypeError, "jac must be .* got 3.0"),
    "unknown method": ({"method": "adabeleif"}, ValueError, "did you mean 'adabelief'"),
    "method type": ({"method": Adam}, TypeError, "method must be a rule"),
    "bounds crossed": ({"bounds": [(1, 0), (0, 1)]}, ValueError, "must not exceed .* 1.0 > 0.0"),
    "bounds length": ({"bounds": [(0, 1)]}, ValueError, "each of 2 coordinates, got 1"),
    "Bounds length": ({"bounds": Bounds([0] * 3, [1] * 3)}, ValueError, "length 2, got 3"),
    "bounds NaN": ({"bounds": [(0, np.nan)] * 2}, ValueError, "upper must not be NaN"),
    "bounds form": ({"bounds": 3}, ValueError, "bounds must be a scipy.optimize.Bounds"),
    "bounds twice": (
        {"bounds": [(0, 1)] * 2, "feasible_set": sets.Box(0, 1)}, ValueError, "not both",
    ),
    "feasible_set": ({"feasible_set": (0, 1)}, TypeError, "feasible_set must be a set such as"),
    "callback": ({"callback": 3}, TypeError, "callback must be callable, got 3"),
    "tol": ({"tol": -1.0}, ValueError, "tol must be a number of at least 0, got -1.0"),
    "maxiter": ({"options": {"maxiter": -1}}, ValueError, "maxiter must be .* got -1"),
    "maxiter NaN": ({"options": {"maxiter": np.nan}}, ValueError, "maxiter must be .* got nan"),
    "maxiter type": ({"options": {"maxiter": "9"}}, TypeError, "maxiter must be .* got '9'"),
    "gtol": ({"options": {"gtol": np.nan}}, ValueError, "gtol must be .* got nan"),
    "ftol": ({"options": {"ftol": "a"}}, TypeError, "ftol must be a real number, got 'a'"),
    "maxtime": ({"options": {"maxtime": -1}}, ValueError, "maxtime must be .* got -1"),
    "iterate": ({"options": {"iterate": "first"}}, ValueError, "iterate must be .* got 'first'"),
    "max_norm": ({"options": {"max_norm": 0}}, ValueError, "max_norm must be above 0, got 0"),
    "resume": ({"options": {"resume": True}}, ValueError, "continues from .*checkpoint"),
    "every": ({"options": {"checkpoint_every": 0}}, ValueError, "checkpoint_every must be"),
    "options": ({"options": [1]}, TypeError, r"options must be a dict, got \[1\]"),
    "tol array": ({"tol": np.ones(2)}, TypeError, "tol must be a real number"),
    "ragged": ({"x0": [1, [2]]}, TypeError, "x0 must be convertible"),
    "step shape": (
        {"options": {"finite_difference": {"rel_step": [1, 2, 3]}}}, ValueError, "each of 2",
    ),
    "rate rule": ({"options": {"learning_rate": Adam()}}, TypeError, "learning_rate must be"),
    "step": (
        {"jac": None, "options": {"finite_difference": {"rel_step": 0}}}, ValueError, "rel_step",
    ),
    "rate": ({"options": {"learning_rate": np.nan}}, ValueError, "learning_rate must .* got nan"),
    "beta": ({"options": {"beta1": 1.0}}, ValueError, r"beta1 must be a number in \[0, 1\)"),
    "schedule": (
        {"options": {"learning_rate": lambda t: -1.0}}, ValueError, r"learning_rate\(1\) must be",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments_fail_before_any_work(case):
    changes, error, message = ARGUMENTS[case]
    calls = []

    def fun(x):
        calls.append(x)
        return rosenbrock(x)

    keywords = {"fun": fun, "x0": np.array([-1.2, 1.0]), "jac": rosenbrock_grad, **changes}
    before = copy.deepcopy(keywords["x0"])
    with pytest.raises(error, match=message):
        minimize(**keywords)
    assert not calls
    assert repr(keywords["x0"]) == repr(before)


RETURNS = {
    "gradient shape": (
        {"jac": lambda x: x[:1]},
        ValueError,
        r"jac must have the shape of x, \(2,\)",
    ),
    "gradient 2-D": ({"jac": lambda x: x[None]}, ValueError, r"got \(1, 2\)"),
    "gradient None": ({"jac": lambda x: None}, TypeError, "jac must hold real numbers, got None"),
    "gradient complex": ({"jac": lambda x: x + 0j}, TypeError, "got dtype complex128"),
    "gradient ragged": ({"jac": lambda x: [1, [2]]}, TypeError, "convertible to a NumPy array"),
    "fun vector": ({"fun": lambda x: x}, ValueError, r"fun must return a scalar, got shape \(2,\)"),
    "fun None": ({"fun": lambda x: None}, TypeError, "fun must return a real number, got None"),
    "fun complex": ({"fun": lambda x: 1j}, TypeError, "fun must return a real number, got 1j"),
    "fun string": ({"fun": lambda x: "1"}, TypeError, "fun must return a real number, got '1'"),
    "no pair": ({"fun": rosenbrock, "jac": True}, TypeError, "must return .value, gradient."),
}


@pytest.mark.parametrize("case", RETURNS)
def test_bad_returns(case):
    changes, error, message = RETURNS[case]
    keywords = {"fun": rosenbrock, "x0": [-1.2, 1.0], "jac": rosenbrock_grad, **changes}
    with pytest.raises(error, match=message):
        minimize(**keywords)


def test_a_gradient_that_is_not_filled_in_is_noticed():
    res = minimize(lambda x, grad: rosenbrock(x), [-1.2, 1.0], jac="inplace")
    assert res.status == 3


def test_x0_outside_the_bounds_is_clipped_with_scipys_warning():
    with pytest.warns(OptimizeWarning, match="Initial guess is not within the specified bounds"):
        res = minimize(
            QUADRATIC.fun, [9.0, 0.0, -9.0], jac=QUADRATIC.grad, bounds=[(-1, 1)] * 3,
            options={"return_all": True, **FAST},
        )  # fmt: skip
    np.testing.assert_array_equal(res.allvecs[0], [1, 0, -1])


def test_unknown_options_warn():
    with pytest.warns(OptimizeWarning, match="Unknown solver options: gtoll, beta9"):
        run(gtoll=1, beta9=2)
    with pytest.warns(OptimizeWarning, match="beta1"):  # the rule is an instance: it has its own
        run(beta1=0.5)


def test_options_of_none_are_defaults():
    np.testing.assert_array_equal(run(ftol=None, max_norm=None).x, run().x)
    assert ROSENBROCK.fun(run(maxiter=1e2).x) == run(maxiter=100).fun


def test_a_run_leaves_nothing_behind():
    """A problem that held its own method once kept the data until the garbage collector ran."""

    class Data:
        pass

    data = Data()
    gone = weakref.ref(data)
    gc.collect()
    gc.disable()
    try:
        minimize(lambda x, data: (x @ x, 2 * x), np.ones(2), (data,), jac=True)
        del data
        assert gone() is None
    finally:
        gc.enable()
