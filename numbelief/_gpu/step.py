"""A step on a GPU: the text of `numbelief._step.template` at a coordinate, in kernels.

What does not depend on the coordinate is computed on the host, in float64, and goes to the card by
value. An elementwise rule takes one launch. A norm takes two more: first each thread block sums one
block of coordinates after another, then one thread block these sums, always in the same order, so
that the bits are the same each run.
"""

import functools
from math import inf, sqrt
from typing import Any

import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.template import bind
from numbelief._gpu import compile as gpu
from numbelief._gpu.card import Card
from numbelief._step.compiled import compile_host_coefficients, parts_of_step
from numbelief._step.kind import Kind, fields_of
from numbelief._step.state import CLOCK, StepOptions, StepState
from numbelief._step.template import trust_ratio

# Sums are taken over blocks of this size, and then over the blocks in order.
SUM_BLOCK = 1 << 12
# In this unit the square of a float64 does not overflow.
UNIT = 2.0**600

# What a Lookahead does in a step.
ANCHOR, SYNCHRONIZE = 1, 2


# ---- templates ---------------------------------------------------------------------------------


def _first_or(array, other):
    if array is None:
        return other
    else:
        return array[0]


def _value_or(value, other):
    if value is None:
        return other
    else:
        return value


def _scaling(c, clip, most, keep, l2):
    """What scales and clips the gradient and decays x, as the templates of a step take it."""
    return (
        _first_or(clip, c.one), _value_or(most, c.one), _value_or(keep, c.one), _value_or(l2, c.zero)
    )  # fmt: skip


def _coordinate_template(step_coordinate, anchor, synchronize, LOOKS_AHEAD):
    """Step coordinate i, and let the slow weights of a Lookahead follow."""

    def coordinate(x, g, slots, i, c, scaling, ratio, lower, upper, scale, slow, weight, phase):
        if LOOKS_AHEAD:
            if phase & ANCHOR:
                anchor(x, slow, i, lower, upper)
        step_coordinate(x, g, slots, i, c, scaling, ratio, lower, upper, None, None, scale)
        if LOOKS_AHEAD:
            if phase & SYNCHRONIZE:
                synchronize(x, slow, i, weight, lower, upper)

    return coordinate


def step_template(coordinate, Coefficients):
    """One step of an elementwise rule."""

    def step(
        x, g, slots, values, clip, most, keep, l2, lower, upper, scale, slow, weight, phase,
    ):  # fmt: skip
        c = Coefficients(*values)
        scaling = _scaling(c, clip, most, keep, l2)
        i = cuda.grid(1)
        while i < x.size:
            coordinate(x, g, slots, i, c, scaling, c.one, lower, upper, scale, slow, weight, phase)
            i += cuda.gridsize(1)

    return step


def layerwise_template(coordinate, Coefficients):
    """One step of a rule that scales each segment's step; see `StepOptions` for the blocks."""

    def step(
        x, g, slots, values, clip, most, keep, l2,
        lower, upper, scale, slow, weight, phase, edges, owner, ratios,
    ):  # fmt: skip
        c = Coefficients(*values)
        scaling = _scaling(c, clip, most, keep, l2)
        for b in range(cuda.blockIdx.x, owner.size, cuda.gridDim.x):
            ratio = ratios[owner[b]]
            for i in range(edges[b] + cuda.threadIdx.x, edges[b + 1], cuda.blockDim.x):
                coordinate(
                    x, g, slots, i, c, scaling, ratio, lower, upper, scale, slow, weight, phase
                )  # fmt: skip

    return step


def over_threads_template(join):
    """What the numbers of the threads of a block come to, for all of them."""

    def over_threads(value, shared):
        cuda.syncthreads()  # the last result has been read
        shared[cuda.threadIdx.x] = value
        width = cuda.blockDim.x // 2
        while width > 0:
            cuda.syncthreads()
            if cuda.threadIdx.x < width:
                shared[cuda.threadIdx.x] = join(
                    shared[cuda.threadIdx.x], shared[cuda.threadIdx.x + width]
                )
            width //= 2
        cuda.syncthreads()
        return shared[0]

    return over_threads


def plus(a, b):
    """The sum of two numbers."""
    return a + b


total = bind(over_threads_template, join=plus)


def _squares_of_gradient(x, g, slots, i, c, scaling):
    """The square of a coordinate of the gradient, also in a unit in which it does not overflow."""
    value = np.float64(g[i])
    return value**2, (value / UNIT) ** 2


def _clip_of(sum_of_squares, in_units, most):
    """The factor that clips a gradient to a norm."""
    norm = sqrt(sum_of_squares) if sum_of_squares < inf else UNIT * sqrt(in_units)
    return most / max(norm, most)


def _squares_template(update, as_seen, load):
    """The squares of a coordinate of x and of the direction that the coming update will take."""

    def squares_of_step(x, g, slots, i, c, scaling):
        direction = update(x[i], as_seen(g[i], x[i], scaling), c, *load(slots, i))[0]
        return np.float64(x[i]) ** 2, np.float64(direction) ** 2

    return squares_of_step


def _ratio_of(of_x, of_direction, most):
    """The ratio by which LAMB scales a segment."""
    return trust_ratio(of_x, of_direction)


def measure_template(squares, Coefficients):
    """The two sums of squares over each block."""

    def measure(x, g, slots, values, clip, most, keep, l2, edges, firsts, seconds):
        shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
        c = Coefficients(*values)
        scaling = _scaling(c, clip, most, keep, l2)
        for b in range(cuda.blockIdx.x, firsts.size, cuda.gridDim.x):
            first = second = 0.0
            for i in range(edges[b] + cuda.threadIdx.x, edges[b + 1], cuda.blockDim.x):
                square, other = squares(x, g, slots, i, c, scaling)
                first += square
                second += other
            first, second = total(first, shared), total(second, shared)
            if cuda.threadIdx.x == 0:
                firsts[b], seconds[b] = first, second

    return measure


def conclude_template(conclude):
    """A number for each segment, of the two sums over its blocks, from starts[s] on."""

    def over_blocks(firsts, seconds, starts, most, results):
        shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
        for s in range(cuda.blockIdx.x, results.size, cuda.gridDim.x):
            first = second = 0.0
            for b in range(starts[s] + cuda.threadIdx.x, starts[s + 1], cuda.blockDim.x):
                first += firsts[b]
                second += seconds[b]
            first, second = total(first, shared), total(second, shared)
            if cuda.threadIdx.x == 0:
                results[s] = conclude(first, second, most)

    return over_blocks


# ---- compilation -------------------------------------------------------------------------------


def kernel_of(name: str, kind: Kind) -> Any:
    """A kernel for a kind of rule, as ``numba.cuda`` compiles it.

    Parameters
    ----------
    name : {"step", "step_layerwise", "measure_gradient", "measure_step", "clip", "ratios"}
    kind : Kind
    """
    if name in ("clip", "ratios"):
        conclude = {"clip": _clip_of, "ratios": _ratio_of}[name]
        return gpu.for_card(bind(conclude_template, conclude=conclude))
    # What a rule calls is its author's: only max and min are replaced there.
    builtin = {name: gpu.names_on_card()[name] for name in ("max", "min")}
    update = gpu.device(gpu.adopt(kind.rule.update, gpu.device, **builtin))
    parts = parts_of_step(kind, update)
    _, coefficients = fields_of(kind.rule)  # type: ignore[arg-type]
    if name == "measure_gradient":
        kernel = bind(measure_template, squares=_squares_of_gradient, Coefficients=coefficients)
    elif name == "measure_step":
        squares = bind(
            _squares_template, update=update, as_seen=parts["as_seen"], load=parts["load"]
        )
        kernel = bind(measure_template, squares=squares, Coefficients=coefficients)
    else:
        names = {each: parts[each] for each in ("step_coordinate", "anchor", "synchronize")}
        looks_ahead = kind.has("lookahead")
        coordinate = bind(_coordinate_template, LOOKS_AHEAD=looks_ahead, **names)
        template = {"step": step_template, "step_layerwise": layerwise_template}[name]
        kernel = bind(template, coordinate=coordinate, Coefficients=coefficients)
    return gpu.for_card(kernel)


@functools.cache
def _compile(name: str, kind: Kind, kinds: tuple[Any, ...]) -> Any:
    return gpu.compile_kernel(kernel_of(name, kind), kinds)


class Stepper:
    """The launches of a rule's step on a card.

    Parameters
    ----------
    card : Card
        Where x is.
    kind : Kind
    options : StepOptions
        With arrays of the host, which are copied to the card.
    state : StepState
        Its slots are on the card.
    """

    def __init__(self, card: Card, kind: Kind, options: StepOptions, state: StepState) -> None:
        self._card, self._kind, self._x, self._state = card, kind, card.x, state
        self._slots = tuple(state.slots[: kind.slots])
        self._n = n = card.x.shape[0]
        dtype = np.dtype(card.x.dtype)
        self._host = compile_host_coefficients(kind.rule)  # type: ignore[arg-type]
        _, coefficients = fields_of(kind.rule)  # type: ignore[arg-type]
        self._ahead = np.zeros(1, CLOCK)
        self._values = np.empty(len(coefficients._fields), dtype)
        self._decays = np.empty(2, dtype)
        self._decaying = options.decays is not None
        self._max_value = None if options.max_value is None else dtype.type(options.max_value)
        self._lookahead = lookahead = options.lookahead

        def copied(array: Any) -> Any:
            return None if array is None else card.array(array)

        slow, share = None, None
        if lookahead is not None:
            slow, share = state.slots[-1], dtype.type(lookahead.share)
        bounds = copied(options.lower), copied(options.upper)
        self._options = (*bounds, copied(options.scale), slow, share)
        self._most = self._clip = self._blocks = None
        if options.max_norm is not None:
            edges = np.append(np.arange(0, n, SUM_BLOCK), n)
            norm = _Norm(card, edges, np.array([0, edges.size - 1]))
            self._most, self._clip = options.max_norm, norm
        if options.owner is not None:
            owner = options.owner
            starts = np.searchsorted(owner, np.arange(owner[-1] + 2))
            self._ratios = _Norm(card, options.edges, starts)
            self._blocks = card.array(owner)
        self._most_blocks = gpu.most_blocks()
        self._launches: dict[str, Any] = {}

    def step(self, g: Any, rate: float) -> None:
        """Queue one step along a gradient that the card has checked."""
        # Time passes once the step is queued: Ctrl-C may come while a first launch compiles.
        ahead, clock = self._ahead, self._state.clock
        ahead[...] = clock
        self._host(self._values, self._decays, ahead, self._state.numbers, rate)
        keep, l2 = self._decays if self._decaying else (None, None)
        before = (self._x, g, self._slots, tuple(self._values))
        clip = None
        if self._clip is not None:
            clip = self._clip.results
            self._reduce("measure_gradient", "clip", self._clip, (*before, *(None,) * 4))
        taken = (*before, clip, self._max_value, keep, l2)
        phase = 0
        if self._lookahead is not None:
            t = int(ahead["t"][0])
            phase = ANCHOR * (t == 1) | SYNCHRONIZE * (t % self._lookahead.period == 0)
        if self._blocks is None:
            self._launch("step", -(-self._n // gpu.THREADS), *taken, *self._options, phase)
        else:
            self._reduce("measure_step", "ratios", self._ratios, taken)
            edges, blocks = self._ratios.edges, self._blocks
            self._launch(
                "step_layerwise", blocks.shape[0], *taken, *self._options, phase,
                edges, blocks, self._ratios.results,
            )  # fmt: skip
        clock[...] = ahead

    def _reduce(self, measure: str, conclude: str, norm: "_Norm", taken: tuple[Any, ...]) -> None:
        """The two passes of a norm."""
        sums = (norm.firsts, norm.seconds)
        most = 0.0 if self._most is None else self._most
        results, shared = norm.results, 8 * gpu.THREADS
        self._launch(
            measure, norm.firsts.shape[0], *taken, norm.edges, *sums, shared=shared
        )  # fmt: skip
        self._launch(
            conclude, results.shape[0], *sums, norm.starts, most, results, shared=shared
        )  # fmt: skip

    def _launch(self, name: str, blocks: int, *arguments: Any, shared: int = 0) -> None:
        launch = self._launches.get(name)
        if launch is None:
            kinds = tuple(map(gpu.kind_of, arguments))
            kernel = _compile(name, self._kind, kinds)  # type: ignore[arg-type]
            blocks = min(blocks, self._most_blocks)
            launch = gpu.configured(kernel, blocks, gpu.THREADS, self._card.stream, shared)
            self._launches[name] = launch
        launch(*arguments)


class _Norm:
    """What the two passes of a norm need: blocks, sums over them, a number for each segment."""

    def __init__(self, card: Card, edges: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        self.edges, self.starts = card.array(edges), card.array(starts)
        self.firsts, self.seconds = (card.array(np.zeros(edges.size - 1)) for _ in range(2))
        self.results = card.array(np.zeros(starts.size - 1, card.x.dtype))
