"""`minimize_stochastic` with x0 on a GPU: steps are queued there, losses looked at together.

The losses of at most `numbelief._gpu.points.LOOK_EVERY` steps come to the host at once, each with
the largest coordinate of its gradient.
"""

from typing import Any

import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray

from numbelief._gpu import points
from numbelief._gpu.data import CardBatches as CardBatches
from numbelief._gpu.minimize import first_point as first_point
from numbelief._gpu.problem import CardProblem, number
from numbelief._gpu.reductions import top_of
from numbelief._gpu.vectors import CardVectors, measure_largest
from numbelief._solve.batch_objective import Plan, Validator
from numbelief._solve.epochs import Means, epoch_template
from numbelief._solve.options import TrainingOptions
from numbelief.optimizer import Optimizer
from numbelief.sets import FeasibleSet

# ---- kernels -----------------------------------------------------------------------------------


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


# ---- the objective -----------------------------------------------------------------------------


class CardObjective:
    """The loss of batches on a GPU; see `numbelief._solve.batch_objective.HostObjective`."""

    def __init__(
        self,
        plan: Plan,
        fun: Any,
        jac: Any,
        x: Any,
        feasible_set: FeasibleSet | None,
        settings: TrainingOptions,
    ) -> None:
        self.plan, self._given = plan, (fun, jac)
        self._vectors: CardVectors = plan.batches.vectors
        self.problem = CardProblem(fun, jac, (), self._vectors, settings.compiled)

    def validator(self, validation: Any) -> Validator:
        """What evaluates points on other data."""
        if validation is None:
            return Validator()
        vectors = self._vectors
        if callable(validation):
            name = "validation"
            return Validator(
                lambda p: number(validation(vectors.export(p)), vectors.card, name), "a function"
            )
        others = CardBatches(validation, vectors, "validation")
        problem = CardProblem(*self._given, others.whole(), vectors)
        return Validator(lambda p: problem.value(vectors.export(p)), others.fingerprint)

    def first_gradient(self) -> Any:
        """Memory for a gradient that a file brings."""
        return self._vectors.zeros()

    def latest_gradient(self, g: Any) -> Any:
        """The gradient of the last batch."""
        latest = self.problem.gradient
        return g if latest is None else latest

    def check(self, g: Any) -> None:
        """Nothing is checked here."""

    def bind(self, opt: Optimizer, g: Any, losses: NDArray[Any], means: Means) -> Any:
        """The loop of an epoch, ``loop(first, rates)``."""
        return bind_epoch(opt, self.problem, self.plan.batches, losses, means)

    def most_steps(self, *, timed: bool) -> int:
        """How many steps may be taken before a look at the clock."""
        return points.LOOK_EVERY

    def count_calls(self) -> None:
        """They are counted as they happen."""

    def wait(self) -> None:
        """Let what is queued end, where something must."""
        self.problem.wait()


def bind_epoch(
    optimizer: Optimizer,
    problem: CardProblem,
    batches: CardBatches,
    losses: NDArray[Any],
    means: Means,
) -> Any:
    """The loop of an epoch, with steps that are queued, and then one look at all their losses.

    At most `LOOK_EVERY` steps. What was queued after a loss or gradient that is not finite has
    moved x, but does not count.
    """
    vectors = optimizer.vectors
    assert isinstance(vectors, CardVectors)
    queue_step = vectors.queue(optimizer.kind, optimizer.step_options, optimizer.step_state)
    launcher, card = vectors.launcher, vectors.card
    tops = card.array(np.zeros(launcher.parts))
    figures = card.array(np.zeros(2 * points.LOOK_EVERY))
    x = card.x

    def evaluate(k: int, x: Any, g: Any, objective: Any) -> Any:
        problem.args = batches.take(k)
        return problem.evaluate()

    def step(x: Any, g: Any, state: Any, rate: Any, options: Any) -> None:
        queue_step(problem.gradient, float(rate))

    def note(k: int, fun: Any, g: Any, losses: Any) -> bool:
        launcher.reduce(measure_largest, problem.gradient, tops)
        launcher.conclude(_note, *fun, tops, figures, 2 * (k % points.LOOK_EVERY))
        return True

    def average(_: Any, state: Any, means: Any) -> None:
        fading, decay, mean, start = means
        t = optimizer.t
        if fading.size:
            launcher.each(_follow_at, x, fading, x.dtype.type(1 - decay))
        if mean.size and t >= start:
            launcher.each(_follow_at, x, mean, x.dtype.type(1 / (t - start + 1)))

    queue = epoch_template(evaluate=evaluate, note=note, step=step, average=average)

    def run(first: int, rates: NDArray[np.float64]) -> int:
        queue(first, rates, x, None, None, None, losses, means, None)
        taken = np.arange(first, first + rates.size)
        rows = card.host(figures).reshape(-1, 2)[taken % points.LOOK_EVERY]
        losses[taken] = rows[:, 0]
        wrong = ~np.isfinite(rows).all(axis=1)
        return int(np.argmax(wrong)) if wrong.any() else int(rates.size)

    return run
