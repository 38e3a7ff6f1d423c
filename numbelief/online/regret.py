"""Regret as a certified interval."""

import itertools
import weakref
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from numbelief.online.comparators import Comparator, best_fixed, curve
from numbelief.online.search import frank_wolfe_gap
from numbelief.sets import Box

if TYPE_CHECKING:
    from numbelief.online.result import OnlineResult


#: The set of those who play without one.
SPACE = Box(-np.inf, np.inf)

# The comparators of losses: who plays the same game is compared with the same points.
_found: weakref.WeakKeyDictionary[Any, dict[Any, tuple[Comparator, ...]]]
_found = weakref.WeakKeyDictionary()


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
        The best fixed points, with their gaps; empty where there are none.
    unknown : str
        Why there are none, so that the interval has no lower end: the losses are those of an
        adversary, or fall without end on an unbounded set. Otherwise empty.
    """

    def __init__(self, result: "OnlineResult") -> None:
        self._result = result
        losses = result.losses
        self._feasible_set = feasible_set = result.feasible_set or SPACE
        self.t, inner, gradients = result.linearized
        zero = np.zeros(losses.n)
        self.linearized = inner + np.array(
            [frank_wolfe_gap(feasible_set, g, zero) for g in gradients]
        )
        self.comparators: tuple[Comparator, ...] = ()
        self.unknown = ""
        self.lower = np.full(len(self.t), -np.inf)
        self.upper = self.linearized
        if not losses.oblivious:
            self.unknown = "the losses of an adversary are known only where they were played"
            return
        try:
            self.comparators = _best(losses, feasible_set, self.t)
        except ValueError as error:
            self.unknown = str(error)
            return
        lost = np.cumsum(result.loss)[self.t - 1]
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
        late = (self.t >= np.sqrt(self._result.rounds)) & (self.upper > 0) & (self.upper < np.inf)
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
            One for each round, in the feasible set or not.
        segments : sequence of int, optional
            Where segments begin and end: increasing, from 0 to the number T of rounds played.

        Returns
        -------
        Interval
            Both ends are the same against points.

        Raises
        ------
        ValueError
            Not one of points and segments is given, or it has another shape; segments do not go
            from 0 to T; the losses are those of an adversary, who cannot be asked again.
        """
        if (points is None) == (segments is None):
            raise ValueError("give points or segments")
        T = self._result.rounds
        lost = float(self._result.loss.sum())
        losses = self._result.losses[:T]
        if points is not None:
            regret = lost - float(losses.along(points).sum())
            return Interval(regret, regret)
        cuts = np.asarray(segments)
        edges = cuts.tolist() if cuts.ndim == 1 and cuts.dtype.kind in "iu" else []
        pairs = list(itertools.pairwise(edges))
        if not pairs or edges[0] != 0 or edges[-1] != T or any(b <= a for a, b in pairs):
            raise ValueError(f"segments must increase from 0 to T = {T}, got {segments!r}")
        best = [best_fixed(losses[a:b], self._feasible_set) for a, b in pairs]
        value = sum(each.value for each in best)
        gap = sum(each.gap for each in best)
        return Interval(lost - value, lost - value + gap)

    def __str__(self) -> str:
        lines = [f"{'t':>10} {'regret':>12} {'to':>12} {'R(t)/t':>12} {'R(t)/sqrt(t)':>12}"]
        some = np.unique(np.linspace(0, len(self.t) - 1, 8).astype(int))
        for i in some:
            t, low, high = self.t[i], self.lower[i], self.upper[i]
            lines.append(f"{t:10d} {low:12.5g} {high:12.5g} {high / t:12.4g} {high / t**0.5:12.4g}")
        if self.unknown:
            lines.append(f"no best fixed point: {self.unknown}")
        return "\n".join(lines)


def _best(losses: Any, feasible_set: Any, at: NDArray[np.int64]) -> tuple[Comparator, ...]:
    """Find the best fixed points, once: from the first round on, whoever asks."""
    data = losses.data if losses.replayable else ()
    # The data are the caller's, who may have changed them since.
    key = (feasible_set, at.tobytes(), *(zlib.crc32(each) for each in data))
    found = _found.setdefault(losses, {})
    if key not in found:
        found[key] = curve(losses, feasible_set, at)
    return found[key]
