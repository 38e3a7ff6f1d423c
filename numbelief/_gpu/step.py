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

from numbelief._compile.pointers import Stored, numbers_from_python
from numbelief._compile.template import bind
from numbelief._gpu import launch
from numbelief._gpu.card import Card
from numbelief._gpu.compile import kind_of, of_rule
from numbelief._gpu.reductions import total
from numbelief._step.compiled import bind_for, compile_host_part, parts_of_step
from numbelief._step.kind import Kind, fields_of
from numbelief._step.state import TIMESTEP, BlockOptions, Scaling, StepOptions, StepState
from numbelief._step.template import trust_ratio

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


def _with_clip(scaling, clip):
    """The values of a `Scaling`, of which the first, if it is not 1, comes from the card."""
    return Scaling(_first_or(clip, scaling[0]), *scaling[1:])


def _coordinate_template(step_coordinate, anchor, synchronize, LOOKAHEAD):
    """Step coordinate i, and let the slow weights of a Lookahead follow."""

    def coordinate(x, g, slots, i, c, scaling, ratio, options, slow, weight, phase):
        if LOOKAHEAD:  # noqa: SIM102  Numba drops the branch only where it stands alone
            if phase & ANCHOR:
                anchor(x, slow, i, options.lower, options.upper)
        step_coordinate(x, g, slots, i, c, scaling, ratio, options)
        if LOOKAHEAD:  # noqa: SIM102
            if phase & SYNCHRONIZE:
                synchronize(x, slow, i, weight, options.lower, options.upper)

    return coordinate


def _step_template(coordinate, Coefficients):
    """One step of an elementwise rule."""

    def step(x, g, slots, values, scaling, clip, given, slow, weight, phase):
        c, scaling, options = Coefficients(*values), _with_clip(scaling, clip), BlockOptions(*given)
        i = cuda.grid(1)
        while i < x.size:
            coordinate(x, g, slots, i, c, scaling, c.one, options, slow, weight, phase)
            i += cuda.gridsize(1)

    return step


def _layerwise_template(coordinate, Coefficients):
    """One step of a rule that scales each segment's step; see `StepOptions` for the blocks."""

    def step(x, g, slots, values, scaling, clip, given, slow, weight, phase, edges, owner, ratios):
        c, scaling, options = Coefficients(*values), _with_clip(scaling, clip), BlockOptions(*given)
        for b in range(cuda.blockIdx.x, owner.size, cuda.gridDim.x):
            ratio = ratios[owner[b]]
            for i in range(edges[b] + cuda.threadIdx.x, edges[b + 1], cuda.blockDim.x):
                coordinate(x, g, slots, i, c, scaling, ratio, options, slow, weight, phase)

    return step


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


def _measure_template(squares, Coefficients):
    """The two sums of squares over each block."""

    def measure(x, g, slots, values, scaling, clip, edges, firsts, seconds):
        shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
        c, scaling = Coefficients(*values), _with_clip(scaling, clip)
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


def _conclude_template(conclude):
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


_clip = bind(_conclude_template, conclude=_clip_of)
_ratios = bind(_conclude_template, conclude=_ratio_of)


# ---- compilation -------------------------------------------------------------------------------


@functools.cache
def kernels_of(kind: Kind) -> dict[str, Any]:
    """The kernels of a kind of rule by name, as plain Python."""
    update = of_rule(kind.rule.update)
    parts = parts_of_step(kind, update)
    _, coefficients = fields_of(kind.rule)  # type: ignore[arg-type]
    names = {each: parts[each] for each in ("step_coordinate", "anchor", "synchronize")}
    coordinate = bind_for(kind, _coordinate_template, **names)
    step = {"coordinate": coordinate, "Coefficients": coefficients}
    names = {each: parts[each] for each in ("as_seen", "load")}
    squares = bind(_squares_template, update=update, **names)

    def measure(squares: Any) -> Any:
        return bind(_measure_template, squares=squares, Coefficients=coefficients)

    return {
        "step": bind(_step_template, **step),
        "step_layerwise": bind(_layerwise_template, **step),
        "measure_gradient": measure(_squares_of_gradient),
        "measure_step": measure(squares),
        "clip": _clip,
        "ratios": _ratios,
    }


class StepLauncher:
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
        self._card, self._x, self._state = card, card.x, state
        self._kernels = kernels_of(kind)
        self._slots = tuple(state.slots[: kind.slots])
        self._n = n = card.x.shape[0]
        dtype = np.dtype(card.x.dtype)
        _, coefficients = fields_of(kind.rule)  # type: ignore[arg-type]
        self._ahead = np.zeros(1, TIMESTEP)
        self._values = np.empty(len(coefficients._fields), dtype)
        self._scaling = np.empty(len(Scaling._fields), dtype)
        arrays = {name: each for name, each in options._asdict().items() if _is_array(each)}
        numbers = options._replace(**dict.fromkeys(arrays))
        self._stored = Stored(self._values, self._scaling, self._ahead, state.numbers, numbers)
        host = compile_host_part(kind, self._stored.layout)
        self._begin = numbers_from_python(host.address, nogil=False)
        self._lookahead = lookahead = options.lookahead
        slow, share = None, None
        if lookahead is not None:
            slow, share = state.slots[-1], dtype.type(lookahead.share)
        copied = {name: card.array(arrays[name]) for name in BlockOptions._fields & arrays.keys()}
        self._options = (tuple(BlockOptions(**copied)), slow, share)
        self._most = self._clip = self._blocks = None
        if options.max_norm is not None:
            edges = np.append(np.arange(0, n, launch.SUM_BLOCK), n)
            norm = _Norm(card, edges, np.array([0, edges.size - 1]))
            self._most, self._clip = options.max_norm, norm
        if options.owner is not None:
            owner = options.owner
            starts = np.searchsorted(owner, np.arange(owner[-1] + 2))
            self._ratios = _Norm(card, options.edges, starts)
            self._blocks = card.array(owner)
        self._most_blocks = launch.most_blocks()
        self._launches: dict[str, Any] = {}

    def step(self, g: Any, rate: float) -> None:
        """Queue one step along a gradient that the card has checked."""
        # Time passes once the step is queued: Ctrl-C may come while a first launch compiles.
        ahead, timestep = self._ahead, self._state.timestep
        ahead[...] = timestep
        self._begin(rate, 0.0, self._stored.address)
        before = (self._x, g, self._slots, tuple(self._values), tuple(self._scaling))
        clip = None
        if self._clip is not None:
            clip = self._clip.results
            self._reduce("measure_gradient", "clip", self._clip, (*before, None))
        taken = (*before, clip)
        phase = 0
        if self._lookahead is not None:
            t = int(ahead["t"][0])
            phase = ANCHOR * (t == 1) | SYNCHRONIZE * (t % self._lookahead.period == 0)
        if self._blocks is None:
            self._launch("step", -(-self._n // launch.THREADS), *taken, *self._options, phase)
        else:
            self._reduce("measure_step", "ratios", self._ratios, taken)
            edges, blocks = self._ratios.edges, self._blocks
            self._launch(
                "step_layerwise", blocks.shape[0], *taken, *self._options, phase,
                edges, blocks, self._ratios.results,
            )  # fmt: skip
        timestep[...] = ahead

    def _reduce(self, measure: str, conclude: str, norm: "_Norm", taken: tuple[Any, ...]) -> None:
        """The two passes of a norm."""
        sums = (norm.firsts, norm.seconds)
        most = 0.0 if self._most is None else self._most
        results, shared = norm.results, 8 * launch.THREADS
        self._launch(
            measure, norm.firsts.shape[0], *taken, norm.edges, *sums, shared=shared
        )  # fmt: skip
        self._launch(
            conclude, results.shape[0], *sums, norm.starts, most, results, shared=shared
        )  # fmt: skip

    def _launch(self, name: str, blocks: int, *arguments: Any, shared: int = 0) -> None:
        queue = self._launches.get(name)
        if queue is None:
            kinds = tuple(map(kind_of, arguments))
            kernel = launch.compiled(self._kernels[name], kinds)
            blocks = min(blocks, self._most_blocks)
            queue = launch.configured(kernel, blocks, launch.THREADS, self._card.stream, shared)
            self._launches[name] = queue
        queue(*arguments)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


class _Norm:
    """What the two passes of a norm need: blocks, sums over them, a number for each segment."""

    def __init__(self, card: Card, edges: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        self.edges, self.starts = card.array(edges), card.array(starts)
        self.firsts, self.seconds = (card.array(np.zeros(edges.size - 1)) for _ in range(2))
        self.results = card.array(np.zeros(starts.size - 1, card.x.dtype))
