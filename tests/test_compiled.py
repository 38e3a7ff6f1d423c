"""The loop compiled whole: the same bits as Python's loop, for every form, option and failure."""

import ctypes
import itertools
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import numpy as np
import pytest
from cases import KERNELS, in_turns
from numba import carray, cfunc, njit, types
from scipy import LowLevelCallable
from scipy.optimize import OptimizeResult

from numbelief import AdaBelief, Adam, minimize, schedules
from numbelief._objective.compiled import _adapter
from numbelief._solve import loop

X0 = np.array([-1.2, 1.0, -1.2, 1.0, 0.5])
BOUNDS = [(-2, 2), (-2, 0.9), (-1.5, 2), (None, 0.8), (-2, 2)]
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0, 1.0])


@njit
def rosen(x, grad, scale, weights):
    """Extended Rosenbrock with weights; it spoils its copy of x."""
    value = 0.0
    grad[:] = 0
    for i in range(x.size - 1):
        gap = x[i + 1] - x[i] * x[i]
        value += scale * (100 * gap * gap * weights[i] + (1 - x[i]) ** 2)
        grad[i] -= scale * (400 * gap * x[i] * weights[i] + 2 * (1 - x[i]))
        grad[i + 1] += scale * 200 * gap * weights[i]
    x[:] = 7
    return value


@njit
def rosen_pair(x, scale, weights):
    grad = np.empty_like(x)
    return rosen(x, grad, scale, weights), grad


@njit
def rosen_value(x, scale, weights):
    return rosen(x, np.empty_like(x), scale, weights)


@njit
def rosen_grad(x, scale, weights):
    return rosen_pair(x, scale, weights)[1]


@njit
def plain(x, grad):
    value = 0.0
    for i in range(x.size):
        value += (i + 1) * (x[i] - 1) ** 2
        grad[i] = 2 * (i + 1) * (x[i] - 1)
    return value


FORMS = {
    "inplace": (rosen, "inplace"),
    "together": (rosen_pair, True),
    "separate": (rosen_value, rosen_grad),
}
ARGS = (0.5, WEIGHTS)


def pointers(number):
    pointer = types.CPointer(number)
    return types.float64(types.intp, pointer, pointer, types.voidptr)


@cfunc(pointers(types.float64))
def c_plain(n, x, grad, data):
    return plain(carray(x, n), carray(grad, n))


@cfunc(pointers(types.float32))
def c_plain_single(n, x, grad, data):
    return plain(carray(x, n), carray(grad, n))


@cfunc("float64(float64[::1], float64[::1])")
def array_plain(x, grad):
    return plain(x, grad)


def same(a, b):
    """Whether two values hold the same bits."""
    if isinstance(a, (dict, OptimizeResult)):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, str):
        return a == b
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def both(fun=rosen, jac="inplace", x0=X0, args=ARGS, method="adabelief", bounds=None, **options):
    """The result of the compiled loop, after a comparison with Python's."""
    compiled, python = (
        minimize(fun, x0, args, method, jac, bounds, options={"compiled": c, **options})
        for c in (True, False)
    )
    different = [k for k in python if not same(compiled[k], python[k])]
    assert not different, {k: (compiled[k], python[k]) for k in different}
    return compiled


# ---- the same bits


# Each kind of loop compiles for seconds: this rule gets two kinds, the others take turns; with
# the automatic rate they share the kind that test_tuning.py compiles.
THOROUGH = ("adabelief",)
# One for each number of slots; test_many.py has the layerwise one, and -m thorough the others.
QUICK = ("sgd", "rmsprop", "adabelief", "amsgrad")
KINDS = [
    pytest.param(
        rule,
        dtype,
        bounded,
        name in THOROUGH,
        id=f"{name}-{dtype.__name__}-{'bounded' * bounded}",
        marks=() if name in QUICK and k == i % 4 else pytest.mark.thorough,
    )
    for i, (name, rule) in enumerate(KERNELS)
    for k, (dtype, bounded) in enumerate(itertools.product((np.float64, np.float32), (False, True)))
    if k == i % 4 or (name in THOROUGH and k == (i + 3) % 4)
]


@pytest.mark.parametrize(("rule", "dtype", "bounded", "thorough"), KINDS)
def test_every_rule(rule, dtype, bounded, thorough):
    def options(dtype, bounded):
        return {
            "x0": np.minimum(X0, 0.8).astype(dtype),
            "bounds": BOUNDS if bounded else None,
            "args": (dtype(0.5), WEIGHTS.astype(dtype)),
        }

    fitting = {"segments": (0, 2)} if getattr(rule, "segments", None) else {}
    rule = replace(rule, **fitting)
    rate = 1e-4 if type(rule).__name__ in ("SGD", "Momentum", "Nesterov") else 0.01
    given = replace(rule, learning_rate=rate)
    given = both(method=given, maxiter=150, history=True, **options(dtype, bounded))
    assert given.nit > 20
    free = replace(rule, learning_rate="auto", weight_decay=0.0)
    kind = (dtype, bounded) if thorough else (np.float64, False)
    automatic = both(method=free, maxiter=60, **options(*kind))
    assert automatic.fun < given.history.fun[0]


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        pytest.param(form, dtype, marks=in_turns((i + k) % 2))
        for i, form in enumerate(FORMS)
        for k, dtype in enumerate((np.float64, np.float32))
    ],
)
def test_every_form(form, dtype):
    fun, jac = FORMS[form]
    args = (dtype(0.5), WEIGHTS.astype(dtype))
    x0 = X0.astype(dtype)
    results = [both(fun, jac, x0, args, method=Adam(rate), maxiter=100) for rate in (0.02, "auto")]
    for result, rate in zip(results, (0.02, "auto"), strict=True):
        other = both(x0=x0, args=args, method=Adam(rate), maxiter=100)
        assert same(result.x, other.x)
    assert same(x0, X0.astype(dtype))


OPTIONS = {
    "everything kept": {"history": True, "return_all": True, "xtol": 1e-12, "iterate": "average"},
    "last": {"iterate": "last"},
    "ftol": {"ftol": 1e-3},
    "xtol": {"xtol": 1e-3},
    "target": {"target": 2.0},
    "clipping": {"max_norm": 1.0, "max_value": 0.5},
    "no iteration": {"maxiter": 0},
}


@pytest.mark.parametrize("rate", [0.02, "auto"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(name, rate):
    both(method=AdaBelief(rate), **{"maxiter": 200, **OPTIONS[name]})


SCHEDULES = {
    "constant": schedules.constant(0.02),
    "inverse_sqrt": schedules.inverse_sqrt(0.1),
    "step_decay": schedules.step_decay(0.05, 0.7, 20),
    "exponential": schedules.exponential(0.05, 0.99),
    "cosine": schedules.cosine(0.05, 150, floor=0.001),
    "sgdr": schedules.sgdr(0.05, 10, T_mult=2),
    "warmup": schedules.warmup(schedules.sgdr(0.05, 10), 13),
    "one's own": lambda t: 0.05 / (1 + t),
    "warmup of one's own": schedules.warmup(lambda t: 0.05 / t, 7),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule(name):
    schedule = SCHEDULES[name]
    result = both(method=AdaBelief(schedule), maxiter=200, history=True)
    expected = [schedule(t) for t in range(1, result.nit + 1)]
    np.testing.assert_allclose(result.history.learning_rate[1:], expected, rtol=1e-14)


def test_many_coordinates():
    """Several blocks, and several blocks of the sums."""
    both(plain, x0=np.linspace(-3, 3, 40_000), args=(), method=Adam(0.1), maxiter=8)


def test_the_automatic_rate_solves_many_coordinates():
    """Threads run from 32,768 on; they once lost what the search had accepted."""

    @njit
    def gentle(x, grad):
        value = 0.0
        for i in range(x.size):
            value += (1 + i % 5) * (x[i] - 1) ** 2
            grad[i] = 2 * (1 + i % 5) * (x[i] - 1)
        return value

    result = minimize(gentle, np.linspace(-3, 3, 40_000), jac="inplace", options={"gtol": 1e-3})
    assert result.success
    np.testing.assert_allclose(result.x, 1, atol=1e-2)


@njit
def of_flags(x, grad, flag, pair):
    (scale, inner), shift = pair
    s = scale * (1.0 + (flag is True)) * (3.0 if inner else 1.0)
    shift = shift if ~flag else -shift
    grad[:] = 2 * s * (x - shift)
    return s * ((x - shift) ** 2).sum()


@pytest.mark.parametrize("flag", [True, np.False_])
@pytest.mark.parametrize("inner", [False, np.True_])
def test_a_bool_is_an_argument(flag, inner):
    """A bool in memory is wider than one that compiled code computes with."""
    result = both(of_flags, args=(flag, ((np.float32(2.5), inner), 2.0)))
    np.testing.assert_allclose(result.x, -2 if flag else 2, atol=1e-5)


def test_defaults_and_stars_are_for_pythons_loop():
    @njit
    def fun(x, grad, goal=2.0, *more):
        grad[:] = 2 * (x - goal)
        return ((x - goal) ** 2).sum()

    for args, goal in (((), 2.0), ((3.0,), 3.0), ((3.0, 4.0), 3.0)):
        result = minimize(fun, X0, args, jac="inplace")
        np.testing.assert_allclose(result.x, goal, atol=1e-5)
    for function in (fun, njit(lambda x, grad, *more: 0.0)):
        with pytest.raises(TypeError, match="fun has a default, a star or"):
            minimize(function, X0, jac="inplace", options={"compiled": True})


# ---- C functions


def test_c_functions():
    expected = both(plain, args=(), method=Adam(0.1), maxiter=100)
    unused = ctypes.c_void_p(0)
    for fun in (c_plain, array_plain, LowLevelCallable(c_plain.ctypes, unused)):
        assert same(both(fun, args=(), method=Adam(0.1), maxiter=100).x, expected.x)
    single = X0.astype(np.float32)
    expected = both(plain, x0=single, args=(), maxiter=100)
    assert same(both(c_plain_single, x0=single, args=(), maxiter=100).x, expected.x)


def test_a_c_function_keeps_its_options():
    @cfunc("float64(float64[::1], float64[::1])", error_model="numpy")
    def divides(x, grad):
        grad[:] = 2 * x
        return x @ x if 1.0 / x[0] > 0 else -1.0

    assert minimize(divides, np.array([0.0, 1.0]), jac="inplace").success


def test_a_c_function_gets_its_data():
    @cfunc(pointers(types.float64))
    def shifted(n, x, grad, data):
        goal = carray(data, n, np.float64)
        value = 0.0
        for i in range(n):
            grad[i] = 2 * (x[i] - goal[i])
            value += (x[i] - goal[i]) ** 2
        return value

    goal = np.array([3.0, -1.0])
    fun = LowLevelCallable(shifted.ctypes, goal.ctypes.data_as(ctypes.c_void_p))
    np.testing.assert_allclose(both(fun, x0=np.zeros(2), args=()).x, goal, atol=1e-5)


@pytest.mark.parametrize(
    ("fun", "x0", "options"),
    [
        (c_plain, X0.astype(np.float32), {}),
        (c_plain_single, X0, {}),
        (c_plain, X0, {"args": (1.0,)}),
        (c_plain, X0, {"jac": True}),
        (LowLevelCallable(cfunc("float64(float64)")(lambda x: x).ctypes), X0, {}),
    ],
)
def test_a_c_function_of_another_signature(fun, x0, options):
    with pytest.raises(TypeError, match="C function"):
        minimize(fun, x0, **{"jac": "inplace", **options})


# ---- what happens between iterations


def test_callbacks_see_every_iteration():
    seen = {True: [], False: []}
    for compiled, points in seen.items():
        options = {"compiled": compiled, "maxiter": 20}
        minimize(rosen, X0, ARGS, jac="inplace", callback=points.append, options=options)
    assert same(seen[True], seen[False])
    assert len(seen[True]) == 20

    def stop(intermediate_result):
        if intermediate_result.nit == 3:
            raise StopIteration

    result = minimize(rosen, X0, ARGS, jac="inplace", callback=stop)
    assert (result.nit, result.status) == (3, 99)


def test_progress(capsys):
    minimize(rosen, X0, ARGS, Adam(0.01), "inplace", options={"progress": True, "maxiter": 50})
    assert "50/50" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [0.02, "auto"])
def test_a_resumed_run_ends_on_the_same_bits(tmp_path, rate):
    path = tmp_path / "run.npz"
    options = {"maxiter": 40, "history": True, "return_all": True}
    whole = minimize(rosen, X0, ARGS, AdaBelief(rate), "inplace", options=options)
    for compiled in (True, False):
        half = {**options, "maxiter": 17, "checkpoint": path, "checkpoint_every": 5}
        minimize(rosen, X0, ARGS, AdaBelief(rate), "inplace", options=half)
        resumed = minimize(
            rosen, X0, ARGS, AdaBelief(rate), "inplace",
            options={**options, "resume": path, "compiled": compiled},
        )  # fmt: skip
        assert all(same(whole[k], resumed[k]) for k in whole)


@njit
def endless(x, grad):
    grad[:] = 1.0
    return x[0]


def test_maxtime_ends_a_run():
    options = {"maxtime": 0.05, "maxiter": 10**12}
    minimize(endless, X0, (), Adam(1e-9), "inplace", options={"maxiter": 1})  # compiles
    result = minimize(endless, X0, (), Adam(1e-9), "inplace", options=options)
    assert (result.status, result.message) == (1, "Maximum time has been exceeded.")
    assert result.nit > 1000


def test_ctrl_c_keeps_the_best_point():
    minimize(endless, X0, (), Adam(1e-9), "inplace", options={"maxiter": 1})  # compiles
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        minimize(endless, X0, (), Adam(1e-9), "inplace", options={"maxiter": 10**12})
    timer.join()
    assert caught.value.intermediate_result.fun < X0[0]


# ---- exceptions


@njit
def raises(x, grad):
    if x[0] > 1:
        raise ValueError("x[0] is above 1")
    grad[:] = 0
    grad[0] = -1
    return -x[0]


@njit
def raises_value(x):
    if x[0] > 1:
        raise ZeroDivisionError("far")
    return -x[0]


@njit
def minus_one(x):
    return np.array([-1.0, 0.0])


@pytest.mark.parametrize(
    ("fun", "jac", "error"),
    [(raises, "inplace", ValueError), (raises_value, minus_one, ZeroDivisionError)],
)
@pytest.mark.parametrize("rate", [0.1, "auto"])
def test_the_users_exception_arrives(fun, jac, error, rate):
    found = []
    for compiled in (True, False):
        with pytest.raises(error) as caught:
            minimize(fun, [0.5, 0.0], (), Adam(rate), jac, options={"compiled": compiled})
        found.append(caught.value)
    assert found[0].args == found[1].args
    assert same(*(each.intermediate_result for each in found))


def test_an_exception_that_calling_again_would_not_give():
    @njit
    def fifth(x, grad, count):
        count[0] += 1
        if count[0] == 5:
            raise ValueError("at most four", count[0])
        grad[:] = 2 * x
        return (x * x).sum()

    for compiled in (True, False):
        count = np.zeros(1)
        with pytest.raises(ValueError, match="at most four") as caught:
            minimize(fifth, X0, count, Adam(0.01), "inplace", options={"compiled": compiled})
        assert (caught.value.args[1], count[0]) == (5, 5)
        result = caught.value.intermediate_result
        assert (result.nit, result.nfev, result.njev) == (3, 4, 4)


def test_an_exception_at_the_first_point():
    with pytest.raises(ValueError, match="x\\[0\\] is above 1"):
        minimize(raises, [2.0, 0.0], jac="inplace")


def test_a_gradient_of_another_length():
    @njit
    def short(x):
        return x[: x.size - (x[0] < 0.4)]

    @njit
    def half_square(x):
        return 0.5 * (x * x).sum()

    with pytest.raises(ValueError, match=r"shape of x, \(2,\), got \(1,\)"):
        minimize(half_square, [0.5, 0.5], jac=short, method=Adam(0.1))


# ---- bad input

NOT_COMPILED = {
    "jac": (rosen_value, lambda x, scale, weights: x, {}),
    "fun": (lambda x, grad: 0.0, "inplace", {"compiled": True}),
    "differences": (rosen_value, "2-point", {"compiled": True}),
}


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_what_is_not_compiled(name):
    fun, jac, options = NOT_COMPILED[name]
    x0 = X0.copy()
    said = "jac='2-point' takes finite" if name == "differences" else f"{name} is not compiled"
    with pytest.raises(TypeError, match=said):
        minimize(fun, x0, ARGS, jac=jac, options=options)
    assert same(x0, X0)


@njit
def no_value(x, grad):
    grad[:] = x


@njit
def integer_value(x, grad):
    grad[:] = x
    return 1


@njit
def single_gradient(x):
    return x.astype(np.float32)


@njit
def matrix(x):
    return x.reshape(1, -1)


@njit
def value(x):
    return 0.5 * x @ x


@njit
def does_not_compile(x, grad):
    return x.no_such_method()


WRONG = {
    "too few arguments": (plain, "inplace", ARGS, "fun\\(x: array\\(float64, 1d, C\\), grad"),
    "no value": (no_value, "inplace", (), "-> float64; it returns none"),
    "an integer": (integer_value, "inplace", (), "it returns"),
    "a float32 gradient": (value, single_gradient, (), "jac must be .* returns array\\(float32"),
    "a matrix": (value, matrix, (), "it returns array\\(float64, 2d"),
    "no pair": (value, True, (), "\\(float64, array\\(float64, 1d, C\\)\\); it returns float64"),
    "does not compile": (does_not_compile, "inplace", (), "no_such_method"),
    "a dict": (plain, "inplace", ({},), "args\\[0\\]: a number, an array or a tuple of these"),
    "a list": (plain, "inplace", (1, [1.0]), "float64; args\\[1\\] is of type list"),
    "text in a tuple": (plain, "inplace", (("a",),), "args\\[0\\] is of type tuple"),
    "nothing": (plain, "inplace", (None,), "args\\[0\\] is of type NoneType"),
    "swapped bytes": (plain, "inplace", (np.zeros(2, ">f8"),), "an array of dtype >f8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_function_is_refused(name):
    fun, jac, args, message = WRONG[name]
    x0 = X0.copy()
    with pytest.raises(TypeError, match=message) as caught:
        minimize(fun, x0, args, jac=jac)
    assert "{'compiled': False}" in str(caught.value)
    assert same(x0, X0)


def test_python_takes_what_the_compiled_loop_refuses():
    result = minimize(value, X0, jac=single_gradient, options={"compiled": False})
    assert result.success


@pytest.mark.parametrize("where", [-1, 0, 3, 1000])
@pytest.mark.parametrize("value", [-7.0, np.nan])
def test_writing_beyond_the_gradient(where, value):
    @njit
    def careless(x, grad):
        grad[:] = 0
        grad[x.size + where if where >= 0 else -x.size + where] = value
        return 0.0

    x0 = np.zeros(4)
    with pytest.raises(ValueError, match="fill the 4 numbers of grad, and wrote beyond them"):
        minimize(careless, x0, jac="inplace")
    assert not x0.any()


def test_a_forgotten_coordinate_is_nan():
    @njit
    def forgets(x, grad):
        grad[0] = 1.0
        return x[0]

    assert both(forgets, x0=np.zeros(2), args=()).status == 3


def test_compiled_must_be_a_flag():
    with pytest.raises(TypeError, match="compiled must be True, False or None, got 'yes'"):
        minimize(plain, X0, jac="inplace", options={"compiled": "yes"})


# ---- compiled once


def test_a_new_objective_compiles_no_loop():
    rule = Adam(0.1)
    minimize(plain, X0, (), rule, "inplace", options={"maxiter": 2})
    before = loop.compile_run.cache_info().currsize

    @njit
    def another(x, grad, a, b):
        grad[:] = 2 * a * x + b
        return a * (x * x).sum() + (b * x).sum()

    minimize(another, X0, (2, X0), rule, "inplace", options={"maxiter": 2})
    minimize(another, X0, (2.0, X0[0]), rule, "inplace", options={"maxiter": 2})
    assert loop.compile_run.cache_info().currsize == before


def test_the_loop_is_cached_on_disk():
    script = textwrap.dedent("""
        import numba, numpy as np, numbelief
        from numbelief._solve.host import HostLoop
        from numbelief._solve.options import Options
        @numba.njit
        def fun(x, grad):
            grad[:] = 2 * x
            return (x * x).sum()
        rule = numbelief.Adam(0.1)
        numbelief.minimize(fun, np.ones(2), jac="inplace", method=rule)
        opt = numbelief.Optimizer(rule, np.ones(2))
        stats = HostLoop(opt, None, Options(), automatic=False).compiled_loop()[0].stats
        print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
    """)
    for _ in range(2):
        output = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True
        ).stdout
    assert output.split() == ["1", "0"]


def test_functions_for_given_types_only():
    @njit("float64(float64[:], float64[:])")
    def eager(x, grad):
        grad[:] = 2 * x
        return (x * x).sum()

    assert both(eager, args=()).success


SHIFT = 1.0


@pytest.mark.parametrize("signatures", [(), ("float64(float64[::1], float64[::1])",)])
def test_a_recompiled_function(signatures, monkeypatch):
    @njit(*signatures)
    def fun(x, grad):
        grad[:] = 2 * (x - SHIFT)
        return ((x - SHIFT) ** 2).sum()

    for shift in (1.0, 5.0):
        monkeypatch.setitem(globals(), "SHIFT", shift)
        fun.recompile()
        np.testing.assert_allclose(both(fun, args=()).x, shift, atol=1e-5)


def shifted(shift):
    def fun(x, grad, weights):
        grad[:] = 2 * weights * (x - shift)
        return (weights * (x - shift) ** 2).sum()

    return fun


def test_adapters_are_shared():
    before = _adapter.cache_info().currsize
    for shift in (1.0, 2.0):
        fun = njit(shifted(shift))
        assert minimize(fun, X0, (WEIGHTS,), jac="inplace").x == pytest.approx(shift, abs=1e-4)
    assert _adapter.cache_info().currsize <= before + 1
