"""Regret as a certified interval."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from numbelief.online.comparators import Comparator, best_per_segment, curve
from numbelief.online.losses import CallbackLosses

if TYPE_CHECKING:
    from numbelief.online.play import OnlineResult


class Interval(NamedTuple):
    """Two numbers that a third one lies between."""

    lower: float
    upper: float


class Slope(NamedTuple):
    """The exponent a of R(t) ~ t**a, and its 95 % confidence interval."""

    value: float
    lower: float
    upper: float


class Regret:
    r"""How much was lost in excess of the best fixed point in hindsight.

    .. math:: R(t) = \sum_{s \le t} f_s(x_s) - \min_{x \in F} \sum_{s \le t} f_s(x)

    A comparator x that is better than others by at most its duality gap puts R(t) into the interval
    from L(t) - F(x) to L(t) - F(x) + gap. One that did not converge widens the interval. Convexity
    gives another upper end, the linearized regret

    .. math:: \sum_s \langle g_s, x_s\rangle - \min_{x \in F} \Big\langle\sum_s g_s, x\Big\rangle,

    the only one against an adversary, whose losses elsewhere are not known.

    Attributes
    ----------
    t : ndarray of int64
        Rounds, on a geometric grid.
    lower, upper : ndarray of float64
        The ends of the interval after these rounds.
    linearized : ndarray of float64
        The linearized regret; infinite where the set is unbounded.
    comparators : tuple of Comparator
        The best fixed points, with their gaps; empty for an adversary.
    """

    def __init__(self, result: "OnlineResult") -> None:
        self._result = result
        losses, place = result.losses, result.feasible_set
        self.t, inner, gradients = result.linearized
        self.linearized = inner - np.array([_least(place, g) for g in gradients])
        lost = np.cumsum(result.loss)[self.t - 1]
        self.comparators: tuple[Comparator, ...] = ()
        if isinstance(losses, CallbackLosses) and not losses.oblivious:
            self.lower = np.full(len(self.t), -np.inf)
            self.upper = self.linearized
            return
        if place is None:
            raise ValueError("the regret needs a feasible_set: without one there is no best point")
        self.comparators = curve(losses, place, self.t)
        value = np.array([each.value for each in self.comparators])
        gap = np.array([each.gap for each in self.comparators])
        self.lower = lost - value
        self.upper = np.minimum(self.lower + gap, np.maximum(self.linearized, self.lower))

    @property
    def final(self) -> Interval:
        """R(T)."""
        return Interval(float(self.lower[-1]), float(self.upper[-1]))

    @property
    def average(self) -> Interval:
        """R(T) / T."""
        return Interval(*(end / self._result.rounds for end in self.final))

    @property
    def slope(self) -> Slope:
        """The exponent of R(t), by least squares on the logarithms from the root of T on.

        The residuals of a curve are correlated, and the confidence interval does not know it. NaN
        where R(t) is not above 0 at three rounds.
        """
        late = (self.t >= np.sqrt(self._result.rounds)) & (self.upper > 0)
        if late.sum() < 3:
            return Slope(np.nan, np.nan, np.nan)
        fit = stats.linregress(np.log(self.t[late]), np.log(self.upper[late]))
        margin = stats.t.ppf(0.975, late.sum() - 2) * fit.stderr
        return Slope(float(fit.slope), float(fit.slope - margin), float(fit.slope + margin))

    def dynamic(self, points: ArrayLike | None = None, *, segments: Any = None) -> Interval:
        """The regret against a sequence of points, or against the best point of each segment.

        Parameters
        ----------
        points : array_like of shape (T, n), optional
            One for each round.
        segments : sequence of int, optional
            Where segments begin and end: increasing, from 0 to T.

        Returns
        -------
        Interval
            Both ends are the same against points.

        Raises
        ------
        ValueError
            Not one of points and segments is given, or it has another shape.
        """
        if (points is None) == (segments is None):
            raise ValueError("give points or segments")
        result = self._result
        lost = float(result.loss.sum())
        losses: Any = result.losses
        if points is not None:
            if result.rounds != losses.rounds:
                losses = losses[: result.rounds]
            regret = lost - float(losses.along(points).sum())
            return Interval(regret, regret)
        best = best_per_segment(losses, result.feasible_set, segments)
        value = sum(each.value for each in best)
        gap = sum(each.gap for each in best)
        return Interval(lost - value, lost - value + gap)

    def __str__(self) -> str:
        lines = [f"{'t':>10} {'regret':>12} {'to':>12} {'R(t)/t':>12} {'R(t)/sqrt(t)':>12}"]
        some = np.unique(np.linspace(0, len(self.t) - 1, 8).astype(int))
        for i in some:
            t, low, high = self.t[i], self.lower[i], self.upper[i]
            lines.append(f"{t:10d} {low:12.5g} {high:12.5g} {high / t:12.4g} {high / t**0.5:12.4g}")
        return "\n".join(lines)


def _least(place: Any, gradient: NDArray[Any]) -> float:
    """The least inner product with a gradient over the set."""
    if place is None:
        return 0.0 if not gradient.any() else -np.inf
    try:
        return float(gradient @ place.linear_minimum(gradient))
    except (ValueError, NotImplementedError):
        return -np.inf
