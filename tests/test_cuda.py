"""The GPU's kernels: against the oracle in Numba's simulator, as PTX, and what is refused.

With numba-cuda installed, ``NUMBA_ENABLE_CUDASIM=1`` simulates a GPU for everything that takes
steps, and without that variable a real GPU runs it; PTX is compiled without either. What is refused
where nothing of this is there runs everywhere.
"""

import copy
import importlib.util
import subprocess
import sys
import types
import weakref
from dataclasses import dataclass
from typing import ClassVar

import cases
import numba
import numpy as np
import pytest
import reference
from card import (
    CAPABILITIES,
    INSTALLED,
    LARGE,
    SIMULATED,
    count,
    gpu,
    host,
    needs_compiler,
    needs_gpu,
    needs_package,
    quiet,
)
from cases import KERNELS, RULES
from test_rules import CLIPPED, DTYPES, OPTIONS, assert_near, schedule, tolerance

from numbelief import (
    LAMB,
    SGD,
    AdaBelief,
    AdaBound,
    Adam,
    AdamW,
    Lookahead,
    Optimizer,
    RMSProp,
    Rule,
    minimize,
    minimize_many,
    minimize_stochastic,
    schedules,
)
from numbelief import _interop as interop
from numbelief._step.kind import Kind, fields_of
from numbelief._step.state import BlockOptions, Scaling
from numbelief.sets import Ball

if INSTALLED:
    from numbelief._gpu import card as card_of
    from numbelief._gpu import launch, step
    from numbelief._gpu.compile import for_card, kind_of


def walk(rule, oracle, x, sequence, allowed=None, **options):
    """Step both; after every step compare x in units of the way so far, and the slots."""
    card = gpu.to_device(x)
    opt = Optimizer(rule, card, **options)
    eps, tiny = np.finfo(x.dtype).eps, np.finfo(x.dtype).tiny
    allowed = 16 * eps if allowed is None else allowed
    length, memory = np.abs(x), dict.fromkeys(getattr(oracle, "state", ()), 0)
    # With coupled decay the slots average g + decay x, whose error is x's: judge x alone.
    coupled = rule.weight_decay and not rule.decoupled if isinstance(rule, Rule) else True
    for g in sequence:
        before = oracle.x
        oracle.step(g)
        opt.step(gpu.to_device(g))
        length = np.maximum(length, np.abs(oracle.x)) + np.abs(oracle.x - before)
        assert_near(host(card), oracle.x, allowed * length)
        for key in () if coupled else memory:
            memory[key] = np.maximum(0.9 * memory[key], np.abs(oracle.state[key]))
            got = host(opt.state[key])
            assert_near(got, oracle.state[key], allowed * memory[key] + 2 * tiny, key)
    return host(card), opt


def size_for(rule):
    """As small as its segments allow, and no multiple of anything."""
    return cases.SIZE if getattr(rule, "segments", None) else 37


# ---- steps


@quiet
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_oracle(name, dtype):
    rule, n = RULES[name], size_for(RULES[name])
    x = cases.start(n, dtype)
    oracle = cases.oracle(rule, x)
    kind = cases.KINDS[list(RULES).index(name) % len(cases.KINDS)]  # in turns
    steps = 7 if n < cases.SIZE else 3  # a rectified rule waits for five
    sequence = cases.gradients(kind, n, steps, dtype)
    _, opt = walk(rule, oracle, x, sequence, tolerance(rule, dtype))
    assert opt.t == steps
    assert list(opt.state) == list(rule.state_names)


@quiet
@needs_gpu
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", CLIPPED)
def test_options(name, options):
    dtype = DTYPES[(CLIPPED.index(name) + list(OPTIONS).index(options)) % 2]  # in turns
    rule, options = RULES[name], OPTIONS[options]
    n = size_for(rule)
    x = cases.start(n, dtype)
    oracle = cases.oracle(rule, x, **options)
    if "bounds" in options:
        options = options | {"bounds": [options["bounds"]] * n}
    sequence = cases.gradients("ordinary", n, 3, dtype)
    walk(rule, oracle, x, sequence, tolerance(rule, dtype), **options)


@quiet
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rule",
    [
        SGD(0.1, weight_decay=0.1),
        AdaBelief(schedules.inverse_sqrt(0.1)),
        RMSProp(0.01, momentum=0.9),
        LAMB(0.01, segments=(0, 1, 17), weight_decay=0.1),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_lookahead(rule, dtype):
    x = cases.start(37, dtype)
    x[::3] += 3  # outside, where the slow weights must not start
    bounds = -0.5, 0.7
    oracle = reference.Lookahead(cases.oracle(rule, x, bounds=bounds), 3, 0.8)
    sequence = cases.gradients("ordinary", 37, 7, dtype)
    x, opt = walk(Lookahead(rule, 3, 0.8), oracle, x, sequence, bounds=[bounds] * 37)
    np.testing.assert_allclose(host(opt.state["slow"]), oracle.phi, rtol=1e-5, atol=1e-6)
    assert (x == dtype(0.7)).any() and (x == -0.5).any()


@quiet
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [SGD, AdamW, AdaBelief])
def test_schedule(kind, dtype):
    rule = kind(schedule, weight_decay=0.1, decoupled=True)
    x = cases.start(37, dtype)
    walk(rule, cases.oracle(rule, x), x, cases.gradients("ordinary", 37, 5, dtype))


# What takes its own way through the kernels: against the CPU, which other tests compare with the
# oracle.
RATES = np.resize([0.01, 0.1, 0.0, 0.03, 0.005], 37)
TOGETHER = {
    "rates": (AdamW(RATES, weight_decay=0.3), {}),
    "rates-adabound": (AdaBound(RATES, gamma=0.1), {}),
    "rates-lamb": (LAMB(RATES[:3], segments=(0, 5, 21), weight_decay=0.1), {}),
    "all": (
        Lookahead(AdaBelief(RATES, weight_decay=0.1, decoupled=True, amsgrad=True), 2),
        {"max_norm": 3.0, "max_value": 0.5, "bounds": [(-0.8, 0.9)] * 37},
    ),
    "all-lamb": (
        Lookahead(LAMB(RATES, segments=(0, 1, 17), weight_decay=0.1), 2),
        {"max_norm": 3.0, "max_value": 0.5, "bounds": [(-0.8, 0.9)] * 37},
    ),
}


@quiet
@needs_gpu
@pytest.mark.parametrize("name", TOGETHER)
def test_like_the_cpu(name):
    dtype = DTYPES[list(TOGETHER).index(name) % 2]  # in turns: each compiles for the CPU, too
    rule, options = TOGETHER[name]
    x = cases.start(37, dtype)
    card = gpu.to_device(x)
    one, other = Optimizer(rule, x, target="serial", **options), Optimizer(rule, card, **options)
    for g in cases.gradients("ordinary", 37, 6, dtype):
        one.step(g)
        other.step(gpu.to_device(g))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(host(card), x, rtol=32 * eps, atol=32 * eps)
    for key, value in one.state.items():
        np.testing.assert_allclose(host(other.state[key]), value, rtol=64 * eps, atol=8 * eps)


@quiet
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_max_norm_where_the_squares_overflow(dtype):
    g = np.array([3, 0, -4], dtype) * np.sqrt(np.finfo(dtype).max)
    x = gpu.to_device(np.zeros(3, dtype))
    Optimizer(SGD(1.0), x, max_norm=10.0).step(gpu.to_device(g))
    np.testing.assert_allclose(host(x), [-6, 0, 8], rtol=1e-6)


@quiet
@needs_gpu
@pytest.mark.parametrize("options", [{}, {"max_value": 1.0}, {"bounds": [(0, 1)] * 3}])
def test_nan_enters_x(options):
    x = gpu.to_device(np.ones(3))
    Optimizer(Adam(0.1), x, **options).step(gpu.to_device(np.array([1.0, np.nan, 2.0])))
    assert np.isnan(host(x)).tolist() == [False, True, False]


@quiet
@needs_gpu
def test_the_same_bits_each_run():
    ends = []
    for _ in range(2):
        x = gpu.to_device(cases.start(37, np.float32))
        opt = Optimizer(LAMB(0.1), x, max_norm=1.0)
        for g in cases.gradients("scales", 37, 3, np.float32):
            opt.step(gpu.to_device(g))
        ends.append(host(x))
    assert cases.same_bits(*ends)


@pytest.mark.skipif(gpu is None or SIMULATED, reason="large arrays need a GPU")
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (AdaBelief(1e-3), {}),
        (AdaBelief(1e-3), {"max_norm": 100.0}),
        (LAMB(1e-2, segments=(0, 5, 100_000)), {}),
    ],
    ids=["elementwise", "norm", "layerwise"],
)
def test_large_blocks_in_turns(rule, options, offset, monkeypatch):
    """As users have them; arrays may begin anywhere in memory."""
    for name, value in LARGE.items():
        monkeypatch.setattr(launch, name, value)
    n = 2 * launch.THREADS * launch.most_blocks() + 77
    random = np.random.default_rng(0)
    x0, *sequence = random.standard_normal((4, n), dtype=np.float32)
    found = []
    for _ in range(2):
        there = gpu.to_device(np.append(np.zeros(offset, np.float32), x0))[offset:]
        opt = Optimizer(rule, there, **options)
        for g in sequence:
            opt.step(gpu.to_device(g))
        found.append(host(there))
    here = x0.copy()
    opt = Optimizer(rule, here, **options)
    for g in sequence:
        opt.step(g)
    np.testing.assert_allclose(found[0], here, 1e-6, 1e-6)
    np.testing.assert_array_equal(found[0], found[1])


@quiet
@needs_gpu
def test_a_gradient_lives_until_its_step_is_queued(monkeypatch):
    """`opt.step(2 * x)`: nobody else keeps it, and what kernels take does not own its memory."""
    if SIMULATED:  # there it is the same object
        monkeypatch.setattr(card_of, "_as_taken", lambda value, layout, handle: value[:])
    queued, alive, latest = step.StepLauncher.step, [], []

    def gradient():
        g = gpu.to_device(np.ones(3))
        latest[:] = [weakref.ref(g)]
        return g

    def queue(*arguments):
        alive.append(latest[0]() is not None)
        queued(*arguments)

    monkeypatch.setattr(step.StepLauncher, "step", queue)
    opt = Optimizer(SGD(0.1), gpu.to_device(np.ones(3)))
    for _ in range(3):
        opt.step(gradient())
    assert alive == [True] * 3
    assert latest[0]() is None


@quiet
@needs_gpu
@pytest.mark.parametrize(
    ("rule", "options"),
    [(AdaBelief(0.1), {}), (Lookahead(SGD(0.01), 2), {}), (Adam(0.1), {"max_norm": 1.0})],
    ids=["AdaBelief", "Lookahead", "norm"],
)
def test_a_first_step_that_is_interrupted_while_it_compiles(rule, options, monkeypatch):
    """Before each of its kernels in turn; then all goes on as if nothing had been."""
    x0, g, compiled = cases.start(37), gpu.to_device(np.linspace(1, 2, 37)), launch.compiled
    left = -1

    def interrupted(*arguments):
        nonlocal left
        left -= 1
        if left == -1:
            raise KeyboardInterrupt
        return compiled(*arguments)

    monkeypatch.setattr(launch, "compiled", interrupted)
    ends = []
    for before in range(4 if options else 2):
        x = gpu.to_device(x0)
        opt = Optimizer(rule, x, **options)
        left = before - 1  # the first run is not interrupted
        if before:
            with pytest.raises(KeyboardInterrupt):
                opt.step(g)
            assert opt.t == 0
        for _ in range(4):
            opt.step(g)
        ends.append(host(x))
        np.testing.assert_array_equal(ends[-1], ends[0])


class LikeJax:
    """A gradient whose memory its library takes back without asking the stream that reads it."""

    __cuda_ndarray__ = True

    def __init__(self, array):
        self.array = array

    def __getattr__(self, name):
        return getattr(self.array, name)

    def block_until_ready(self):
        pass


@quiet
@needs_gpu
def test_what_reads_a_gradient_of_jax_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(gpu, "synchronize", lambda: waited.append(opt.t))
    opt = Optimizer(SGD(0.1), gpu.to_device(np.ones(3)))
    g = gpu.to_device(np.ones(3))
    for gradient in (g, LikeJax(g), g, LikeJax(g)):
        opt.step(gradient)
    assert waited == [2, 4]


@quiet
@needs_gpu
def test_each_step_looks_at_the_current_gpu(monkeypatch):
    x, g = gpu.to_device(np.ones(3)), gpu.to_device(np.ones(3))
    opt = Optimizer(SGD(0.1), x)
    opt.step(g)
    opt.vectors.card._device = 1  # as if the current one had changed
    with pytest.raises(ValueError, match=r"x is on GPU 1, but .* call .*select_device\(1\) first"):
        opt.step(g)
    assert opt.t == 1
    np.testing.assert_array_equal(host(x), 0.9)


@quiet
@needs_gpu
@pytest.mark.parametrize("call", ["Optimizer", "minimize", "minimize_many", "stochastic"])
def test_the_current_stream_is_the_default(call, monkeypatch):
    """Known by the error for something that is no stream."""
    monkeypatch.setattr(card_of, "current_stream", lambda array: "the current one")
    x, rows = gpu.to_device(np.ones(3)), gpu.to_device(np.ones((2, 3)))
    calls = {
        "Optimizer": lambda: Optimizer(SGD(0.1), x),
        "minimize": lambda: minimize(lambda x: 0.0, x, jac=lambda x: x),
        "minimize_many": lambda: minimize_many(lambda x, grad: 0.0, rows, jac="inplace"),
        "stochastic": lambda: minimize_stochastic(
            lambda x, a: 0.0, x, rows, jac=lambda x, a: x, batch_size=1, epochs=1
        ),
    }
    with pytest.raises(TypeError, match="must be a CUDA stream or its handle, got 'the current"):
        calls[call]()
    if call == "Optimizer":
        assert Optimizer(SGD(0.1), x, stream=0).vectors.card.stream == 0


@dataclass(frozen=True)
class OnCard(Rule):
    """A rule of a user's own that calls a function of the user's own."""

    slots: ClassVar[tuple[str, ...]] = ("m",)

    @staticmethod
    def update(x, g, c, m):
        m = max(half(m, c), g)
        return m, c.rate, m


def half(m, c):
    return m * c.rate


del Rule.registry["oncard"]


@needs_gpu
def test_a_rule_of_ones_own():
    x, card = np.ones(5), gpu.to_device(np.ones(5))
    one, other = Optimizer(OnCard(0.5), x), Optimizer(OnCard(0.5), card)
    for g in cases.gradients("ordinary", 5, 3):
        one.step(g)
        other.step(gpu.to_device(g))
    np.testing.assert_allclose(host(card), x, rtol=1e-14)


# ---- what it is, files


@needs_gpu
def test_x_is_stepped_in_place_and_state_is_a_view():
    x = gpu.to_device(np.ones(3))
    opt = Optimizer(Adam(0.1), x, target="cuda")
    assert opt.x is x
    opt.step(gpu.to_device(np.ones(3)))
    np.testing.assert_allclose(host(x), 0.9)
    np.testing.assert_allclose(host(opt.state["m"]), 0.1)
    assert opt.t == 1
    with pytest.raises(TypeError, match="cannot be copied or pickled: use save and load"):
        copy.deepcopy(opt)


@quiet
@needs_gpu
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (SGD(0.1), {}),
        (Lookahead(AdaBelief(schedules.inverse_sqrt(0.1)), 3), {"max_norm": 3.0}),
        (LAMB(0.1, segments=(0, 9)), {"bounds": [(-0.5, 2)] * 37}),
    ],
    ids=["stateless", "lookahead", "bounds"],
)
def test_runs_move_between_cpu_and_gpu(rule, options, tmp_path):
    dtype = np.float32 if options else np.float64
    sequence = cases.gradients("ordinary", 37, 12, dtype)
    whole = cases.start(37, dtype)
    undisturbed = Optimizer(rule, whole, **options)
    for g in sequence:
        undisturbed.step(g)

    x = cases.start(37, dtype)
    opt = Optimizer(rule, x, **options)
    for g in sequence[:4]:
        opt.step(g)
    opt.save(tmp_path / "run")
    card = gpu.to_device(np.zeros_like(x))
    opt = Optimizer.load(tmp_path / "run", card)
    np.testing.assert_array_equal(host(card), x)
    assert (opt.rule, opt.t) == (rule, 4)
    for g in sequence[4:8]:
        opt.step(gpu.to_device(g))
    opt.save(tmp_path / "run")
    opt = Optimizer.load(tmp_path / "run", x, target="serial")
    np.testing.assert_array_equal(host(card), x)
    for g in sequence[8:]:
        opt.step(g)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(x, whole, rtol=32 * eps, atol=32 * eps)
    with pytest.raises(ValueError, match="n = 37 in the file, 5 given"):
        Optimizer.load(tmp_path / "run", gpu.to_device(np.ones(5, dtype)))


# ---- refusals on a GPU


@needs_gpu
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: np.ones(5), TypeError, "grad must be on the GPU, as x is, got ndarray"),
        (lambda x: [1.0] * 5, TypeError, "grad must be on the GPU, as x is, got list"),
        (lambda x: gpu.to_device(np.ones(5, np.float32)), TypeError, "dtype of x, float64, got"),
        (lambda x: gpu.to_device(np.ones(4)), ValueError, r"shape of x, \(5,\), got \(4,\)"),
        (lambda x: gpu.to_device(np.ones((1, 5))), ValueError, r"got \(1, 5\)"),
        (lambda x: gpu.to_device(np.ones(10))[::2], ValueError, "grad must be C-contiguous"),
        (lambda x: x, ValueError, "must not share memory with x"),
    ],
)
def test_a_bad_gradient_changes_nothing(make, error, message):
    x = gpu.to_device(np.ones(5))
    opt = Optimizer(Adam(0.1), x)
    opt.step(gpu.to_device(np.ones(5)))
    before = host(x), opt.t
    with pytest.raises(error, match=message):
        opt.step(make(x))
    np.testing.assert_array_equal(host(x), before[0])
    assert opt.t == before[1]
    with pytest.raises(ValueError, match="share memory with the optimizer's state"):
        opt.step(opt.state["m"])


@needs_gpu
@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (np.ones(3, np.int32), {}, TypeError, "x must be float32 or float64, got int32"),
        (np.ones((2, 2)), {}, ValueError, r"one dimension .* got shape \(2, 2\)"),
        (np.ones(3), {"target": "serial"}, ValueError, "target must be auto or cuda"),
        (np.ones(3), {"feasible_set": Ball()}, ValueError, "must be a Box on a GPU"),
        (np.ones(3), {"stream": "fast"}, TypeError, "stream must be a CUDA stream"),
    ],
)
def test_bad_arguments(x, options, error, message):
    with pytest.raises(error, match=message):
        Optimizer(Adam(), gpu.to_device(x), **options)
    with pytest.raises(TypeError, match="x must be on the GPU for target='cuda'"):
        Optimizer(Adam(), np.ones(3), target="cuda")
    with pytest.raises(ValueError, match="x must be C-contiguous"):
        Optimizer(Adam(), gpu.to_device(np.ones(6))[::2])


# ---- where there is none


class Elsewhere:
    """What a device array of another library shows of itself."""

    def __init__(self, interface=None, device=None):
        if interface is not None:
            self.__cuda_array_interface__ = interface
        if device is not None:
            self.__dlpack_device__ = lambda: device


def test_device_arrays_are_known_by_what_they_say():
    assert interop.is_device_array(Elsewhere(interface={}))
    assert interop.is_device_array(Elsewhere(device=(2, 0)))
    assert interop.is_device_array(Elsewhere(device=(13, 1)))
    for value in (np.ones(3), [1.0], None, 1.0, Elsewhere(), Elsewhere(device=(1, 0))):
        assert not interop.is_device_array(value)


def test_handles_of_streams():
    class Stream:
        def __init__(self, **names):
            vars(self).update(names)

    assert interop.handle_of(7) == 7
    for name in ("cuda_stream", "ptr", "handle"):
        assert interop.handle_of(Stream(**{name: 7})) == 7
    assert interop.handle_of(Stream(__cuda_stream__=lambda: (0, 7))) == 7
    with pytest.raises(TypeError, match="stream must be"):
        interop.handle_of("fast")


def test_the_current_stream_is_that_of_the_arrays_library(monkeypatch):
    class Stream:
        ptr = 7

    class Tensor(np.ndarray):
        device = "cuda:0"

    class Array(np.ndarray):
        pass

    streams = {"current_stream": lambda device: {"cuda:0": 5}[device]}
    torch = types.SimpleNamespace(Tensor=Tensor, cuda=types.SimpleNamespace(**streams))
    streams = {"get_current_stream": Stream}
    cupy = types.SimpleNamespace(ndarray=Array, cuda=types.SimpleNamespace(**streams))
    x = np.ones(2)
    for modules in ({}, {"torch": torch}, {"cupy": cupy}, {"torch": torch, "cupy": cupy}):
        for name in ("torch", "cupy"):
            monkeypatch.setitem(sys.modules, name, modules.get(name))
        arrays = x.view(Tensor), x.view(Array)
        found = [interop.handle_of(interop.current_stream(array)) for array in arrays]
        assert found == [5 * ("torch" in modules), 7 * ("cupy" in modules)]
        assert interop.current_stream(x) == 0


def test_importing_needs_no_gpu():
    """What is missing is named at the call, and at each."""
    script = """
import sys
sys.modules["numba_cuda"] = None
import numbelief
assert not any(name.startswith("numba.cuda") for name in sys.modules)
for _ in range(2):
    try:
        numbelief.Optimizer(numbelief.Adam(), None, target="cuda")
    except RuntimeError as error:
        assert "needs the package numba-cuda, which is missing" in str(error)
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_a_missing_package_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("numbelief._gpu")]:
        monkeypatch.delitem(sys.modules, name)  # if it is imported already
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r'needs the package numba-cuda, which is missing: pip install "numbelief\[cuda13\]"'
    for x in (np.ones(3), Elsewhere(interface={})):
        with pytest.raises(RuntimeError, match=message):
            Optimizer(Adam(), x, target="cuda" if isinstance(x, np.ndarray) else "auto")


@pytest.mark.skipif(not INSTALLED or gpu is not None, reason="needs no GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(RuntimeError, match="no GPU can be used here"):
        Optimizer(Adam(), np.ones(3), target="cuda")


def test_a_stream_is_for_a_gpu():
    with pytest.raises(ValueError, match="stream is for x on a GPU only"):
        Optimizer(Adam(), np.ones(3), stream=0)


# ---- PTX


# What of `StepOptions` a kernel takes, by what it is called there.
GIVEN_AS = {"clip": "max_norm", "slow": "lookahead", "weight": "lookahead"}


@pytest.fixture
def ptx(monkeypatch):
    """Compile one of the kernels for arguments that stand for those of a step."""
    from numba import cuda

    def compile(name, rule, dtype, capability, **given):
        # Compiling a device function asks for the GPU, only to learn its capability.
        device = type("Device", (), {"compute_capability": capability})
        monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
        slots = len(rule.state_names)
        _, coefficients = fields_of(type(rule))
        array, sums, indices = np.ones(2, dtype), np.ones(2), np.ones(2, np.int64)
        numbers = {"values": coefficients._fields, "scaling": Scaling._fields}
        numbers = {each: (dtype(1),) * len(fields) for each, fields in numbers.items()}
        arguments = {"x": array, "g": array, "slots": (array,) * slots, **numbers, "clip": None}
        if name.startswith("step"):
            arrays = {each: given[each] for each in BlockOptions._fields if each in given}
            arguments |= {"given": tuple(BlockOptions(**arrays)), "slow": None, "weight": None}
            arguments |= {"phase": 0}
        if name == "step_layerwise":
            arguments |= {"edges": indices, "owner": indices, "ratios": array}
        elif name.startswith("measure"):
            arguments |= {"edges": indices, "firsts": sums, "seconds": sums}
        elif name in ("clip", "ratios"):
            arguments = {"firsts": sums, "seconds": sums, "starts": indices, "most": 1.0,
                         "results": array}  # fmt: skip
        kind = Kind(type(rule), slots, tuple({GIVEN_AS.get(each, each) for each in given}))
        arguments |= {each: given[each] for each in GIVEN_AS if each in given}
        text, _ = cuda.compile(
            for_card(step.kernels_of(kind)[name]),
            numba.void(*map(kind_of, arguments.values())),
            abi="numba", device=False, output="ptx", cc=capability,
        )  # fmt: skip
        return text[text.index(".entry") :]

    return compile


def step_of(rule):
    return "step_layerwise" if rule.layerwise else "step"


@needs_compiler
@pytest.mark.parametrize(("name", "rule"), KERNELS, ids=[name for name, _ in KERNELS])
def test_ptx_of_every_kernel(name, rule, ptx):
    index = [name for name, _ in KERNELS].index(name)
    text = ptx(step_of(rule), rule, np.float32, CAPABILITIES[index % 2])  # in turns
    assert ".f64" not in text
    assert ".local" not in text
    assert not count(r"\bcall", text)
    # Of each coordinate x, g and the slots are read, and x and the slots written. The loop is
    # unrolled, and split where an option of the rule decides.
    arrays = 1 + len(rule.state_names)
    copies, rest = divmod(count(r"\bst\.global", text), arrays)
    assert copies and not rest
    reads = count(r"\bld\.global", text)
    if name == "lamb":  # some of them stand before the split
        assert arrays + 1 <= reads - LAMB_READS <= copies * (arrays + 1)
    else:
        assert reads == copies * (arrays + 1)
    # Threads part ways only at the guard of a division, and at the ends of loops.
    assert count(r"@!?%p\d+ bra", text) <= copies + (7 if name != "lamb" else 13)


LAMB_READS = 4  # the segment of a block, its ratio and its two edges


ARRAY, ONE = np.ones(2, np.float32), np.float32(1)
GIVEN = {
    "clip": {"clip": ARRAY},
    "value": {"max_value": ONE},
    "decay": {"decays": True},
    "bounds": {"lower": ARRAY, "upper": ARRAY},
    "scale": {"scale": ARRAY},
    "lookahead": {"slow": ARRAY, "weight": ONE},
}
GIVEN["all"] = {name: value for options in GIVEN.values() for name, value in options.items()}


@needs_compiler
@pytest.mark.parametrize("given", GIVEN)
def test_ptx_of_every_option(given, ptx):
    for rule in (AdaBelief(), LAMB()) if given == "all" else (AdaBelief(),):
        text = ptx(step_of(rule), rule, np.float32, (9, 0), **GIVEN[given])
        assert ".f64" not in text
        assert ".local" not in text
        assert not count(r"\bcall", text)


@needs_compiler
@pytest.mark.parametrize(("dtype", "capability"), [*zip(DTYPES, CAPABILITIES, strict=True)])
def test_ptx_of_sums(dtype, capability, ptx):
    for name in ("measure_gradient", "measure_step", "clip", "ratios"):
        text = ptx(name, LAMB(), dtype, capability)
        assert ".local" not in text
        assert not count(r"\bcall", text)
    text = ptx(step_of(AdaBelief()), AdaBelief(), dtype, capability)
    assert (".f64" in text) == (dtype is np.float64)


@needs_package
def test_kinds_of_arguments():
    for dtype in DTYPES:
        kind = numba.from_dtype(np.dtype(dtype))
        assert kind_of(dtype(1)) == kind
        assert kind_of(np.ones(2, dtype)) == numba.types.Array(kind, 1, "C")
        assert kind_of((dtype(1), dtype(1))) == numba.types.UniTuple(kind, 2)
    assert kind_of(1.0) == numba.float64  # a limit of the norm, beyond float32 perhaps
    assert (kind_of(1), kind_of(None)) == (numba.int64, numba.types.none)
    assert kind_of(()) == numba.types.Tuple(())


@needs_compiler
def test_ptx_counts_in_64_bits(ptx):
    text = ptx("step", SGD(), np.float32, (9, 0))
    assert count(r"setp\.\w+\.s64", text)
    assert not count(r"setp\.[lg][et]\.[su]32", text)


@needs_compiler
def test_ptx_has_a_pointer_in_place_of_none(ptx):
    """What `compile._NoneIsNothing` relies on: one parameter, as large as a pointer, for each."""
    parameters = ptx("step", SGD(), np.float32, (9, 0))
    absent = parameters.split("{")[0].count(".param .u64")
    given = {"lower": ARRAY, "upper": ARRAY, "scale": ARRAY}
    present = ptx("step", SGD(), np.float32, (9, 0), **given).split("{")[0].count(".param .u64")
    assert present - absent == 3 * (7 - 1)
