"""minimize_many: every row is what minimize gives for it alone."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numba
import numpy as np
import pytest
from numba import njit
from scipy.optimize import OptimizeWarning

from numbelief import (
    LAMB,
    AdaBelief,
    Adam,
    minimize,
    minimize_many,
    per_row,
    schedules,
)
from numbelief._objective import compiled
from numbelief._solve import host_rows

RANDOM = np.random.default_rng(3)
STARTS = RANDOM.normal(size=(23, 4))


@njit
def rosen(x, grad):
    value = 0.0
    grad[:] = 0
    for i in range(x.size - 1):
        gap = x[i + 1] - x[i] * x[i]
        value += 100 * gap * gap + (1 - x[i]) ** 2
        grad[i] -= 400 * gap * x[i] + 2 * (1 - x[i])
        grad[i + 1] += 200 * gap
    return value


def rosen_in_python(x, grad):
    return rosen.py_func(x, grad)


@njit
def decay(x, grad, t, y, weight, bias):
    """Squared misfit of a decay; y is a row of data, weight and bias are numbers of a row."""
    value = 0.0
    grad[:] = 0
    for i in range(t.size):
        model = x[0] * np.exp(-x[1] * t[i]) + bias
        value += weight * (model - y[i]) ** 2
        grad[0] += 2 * weight * (model - y[i]) * np.exp(-x[1] * t[i])
        grad[1] -= 2 * weight * (model - y[i]) * x[0] * t[i] * np.exp(-x[1] * t[i])
    return value


TIMES = np.linspace(0, 2, 15)
DECAYS = np.exp(-np.outer(np.linspace(0.5, 2, 23), TIMES))
WEIGHTS = np.linspace(1, 2, 23)
BIASES = np.arange(23) % 2

FIELDS = ("x", "fun", "jac", "nit", "nfev", "njev", "status", "success")


def assert_row(many, row, alone):
    for name in FIELDS:
        mine, other = np.asarray(many[name][row]), np.asarray(alone[name])
        assert mine.astype(other.dtype).tobytes() == other.tobytes(), (name, row, mine, other)


def check_rows(fun=rosen, X0=STARTS, args=(), row_args=lambda i: (), **call):
    many = minimize_many(fun, X0, args, **call)
    for i, x0 in enumerate(X0):
        assert_row(many, i, minimize(fun, x0, row_args(i), **call))
    return many


# ---- rows


BOUNDS = [(-1, 0.9)] * 4
# Each kind of loop compiles for seconds: these share few.
ROWS = [
    (AdaBelief(), np.float32, BOUNDS),
    (AdaBelief(0.02), np.float64, None),
    (AdaBelief(schedules.cosine(0.05, 300)), np.float64, None),
    (LAMB(0.02, segments=(0, 2)), np.float64, BOUNDS),
]


@pytest.mark.parametrize(("rule", "dtype", "bounds"), ROWS)
def test_rows_are_the_bits_of_minimize(rule, dtype, bounds):
    X0 = np.clip(STARTS, -1, 0.9).astype(dtype)
    options = {"maxiter": 300}
    many = check_rows(X0=X0, method=rule, jac="inplace", bounds=bounds, options=options)
    assert many.x.dtype == dtype
    assert many.x.shape == X0.shape
    assert many.best.index == np.argmin(many.fun)
    np.testing.assert_array_equal(many.best.x, many.x[many.best.index])
    assert many.best.fun == many.fun.min()


@pytest.mark.parametrize(
    "options",
    [
        {"iterate": "average"}, {"iterate": "last", "xtol": 1e-4}, {"ftol": 1e-3}, {"target": 1.0},
        {"maxiter": 0}, {"maxiter": 5000},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("rate", [0.02, "auto"])
def test_options(options, rate):
    check_rows(method=AdaBelief(rate), jac="inplace", options={"maxiter": 400, **options})


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_a_bit(threads):
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        check_rows(jac="inplace")
    finally:
        numba.set_num_threads(before)


def row_of_data(i):
    return TIMES, DECAYS[i], WEIGHTS[i], BIASES[i]


DATA = (TIMES, per_row(DECAYS), per_row(WEIGHTS), per_row(BIASES))


def test_each_row_gets_its_data():
    many = check_rows(decay, np.ones((23, 2)), DATA, row_of_data, jac="inplace")
    plain = BIASES == 0
    np.testing.assert_allclose(many.x[plain, 0], 1, atol=1e-3)
    np.testing.assert_allclose(many.x[plain, 1], np.linspace(0.5, 2, 23)[plain], atol=1e-3)
    assert many.success.all()


@njit
def distance(x, grad, goal):
    grad[:] = 2 * (x - goal)
    return ((x - goal) ** 2).sum()


def test_data_without_a_tuple():
    goals = np.array([1.0, 2.0, 3.0])  # as many as variables, which once passed for one row
    many = minimize_many(distance, np.zeros((3, 3)), per_row(goals), jac="inplace")
    np.testing.assert_allclose(many.x, np.repeat(goals, 3).reshape(3, 3), atol=1e-5)
    for args in (per_row(goals), (per_row(goals),)):
        with pytest.raises(TypeError, match="pass one row to minimize"):
            minimize(distance, np.zeros(3), args, jac="inplace")


def test_bools_are_data():
    @njit
    def either(x, grad, flag):
        goal = 1.0 if ~flag else 2.0
        grad[:] = 2 * (x - goal)
        return ((x - goal) ** 2).sum()

    flags = np.arange(23) % 2 == 0
    check_rows(either, STARTS, (per_row(flags),), lambda i: (flags[i],), jac="inplace")


@pytest.mark.parametrize("args", [((per_row(np.ones(23)), 3.0),), (1.0, [per_row(np.ones(23))])])
def test_rows_inside_a_tuple_are_refused(args):
    for call, start in ((minimize_many, STARTS), (minimize, STARTS[0])):
        with pytest.raises(TypeError, match=rf"as a whole, not a part of args\[{len(args) - 1}\]"):
            call(distance, start, args, jac="inplace")


@njit
def with_scratch(x, grad, scratch):
    value = 0.0
    for i in range(x.size):
        scratch[0][i] = x[i] - 1
    for _ in range(200):
        for i in range(x.size):
            value += scratch[0][i] ** 2 / 200
    for i in range(x.size):
        grad[i] = 2 * scratch[0][i]
    return value


def test_scratch_memory_is_for_one_thread():
    """Threads once solved each other's rows."""
    X0 = RANDOM.normal(size=(100, 50))
    with pytest.warns(OptimizeWarning, match="fun writes to an argument") as caught:
        many = minimize_many(with_scratch, X0, ((np.zeros(50),),), jac="inplace")
    assert caught[0].filename == __file__
    assert many.success.all()


def test_an_objective_with_threads_of_its_own():
    """Numba's workqueue ends the process where two threads start others at once."""
    script = textwrap.dedent("""
        import numba, numpy as np, numbelief
        numba.config.THREADING_LAYER = "workqueue"
        @numba.njit(parallel=True)
        def fun(x, grad):
            value = 0.0
            for i in numba.prange(x.size):
                value += x[i] * x[i]
                grad[i] = 2 * x[i]
            return value
        X0 = np.random.default_rng(0).normal(size=(300, 200))
        assert numbelief.minimize_many(fun, X0, jac="inplace").success.all()
        assert numba.threading_layer() == "workqueue"
    """)
    subprocess.run([sys.executable, "-c", script], check=True)


def test_data_of_more_dimensions():
    @njit
    def quadratic(x, matrix, goal):
        grad = 2 * matrix.T @ (matrix @ (x - goal))
        return ((matrix @ (x - goal)) ** 2).sum(), grad

    matrices = RANDOM.normal(size=(5, 3, 2))
    goals = RANDOM.normal(size=(5, 2))[:, ::-1]  # not contiguous
    args = per_row(matrices), per_row(goals)
    many = check_rows(
        quadratic, np.zeros((5, 2)), args, lambda i: (matrices[i], goals[i].copy()), jac=True
    )
    np.testing.assert_allclose(many.x, goals, atol=1e-3)


SCHEDULES = {"own": schedules.cosine(0.05, 300, floor=0.01), "python": lambda t: 0.05 / (1 + t)}


@pytest.mark.parametrize("name", SCHEDULES)
def test_more_steps_than_rates_at_first(name):
    """One rate for each of maxiter steps once took all memory."""
    call = {"method": AdaBelief(SCHEDULES[name]), "jac": "inplace"}
    check_rows(X0=STARTS[:5], **call, options={"maxiter": 3000, "gtol": 1e-300})
    last = minimize_many(rosen, STARTS[:5], **call, options={"maxiter": 10**12, "maxtime": 0.2})
    assert (last.nit > 0).all()


def test_only_the_rates_that_rows_need():
    asked = []
    method = AdaBelief(lambda t: asked.append(t) or 0.1 * 0.99**t)
    many = minimize_many(bowl, STARTS, method=method, jac="inplace", options={"maxiter": 10**6})
    assert many.nit.max() <= len(asked) < 20_000
    with pytest.raises(ValueError, match=r"learning_rate\(2000\)"):
        method = AdaBelief(lambda t: 1e-9 if t < 2000 else -1.0)
        minimize_many(rosen, STARTS, method=method, jac="inplace")


@njit
def bowl_value(x):
    return ((x - 1) ** 2).sum()


@njit
def bowl(x, grad):
    value = 0.0
    for i in range(x.size):
        value += (1 + i % 7) * (x[i] - 1) ** 2
        grad[i] = 2 * (1 + i % 7) * (x[i] - 1)
    return value


@pytest.mark.parametrize("rate", [0.1, "auto"])
def test_rows_as_long_as_minimize_takes_threads_for(rate):
    X0 = RANDOM.normal(size=(2, 40_000))
    check_rows(bowl, X0, method=AdaBelief(rate), jac="inplace", options={"maxiter": 12})


def test_one_row_and_one_variable():
    assert check_rows(X0=STARTS[:1], jac="inplace").success.all()

    @njit
    def square(x):
        return (x[0] - 3) ** 2

    @njit
    def slope(x):
        return 2 * (x - 3)

    assert check_rows(square, STARTS[:, :1].copy(), jac=slope).x == pytest.approx(3, abs=1e-5)


def test_integers_become_floats():
    assert check_rows(X0=[[1, 2, 3, 4]] * 2, jac="inplace").x.dtype == np.float64


# ---- what goes wrong in one row


@njit
def log_of_first(x, grad):
    grad[0] = 1 - 1 / x[0]
    grad[1] = 2 * x[1]
    return x[0] - np.log(x[0]) + x[1] * x[1]


def test_a_row_with_nan_ends_alone():
    X0 = np.array([[2.0, 1.0], [-1.0, 1.0], [np.nan, 1.0], [3.0, 0.0], [np.inf, 0.0]])
    many = minimize_many(log_of_first, X0, jac="inplace")
    assert many.status.tolist() == [0, 3, 3, 0, 3]
    assert many.success.tolist() == [True, False, False, True, False]
    np.testing.assert_array_equal(many.x[[1, 2, 4]], X0[[1, 2, 4]])
    assert np.isnan(many.fun[[1, 2, 4]]).all()
    assert many.nfev.tolist()[1:3] == [1, 0]
    assert many.best.index in (0, 3)
    for row in (0, 1, 3):
        assert_row(many, row, minimize(log_of_first, X0[row], jac="inplace"))
    assert many.message == "2 of 5 problems terminated successfully."


@njit
def raises_for_nan(x, grad):
    if np.isnan(x[0]):
        raise ValueError("NaN")
    grad[:] = 2 * x
    return (x * x).sum()


@pytest.mark.parametrize("row", [0, 1])
def test_a_row_of_nan_is_not_evaluated(row):
    X0 = np.ones((3, 2))
    X0[row, 0] = np.nan
    status = minimize_many(raises_for_nan, X0, jac="inplace").status
    assert status.tolist() == [3 * (i == row) for i in range(3)]


@njit
def raises_for_some(x, grad):
    if x[0] > 2:
        raise ValueError("x[0] is above 2")
    grad[:] = 2 * x
    return (x * x).sum()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.filterwarnings("ignore:fun is not compiled")
def test_an_exception_ends_all_and_names_its_row(compiled):
    X0 = np.array([[1.0, 1.0]] * 5 + [[3.0, 1.0]])
    with pytest.raises(ValueError, match="x\\[0\\] is above 2") as caught:
        minimize_many(raises_for_some, X0, jac="inplace", options={"compiled": compiled})
    assert caught.value.__notes__ == ["in row 5 of X0"]
    result = caught.value.intermediate_result
    assert not result.success[5]
    assert result.status[5] == -1


# ---- stopping


@njit
def endless(x, grad):
    grad[:] = 1.0
    return x[0]


SLOW = {"method": Adam(1e-9), "jac": "inplace"}


@njit
def slow(x, grad):
    total = 0.0
    for i in range(1_000_000):
        total += np.sin(i * x[0])
    grad[:] = 1.0
    return x[0] + 1e-30 * total


@pytest.mark.parametrize("method", [Adam(1e-9), AdaBelief()])
def test_slow_rows_end_in_time(method):
    """At 10 ms an evaluation; the clock once counted for every 1024th only."""
    call = {"method": method, "jac": "inplace"}
    minimize_many(slow, STARTS, **call, options={"maxiter": 0})  # compiles
    started = time.perf_counter()
    options = {"maxiter": 10**6, "maxtime": 0.2, "gtol": 0.0}
    result = minimize_many(slow, STARTS, **call, options=options)
    assert time.perf_counter() - started < 3
    assert set(result.status) == {1}


def test_an_exception_ends_the_other_rows():
    @njit
    def fails_late(x, grad, row, count):
        count[0] += 1
        if row == 1 and count[0] == 100:
            raise ValueError("late")
        grad[:] = 1.0
        return x[0]

    args = per_row(np.arange(2)), per_row(np.zeros((2, 1)))
    with pytest.raises(ValueError, match="late") as caught:
        minimize_many(fails_late, np.ones((2, 2)), args, **SLOW, options={"maxiter": 10**12})
    assert caught.value.__notes__ == ["in row 1 of X0"]


@pytest.mark.parametrize("where", [(compiled, "Objective"), (host_rows, "compile_rows")])
def test_ctrl_c_while_it_compiles(where, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(*where, interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        minimize_many(rosen, STARTS, jac="inplace")
    assert set(caught.value.intermediate_result.status) == {-1}


def test_ctrl_c_gives_the_rows_so_far():
    X0 = np.array([[0.0, 0.0]] + [[1.0, 0.0]] * 6)

    @njit
    def first_is_easy(x, grad):
        grad[:] = 1.0 if x[0] > 0.5 else 0.0
        return x[0]

    minimize_many(first_is_easy, X0, **SLOW, options={"maxiter": 1})  # compiles
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        minimize_many(first_is_easy, X0, **SLOW, options={"maxiter": 10**12})
    timer.join()
    result = caught.value.intermediate_result
    assert result.status.tolist() == [0, -1, -1, -1, -1, -1, -1]
    assert result.fun[0] == 0.0
    assert result.best.index == 0
    assert threading.active_count() < 4


@njit
def never_ends(x, grad):
    grad[0] = 1.0
    return x[0]


@pytest.mark.parametrize("count", [1, 6])
def test_bursts_of_ctrl_c_leave_no_thread(count):
    X0, options = np.zeros((count, 1)), {"maxiter": 10**12}
    minimize_many(never_ends, X0, **SLOW, options={"maxiter": 1})  # compiles
    before, random = threading.active_count(), np.random.default_rng(count)

    def send(waits):
        for wait in waits:
            time.sleep(wait)
            signal.raise_signal(signal.SIGINT)

    for _ in range(100):
        waits = random.uniform(0, [0.02, *[0.002] * random.integers(0, 3)])
        sender = threading.Thread(target=send, args=(waits,))
        raised = False
        try:
            sender.start()
            minimize_many(never_ends, X0, **SLOW, options=options)
        except KeyboardInterrupt:
            raised = True
        while sender.is_alive():  # the rest of the burst comes after the call
            try:
                sender.join()
                time.sleep(0.001)
            except KeyboardInterrupt:
                pass
        assert raised
        assert threading.active_count() <= before + sender.is_alive()


def test_maxtime_is_for_all_rows():
    minimize_many(endless, STARTS, **SLOW, options={"maxiter": 1})  # compiles
    options = {"maxiter": 10**12, "maxtime": 0.2}
    result = minimize_many(endless, STARTS, **SLOW, options=options)
    assert set(result.status) == {1}
    assert (result.nit > 0).any()
    untouched = result.nfev == 0
    np.testing.assert_array_equal(result.x[untouched], STARTS[untouched])


def test_progress_counts_rows(capsys):
    minimize_many(rosen, STARTS, jac="inplace", options={"progress": True})
    assert "23/23" in capsys.readouterr().err


def test_disp(capsys):
    minimize_many(rosen, STARTS, jac="inplace", options={"disp": True})
    assert capsys.readouterr().out == "23 of 23 problems terminated successfully.\n"


# ---- Python's functions


@pytest.mark.parametrize("jac", ["inplace", None])
def test_a_python_fun_says_once_that_it_is_slow(jac):
    def value(x):
        return ((x - 1) ** 2).sum()

    fun = value if jac is None else rosen_in_python
    with pytest.warns(OptimizeWarning, match="fun is not compiled") as caught:
        many = minimize_many(fun, STARTS[:5], jac=jac)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for i in range(5):
        assert_row(many, i, minimize(fun, STARTS[i], jac=jac))


@njit
def of_default(x, grad, goal=2.0):
    grad[:] = 2 * (x - goal)
    return ((x - goal) ** 2).sum()


@pytest.mark.parametrize(
    ("fun", "jac", "compiled", "said"),
    [
        (of_default, "inplace", None, "fun has a default, a star or a keyword"),
        (of_default.py_func, "inplace", None, "fun is not compiled"),
        (bowl_value, None, None, "jac=None takes finite differences"),
        (bowl_value, "2-point", None, "jac='2-point' takes finite differences"),
        (of_default, "inplace", False, None),
    ],
)
def test_why_python_runs_the_rows(fun, jac, compiled, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert minimize_many(fun, STARTS[:2], jac=jac, options={"compiled": compiled}).success.all()
    assert len(caught) == (said is not None)
    assert said is None or said in str(caught[0].message)


@pytest.mark.filterwarnings("ignore:fun is not compiled")
def test_python_and_machine_code_agree():
    for fun, X0, args in ((rosen, STARTS, ()), (decay, np.ones((23, 2)), DATA)):
        compiled, python = (
            minimize_many(fun, X0, args, jac="inplace", options={"compiled": c})
            for c in (True, False)
        )
        for name in FIELDS:
            np.testing.assert_array_equal(compiled[name], python[name])


@pytest.mark.filterwarnings("ignore:fun is not compiled")
@pytest.mark.parametrize("fun", [rosen, rosen_in_python], ids=["compiled", "python"])
def test_no_time_at_all(fun):
    result = minimize_many(fun, STARTS, jac="inplace", options={"maxtime": 0.0})
    for i, x0 in enumerate(STARTS):
        assert_row(result, i, minimize(fun, x0, jac="inplace", options={"maxtime": 0.0}))
    assert set(result.status) == {1}
    np.testing.assert_array_equal(result.x, STARTS)


# ---- bad input

BAD = {
    "one dimension": (STARTS[0], {}, ValueError, r"X0 must have shape \(B, n\).* got \(4,\)"),
    "no row": (STARTS[:0], {}, ValueError, r"with B and n at least 1, got \(0, 4\)"),
    "no variable": (STARTS[:, :0], {}, ValueError, r"got \(23, 0\)"),
    "complex": (STARTS * 1j, {}, TypeError, "X0 must hold float32, float64 or integer"),
    "rows of data": (STARTS, {"args": (1.0, per_row(np.ones(22)))}, ValueError,
                     r"args\[1\] must have one row for each of the 23 rows of X0, got shape \(22,"),
    "python jac": (STARTS, {"jac": lambda x: x}, TypeError, "jac is not compiled"),
    "swapped bytes": (STARTS, {"args": per_row(np.zeros(23, ">f8"))}, TypeError,
                      "per_row of an array of dtype >f8"),
    "bounds": (STARTS, {"bounds": [(0, 1)]}, ValueError, "one pair for each of 4"),
    "history": (STARTS, {"options": {"history": True}}, ValueError, "no option history"),
    "checkpoint": (STARTS, {"options": {"checkpoint": "a"}}, ValueError, "no option checkpoint"),
    "method": (STARTS, {"method": "nadam"}, ValueError, "unknown method 'nadam'"),
    "schedule": (STARTS, {"method": Adam(lambda t: -1.0)}, ValueError, "learning_rate\\(1\\)"),
    "not compiled": (STARTS, {"options": {"compiled": True}, "jac": None}, TypeError, "finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    X0, given, error, message = BAD[name]
    before = X0.copy()
    with pytest.raises(error, match=message):
        minimize_many(rosen, X0, **{"jac": "inplace", **given})
    np.testing.assert_array_equal(X0, before)


@pytest.mark.parametrize(
    ("data", "error"), [(3.0, ValueError), (["a"], TypeError), ([None], TypeError)]
)
def test_per_row_needs_rows_of_numbers(data, error):
    with pytest.raises(error, match="per_row"):
        per_row(data)


def test_writing_beyond_the_gradient_is_caught():
    @njit
    def careless(x, grad):
        for i in range(x.size + 1):
            grad[i] = 0.0
        return 0.0

    with pytest.raises(ValueError, match="wrote beyond"):
        minimize_many(careless, STARTS, jac="inplace")


def test_a_first_point_outside_the_bounds_warns_once():
    with pytest.warns(OptimizeWarning, match="not within") as caught:
        minimize_many(rosen, STARTS, jac="inplace", bounds=[(-0.1, 0.1)] * 4)
    assert len(caught) == 1
    assert caught[0].filename == __file__
