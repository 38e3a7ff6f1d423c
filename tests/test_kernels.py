"""Kernels: the same bits from every target and thread count, and invariants of the rules."""

import os
import subprocess
import sys

import cases
import hypothesis.extra.numpy as hnp
import numba
import numpy as np
import pytest
from cases import KERNELS, RULES, same_bits, with_dtypes
from hypothesis import given, settings
from hypothesis import strategies as st

import numbelief
from numbelief import LAMB, SGD, AdaBelief, Adagrad, Adam, AdaMax, RMSProp
from numbelief._compile import threads as threading
from numbelief._compile.arrays import BLOCK
from numbelief._compile.jit import inline
from numbelief._compile.template import adopt
from numbelief._step.compiled import compile_advance
from numbelief._step.kind import Kind

DTYPES = [np.float32, np.float64]
NAMES = [name for name, _ in KERNELS]

# Below, at and above one block, several blocks with a rest, and less than one vector.
SIZES = [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 200_003]


def segments(rule, n):
    """The same rule; a layerwise one with segments that are no multiples of anything."""
    if not rule.layerwise:
        return rule
    return type(rule)(0.01, weight_decay=0.1, segments=[0, *(k for k in (1, 70, 70_001) if k < n)])


def outcome(rule, n, dtype, target, **options):
    """The bits of x and of the state after a few steps."""
    sequence = cases.gradients("scales", n, 4, dtype)
    x, opt = cases.run(rule, cases.start(n, dtype), sequence, target=target, **options)
    return [x.tobytes(), *(value.tobytes() for value in opt.state.values())]


@pytest.fixture
def one_serial_kernel(monkeypatch):
    """No second serial kernel that releases the GIL: its text is the same."""
    monkeypatch.setattr(threading, "RELEASE_GIL_FROM", sys.maxsize)


@pytest.fixture
def threads():
    """Restore the number of threads."""
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


@pytest.mark.usefixtures("one_serial_kernel")
@pytest.mark.parametrize(
    ("name", "dtype"), with_dtypes([(name,) for name in NAMES], RULES.__getitem__)
)
def test_serial_and_parallel_agree(name, dtype):
    for n in SIZES:
        rule = segments(RULES[name], n)
        serial = outcome(rule, n, dtype, "serial")
        assert outcome(rule, n, dtype, "parallel") == serial, f"n = {n}"


@pytest.mark.usefixtures("one_serial_kernel")
@pytest.mark.parametrize(("name", "dtype"), [("adabelief", np.float32), ("lamb", np.float64)])
def test_norm_clipping_agrees(name, dtype):
    for n in SIZES:
        rule = segments(RULES[name], n)
        serial = outcome(rule, n, dtype, "serial", max_norm=0.5)
        assert outcome(rule, n, dtype, "parallel", max_norm=0.5) == serial, f"n = {n}"
        assert serial != outcome(rule, n, dtype, "serial", max_norm=0.25) or n == 1


def test_releasing_the_gil_changes_no_bits(monkeypatch):
    n = threading.RELEASE_GIL_FROM
    released = outcome(AdaBelief(), n, np.float32, "serial")
    monkeypatch.setattr(threading, "RELEASE_GIL_FROM", sys.maxsize)
    assert outcome(AdaBelief(), n, np.float32, "serial") == released


MANY_THREADS = """
import sys
sys.path.insert(0, {here!r})
import numba, numpy as np
import test_kernels as t
t.threading.RELEASE_GIL_FROM = sys.maxsize
for name, dtype in (("adabelief", np.float32), ("lamb", np.float64)):
    rule = t.segments(t.RULES[name], 200_003)
    serial = t.outcome(rule, 200_003, dtype, "serial", max_norm=0.5)
    for count in range(1, 6):
        numba.set_num_threads(count)
        assert t.outcome(rule, 200_003, dtype, "parallel", max_norm=0.5) == serial, (name, count)
"""


def test_any_number_of_threads_gives_the_same_bits():
    """In a process of its own, because Numba fixes the largest number at its start."""
    script = MANY_THREADS.format(here=os.path.dirname(__file__))
    env = os.environ | {"NUMBA_NUM_THREADS": "5"}
    subprocess.run([sys.executable, "-c", script], env=env, check=True)


@pytest.mark.usefixtures("threads", "one_serial_kernel")
def test_thread_counts_of_this_process():
    n = 3 * BLOCK + 5
    serial = outcome(AdaBelief(), n, np.float64, "serial")
    for count in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        numba.set_num_threads(count)
        assert outcome(AdaBelief(), n, np.float64, "parallel") == serial


# ---- invariants ----------------------------------------------------------------------------------
# Elementwise means that neither neighbours nor the place in the array matter, to the last bit:
# the vector loop and its scalar rest included.

ELEMENTWISE = {name: rule for name, rule in RULES.items() if not rule.layerwise}
quick = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@st.composite
def problems(draw, smallest=1, largest=70, magnitude=1e30):
    """A start and a sequence of gradients, with every float that the magnitude admits."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    n = draw(st.integers(smallest, largest))
    steps = draw(st.integers(1, 6))
    limit = float(dtype.type(magnitude))
    numbers = st.floats(-limit, limit, width=8 * dtype.itemsize)
    x = draw(hnp.arrays(dtype, n, elements=st.floats(-1, 1, width=8 * dtype.itemsize)))
    return x, draw(hnp.arrays(dtype, (steps, n), elements=numbers))


def serial(rule, x, sequence, **options):
    """x and the state after a run."""
    x, opt = cases.run(rule, x, sequence, target="serial", **options)
    return [x, *opt.state.values()]


def all_same(a, b):
    """Whether two results hold the same bits."""
    return all(same_bits(left, right) for left, right in zip(a, b, strict=True))


@quick
@given(st.sampled_from(list(ELEMENTWISE)), problems(), st.randoms(use_true_random=False))
def test_permutation(name, problem, random):
    x, sequence = problem
    order = list(range(x.size))
    random.shuffle(order)
    after = serial(RULES[name], x, sequence)
    permuted = serial(RULES[name], x[order], np.ascontiguousarray(sequence[:, order]))
    assert all_same(permuted, [value[order] for value in after])


@quick
@given(st.sampled_from(list(ELEMENTWISE)), problems(smallest=2), st.data())
def test_halves(name, problem, data):
    x, sequence = problem
    cut = data.draw(st.integers(1, x.size - 1))
    halves = [
        serial(RULES[name], x[part], np.ascontiguousarray(sequence[:, part]))
        for part in (slice(cut), slice(cut, None))
    ]
    joined = [np.concatenate(pair) for pair in zip(*halves, strict=True)]
    assert all_same(serial(RULES[name], x, sequence), joined)


@quick
@given(problems(smallest=2), st.data())
def test_segments_are_separate_arrays(problem, data):
    x, sequence = problem
    cut = data.draw(st.integers(1, x.size - 1))
    options = {"learning_rate": 0.01, "weight_decay": 0.1}
    halves = [
        serial(LAMB(**options), x[part], np.ascontiguousarray(sequence[:, part]))
        for part in (slice(cut), slice(cut, None))
    ]
    joined = [np.concatenate(pair) for pair in zip(*halves, strict=True)]
    assert all_same(serial(LAMB(**options, segments=(0, cut)), x, sequence), joined)


@quick
@given(st.sampled_from([*ELEMENTWISE, "lamb"]), problems())
def test_reflection(name, problem):
    """From -x along -g to -x: no rule prefers a sign."""
    x, sequence = problem
    assert np.array_equal(
        serial(RULES[name], -x, -sequence)[0], -serial(RULES[name], x, sequence)[0]
    )


SCALE_FREE = {
    "adam": Adam(0.1, eps=0.0),
    "adam-amsgrad": Adam(0.1, eps=0.0, amsgrad=True),
    "adam-uncorrected": Adam(0.1, eps=0.0, bias_correction=False),
    "adamax": AdaMax(0.1),
    "adabelief": AdaBelief(0.1, eps=0.0, eps_root=0.0),
    "adagrad": Adagrad(0.1, eps_root=0.0),
    "rmsprop": RMSProp(0.1, eps_root=0.0),
    "rmsprop-momentum": RMSProp(0.1, momentum=0.9, eps_root=0.0),
    "lamb": LAMB(0.1, eps=0.0),
}


@quick
@given(st.sampled_from(list(SCALE_FREE)), problems(magnitude=1024), st.integers(-15, 15))
def test_scale_invariance(name, problem, power):
    """Without epsilons the unit of the gradient does not matter: exactly, for powers of two."""
    x, sequence = problem
    sequence[np.abs(sequence) < 2.0**-10] = 0
    scaled = sequence * sequence.dtype.type(2) ** power
    rule = SCALE_FREE[name]
    assert same_bits(serial(rule, x, scaled)[0], serial(rule, x, sequence)[0])


@quick
@given(problems(magnitude=1e9))
def test_adam_step_is_bounded(problem):
    """|m| <= sqrt(v) (1 - beta1)/sqrt((1 - beta2)(1 - beta1^2/beta2)), by Cauchy and Schwarz."""
    x, sequence = problem
    x = x.astype(np.float64)
    opt = numbelief.Optimizer(Adam(0.01, eps=0.0), x, target="serial")
    bound = 0.01 * 0.1 / np.sqrt(0.001 * (1 - 0.81 / 0.999))
    for g in sequence:
        before = x.copy()
        opt.step(g)
        assert np.all(np.abs(x - before) <= bound * (1 + 1e-12) + 1e-15)


BOUNDED = {"sgd": SGD(0.1), "adabelief": AdaBelief(0.1), "lamb": LAMB(0.1, weight_decay=0.1)}


@quick
@given(st.sampled_from(list(BOUNDED)), problems(), st.data())
def test_bounds_are_respected(name, problem, data):
    x, sequence = problem
    limits = st.floats(-2, 2, width=32) | st.sampled_from([-np.inf, np.inf, None])
    bounds = []
    for _ in range(x.size):
        low, high = data.draw(limits), data.draw(limits)
        low = None if low == np.inf else low
        high = None if high == -np.inf else high
        if low is not None and high is not None and low > high:
            low, high = high, low
        bounds.append((low, high))
    lower = np.array([-np.inf if low is None else low for low, _ in bounds])
    upper = np.array([np.inf if high is None else high for _, high in bounds])
    opt = numbelief.Optimizer(BOUNDED[name], x, bounds=bounds, target="serial")
    free = serial(BOUNDED[name], x, sequence[:1])[0]
    for t, g in enumerate(sequence):
        opt.step(g)
        assert np.all((lower <= x) & (x <= upper))
        if t == 0:
            assert np.array_equal(x, np.clip(free, lower, upper))


@quick
@given(st.sampled_from([Adam, AdaBelief, SGD, RMSProp]), problems(magnitude=1e6))
def test_coupled_decay_is_a_gradient(cls, problem):
    x, sequence = problem
    rule, plain = cls(0.01, weight_decay=0.125), cls(0.01)
    y = x.copy()
    opt, other = (
        numbelief.Optimizer(rule, x, target="serial"),
        numbelief.Optimizer(plain, y, target="serial"),
    )
    for g in sequence:
        opt.step(g)
        other.step(g + y.dtype.type(0.125) * y)
        assert np.array_equal(x, y)


@quick
@given(st.sampled_from([Adam, AdaBelief, SGD, RMSProp]), problems(magnitude=1e6))
def test_decoupled_decay_shrinks_first(cls, problem):
    x, sequence = problem
    rule, plain = cls(0.25, weight_decay=0.125, decoupled=True), cls(0.25)
    y = x.copy()
    opt, other = (
        numbelief.Optimizer(rule, x, target="serial"),
        numbelief.Optimizer(plain, y, target="serial"),
    )
    for g in sequence:
        opt.step(g)
        y *= y.dtype.type(1 - 0.25 * 0.125)
        other.step(g)
        assert np.array_equal(x, y)


def test_the_callers_array_is_the_parameter_array():
    x = np.ones(3)
    opt = numbelief.Optimizer(SGD(0.5), x)
    opt.step(np.ones(3))
    assert opt.x is x
    assert x.tolist() == [0.5, 0.5, 0.5]


def test_inner_functions_have_names_of_their_own():
    """Machine code brings its inner functions along, and a linker takes the first of each name.

    With one name for the steps of all rules, two processes could compile kernels of which a third
    gave one rule the slots of another.
    """
    kinds = [(SGD, 0), (Adam, 2), (Adam, 3), (AdaBelief, 2)]
    steps = [compile_advance(Kind(rule, slots)) for rule, slots in kinds]
    names = {step.py_func.__qualname__ for step in steps}
    assert len(names) == len(kinds)
    script = "; ".join(
        [
            "from numbelief import SGD",
            "from numbelief._step.compiled import compile_advance",
            "from numbelief._step.kind import Kind",
            "print(compile_advance(Kind(SGD, 0)).py_func.__qualname__)",
        ]
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert other.stdout.startswith("advance_")
    assert other.stdout.strip() not in names


def test_functions_that_a_rule_calls_stay_as_they_are():
    def helper(x):
        return 2 * x

    def update(x):
        return helper(x) + scaled(x)

    adopted = adopt(update, inline)
    assert adopted is not update
    assert update(3.0) == numba.njit(adopted)(3.0) == 15.0
    assert update.__qualname__.endswith("update")


def scaled(x):
    """What `update` above finds in its module."""
    return 3 * x
