"""The loss of mini-batches on the CPU: which rows make up a batch, and what evaluates it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbelief import _checkpoint as checkpoint
from numbelief._compile.pointers import Stored
from numbelief._objective import compiled
from numbelief._objective.problem import Problem
from numbelief._solve.data import Batches, Order
from numbelief._solve.epochs import (
    BatchObjective,
    Means,
    compile_epoch,
    epoch_in_python,
)
from numbelief._solve.options import TrainingOptions
from numbelief._step.call import StoredStep
from numbelief._step.vectors import HostVectors
from numbelief.checks import as_scalar
from numbelief.optimizer import Optimizer
from numbelief.sets import FeasibleSet


class Plan:
    """Which rows make up each batch of each epoch.

    Parameters
    ----------
    batches : Batches, or what is like it on a GPU
    order : Order
    size : int
        Rows of a batch.
    drop_last : bool
        Leave out a last batch that is shorter.

    Attributes
    ----------
    rows, count : int
        Rows that an epoch uses, and its batches.
    rows_of_epoch : ndarray of int64
        Those of the epoch that has begun.
    """

    def __init__(self, batches: Any, order: Order, size: int, drop_last: bool) -> None:
        self.batches, self.order, self.size = batches, order, size
        self.rows = order.size - (order.size % size if drop_last else 0)
        self.count = -(-self.rows // size)
        # All rows are always the same batch: nothing needs to be drawn or gathered, in any order.
        chosen = order.replacement or order.weights is not None
        self._whole = size == batches.rows and not chosen
        batches.begin(None if self._whole else size)
        self.rows_of_epoch = np.arange(0)

    def begin(self, epoch: int) -> None:
        """Draw the rows of an epoch."""
        drawn = np.arange(self.rows) if self._whole else self.order.of(epoch)
        self.rows_of_epoch = drawn[: self.rows]
        self.batches.draw(self.rows_of_epoch)

    def rows_of(self, k: int) -> NDArray[np.int64]:
        """The rows of batch k."""
        return self.rows_of_epoch[k * self.size : (k + 1) * self.size]

    def description(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        order = self.order
        return {
            "rows": self.batches.rows,
            "data": self.batches.fingerprint,
            "batch_size": self.size,
            "rows of an epoch": self.rows,
            "shuffle": order.random,
            "replacement": order.replacement,
            "weights": checkpoint.fingerprint(order.weights),
        }


class Validator(NamedTuple):
    """What evaluates a point after an epoch, and what a checkpoint tells of it; None for none."""

    loss: Callable[[Any], float] | None = None
    description: str | None = None


class HostObjective:
    """The loss of batches on the CPU, called from Python or from compiled code.

    Parameters
    ----------
    plan : Plan
    fun, jac, x, feasible_set, settings
        As in `minimize_stochastic`, checked.

    Attributes
    ----------
    plan : Plan
    problem : Problem
        The objective with a batch for its arguments.
    """

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
        self._given = fun, jac, x, feasible_set, settings
        batches, size = plan.batches, plan.size
        pieces, wants_compiled = batches.pieces, settings.compiled
        if pieces is None:
            if wants_compiled:
                raise TypeError(
                    "data must be NumPy arrays whose rows are contiguous, for a loop in compiled "
                    "code: leave out options={'compiled': True}"
                )
            wants_compiled = False
        args = batches.take(np.arange(size))  # for their types: the rows are drawn by `begin`
        is_compiled = compiled.is_compiled(fun)
        for i, arg in enumerate(args):
            if is_compiled and hasattr(arg, "tocsr"):
                raise TypeError(
                    f"data[{i}] must be a NumPy array for a fun that is compiled by Numba, got "
                    f"batches of {type(arg).__name__}: pass a Python function"
                )
        self.problem = Problem(
            fun, jac, args, x, feasible_set, settings.finite_difference, wants_compiled
        )
        self._calls: tuple[compiled.Call, ...] = ()
        if self.problem.compiled is not None:
            objectives = [self.problem.compiled] * 2
            if plan.rows % size:
                last = tuple(a[: plan.rows % size] for a in args)
                objectives[1] = self.problem.compiled.on(last)
            self._calls, alive = zip(
                *(objective.call(x.size) for objective in objectives), strict=True
            )
            self._pieces, self._alive = pieces, (objectives, alive)

    def validator(self, validation: Any) -> Validator:
        """What evaluates points on other data."""
        if validation is None:
            return Validator()
        if callable(validation):
            return Validator(lambda x: as_scalar(validation(x.copy()), "validation"), "a function")
        fun, jac, x, feasible_set, settings = self._given
        others = Batches(validation, "validation")
        problem = Problem(
            fun, jac, others.whole(), x, feasible_set, settings.finite_difference, False
        )
        return Validator(problem.value, others.fingerprint)

    def first_gradient(self) -> Any:
        """Memory for the gradient."""
        return self.problem.guarded(self._given[2])

    def latest_gradient(self, g: Any) -> Any:
        """The gradient of the last batch, where g is that memory."""
        return g

    def check(self, g: Any) -> None:
        """Look whether something was written beyond that memory."""
        self.problem.check(g)

    def evaluate(self, k: int, x: NDArray[Any], g: NDArray[Any], _: Any = None) -> float:
        """The loss of batch k at x; g is filled."""
        self.problem.args = self.plan.batches.take(self.plan.rows_of(k))
        return self.problem.evaluate(x, g)

    def bind(self, opt: Optimizer, g: NDArray[Any], losses: NDArray[Any], means: Means) -> Any:
        """The loop of an epoch, ``loop(first, rates)``; this must not keep it."""
        vectors, state, options = opt.vectors, opt.step_state, opt.step_options
        assert isinstance(vectors, HostVectors)
        x = vectors.x
        step = StoredStep(opt.kind, state, options, x.dtype)
        if self._calls:

            @functools.cache
            def compiled(parallel: bool) -> tuple[Any, Stored]:
                stored = Stored(x, g, state, step.call(parallel=parallel), losses, means)
                return compile_epoch(stored.layout, parallel=parallel), stored

            def loop(first: int, rates: NDArray[np.float64]) -> int:
                # Threads may be safe at one look and not at the next.
                epoch, stored = compiled(opt.runs_parallel())
                return int(epoch(first, rates, stored.address, self._arguments()))

            return loop
        how = {"parallel": opt.wants_parallel, "nogil": vectors.large}
        epoch = epoch_in_python(step, x, g, state, means, self.evaluate, **how)
        return lambda first, rates: epoch(first, rates, x, g, None, None, losses, None, None)

    def _arguments(self) -> BatchObjective:
        """The objective of this epoch, as the compiled loop takes it."""
        return BatchObjective(self.plan.rows_of_epoch, self.plan.size, self._pieces, *self._calls)

    def most_steps(self, *, timed: bool) -> int:
        """How many steps may be taken before a look at the clock."""
        return 1 if timed and not self._calls else self.plan.count

    @property
    def calls(self) -> int:
        """Evaluations in compiled code that are not counted yet."""
        return sum(int(call.block[compiled.CALLS]) for call in self._calls)

    def count_calls(self) -> None:
        """Count what compiled code has done."""
        calls = self.calls
        self.problem.nfev += calls
        self.problem.njev += calls
        for call in self._calls:
            call.block[compiled.CALLS] = 0

    def wait(self) -> None:
        """Let what is queued end, where something is."""
