"""A game that was played, as the theorems see it: its sums, and whether it kept to assumptions."""

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from numbelief._step.kind import never_decays
from numbelief.online.regret import SPACE
from numbelief.online.review import FIGURES, SUMS
from numbelief.schedules import table

if TYPE_CHECKING:
    from numbelief.online.result import OnlineResult

Vector = NDArray[np.float64]

# How far numbers may be apart that a theorem takes for equal: rounding, and a printed theorem that
# forgets an epsilon far below everything else.
ROUNDING, NEGLIGIBLE = 1e-8, 1e-6


class Audit:
    """A game that was played again, and its sums at the checkpoints.

    Attributes
    ----------
    result : OnlineResult
    t : ndarray of shape (K,), int64
        The checkpoints.
    sums : dict of str to ndarray of shape (K, n)
        By the names of `numbelief.online.review.SUMS`.
    figures : dict of str to ndarray of shape (K,)
        By the names of `numbelief.online.review.FIGURES`.
    method, feasible_set, rule
        Of the game.
    beta1, decay : float
        In round t, the rule has beta1 decay^(t-1).
    """

    def __init__(self, result: "OnlineResult") -> None:
        self.result = result
        match = result._match
        review = match.review()
        known = int(review.next_row[0])
        self.t: NDArray[np.int64] = review.checkpoints[:known]
        sums, figures, slots = (
            table[:known] for table in (review.sums_at, review.figures_at, review.slots_at)
        )
        if not known or self.t[-1] != result.rounds:  # the game ended between two checkpoints
            self.t = np.append(self.t, result.rounds)
            sums = np.concatenate([sums, review.sums[None]])
            figures = np.concatenate([figures, review.figures])
            slots = np.concatenate([slots, review.old_slots[None]])
        self.n = result.losses.n
        self.sums = {name: np.ascontiguousarray(sums[name]) for name in SUMS.names or ()}
        self.figures = {name: figures[name].copy() for name in FIGURES.names or ()}
        self._slots = slots
        self.method: Any = result.method
        self.feasible_set: Any = result.feasible_set or SPACE
        self.rule: Any = match.rule
        self.decay = float(match.decay)
        self.beta1 = float(getattr(self.rule, "beta1", 0.0))

    @property
    def second(self) -> Vector:
        """What is under the root of the rule: the last of its slots."""
        slots: Vector = self._slots[:, -1]
        return slots

    def extent(self, unbounded: bool = False) -> Vector:
        """How far apart two points of the set may be along each coordinate.

        A set without an extent is refused, unless infinity will do.
        """
        try:
            return np.asarray(self.feasible_set.diameter(self.n))
        except (ValueError, NotImplementedError) as error:
            if unbounded:
                return np.full(self.n, inf)
            raise ValueError(f"a bound needs a feasible_set with a diameter: {error}") from None

    def length(self) -> float:
        """The Euclidean diameter of the set."""
        self.extent()
        return float(self.feasible_set.diameter(self.n, norm=2))

    def rates(self, first: int = 1) -> Vector:
        """The learning rates of the rounds from the first one on, at least one."""
        count = max(self.result.rounds + 1 - first, 1)
        return table(self.result._match.moves.schedule, first, count)

    def at(self, curve: Vector) -> Vector:
        """A curve over all rounds, at the checkpoints."""
        here: Vector = curve[self.t - 1]
        return here

    @property
    def alpha(self) -> float:
        """The rate of the first round, alpha of a schedule alpha / sqrt(t)."""
        return float(self.rates()[0])


# ---- assumptions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assumption:
    """What a theorem asks of a run, and what the run says to it.

    Attributes
    ----------
    name : str
    holds : bool
    evidence : str
        What was seen.
    """

    name: str
    holds: bool
    evidence: str


def convex_losses(run: Audit) -> Assumption:
    """Whether the losses are convex, as far as that is known."""
    name = type(run.result.losses).__name__
    known = run.result.losses.is_built_in()
    seen = f"{name} are" if known else f"{name}: promised by the caller, it cannot be seen"
    return Assumption("convex losses", True, seen)


def directions_are_averages(run: Audit) -> Assumption:
    """Whether every direction was the average of the gradients."""
    stray = float(run.figures["stray"][-1])
    name = "direction m_t = beta1 m_(t-1) + (1 - beta1) g_t" if run.beta1 else "direction g_t"
    return Assumption(name, stray <= ROUNDING, f"off by at most {stray:.2g} of its size")


def projected_in_metric(run: Audit) -> Assumption:
    """Whether x_{t+1} is the projection of the step: whether no point of F is nearer in 1/eta.

    For that to be so, the gradient H (x_{t+1} - x_t) + m_t of the distance must have its minimum
    over F at x_{t+1}. On a set that does not tell where this is, or not exactly, the step is taken
    again.
    """
    name = "projected in the metric of the step"
    weights, direction = run.sums["weight"], run.sums["direction"]
    before, after = run.sums["before"], run.sums["point"]
    moves = run.sums["step"] > 0
    force = np.where(moves, weights * (after - before) + direction, 0.0)
    size = weights * (abs(after) + abs(before)) + abs(direction)
    worst, seen = 0.0, "no point is nearer, within {:.2g} of the terms"
    try:
        for f, s, x in zip(force, size, after, strict=True):
            y = run.feasible_set.linear_minimum(f)
            gap, unit = f @ (x - y), s @ (abs(x) + abs(y))
            worst = max(worst, float(gap / unit) if unit > 0 else 0.0)
    except (ValueError, NotImplementedError):
        worst = inf
    if worst > ROUNDING:
        metric = np.where(weights > 0, weights, 1.0)
        targets = np.where(moves, before - run.sums["step"] * direction, before)
        again = np.array(
            [run.feasible_set.project(y, h) for y, h in zip(targets, metric, strict=True)]
        )
        unit = np.maximum(abs(before), abs(after)).max(1)
        worst = float(np.max(abs(after - again).max(1) / (unit + 1e-300)))
        seen = "the projection is the same, within {:.2g} of the point"
    decays = not never_decays(run.rule)
    seen = f"at {len(run.t)} rounds " + seen.format(worst)
    if run.feasible_set.separable:
        seen += "; a box has the same projection in all diagonal metrics"
    if decays:
        seen = "x decays before the step, or lambda x is added to g"
    return Assumption(name, worst <= ROUNDING and not decays, seen)


def no_coordinate_held(run: Audit) -> Assumption:
    """Whether no step of 0 held a coordinate that others moved past."""
    count = int(run.figures["frozen"][-1])
    name = "no coordinate held by a step of 0"
    if run.feasible_set.separable:
        return Assumption(name, True, "on a box each coordinate plays by itself")
    return Assumption(name, count == 0, f"{count} rounds with such a coordinate")


def steps_never_grow(run: Audit) -> Assumption:
    """Whether the weights, which are infinite where a step is 0 along a direction, never fell."""
    shrinks = run.figures["weights_grow"][-1] == 1
    seen = "none grew in any round" if shrinks else "some grew in some round"
    return Assumption("steps never grow", bool(shrinks), seen)


def constant_beta1(run: Audit) -> Assumption:
    """Whether beta1 was the same in all rounds."""
    seen = f"beta1 = {run.beta1:g}"
    if run.decay < 1:
        seen += f" * {run.decay:g}^(t-1)"
    return Assumption("constant beta1", run.decay == 1 or run.beta1 == 0, seen)


def decaying_beta1(run: Audit) -> Assumption:
    """Whether beta1 decayed geometrically."""
    seen = f"beta1 = {run.beta1:g}, lambda = {run.decay:g}"
    holds = run.decay < 1 or run.beta1 == 0
    return Assumption("beta1_t = beta1 lambda^(t-1), lambda < 1", holds, seen)


def rate_over_root(run: Audit) -> Assumption:
    """Whether the rates were alpha / sqrt(t)."""
    scaled = run.rates() * np.sqrt(np.arange(1, run.result.rounds + 1))
    low, high = float(scaled.min()), float(scaled.max())
    seen = f"alpha_t sqrt(t) is between {low:.6g} and {high:.6g}"
    return Assumption("alpha_t = alpha / sqrt(t)", high - low <= ROUNDING * high, seen)


def steps_are(run: Audit, name: str, weights: Vector, slack: float = ROUNDING) -> Assumption:
    """Whether the steps were 1 / weights, where there was a direction to step along."""
    steps = run.sums["step"]
    asked = (steps > 0) | (run.sums["direction"] != 0) & np.isfinite(weights)
    off = float(np.max(abs(weights * steps - 1), where=asked, initial=0.0))
    return Assumption(f"steps {name}", off <= slack, f"off by at most {off:.2g} of their size")


def slot_never_falls(run: Audit, name: str) -> Assumption:
    """Whether the last slot, which has this name, never fell."""
    grows = run.figures["slots_grow"][-1] == 1
    return Assumption(
        f"{name}_t never falls", bool(grows), "in no round" if grows else "it fell in some round"
    )


def bounded_gradients(run: Audit, name: str = "G") -> Assumption:
    """The bound of the gradients that was read off the run."""
    top = float(run.sums["largest"][-1].max())
    return Assumption(
        "bounded gradients", True, f"the largest |g_i| of this run, {top:.6g}, was taken for {name}"
    )
