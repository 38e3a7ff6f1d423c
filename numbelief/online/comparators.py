r"""The best fixed point in hindsight, with a certificate.

Regret compares the losses of a player with :math:`\min_{x\in F} F_t(x)`, :math:`F_t = f_1 + \dots +
f_t`. A minimum that a solver claims proves nothing. So a `Comparator` is a point of F, whose value
is an upper bound of the minimum, together with a gap: value - gap is a lower bound, proved by

.. math:: \min_F F_t \ge F_t(\tilde x) - \mathrm{gap},\qquad
   \mathrm{gap} = \langle g, \tilde x\rangle - \min_{y\in F} \langle g, y\rangle

for a subgradient g (the Frank-Wolfe gap). For losses with corners one subgradient proves little.
But :math:`|m| = \max_{|a|\le1} a m` and :math:`\max(0, m) = \max_{0\le a\le1} a m`: any choice of a
in each round gives an affine minorant, whose minimum over F is a lower bound. A linear program
finds the best choice; where the set has round sides, smoothed losses find a good one. A comparator
that did not converge has a wide gap and says so; it is still one, and its interval holds.

Where there is no closed form, Newton's method does it: one pass over the data gives value, gradient
and Hessian, a quadratic program of n variables the step. From a warm start a handful of passes are
enough, so that a curve over geometric checkpoints costs a constant number of passes over all T.
"""

from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief.checks import integer, positive
from numbelief.online.losses import CallbackLosses, Losses, Minimizer
from numbelief.online.losses.base import GameLosses
from numbelief.online.search import Search

__all__ = ["Comparator", "best_fixed", "best_per_segment", "checkpoints", "curve"]

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparator:
    r"""A fixed point, and how much better another could be.

    The regret of a player who lost L in these rounds lies in [L - value, L - value + gap].

    Attributes
    ----------
    x : ndarray of shape (n,) of float64
        A point of the feasible set.
    value : float
        :math:`F_t(x)`.
    gap : float
        No point of the set has a sum of losses below value - gap, up to the rounding of sums. It is
        inf where nothing is proved, as on an unbounded set.
    exact : bool
        x is a minimizer in closed form, up to rounding, and gap is 0. Never so on an
        `Intersection`, whose projections and linear minima are iterative.
    converged : bool
        Whether the gap reached the tolerance.
    rounds : int
        The number t of rounds.
    passes : int
        How often their data were read.
    """

    x: Vector
    value: float
    gap: float
    exact: bool
    converged: bool
    rounds: int
    passes: int

    @property
    def lower(self) -> float:
        """A lower bound of the minimum: value - gap."""
        return self.value - self.gap


def best_fixed(
    losses: Losses | CallbackLosses,
    feasible_set: Any,
    upto: int | None = None,
    *,
    start: ArrayLike | None = None,
    tol: float = 1e-8,
) -> Comparator:
    r"""Find the best fixed point in hindsight, and prove how good it is.

    In closed form: linear losses (a linear minimization), squared distances (the projection of the
    mean), distances in one dimension or on a `Box` (the medians, clipped). The rest numerically,
    see the top of this file, with the proved gap.

    Parameters
    ----------
    losses : Losses or CallbackLosses
        A callback must be oblivious.
    feasible_set : set of `numbelief.sets`
        Nonempty, closed and convex, with ``project`` and ``linear_minimum``.
    upto : int, default all
        The number t of rounds.
    start : array_like of shape (n,), optional
        Where to begin, best the comparator of fewer rounds; default the projection of 0.
    tol : float, default 1e-8
        Above 0. The search ends and is called converged at a gap of tol times the losses where it
        begins, or the gap there if that is larger.

    Returns
    -------
    Comparator

    Raises
    ------
    TypeError
        losses or start is of another kind.
    ValueError
        The callback is not oblivious, upto exceeds the rounds, tol is not positive, start has
        another shape, or linear losses have no minimum on an unbounded set.

    Examples
    --------
    >>> import numpy as np
    >>> from numbelief.online import LogisticLosses, best_fixed
    >>> from numbelief.sets import Box
    >>> losses = LogisticLosses([[1.0], [1.0], [-2.0]], [1, -1, 1])
    >>> best = best_fixed(losses, Box(-5, 5))
    >>> best.converged, best.gap < 1e-7, np.round(best.x, 3)
    (True, True, array([-0.756]))

    References
    ----------
    Jaggi, Revisiting Frank-Wolfe: Projection-Free Sparse Convex Optimization, 2013 (the gap).
    Nesterov, Smooth minimization of non-smooth functions, 2005 (losses with corners).
    Lee, Sun and Saunders, Proximal Newton-type methods for minimizing composite functions, 2014.
    """
    if not isinstance(losses, GameLosses):
        raise TypeError(f"losses must be Losses, got {type(losses).__name__}")
    if not losses.oblivious:
        raise ValueError(
            "a callback that may be an adversary has no best fixed point; "
            "CallbackLosses(..., oblivious=True) says that it is none"
        )
    tol = positive("tol", tol)
    upto = losses._upto(upto)
    search = Search(losses, feasible_set, upto, tol * upto)
    known = losses.exact_minimizer(feasible_set, upto)
    if known is not None:
        return _by_formula(search, known)
    x = search.begin(_start(start, losses.n))
    try:
        search.minimize(x)
    except ValueError:
        # A projection onto an intersection may fail; what was found before still holds.
        if feasible_set.exact or not isfinite(search.value):
            raise
    return _as_found(search)


def checkpoints(rounds: int, ratio: float = sqrt(2)) -> NDArray[np.int64]:
    r"""A geometric grid of rounds that includes the first and the last.

    Reading all rounds up to each of them reads up to 1 + ratio/(ratio - 1) times the last in total.

    Parameters
    ----------
    rounds : int
        The last, T.
    ratio : float, default sqrt(2)
        Above 1. Between neighbours; where it is less than one round, every round is there.

    Returns
    -------
    ndarray of int64
        Increasing, from 1 to T.

    Raises
    ------
    TypeError, ValueError
        rounds is not an integer of at least 1, or ratio is not a finite number above 1.

    Examples
    --------
    >>> from numbelief.online import checkpoints
    >>> checkpoints(100, ratio=2)
    array([  1,   2,   4,   8,  16,  32,  64, 100])
    """
    last = integer("rounds", rounds)
    if last < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds!r}")
    ratio = positive("ratio", ratio)
    if not 1 < ratio < inf:
        raise ValueError(f"ratio must be a finite number above 1, got {ratio!r}")
    count = int(np.log(last) / np.log(ratio)) + 1
    grid = np.rint(ratio ** np.arange(count)).astype(np.int64)
    return np.unique(np.append(grid[grid < last], last))


def curve(
    losses: Losses | CallbackLosses,
    feasible_set: Any,
    at: ArrayLike | None = None,
    *,
    tol: float = 1e-8,
) -> tuple[Comparator, ...]:
    r"""The best fixed points of the first t rounds for many t, each found from the one before.

    Parameters
    ----------
    losses, feasible_set, tol
        As in `best_fixed`.
    at : array_like of int, optional
        Increasing numbers t of rounds; default ``checkpoints(losses.rounds)``. Over a geometric
        grid, all of it reads the data a constant number of times.

    Returns
    -------
    tuple of Comparator

    Raises
    ------
    TypeError, ValueError
        As in `best_fixed`; at is missing and losses have no number of rounds.

    Examples
    --------
    >>> from numbelief.online import SquaredLosses, curve
    >>> from numbelief.sets import Box
    >>> centers = [0.0, 1.0, 1.0, 6.0]
    >>> [float(best.x[0]) for best in curve(SquaredLosses(centers), Box(0, 1.5), [1, 2, 4])]
    [0.0, 0.5, 1.5]
    """
    if at is None:
        if losses.rounds is None:
            raise ValueError("at must be given where losses have no number of rounds")
        at = checkpoints(losses.rounds)
    found: list[Comparator] = []
    for upto in np.asarray(at).tolist():
        start = found[-1].x if found else None
        found.append(best_fixed(losses, feasible_set, upto, start=start, tol=tol))
    return tuple(found)


def best_per_segment(
    losses: Losses, feasible_set: Any, edges: ArrayLike, *, tol: float = 1e-8
) -> tuple[Comparator, ...]:
    r"""The dynamic comparator that changes at given rounds only: the best point of each segment.

    For a comparator that changes every round, see ``losses.along(points)``.

    Parameters
    ----------
    losses : Losses
    feasible_set, tol
        As in `best_fixed`.
    edges : array_like of int
        Increasing, from 0: segment k is ``losses[edges[k] : edges[k + 1]]``.

    Returns
    -------
    tuple of Comparator
        One a segment; their values add up, and so do their gaps.

    Raises
    ------
    TypeError
        losses are not a table.
    ValueError
        edges do not increase from 0, or go beyond the rounds.

    Examples
    --------
    >>> from numbelief.online import SquaredLosses, best_per_segment
    >>> from numbelief.sets import Box
    >>> losses = SquaredLosses([0.0, 2.0, 5.0, 5.0])
    >>> [float(each.x[0]) for each in best_per_segment(losses, Box(0, 9), [0, 2, 4])]
    [1.0, 5.0]
    """
    if not isinstance(losses, Losses):
        raise TypeError(f"losses must be a table of losses, got {type(losses).__name__}")
    cuts = np.asarray(edges)
    if cuts.ndim != 1 or cuts.size < 2 or cuts.dtype.kind not in "iu":
        raise ValueError(f"edges must hold at least two integers, got {edges!r}")
    if cuts[0] != 0 or (np.diff(cuts) <= 0).any() or cuts[-1] > losses.rounds:
        raise ValueError(f"edges must increase from 0 to at most {losses.rounds}, got {edges!r}")
    pairs = zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
    return tuple(best_fixed(losses[a:b], feasible_set, tol=tol) for a, b in pairs)


def _by_formula(search: Search, known: Minimizer) -> Comparator:
    """A minimizer that a formula gives, as exact as the set itself."""
    search.passes += known.passes
    exact = search.feasible_set.exact
    if known.value is not None:
        value, gap = known.value, known.gap
        return Comparator(known.x, value, gap, exact, True, search.upto, search.passes)
    value, gradient = search.total(known.x)
    if exact:
        return Comparator(known.x, value, 0.0, True, True, search.upto, search.passes)
    search.keep(known.x, value)
    search.bound(known.x, value, gradient)
    return _as_found(search)


def _as_found(search: Search) -> Comparator:
    """The best point of a search, with the best lower bound."""
    gap = max(search.value - search.lower, 0.0)
    return Comparator(search.x, search.value, gap, False, search.done, search.upto, search.passes)


def _start(start: ArrayLike | None, n: int) -> Vector:
    if start is None:
        return np.zeros(n)
    x = np.array(start, dtype=np.float64)
    if x.shape != (n,):
        raise ValueError(f"start must have shape ({n},), got {x.shape}")
    return x
