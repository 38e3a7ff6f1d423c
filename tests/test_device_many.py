"""minimize_many on a GPU: every row is, to rounding, what the CPU makes of it.

As in `test_cuda`, Numba's simulator or a GPU runs the rows, and PTX is compiled without either.
"""

import functools
import time
from dataclasses import dataclass
from typing import ClassVar

import numba
import numpy as np
import pytest
from card import INSTALLED, SIMULATED, count, gpu, needs_compiler, needs_gpu, quiet
from numba import types as nb
from scipy.optimize import OptimizeWarning

from numbelief import (
    LAMB,
    SGD,
    AdaBelief,
    Adam,
    AdamW,
    Lookahead,
    Rule,
    minimize_many,
    per_row,
    schedules,
)
from numbelief._solve import session, stopping
from numbelief._solve.minimize import Minimization
from numbelief._solve.options import Options
from numbelief._solve.quasi_newton import RECORD
from numbelief._step.state import TIMESTEP, StepOptions, Synchronization
from numbelief.optimizer import resolve_set
from numbelief.sets import Ball

if not INSTALLED:
    pytest.skip("no numba-cuda[cu13]", allow_module_level=True)

from numbelief._gpu import compile as compiling
from numbelief._gpu import rows as card_rows


def rosen(x, grad):
    value = 0.0
    for i in range(x.size):
        grad[i] = 0
    for i in range(x.size - 1):
        gap = x[i + 1] - x[i] * x[i]
        value += 100 * gap * gap + (1 - x[i]) * (1 - x[i])
        grad[i] -= 400 * gap * x[i] + 2 * (1 - x[i])
        grad[i + 1] += 200 * gap
    return value


def parabola(x, grad, scale, centers, middle):
    """centers are a row of data, middle is a number of a row."""
    value = 0.0
    for i in range(x.size):
        gap = x[i] - centers[i] - middle
        value += scale[i] * gap * gap
        grad[i] = 2 * scale[i] * gap
        x[i] = 0  # its own copy
    return value


def broken(x, grad):
    """NaN where x falls below 0."""
    grad[0] = 1.0
    return x[0] if x[0] >= 0 else np.nan


@functools.cache  # on a card each compiles for seconds
def on_card(function):
    from numba import cuda

    return cuda.jit(device=True)(function)


STARTS = np.random.default_rng(3).normal(size=(5, 2))
FIELDS = ("x", "jac", "fun", "nit", "nfev", "njev", "status", "success")


def host(value):
    return value.copy_to_host() if hasattr(value, "copy_to_host") else value


def check(function=rosen, X0=STARTS, args=(), card_args=None, rtol=1e-7, options=None, **call):
    """Solve the rows on both, and compare."""
    call["jac"] = "inplace"
    # Python's loop gives the bits of the compiled one, and compiles in a quarter of the time.
    mine = minimize_many(function, X0, args, options={**options, "compiled": False}, **call)
    given = gpu.to_device(X0)
    card_args = args if card_args is None else card_args
    its = minimize_many(on_card(function), given, card_args, options=options, **call)
    names = FIELDS
    if call["method"].learning_rate is None and not SIMULATED:
        # A card rounds otherwise, and a search that does may take another step to the same point.
        names, rtol = ("x", "fun", "status"), 1e-4
    for name in names:
        np.testing.assert_allclose(
            host(its[name]), mine[name], rtol=rtol, atol=rtol, equal_nan=True, err_msg=name
        )
        assert host(its[name]).dtype == mine[name].dtype
    np.testing.assert_array_equal(host(given), X0)
    assert its.message == mine.message
    assert its.best.index == np.argmin(np.where(np.isfinite(its.fun), its.fun, np.inf))
    assert its.best.fun == its.fun[its.best.index]
    np.testing.assert_array_equal(host(its.best.x), host(its.x)[its.best.index])
    return its


# ---- rows

BOUNDS = [(-1, 0.5), (-0.3, 2)]
RATES = np.array([0.1, 0.02])
# Each kind of loop compiles for seconds: these share few.
RULES = {
    "fixed": (AdaBelief(0.02), np.float64, None, {}),
    "schedule": (AdaBelief(schedules.cosine(0.1, 25)), np.float64, None, {"ftol": 1e-2}),
    "three-slots": (AdaBelief(0.02, amsgrad=True), np.float32, None, {"target": 1.0}),
    "no-slots": (SGD(lambda t: 1e-3 / t), np.float64, None, {"iterate": "average"}),
    "everything": (
        Lookahead(AdamW(RATES, weight_decay=0.1), 3),
        np.float64,
        BOUNDS,
        {"max_norm": 10.0, "max_value": 4.0, "xtol": 1e-3, "iterate": "last"},
    ),
    "layerwise": (LAMB(0.02, segments=(0, 1), weight_decay=0.1), np.float64, BOUNDS, {}),
    "auto": (AdaBelief(), np.float64, None, {}),
    "auto-bounds": (SGD(), np.float64, BOUNDS, {"max_norm": 10.0}),
}


@quiet
@needs_gpu
@pytest.mark.parametrize(
    "name",
    # Its kernel for the CPU takes long to compile, and is used nowhere else.
    [pytest.param(n, marks=pytest.mark.thorough) if n == "auto-bounds" else n for n in RULES],
)
def test_rows_are_those_of_the_cpu(name):
    rule, dtype, bounds, options = RULES[name]
    X0 = STARTS if bounds is None else np.clip(STARTS, *np.transpose(bounds))
    call = {"method": rule, "bounds": bounds, "options": {"maxiter": 60, **options}}
    rtol = 1e-3 if dtype is np.float32 else 1e-7
    res = check(X0=X0.astype(dtype), rtol=rtol, **call)
    if rule.learning_rate is None:
        assert len({*res.nit}) > 1  # rows end at different iterations


@quiet
@needs_gpu
@pytest.mark.parametrize("rule", [AdaBelief(0.1), AdaBelief()], ids=["rate", "auto"])
def test_each_row_has_its_own_data(rule):
    scale = np.array([1.0, 3.0])
    centers, middles = np.arange(10.0).reshape(5, 2), np.arange(5)
    check(
        parabola,
        args=(scale, per_row(centers), per_row(middles)),
        card_args=(gpu.to_device(scale), per_row(gpu.to_device(centers)), per_row(middles)),
        method=rule,
        options={"maxiter": 30},
    )


@quiet
@needs_gpu
@pytest.mark.parametrize("rate", [0.3, "auto"])
def test_a_row_that_is_not_finite_ends_alone(rate):
    X0 = np.array([[0.5], [np.nan], [-1.0], [40.0], [np.inf]])
    res = check(broken, X0, method=AdaBelief(rate), options={"maxiter": 20})
    assert res.status[[1, 2, 4]].tolist() == [stopping.NONFINITE] * 3
    assert res.nfev[[1, 2, 4]].tolist() == [0, 1, 0]
    assert res.best.index in (0, 3)


@quiet
@needs_gpu
def test_first_points_outside_the_bounds_are_moved():
    fun = on_card(rosen)
    X0 = gpu.to_device(STARTS)
    with pytest.warns(OptimizeWarning, match="not within the specified bounds") as caught:
        res = minimize_many(fun, X0, jac="inplace", bounds=[(0, 0.1)] * 2, options={"maxiter": 0})
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(host(res.x), np.clip(STARTS, 0, 0.1))
    np.testing.assert_array_equal(host(X0), STARTS)


@quiet
@needs_gpu
def test_maxtime_leaves_the_best_so_far(monkeypatch, capsys):
    fun = on_card(rosen)
    X0 = gpu.to_device(STARTS)
    call = {"method": Adam(1e-3), "jac": "inplace"}
    res = minimize_many(fun, X0, **call, options={"maxtime": 0.0})
    assert (res.nfev == 1).all() and (res.status == stopping.MAXITER).all()
    res = minimize_many(fun, X0, **call, options={"maxtime": 1e-9, "disp": True})
    assert (res.nit == 1).all() and (res.status == stopping.MAXITER).all()
    assert capsys.readouterr().out == "0 of 5 problems terminated successfully.\n"
    began = time.perf_counter()
    res = minimize_many(fun, X0, **call, options={"maxtime": 0.2, "maxiter": 10**9, "gtol": 0})
    assert time.perf_counter() - began < 5
    assert (res.nit > 1).all() and (res.status == stopping.MAXITER).all()


@quiet
@needs_gpu
def test_progress_counts_rows_and_an_interrupt_leaves_the_result_so_far(monkeypatch):
    class Bar:
        n, closed = 0, False

        def update(self, count):
            self.n += count
            if interrupts and self.n:
                raise KeyboardInterrupt

        def close(self):
            self.closed = True

    bar, interrupts = Bar(), False
    monkeypatch.setattr(session, "progress_bar", lambda *_: bar)
    fun = on_card(rosen)
    X0 = gpu.to_device(np.array([[1.0, 1.0], [2.0, 1.0]]))
    call = {"method": Adam(0.01), "jac": "inplace", "options": {"maxiter": 5, "progress": True}}
    assert minimize_many(fun, X0, **call).status.tolist() == [0, 1]
    assert (bar.n, bar.closed) == (2, True)
    bar, interrupts = Bar(), True
    with pytest.raises(KeyboardInterrupt) as caught:
        minimize_many(fun, X0, **call)
    so_far = caught.value.intermediate_result
    assert (so_far.status.tolist(), so_far.nit.tolist()) == ([0, stopping.RUNNING], [0, 1])
    assert bar.closed


@dataclass(frozen=True)
class OnCard(Rule):
    """A rule of a user's own, whose function is called like one of ours."""

    slots: ClassVar[tuple[str, ...]] = ("m",)

    @staticmethod
    def update(x, g, c, m):
        m = row(m, g)
        return m, c.rate, m


def row(m, g):
    return max(m / 2, g)


del Rule.registry["oncard"]


@quiet
@needs_gpu
def test_a_rule_of_ones_own():
    x, m = STARTS[:1].copy(), np.zeros(2)
    for _ in range(3):
        grad = np.empty(2)
        rosen(x[0], grad)
        m = np.maximum(m / 2, grad)
        x -= 1e-3 * m
    call = {"method": OnCard(1e-3), "options": {"maxiter": 3, "iterate": "last"}}
    res = minimize_many(on_card(rosen), gpu.to_device(STARTS[:1]), jac="inplace", **call)
    np.testing.assert_allclose(host(res.x), x, rtol=1e-12)


# ---- refusals


def plain(x, grad):
    return 0.0


REFUSED = {
    "one-dimension": ({"X0": np.ones(3)}, ValueError, r"shape \(B, n\), .* got \(3,\)"),
    "no-row": ({"X0": np.ones((0, 3))}, ValueError, r"at least 1, got \(0, 3\)"),
    "no-variable": ({"X0": np.ones((3, 0))}, ValueError, r"at least 1, got \(3, 0\)"),
    "integers": ({"X0": np.ones((3, 2), int)}, TypeError, "float32 or float64 .* got dtype int64"),
    "jac": ({"jac": None}, ValueError, r"jac must be 'inplace', .*fun\(x, grad, \*args\).*None"),
    "jac-apart": ({"jac": plain}, ValueError, "jac must be 'inplace', .*got <function plain"),
    "plain": ({"fun": plain}, TypeError, r"fun must be a device function.*fun\(x, grad\) -> float "
              "that fills grad; got plain, which is none"),
    "cpu": ({"fun": numba.njit(plain)}, TypeError, "fun must be a device function"),
    "arguments": ({"args": (1.0,)}, TypeError, r"fun\(x, grad, args\[0\]\).*got rosen\(x, grad\)"),
    "rows": ({"args": per_row([1.0])}, ValueError, r"args\[0\] must have one row for each of the"),
    "list": ({"args": ([1.0],), "fun": parabola}, TypeError, "fun must be a device function"),
    "set": ({"feasible_set": Ball()}, ValueError, "feasible_set must be a Box on a GPU"),
    "python": ({"options": {"compiled": False}}, ValueError, "compiled must not be False"),
    "history": ({"options": {"history": True}}, ValueError, "no option history"),
    "bounds": ({"bounds": [(0, 1)]}, ValueError, "bounds"),
}  # fmt: skip


@needs_gpu
@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name):
    given, error, message = REFUSED[name]
    call = {"fun": on_card(rosen), "X0": STARTS, "jac": "inplace", **given}
    call["X0"] = gpu.to_device(call["X0"])
    with pytest.raises(error, match=message):
        minimize_many(**call)


@needs_gpu
def test_bad_arguments_are_refused():
    fun = on_card(lambda x, grad, data: 0.0)
    X0 = gpu.to_device(STARTS)
    with pytest.raises(TypeError, match=r"args\[0\] must be a number, an array .* got list"):
        minimize_many(fun, X0, ([1.0],), jac="inplace")
    with pytest.raises(TypeError, match=r"args\[0\]\[1\] must be a number, .* got str"):
        minimize_many(fun, X0, ((1.0, "a"),), jac="inplace")
    with pytest.raises(ValueError, match=r"args\[0\] must be C-contiguous"):
        minimize_many(fun, X0, (gpu.to_device(np.ones(6))[::2],), jac="inplace")
    with pytest.raises(ValueError, match="X0 must be C-contiguous"):
        minimize_many(fun, gpu.to_device(np.ones((4, 4)))[:, ::2], (1.0,), jac="inplace")
    with pytest.raises(ValueError, match="one row for each problem, got a scalar"):
        per_row(gpu.to_device(np.array(1.0)))
    with pytest.raises(TypeError, match="fun is a device function, but X0 is not on a GPU"):
        minimize_many(fun, STARTS, (1.0,), jac="inplace")
    for arg in (X0, per_row(X0)):
        with pytest.raises(TypeError, match=r"args\[0\] is on a GPU, but X0 is not"):
            minimize_many(plain, STARTS, (arg,))


def test_segments_are_blocks_on_the_card():
    edges, owner = np.array([0, 4, 8, 9, 12]), np.array([0, 0, 0, 1])
    options = StepOptions(edges=edges, owner=owner, lookahead=Synchronization(3, 0.5))
    moved = StepOptions(*card_rows._for_card(options, lambda array: array))
    assert (moved.edges.tolist(), moved.owner.tolist()) == ([0, 9, 12], [0, 1])
    expected = options._replace(edges=moved.edges, owner=moved.owner)
    assert all(mine is other or mine == other for mine, other in zip(moved, expected, strict=True))


# ---- PTX


class NoCard:
    """What `numbelief._gpu.rows.Rows` asks of the GPU, with arrays of the host."""

    device_array = staticmethod(np.zeros)
    to_device = staticmethod(np.ascontiguousarray)

    @staticmethod
    def jit(**options):
        from numba import cuda

        return cuda.jit(**options)


@pytest.fixture
def ptx(monkeypatch):
    """Compile the kernel of a call of minimize_many."""
    from numba import cuda

    for module in (compiling, card_rows):
        monkeypatch.setattr(module, "load", lambda: NoCard)

    def compile(rule, dtype, capability, function=rosen, args=(), bounds=None, **options):
        # Compiling a device function asks for the GPU, only to learn its capability.
        device = type("Device", (), {"compute_capability": capability})
        monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
        allowed = resolve_set(None, bounds, 2)
        run = Minimization(None, rule, np.zeros(2, dtype), allowed, Options(**options))
        X0 = np.zeros((3, 2), dtype)
        rows = card_rows.Rows(on_card(function), X0, args, run, stopping.BEST)
        given = (
            np.zeros(2), True, False, rows._start, tuple(rows.outcome), rows._own, rows._numbers,
            rows._options, rows._args,
        )  # fmt: skip
        kernel = rows._kernel
        text, _ = cuda.compile(
            kernel.py_func, nb.void(*map(kernel.typeof_pyval, given)),
            abi="numba", device=False, output="ptx", cc=capability,
        )  # fmt: skip
        assert count(r"\.param", text.split("{")[0]) == words(given)
        return text[text.index(".entry") :]

    return compile


def words(value):
    """The parameters of a kernel that hold an argument: what a launch passes for it."""
    if isinstance(value, tuple):
        return sum(map(words, value))
    return 5 + 2 * value.ndim if isinstance(value, np.ndarray) else 1  # also for None


@needs_compiler
def test_ptx(ptx):
    text = ptx(Adam(0.02), np.float32, (8, 0), bounds=BOUNDS)
    # All functions are in line, and nothing has memory of its own.
    assert not count(r"\bcall", text) and ".local" not in text
    # The update stays float32: the only root in float64 is that of the coefficients, once a step.
    assert count(r"sqrt\.rn\.f32", text) and count(r"sqrt\.rn\.f64", text) == 1
    assert count(r"div\.rn\.f32", text)
    # Rows, coordinates and what lies between them are counted in 64 bits.
    assert count(r"mad\.wide|mul\.wide|mul\.lo\.s64", text)
    assert not count(r"mul\.lo\.s32", text)
    # Records are copied byte by byte where a row begins, and nowhere else.
    words = sum(len(dtype.names) for dtype in (stopping.CONTROL, RECORD, TIMESTEP))
    assert count(r"ld\.(global\.)?[us]8", text) <= 8 * words


@needs_compiler
def test_ptx_of_everything(ptx):
    rule = Lookahead(LAMB(np.array([0.1, 0.2]), segments=(0, 1), weight_decay=0.1), 3)
    args = (2, per_row(np.ones((3, 4))), (1.0, np.ones(2)))
    options = {"max_norm": 1.0, "max_value": 1.0, "ftol": 1e-3, "iterate": "average"}
    text = ptx(
        rule, np.float64, (9, 0), lambda x, grad, i, own, pair: x[i] + own[0] + pair[1][0], args,
        BOUNDS, **options,
    )  # fmt: skip
    assert not count(r"\bcall", text) and ".local" not in text


@needs_compiler
def test_ptx_of_an_automatic_rate(ptx):
    text = ptx(AdaBelief(), np.float64, (9, 0), bounds=BOUNDS)
    assert not count(r"\bcall", text) and ".local" not in text


@needs_compiler
def test_what_does_not_compile_is_told(ptx):
    form = r"fun must be fun\(x: array\(float64, 1d, A\), grad: .*, args\[0\]: int64\) -> float; "
    with pytest.raises(TypeError, match=form + "Numba says:\n"):
        ptx(Adam(0.1), np.float64, (9, 0), lambda x, grad, i: x.nothing, (1,))
    with pytest.raises(TypeError, match=form + "it returns none"):
        ptx(Adam(0.1), np.float64, (9, 0), lambda x, grad, i: None, (1,))
