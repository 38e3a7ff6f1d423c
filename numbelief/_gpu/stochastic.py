"""`minimize_stochastic` on an NVIDIA GPU: batches are gathered there, losses looked at together.

An epoch's row numbers, drawn on the host as for a CPU, are copied to the card; a kernel gathers the
rows of a batch into memory that fun gets as arrays of the user's library. As in
`numbelief._gpu.minimize`, steps are queued, and the losses of at most `LOOK_EVERY` of them come to
the host at once, each with the largest coordinate of its gradient.
"""

import functools
from math import prod
from typing import Any

import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray

from numbelief import _checkpoint as checkpoint
from numbelief import _interop as interop
from numbelief._gpu import compile as gpu
from numbelief._gpu.card import view
from numbelief._gpu.minimize import LOOK_EVERY, CardProblem, number
from numbelief._gpu.minimize import first_point as first_point
from numbelief._gpu.vectors import CardVectors, duplicate, measure_largest, top_of
from numbelief._solve.data import common_length, parts_of, sample_of
from numbelief._solve.epochs import epoch_template
from numbelief._solve.options import TrainingOptions
from numbelief._solve.stochastic import Plan, Validator
from numbelief.optimizer import Optimizer
from numbelief.sets import FeasibleSet

# ---- templates ---------------------------------------------------------------------------------


def each_word_template(at):
    """Do something at each word of the rows in some places of the order.

    A row has ``length`` words, which ``2 ** shift`` neighbouring threads share.
    """

    def each_word(order, first, count, length, shift, arguments):
        # Nothing is divided, as a range with a step would: it takes a GPU a hundred instructions.
        width = 1 << shift
        k = cuda.grid(1) >> shift
        while k < count:
            row = order[first + k]
            word = cuda.grid(1) & (width - 1)
            while word < length:
                at(k, row * length + word, k * length + word, *arguments)
                word += width
            k += cuda.gridsize(1) >> shift

    return each_word


def _gather_at(k, i, j, source, target):
    target[j] = source[i]


def _mark_at(k, i, j, source, exponent, marks):
    # Infinities and NaN are the numbers whose exponents have all bits set.
    if source[i] & exponent == exponent:
        marks[k] = 1


def _note(value, position, tops, figures, now):
    """Note a batch's loss, and the largest coordinate of its gradient."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    steepest = top_of(tops, shared)
    fun = value
    if position is not None:
        fun = np.float64(position[0])
    if cuda.grid(1) == 0:
        figures[now], figures[now + 1] = fun, steepest


def _follow_at(i, x, mean, share):
    mean[i] += share * (x[i] - mean[i])


# ---- batches -----------------------------------------------------------------------------------


class CardBatches:
    """Data on a GPU, and the memory there into which the rows of a batch are gathered.

    Parameters
    ----------
    data : tuple of device array
        C-contiguous arrays of numbers, of one leading length. An array alone stands for a tuple of
        one.
    vectors : CardVectors
        Those of x.
    name : str
        The argument's name, for messages.

    Attributes
    ----------
    rows : int
        The leading length.
    launcher : numbelief._gpu.vectors.Launcher
        What launches on the card.
    """

    def __init__(self, data: Any, vectors: CardVectors, name: str = "data") -> None:
        self.launcher, self._name = vectors.launcher, name
        self._parts = parts_of(data, name)
        self._views = [_as_rows(part, f"{name}[{i}]") for i, part in enumerate(self._parts)]
        self.rows = common_length([seen.shape[0] for seen in self._views], name)
        self._order: Any = None
        self._size, self._count = self.rows, 0
        self._batches: dict[int, tuple[Any, ...]] = {}
        self._moves: list[tuple[int, Any, Any]] = []
        gpu.load().synchronize()  # the data may be made on another stream than x0's

    def whole(self) -> tuple[Any, ...]:
        """All rows, in their order."""
        return self._parts

    def begin(self, size: int | None) -> None:
        """Get ready for batches of so many rows, or for one that is always all of them (None)."""
        if size is None:
            return
        self._size = size
        buffers = []
        for i, (part, seen) in enumerate(zip(self._parts, self._views, strict=True)):
            buffer = duplicate(_first_rows(part, size), f"{self._name}[{i}]")
            length = prod(seen.shape[1:]) * seen.dtype.itemsize
            if length:
                source, target = self.launcher.card.words(length, part, buffer)
                self._moves.append((length // source.dtype.itemsize, source, target))
            buffers.append(buffer)
        self._batches[size] = tuple(buffers)
        gpu.load().synchronize()  # the library of the data has made the buffers, on its stream

    def draw(self, rows: NDArray[np.int64]) -> None:
        """Let the epoch that begins have these rows, as many as the one before."""
        self._count = len(rows)
        if not self._batches:
            return
        if self._order is None:
            self._order = self.launcher.card.array(rows)
        else:
            self.launcher.card.assign(self._order, rows)

    def take(self, k: int) -> tuple[Any, ...]:
        """Batch k of the epoch, in memory that the next call uses."""
        if not self._batches:
            return self._parts
        lo = k * self._size
        count = min(self._size, self._count - lo)
        for length, source, target in self._moves:
            self._each_word(_gather_at, self._order, lo, count, length, source, target)
        if count not in self._batches:  # the last one
            whole = self._batches[self._size]
            self._batches[count] = tuple(_first_rows(buffer, count) for buffer in whole)
        return self._batches[count]

    def not_finite(self, rows: NDArray[np.int64]) -> list[str]:
        """Which of these rows hold a number that is not finite, by part.

        A byte for each of them comes to the host.
        """
        found: list[str] = []
        order = self.launcher.card.array(rows)
        for i, (part, seen) in enumerate(zip(self._parts, self._views, strict=True)):
            real = np.finfo(seen.dtype).dtype if seen.dtype.kind in "fc" else None
            length = prod(seen.shape[1:])
            if real is None or not length:
                continue
            length *= seen.dtype.itemsize // real.itemsize
            (words,) = self.launcher.card.words(real.itemsize, part)
            exponent = np.array(np.inf, real).view(words.dtype)[()]
            marks = self.launcher.card.array(np.zeros(len(rows), np.uint8))
            self._each_word(_mark_at, order, 0, len(rows), length, words, exponent, marks)
            wrong = rows[self.launcher.card.host(marks) != 0]
            found += [f"row {row} of {self._name}[{i}]" for row in wrong]
        return found

    @functools.cached_property
    def fingerprint(self) -> str | None:
        """What tells the data from others, as that of the same `Batches`."""
        rows = sample_of(self.rows)
        samples = []
        for seen in self._views:
            sample = np.empty((len(rows), *seen.shape[1:]), seen.dtype)
            for k, row in enumerate(rows.tolist() if sample.size else ()):
                sample[k] = self.launcher.card.host(seen[row : row + 1])[0]
            samples.append(sample)
        return checkpoint.fingerprint((self.rows, *samples))

    def _each_word(
        self, at: Any, order: Any, first: int, count: int, length: int, *arguments: Any
    ) -> None:
        shift = min(length - 1, gpu.THREADS - 1).bit_length()
        self.launcher.spread(
            count << shift, each_word_template, at, order, first, count, length, shift, arguments
        )


def _first_rows(array: Any, count: int) -> Any:
    if getattr(array, "__cuda_ndarray__", False) is True and not array.size:
        # Of an array without memory, Numba makes no slices.
        return gpu.load().device_array((count, *array.shape[1:]), array.dtype)
    return array[:count]


def _as_rows(part: Any, name: str) -> Any:
    """A part of the data as kernels take it."""
    if not interop.is_device_array(part):
        raise TypeError(
            f"{name} must be an array on the GPU, as x0 is, got {type(part).__name__}: "
            f"pass one such as cupy.asarray({name}), several as a tuple"
        )
    seen = view(part, name)
    if not seen.shape:
        raise ValueError(f"{name} must have rows, got a scalar")
    return seen


# ---- the objective -----------------------------------------------------------------------------


class CardObjective:
    """The loss of batches on a GPU; see `numbelief._solve.stochastic.HostObjective`."""

    def __init__(
        self,
        plan: Plan,
        fun: Any,
        jac: Any,
        x: Any,
        feasible_set: FeasibleSet | None,
        settings: TrainingOptions,
    ) -> None:
        self.plan = plan
        self._given = fun, jac, x
        self._launcher = plan.batches.launcher
        self.problem = CardProblem(fun, jac, (), x, self._launcher.card, settings.compiled)

    def validator(self, validation: Any) -> Validator:
        """What evaluates points on other data."""
        if validation is None:
            return Validator()
        fun, jac, x = self._given
        launcher, card = self._launcher, self._launcher.card
        if callable(validation):
            name = "validation"
            return Validator(
                lambda p: number(validation(launcher.copy(p, x)), card, name), "a function"
            )
        others = CardBatches(validation, CardVectors(x), "validation")
        problem = CardProblem(fun, jac, others.whole(), x, card)
        return Validator(lambda p: problem.alone(launcher.copy(p, x)), others.fingerprint)

    def first_gradient(self) -> Any:
        """Memory for a gradient that a file brings."""
        return self._launcher.vector()

    def latest_gradient(self, g: Any) -> Any:
        """The gradient of the last batch."""
        latest = self.problem.gradient
        return g if latest is None else latest

    def check(self, g: Any) -> None:
        """Nothing is checked here."""

    def bind(self, opt: Optimizer) -> Any:
        """The loop of an epoch."""
        return bind_epoch(opt, self.problem, self.plan.batches)

    @property
    def arguments(self) -> Any:
        """The objective of this epoch, which the loop knows."""
        return ()

    def most_steps(self, *, timed: bool) -> int:
        """How many steps may be taken before a look at the clock."""
        return LOOK_EVERY

    def count_calls(self) -> None:
        """They are counted as they happen."""

    def wait(self) -> None:
        """Let what is queued end, where something must."""
        self.problem.wait()


def bind_epoch(optimizer: Optimizer, problem: CardProblem, batches: CardBatches) -> Any:
    """The loop of an epoch, with steps that are queued, and then one look at all their losses.

    At most `LOOK_EVERY` steps. What was queued after a loss or gradient that is not finite has
    moved x, but does not count.
    """
    vectors = optimizer.vectors
    assert isinstance(vectors, CardVectors)
    queue_step = vectors.queue(optimizer.kind, optimizer.step_options, optimizer.step_state)
    launcher, card = batches.launcher, batches.launcher.card
    tops = card.array(np.zeros(launcher.parts))
    figures = card.array(np.zeros(2 * LOOK_EVERY))
    x = card.x

    def evaluate(k: int, x: Any, g: Any, objective: Any) -> Any:
        problem.args = batches.take(k)
        return problem.evaluate()

    def step(x: Any, g: Any, state: Any, rate: Any, options: Any) -> None:
        queue_step(problem.gradient, float(rate))

    def note(k: int, fun: Any, g: Any, losses: Any) -> bool:
        launcher.reduce(measure_largest, problem.gradient, tops)
        launcher.conclude(_note, *fun, tops, figures, 2 * (k % LOOK_EVERY))
        return True

    def average(_: Any, state: Any, means: Any) -> None:
        fading, decay, mean, start = means
        t = optimizer.t
        if fading.size:
            launcher.each(_follow_at, x, fading, x.dtype.type(1 - decay))
        if mean.size and t >= start:
            launcher.each(_follow_at, x, mean, x.dtype.type(1 / (t - start + 1)))

    queue = epoch_template(evaluate=evaluate, note=note, step=step, average=average)

    def run(
        first: int, rates: Any, x: Any, g: Any, state: Any, options: Any, losses: Any, *rest: Any
    ) -> int:
        queue(first, rates, x, g, state, options, losses, *rest)
        taken = np.arange(first, first + rates.size)
        rows = card.host(figures).reshape(-1, 2)[taken % LOOK_EVERY]
        losses[taken] = rows[:, 0]
        wrong = ~np.isfinite(rows).all(axis=1)
        return int(np.argmax(wrong)) if wrong.any() else int(rates.size)

    return run
