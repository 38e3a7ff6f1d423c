"""minimize with x0 on a GPU, or in Numba's simulator of one: against minimize on the CPU."""

import warnings

import cases
import numba
import numpy as np
import pytest
from card import (
    CAPABILITIES,
    INSTALLED,
    count,
    forms,
    gpu,
    host,
    needs_compiler,
    needs_gpu,
    on_card,
    quiet,
    rules,
)
from problems import rosenbrock, rosenbrock_grad
from scipy.optimize import OptimizeWarning

from numbelief import LAMB, SGD, AdaBelief, minimize, schedules
from numbelief._interop import is_device_array
from numbelief._solve import session
from numbelief._solve.quasi_newton import at_each_coordinate
from numbelief.sets import Ball, Box

if not INSTALLED:
    pytest.skip("no numba-cuda[cu13]", allow_module_level=True)

from numbelief._gpu import launch, points, search, vectors
from numbelief._gpu.card import Card
from numbelief._gpu.compile import for_card, kind_of

SCALES = np.linspace(0.5, 4, 13)
X0 = np.linspace(-2, 3, 13)


def value(x):
    return float((SCALES * (x - 1) ** 2).sum() / 2)


def slope(x):
    return (SCALES * (x - 1)).astype(x.dtype)


FORMS, RULES = forms(value, slope), rules((0, 5))


def compare(dtype, method, form="callable", x0=X0, bounds=None, allowed=64, **options):
    """Minimize on both; return both results."""
    x0 = x0.astype(dtype)
    fun, jac = FORMS[form]
    options = {"history": True, **options}
    given = {"method": method, "bounds": bounds, "options": options}
    card = gpu.to_device(x0)
    ours, theirs = minimize(fun, card, jac=jac, **given), minimize(value, x0, jac=slope, **given)
    np.testing.assert_array_equal(host(card), x0)
    eps = allowed * np.finfo(dtype).eps
    near = {"rtol": eps, "atol": eps}
    np.testing.assert_allclose(host(ours.x), theirs.x, **near)
    np.testing.assert_allclose(host(ours.jac), theirs.jac, **near)
    np.testing.assert_allclose(ours.fun, theirs.fun, **near)
    count = min(ours.nit, theirs.nit) + 1
    for name, figures in theirs.history.items():
        np.testing.assert_allclose(ours.history[name][:count], figures[:count], **near)
    assert is_device_array(ours.x)
    assert ours.nfev == ours.njev >= ours.nit + 1
    assert (ours.success, ours.status, ours.message) == (
        theirs.success, theirs.status, theirs.message
    )  # fmt: skip
    return ours, theirs


# ---- a rate that is given


@quiet
@needs_gpu
@pytest.mark.parametrize("number", range(8))
def test_like_the_cpu(number):
    """Each rule with two forms of gradient, with either dtype, and with bounds or without."""
    name, form = list(RULES)[number % 4], list(FORMS)[(number + number // 4) % 4]
    dtype = np.float64 if name in ("AdaBelief", "LAMB") else np.float32
    bounds = [(-1.5, 2.0), *[(-3, 0.5)] * 12] if name in ("SGD", "LAMB") else None
    x0 = X0 if bounds is None else np.clip(X0, *np.transpose(bounds))
    ours, theirs = compare(dtype, RULES[name], form, x0, bounds, maxiter=6)
    assert (ours.nit, ours.nfev) == (theirs.nit, theirs.nfev) == (6, 7)


@quiet
@needs_gpu
@pytest.mark.parametrize(
    "options",
    [
        {"iterate": "last", "return_all": True},
        {"iterate": "average"},
        {"max_norm": 1.0, "max_value": 0.5},
    ],
    ids=["last", "average", "clipped"],
)
def test_options(options):
    ours, theirs = compare(np.float64, SGD(0.3), maxiter=8, **options)
    if "return_all" in options:
        assert len(ours.allvecs) == 9
        for mine, other in zip(ours.allvecs, theirs.allvecs, strict=True):
            np.testing.assert_allclose(host(mine), other, rtol=1e-13)


@quiet
@needs_gpu
@pytest.mark.parametrize(
    "options",
    [{"gtol": 0.5}, {"target": 3.0}, {"xtol": 0.2}, {"gtol": 0, "ftol": 0.5}],
    ids=["gtol", "target", "xtol", "ftol"],
)
def test_tolerances_end_the_run_at_a_look(options):
    given = {"method": SGD(0.1), "options": {"maxiter": 90, **options}}
    ours = minimize(
        on_card(lambda x: float(x @ x)),
        gpu.to_device(X0[:3]),
        jac=on_card(lambda x: 2 * x),
        **given,
    )
    theirs = minimize(lambda x: float(x @ x), X0[:3], jac=lambda x: 2 * x, **given)
    assert ours.status == theirs.status == 0
    assert theirs.nit <= ours.nit < theirs.nit + points.LOOK_EVERY


@quiet
@needs_gpu
def test_figures_cross_over_once_an_interval(monkeypatch):
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    monkeypatch.setattr(points, "LOOK_EVERY", 5)
    crossed = []
    monkeypatch.setattr(Card, "host", lambda self, a: crossed.append(a.shape) or host(a))
    fun, jac = FORMS["together"]
    result = minimize(fun, gpu.to_device(X0), jac=jac, method=SGD(0.1), options={"maxiter": 17})
    assert (result.nit, result.status) == (17, 1)
    # Is x0 finite; the first point; the first step alone, then five at a time, then one.
    assert len(crossed) == 1 + 1 + 1 + 3 + 1
    assert all(np.prod(shape) <= max(6 * points.COLUMNS, launch.PARTS) for shape in crossed)


@quiet
@needs_gpu
def test_the_best_point_of_all_steps():
    """A rate too large leaves the minimum behind, between two looks."""
    fun, jac = FORMS["callable"]
    options = {"maxiter": 6, "history": True, "gtol": 0}
    method = SGD(lambda t: 0.3 if t < 4 else 3.0)
    ours = minimize(fun, gpu.to_device(X0), jac=jac, method=method, options=options)
    theirs = minimize(value, X0, jac=slope, method=method, options=options)
    assert np.argmin(ours.history.fun) == 3
    np.testing.assert_allclose(host(ours.x), theirs.x, rtol=1e-13)
    assert ours.fun == pytest.approx(min(ours.history.fun))


@quiet
@needs_gpu
@pytest.mark.parametrize("where", ["fun", "jac"])
@pytest.mark.parametrize("iterate", ["best", "last"])
def test_not_finite(where, iterate, monkeypatch):
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    calls = {"fun": 0, "jac": 0}

    def turn(name, result):
        calls[name] += 1
        return result * np.nan if where == name and calls[name] == 5 else result

    result = minimize(
        on_card(lambda x: turn("fun", value(x))), gpu.to_device(X0),
        jac=on_card(lambda x: turn("jac", slope(x))), method=SGD(0.1),
        options={"history": True, "iterate": iterate, "maxiter": 12},
    )  # fmt: skip
    assert (result.status, result.success, result.nit) == (3, False, 4)
    what = "fun is nan" if where == "fun" else "the gradient is not finite"
    assert result.message.endswith(f"At iteration 4, {what}.")
    assert result.fun == min(result.history.fun[:4]) == result.history.fun[3]
    np.testing.assert_allclose(value(host(result.x)), result.fun)
    assert result.history.fun.shape == (5,)


@quiet
@needs_gpu
def test_a_bound_does_not_hide_an_infinite_gradient():
    result = minimize(
        on_card(value), gpu.to_device(X0), method=SGD(0.1), bounds=[(-5, 5)] * 13,
        jac=on_card(lambda x: np.where(x > 0, np.inf, 1.0)), options={"maxiter": 3},
    )  # fmt: skip
    assert (result.status, result.nit) == (3, 0)


@quiet
@needs_gpu
def test_callback():
    seen = []

    def callback(intermediate_result):
        seen.append((intermediate_result.nit, intermediate_result.fun))
        assert is_device_array(intermediate_result.x)
        assert is_device_array(intermediate_result.jac)
        if len(seen) == 4:
            raise StopIteration

    fun, jac = FORMS["together"]
    result = minimize(fun, gpu.to_device(X0), jac=jac, method=SGD(0.1), callback=callback)
    assert [nit for nit, _ in seen] == [1, 2, 3, 4]
    assert (result.status, result.nit, result.fun) == (99, 4, seen[-1][1])
    seen_points = []
    options = {"maxiter": 3}
    minimize(fun, gpu.to_device(X0), jac=jac, method=SGD(0.1), callback=seen_points.append,
             options=options)  # fmt: skip
    assert len(seen_points) == 3
    assert value(host(seen_points[2])) == seen[2][1]


@quiet
@needs_gpu
def test_an_exception_carries_the_best_point(monkeypatch):
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    calls = []

    def fail(x):
        calls.append(value(host(x)))
        if len(calls) == 5:
            raise ZeroDivisionError
        return calls[-1]

    with pytest.raises(ZeroDivisionError) as caught:
        minimize(fail, gpu.to_device(X0), jac=on_card(slope), method=SGD(0.1))
    so_far = caught.value.intermediate_result
    assert (so_far.nit, so_far.fun) == (3, calls[3])
    assert value(host(so_far.x)) == so_far.fun


@quiet
@needs_gpu
def test_maxtime():
    fun, jac = FORMS["callable"]
    options = {"maxtime": 0}
    result = minimize(fun, gpu.to_device(X0), jac=jac, method=SGD(0.1), options=options)
    assert (result.status, result.nit) == (1, 0)
    assert result.message == "Maximum time has been exceeded."


@quiet
@needs_gpu
def test_x0_outside_the_bounds_is_moved():
    message = "Initial guess is not within the specified bounds"
    with pytest.warns(OptimizeWarning, match=message) as caught:
        result = minimize(
            on_card(value), gpu.to_device(X0), jac=on_card(slope), method=SGD(0.1),
            bounds=[(-1, 2)] * 13, options={"maxiter": 0, "iterate": "last"},
        )  # fmt: skip
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(host(result.x), np.clip(X0, -1, 2))


@quiet
@needs_gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("end", [0.1, -0.3, 0.0, 1e30, 1e-30])
def test_a_rounding_error_is_not_outside_the_bounds(end, dtype, monkeypatch):
    """Neither here nor on the CPU, and x0 does not leave the card."""
    crossed = []
    monkeypatch.setattr(Card, "host", lambda self, a: crossed.append(a.shape) or host(a))
    near, box = np.full(13, end, dtype), Box(end, end + 1 + abs(end))
    call = {"method": SGD(0.1), "feasible_set": box, "options": {"maxiter": 0}}
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)
        expected = minimize(value, near, jac=slope, **call)
        result = minimize(on_card(value), gpu.to_device(near), jac=on_card(slope), **call)
    np.testing.assert_array_equal(host(result.x), expected.x)
    beyond = near - dtype(1e-3) * np.maximum(np.abs(near), dtype(1e-3))
    with pytest.warns(OptimizeWarning, match="not within the specified bounds"):
        minimize(value, beyond, jac=slope, **call)
    with pytest.warns(OptimizeWarning, match="not within the specified bounds"):
        minimize(on_card(value), gpu.to_device(beyond), jac=on_card(slope), **call)
    assert crossed and near.shape not in crossed


# ---- the automatic rate


@quiet
@needs_gpu
@pytest.mark.parametrize("bounds", [None, [(-2, 0.5), (-1, 3)]], ids=["free", "bounds"])
def test_rosenbrock_without_a_rate(bounds):
    dtype = np.float64 if bounds is None else np.float32
    x0 = np.array([-1.2, 1.0], dtype)
    card = gpu.to_device(x0)
    given = {"bounds": bounds, "options": {"maxiter": 10, "history": True}}  # more pairs than kept
    ours = minimize(on_card(rosenbrock), card, jac=on_card(rosenbrock_grad), **given)
    theirs = minimize(rosenbrock, x0, jac=rosenbrock_grad, **given)
    np.testing.assert_array_equal(host(card), x0)
    rtol = 1e-9 if bounds is None else 1e-2
    np.testing.assert_allclose(ours.history.fun, theirs.history.fun, rtol=rtol)
    np.testing.assert_allclose(host(ours.x), theirs.x, rtol=rtol)
    assert (ours.nit, ours.nfev, ours.status) == (theirs.nit, theirs.nfev, theirs.status)


@quiet
@needs_gpu
@pytest.mark.parametrize(
    ("rule", "form", "options"),
    [
        (AdaBelief(), "callable", {"max_norm": 1.0}),
        (AdaBelief(), "numbers on the card", {}),
        (LAMB(segments=(0, 5)), "together", {}),
        (AdaBelief(), "inplace", {}),
    ],
    ids=FORMS,
)
def test_quadratics_without_a_rate(rule, form, options):
    compare(np.float64, rule, form, allowed=512, maxiter=3, **options)


@quiet
@needs_gpu
def test_a_search_where_nothing_leads_down():
    """It returns to its base, whose gradient it kept."""
    x0, options = np.array([1.0, 2.0]), {"iterate": "last"}
    fun, jac = np.prod, lambda x: -x[::-1].copy()  # of the wrong sign
    ours = minimize(on_card(fun), gpu.to_device(x0), jac=on_card(jac), options=options)
    theirs = minimize(fun, x0, jac=jac, options=options)
    assert (ours.status, ours.nit) == (theirs.status, theirs.nit)
    np.testing.assert_array_equal(host(ours.x), theirs.x)
    np.testing.assert_array_equal(host(ours.jac), theirs.jac)
    assert ours.status == 2


# ---- checkpoints

AVERAGE = {"iterate": "average", "xtol": 1e-9, "ftol": 1e-9, "history": True, "return_all": True}
RUNS = {
    "average": (AdaBelief(schedules.inverse_sqrt(0.1)), [(-2, 0.9)] * 2, AVERAGE),
    "last": (RULES["Lookahead"], None, {"iterate": "last", "max_norm": 1.0}),
    "best": (SGD(lambda t: 5e-4), None, {"xtol": 0.008}),  # its fifth step is that short
    "auto": (AdaBelief(), [(-2, 0.9)] * 2, AVERAGE | {"iterate": "last"}),
}


class Interrupted(Exception):
    pass


def go(rule, bounds, options, maxiter=5, card=True, calls=None, **more):
    """Minimize on the card or on the CPU; the call of fun after so many is interrupted."""
    left = iter(range(calls)) if calls else None

    def fun(x):
        if left is not None and next(left, None) is None:
            raise Interrupted
        return rosenbrock(x)

    x0 = np.array([-1.2, 0.8])
    functions, x0 = (fun, rosenbrock_grad), gpu.to_device(x0) if card else x0
    fun, jac = map(on_card, functions) if card else functions
    options = {"maxiter": maxiter, "checkpoint_every": 2, **options, **more}
    return minimize(fun, x0, jac=jac, method=rule, bounds=bounds, options=options)


def as_arrays(result):
    """What a result holds, on the host."""
    names = ("x", "jac", "fun", "nit", "nfev", "njev", "status", "message")
    values = [result[name] for name in names]
    values += result.get("history", {}).values()
    values += result.get("allvecs", [])
    return [host(each) if is_device_array(each) else np.asarray(each) for each in values]


def assert_same(ours, theirs, rtol=0):
    """To the bit, or to rounding."""
    for mine, other in zip(as_arrays(ours), as_arrays(theirs), strict=True):
        assert mine.dtype == other.dtype
        if rtol and mine.dtype.kind == "f":
            np.testing.assert_allclose(mine, other, rtol, rtol)
        else:
            np.testing.assert_array_equal(mine, other)


@quiet
@needs_gpu
@pytest.mark.parametrize("name", RUNS)
def test_resumed_runs(name, tmp_path):
    """To the bit where they began, to rounding on the other of card and CPU."""
    whole = go(*RUNS[name])
    assert whole.status == (name != "best")
    for card in (True, False):
        path = tmp_path / f"{card}"
        with pytest.raises(Interrupted):
            go(*RUNS[name], card=card, calls=5, checkpoint=path)
        there = go(*RUNS[name], resume=path)
        assert_same(there, whole, 0 if card else 1e-9)
        if card:
            assert_same(go(*RUNS[name], card=False, resume=path), whole, 1e-9)
            go(*RUNS[name], resume=path, checkpoint=path)
            assert_same(go(*RUNS[name], resume=path), whole)  # it had ended


@quiet
@needs_gpu
def test_a_run_that_had_ended_goes_on_for_other_tolerances(tmp_path, monkeypatch):
    """It was not the last point that ended it, but one before, of a lower gradient."""
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    path = tmp_path / "run"
    rule = SGD(lambda t: 0.5 if t < 6 else 3.0)

    def go(gtol, **options):
        return minimize(
            on_card(lambda x: float(x @ x) / 2), gpu.to_device(X0[:2]), jac=on_card(np.copy),
            method=rule, options={"maxiter": 9, "gtol": gtol, "iterate": "last", **options},
        )  # fmt: skip

    ended = go(0.1, checkpoint=path)
    assert (ended.status, ended.nit) == (0, 9)
    assert abs(host(ended.jac)).max() > 0.1
    assert_same(go(0.1, resume=path), ended)
    on = go(1e-3, resume=path, maxiter=11)
    assert (on.status, on.nit) == (1, 11)
    assert_same(on, go(1e-3, maxiter=11))


@quiet
@needs_gpu
def test_resume_refuses_another_run(tmp_path):
    rule, path = SGD(0.01), tmp_path / "run"
    go(rule, None, {}, 2, checkpoint=path)
    for message, other in {
        "learning_rate = 0.01 in the file, 0.02 given": (SGD(0.02), None, {}),
        "learning_rate = 0.01 in the file, None given": (SGD(), None, {}),
        "other bounds or set": (rule, [(-2, 2)] * 2, {}),
        r"\(None, None\) in the file, \(1.0, None\) given": (rule, None, {"max_norm": 1.0}),
        "without history, average, previous, allvecs": (rule, None, AVERAGE),
    }.items():
        with pytest.raises(ValueError, match=message):
            go(*other, resume=path)


@quiet
@needs_gpu
@pytest.mark.parametrize(("name", "change"), cases.DAMAGE)
def test_a_damaged_file_is_refused(name, change, tmp_path):
    path = tmp_path / "run.npz"
    go(*RUNS["auto"], card=False, checkpoint=path)
    cases.damage(path, name, change)
    with pytest.raises(ValueError, match="is not a readable numbelief checkpoint|without g"):
        go(*RUNS["auto"], resume=path)


# ---- refusals


@needs_gpu
def test_a_strided_x0_is_refused():
    x0 = gpu.to_device(np.ones(8))[::2]
    with pytest.raises(ValueError, match="x0 must be C-contiguous, got a strided view"):
        minimize(on_card(value), x0, jac=on_card(slope))


@needs_gpu
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"jac": None}, ValueError, "jac must be a callable, True or 'inplace' where x0"),
        ({"jac": "2-point"}, ValueError, "finite differences, got '2-point'"),
        ({"fun": 3}, TypeError, "fun must be callable, got 3"),
        ({"fun": numba.njit(value)}, TypeError, "fun must be a Python function of device arrays"),
        ({"options": {"compiled": True}}, TypeError, "a loop in compiled code is not possible"),
        ({"feasible_set": Ball()}, ValueError, "feasible_set must be a Box on a GPU"),
        ({"x0": np.array([1.0, np.nan])}, ValueError, "x0 must be finite"),
        ({"x0": np.array([1, 2])}, TypeError, "x0 must be float32 or float64, got int64"),
        ({"x0": np.ones((2, 2))}, ValueError, "x0 must have one dimension"),
        ({"jac": slope}, TypeError, "grad must be on the GPU, as x is, got"),
        ({"jac": lambda x: gpu.to_device(np.ones(4))}, ValueError, "grad must have the shape"),
        ({"jac": lambda x: x}, ValueError, "grad must not share memory with x"),
        ({"fun": lambda x: x}, ValueError, r"fun must return a scalar, got shape \(13,\)"),
        ({"fun": lambda x: gpu.to_device(np.array([1]))}, TypeError, "a float32 or"),
        ({"fun": lambda x: "low"}, TypeError, "fun must return a real number"),
        ({"fun": lambda x: 1.0, "jac": True}, TypeError, r"must return \(value, gradient\)"),
    ],
)  # fmt: skip
def test_bad_arguments(given, error, message):
    given = {"fun": on_card(value), "jac": on_card(slope), "method": SGD(0.1), "x0": X0} | given
    given["x0"] = gpu.to_device(given["x0"])
    if given["jac"] is slope:
        given["jac"] = lambda x: slope(host(x))
    with pytest.raises(error, match=message):
        minimize(**given)


def test_arrays_that_cannot_be_written_to():
    kind = type("Array", (), {"__cuda_array_interface__": {}, "__module__": "jaxlib._jax"})
    with pytest.raises(TypeError, match="of CuPy, PyTorch or Numba, got one of jaxlib"):
        minimize(value, kind(), jac=slope)


def test_copies_are_made_by_the_arrays_library():
    class Tensor:
        def detach(self):
            return self

        def clone(self):
            return "cloned"

    class Array:
        def copy(self):
            return "copied"

    assert vectors.duplicate(Tensor()) == "cloned"
    assert vectors.duplicate(Array()) == "copied"


# ---- PTX

A, F = np.ones(2, np.float32), np.ones(2)
POINT = (A, A, None, None, None, F, None, None)
POINTS = (A, A, A, A, A, F, F, F)
KEEP = (A, A, 1.0, None, F, None, None, F, 0, 0, A, A, None, None)
KEEP_ALL = (A, A, 1.0, A, F, F, F, F, 0, 0, A, A, A, np.float32(1))


@pytest.fixture
def ptx(monkeypatch):
    """Compile a kernel for arguments that stand for those of a launch, in float32."""
    from numba import cuda

    def compile(kernel, arguments, capability=(9, 0)):
        # Compiling a device function asks for the GPU, only to learn its capability.
        found = type("Device", (), {"compute_capability": capability})
        monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: found)
        text, _ = cuda.compile(
            for_card(kernel), numba.void(*map(kind_of, arguments)),
            abi="numba", device=False, output="ptx", cc=capability,
        )  # fmt: skip
        return text[text.index(".entry") :]

    return compile


S, N = np.float32(1), None
# What is done at each coordinate, by name, without bounds and with them.
EACH = {
    "free": [(A, A, A, N, N), (A, A, A, A, A)],
    "scale": [(A, S)] * 2,
    "subtract": [(A, A)] * 2,
    "difference": [(A, A, A)] * 2,
    "start_from": [(A, A, A, N, N), (A, A, A, A, A)],
    "go": [(A, A, S, A, N, N), (A, A, S, A, A, A)],
    "accept": [(A, A, A, A, A, A)] * 2,
}


@needs_compiler
def test_ptx_at_each_coordinate(ptx):
    launches = {launch.copy_at: (A, A), launch.fill_at: (A, S)}
    for bounded in (False, True):
        at = at_each_coordinate(bounded=bounded)
        assert at.keys() == EACH.keys()
        launches |= {each: EACH[name][bounded] for name, each in at.items()}
    for number, (at, arguments) in enumerate(launches.items()):
        kernel = launch.kernel_at(launch.each_template, at)
        text = ptx(kernel, (arguments,), CAPABILITIES[number % 2])  # in turns
        assert ".f64" not in text
        assert ".local" not in text
        assert not count(r"\bcall", text)


@needs_compiler
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_ptx_of_sums(capability, ptx):
    launches = {
        search._multiply: (A, A, F),
        search._deflect: (A, A, F, 0, 1.0, F, 1),
        search._measure_trial: (A, A, A, A, F, F, F),
    }
    for kernel, arguments in launches.items():
        text = ptx(kernel, arguments, capability)
        assert ".local" not in text
        assert not count(r"\bcall", text)


@needs_compiler
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_ptx_of_observations(capability, ptx):
    launches = {
        vectors.measure_largest: [(A, F)],
        vectors.clip_points: [(A, A, A, S, F)],
        points._measure_point: [POINT, POINTS],
        points._keep_point: [KEEP, KEEP_ALL],
    }
    for kernel, several in launches.items():
        for arguments in several:
            text = ptx(kernel, arguments, capability)
            assert ".local" not in text
            assert not count(r"\bcall", text)
            if kernel is not points._keep_point:
                # The loop over coordinates is in float32: only what it found is converted.
                results = sum(each is F for each in arguments)
                assert count(r"cvt\.f64\.f32", text) == results
