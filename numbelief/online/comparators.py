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

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, linprog

from numbelief import sets
from numbelief.checks import integer, positive
from numbelief.online.losses import (
    AbsoluteLosses,
    CallbackLosses,
    HingeLosses,
    LinearLosses,
    LogisticLosses,
    Losses,
    Model,
    SquaredLosses,
)

__all__ = ["Comparator", "best_fixed", "best_per_segment", "checkpoints", "curve"]

Vector = NDArray[np.float64]

# Up to so many coordinates a Hessian is affordable: 8 MB, and n multiplications for each number.
_DENSE = 1000
# Newton steps, and gradient steps inside each; passes over the data where there is no Hessian.
_NEWTON, _INNER, _PASSES = 40, 3000, 1000
_STAGES, _HALVINGS = 15, 30
# Up to so many rounds go into a linear program at once.
_FEW = 500


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
    if not isinstance(losses, (Losses, CallbackLosses)):
        raise TypeError(f"losses must be Losses, got {type(losses).__name__}")
    if isinstance(losses, CallbackLosses) and not losses.oblivious:
        raise ValueError(
            "a callback that may be an adversary has no best fixed point; "
            "CallbackLosses(..., oblivious=True) says that it is none"
        )
    tol = positive("tol", tol)
    upto = losses._upto(upto)
    search = _Search(losses, feasible_set, upto, tol * upto)
    closed = _closed_form(search)
    if closed is not None:
        return closed
    x = search.begin(_start(start, losses.n))
    bends = isinstance(losses, Losses) and (losses.smooth or losses.smoothed is not None)
    minimize = _newton if bends and losses.n <= _DENSE else _descend
    try:
        if search.has_corners:
            _smooth_corners(search, x, minimize)
        else:
            minimize(search, x)
    except ValueError:
        # A projection onto an intersection may fail; what was found before still holds.
        if _is_exact(feasible_set) or not isfinite(search.value):
            raise
    return search.result()


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


# ---- closed forms ------------------------------------------------------------------------------


class _Search:
    """The best point and the best lower bound so far; it counts the passes over the data."""

    def __init__(self, losses: Any, feasible_set: Any, upto: int, target: float) -> None:
        self.losses, self.set, self.upto, self.target = losses, feasible_set, upto, target
        self.x: Vector = np.zeros(losses.n)
        positive = (AbsoluteLosses, HingeLosses, LogisticLosses, SquaredLosses)
        self.value, self.slack = inf, inf
        self.lower = 0.0 if isinstance(losses, positive) else -inf
        self.passes = 0
        self.project = _fast_projection(feasible_set, losses.n)

    def begin(self, start: Vector) -> Vector:
        """The best of what is near to start, 0 and 1: their losses also are what tol refers to."""
        size = 0.0
        for point in (np.zeros(start.size), start, np.ones(start.size)):
            if isfinite(self.value) and not (point is start and start.any()):
                continue
            x = self.set.project(point)
            value, gradient = self.total(x)
            self.keep(x, value)
            self.bound(x, value, gradient)
            if isfinite(value):
                spread = self.slack if isfinite(self.slack) else 0.0
                size = max(size, abs(value), spread)
        if not isfinite(self.value):
            raise ValueError("start must have a finite loss, got an infinite one there, at 0 and 1")
        self.target *= size / self.upto or 1.0
        return self.x

    def total(self, x: Vector) -> tuple[float, Vector]:
        self.passes += 1
        total: tuple[float, Vector] = self.losses.total(x, self.upto)
        return total

    def look(self, x: Vector, width: float = 0.0, hessian: bool = True, inside: bool = True) -> Any:
        """One pass at x: the model there, whose bounds are kept, and whose slack is its gap."""
        if hessian or self.has_corners:
            self.passes += 1
            model = self.losses.model(x, self.upto, width, hessian)
        else:
            value, gradient = self.total(x)
            model = Model(value, value, gradient, value, None)
        if inside:
            self.keep(x, model.value)
        self.bound(x, model.tangent, model.gradient)
        if isinstance(self.losses, SquaredLosses) and not isfinite(self.slack):
            self.bound_quadratic(x, model)
        return model

    def keep(self, x: Vector, value: float) -> None:
        """Remember the best point, of those that are in the set."""
        if value < self.value and self.set.contains(x):
            self.x, self.value = x, value

    def bound(self, x: Vector, tangent: float, gradient: Vector) -> None:
        """Remember the best lower bound, given an affine minorant by its value and slope at x."""
        self.slack = inf
        if isfinite(tangent) and np.isfinite(gradient).all():
            self.slack = reach(self.set, gradient, x)
            self.lower = max(self.lower, tangent - self.slack)

    def bound_quadratic(self, x: Vector, model: Model) -> None:
        """Where the set is unbounded, the curvature of a quadratic still bounds it from below."""
        values = np.linalg.eigvalsh(model.hessian)
        least = float(values[0]) - x.size * np.finfo(float).eps * float(values[-1])
        if least > 0:
            step = self.set.project(x - model.gradient / least) - x
            self.slack = -float(model.gradient @ step + least / 2 * (step @ step))
            self.lower = max(self.lower, model.value - self.slack)

    @property
    def has_corners(self) -> bool:
        return isinstance(self.losses, Losses) and self.losses.smoothed is not None

    @property
    def done(self) -> bool:
        return self.value - self.lower <= self.target

    def closed(self, x: Vector) -> Comparator:
        """A minimizer in closed form, as exact as the set itself."""
        value, gradient = self.total(x)
        if _is_exact(self.set):
            return Comparator(x, value, 0.0, True, True, self.upto, self.passes)
        self.keep(x, value)
        self.bound(x, value, gradient)
        return self.result()

    def result(self) -> Comparator:
        gap = max(self.value - self.lower, 0.0)
        return Comparator(self.x, self.value, gap, False, self.done, self.upto, self.passes)


def _is_exact(feasible_set: Any) -> bool:
    """Whether projections and linear minima are exact: those of an intersection are iterative."""
    if isinstance(feasible_set, sets.Product):
        return all(map(_is_exact, feasible_set.sets))
    return not isinstance(feasible_set, sets.Intersection)


def _closed_form(search: _Search) -> Comparator | None:
    losses, feasible_set, n = search.losses, search.set, search.losses.n
    if isinstance(losses, LinearLosses):
        _, sums = search.total(np.zeros(n))
        x, slack = feasible_set._least(sums)
        exact = _is_exact(feasible_set)
        return Comparator(x, float(sums @ x), slack, exact, True, search.upto, search.passes)
    if getattr(losses, "form", "") != "coordinates":
        return None
    if isinstance(losses, SquaredLosses):
        _, sums = search.total(np.zeros(n))
        return search.closed(feasible_set.project((0.0 - sums) / search.upto))
    # Where the coordinates are free of each other, clipping their medians is best; so it is for any
    # convex function of one number.
    if isinstance(losses, AbsoluteLosses) and (n == 1 or isinstance(feasible_set, sets.Box)):
        search.passes += 1
        medians = np.median(losses.data[0][: search.upto], axis=0).astype(np.float64)
        return search.closed(feasible_set.project(medians))
    return None


# ---- numerical search --------------------------------------------------------------------------


def _lowest(feasible_set: Any, gradient: Vector) -> tuple[Vector, float] | None:
    """Where a linear function is lowest, and by how much that may fail; None if it is unbounded."""
    try:
        found: tuple[Vector, float] = feasible_set._least(gradient)
    except ValueError:
        return None
    return found


def reach(feasible_set: Any, gradient: Vector, x: Vector) -> float:
    """How much lower than at x a linear function can be: its Frank-Wolfe gap; inf if unbounded."""
    found = _lowest(feasible_set, gradient)
    if found is None:
        return inf
    lowest, slack = found
    # The difference first: it is small where x is a vertex.
    return float(gradient @ (x - lowest)) + slack


def _fast_projection(feasible_set: Any, n: int) -> Callable[..., Vector]:
    """`project` without the checks, for the many of a search."""
    projector = feasible_set.projector(n, np.float64)
    even = np.ones(n)

    def project(y: Vector, metric: Vector | None = None) -> Vector:
        x = np.array(y, dtype=np.float64)
        projector(x, even if metric is None else metric.min() / metric)
        return x

    return project


def _smooth_corners(search: _Search, x: Vector, minimize: Callable[..., Vector]) -> None:
    """Minimize with ever finer corners; linear programs do the end where they can."""
    value, _ = search.total(x)
    width = max(value, search.target) / search.upto
    flat_sided = search.losses.form == "features" and search.losses.lowest is not None
    system = search.set._system(x.size) if flat_sided else None
    goal = search.target
    if system is not None:  # so many rounds make a linear program by themselves
        search.target = inf if search.upto <= _FEW else max(goal, 0.01 * value)
    for _ in range(_STAGES):
        if search.done:
            break
        x = minimize(search, x, width)
        width /= 6
    search.target = goal
    if system is not None and not search.done:
        _sift(search, x, system)


def _sift(search: _Search, x: Vector, system: Any) -> None:
    """Minimize losses with corners by linear programs over the rounds whose corner is near.

    The other rounds stay linear, as they are at x, which keeps every dual solution a proof. Rounds
    that the solution brings over their corner join; in the end none does.
    """
    losses, near = search.losses, np.zeros(search.upto, dtype=bool)
    scale, shift = losses.margin(losses.data[1][: search.upto].astype(np.float64))
    m = _margins(search, x) * scale + shift
    choice = np.where(m > 0, 1.0, losses.lowest)
    near[np.argsort(np.abs(m))[: 200 + 20 * losses.n]] = True
    for _ in range(_STAGES):
        far = _combine(search, np.where(near, 0.0, choice * scale))
        rows = losses.data[0][: search.upto][near].astype(np.float64) * scale[near, None]
        solved = _solve_linear(system, far, rows, shift[near], losses.lowest)
        if solved is None:
            break
        x, choice[near] = search.set.project(solved[0]), solved[1]
        gradient = _combine(search, choice * scale)
        m = _margins(search, x) * scale + shift
        search.keep(x, float(np.maximum(m, losses.lowest * m).sum()))
        search.bound(x, float(choice @ m), gradient)
        over = ~near & (choice * m < np.maximum(m, losses.lowest * m))
        if search.done or not over.any():
            break
        near |= over


def _margins(search: _Search, x: Vector) -> Vector:
    search.passes += 1
    return np.concatenate([a @ x for _, a, _ in search.losses.blocks(search.upto)])


def _combine(search: _Search, weights: Vector) -> Vector:
    search.passes += 1
    total: Vector = sum(weights[part] @ a for part, a, _ in search.losses.blocks(search.upto))
    return total


def _solve_linear(
    system: Any, c: Vector, rows: Vector, shift: Vector, lowest: float
) -> tuple[Vector, Vector] | None:
    """Minimize <c, x> + sum_k max(m_k, lowest m_k), m = rows x + shift: x, and the a_k of a_k m_k.

    The system is that of a set, whose first columns are x.
    """
    n, k = c.size, shift.size
    extra = system.lower.size - n
    # m = p - q with p, q >= 0; the dual variable of that equation is the choice of a.
    eye = scipy.sparse.eye_array(k)
    equal = [[rows, scipy.sparse.csr_array((k, extra)), -eye, eye]]
    sides = [-shift]
    if system.equal is not None:
        equal.append([system.equal, scipy.sparse.csr_array((len(system.values), 2 * k))])
        sides.append(system.values)
    above = None
    if system.above is not None:
        above = scipy.sparse.hstack(
            [system.above, scipy.sparse.csr_array((len(system.limits), 2 * k))]
        )
    lower = np.append(system.lower, np.zeros(2 * k))
    upper = np.append(system.upper, np.full(2 * k, inf))
    result = linprog(
        np.concatenate([c, np.zeros(extra), np.ones(k), np.full(k, -lowest)]),
        above,
        system.limits,
        scipy.sparse.vstack([scipy.sparse.hstack(row) for row in equal]),
        np.concatenate(sides),
        np.column_stack([lower, upper]),
        method="highs",
    )
    if result.status != 0:
        return None
    return result.x[:n], np.clip(-result.eqlin.marginals[:k], lowest, 1.0)


def _fine_enough(search: _Search, model: Model) -> bool:
    """Whether the target is reached, or finer corners would now help more than another step."""
    return search.done or search.slack <= max(
        search.target / 2, 0.1 * (model.value - model.tangent)
    )


def _newton(search: _Search, x: Vector, width: float = 0.0) -> Vector:
    """Minimize the quadratic model over the set, and go there or part of the way."""
    model = search.look(x, width)
    for _ in range(_NEWTON):
        if _fine_enough(search, model):
            break
        slack = search.slack
        step = _minimize_model(search, model, x) - x
        descent = float(model.gradient @ step)
        # The gap shrinks with the square root of what is left to gain, so that it still does when
        # the values no longer differ.
        blind = -descent <= 1e-11 * abs(model.merit)
        for _ in range(_HALVINGS):
            new = search.set.project(x + step)
            trial = search.look(new, width)
            if blind or trial.merit <= model.merit + 1e-4 * descent:
                break
            step, descent = step / 2, descent / 2
        else:
            break
        x, model = new, trial
        if blind and not search.slack < slack / 2:
            break
    return x


def _minimize_model(search: _Search, model: Model, x: Vector) -> Vector:
    """Minimize <g, p - x> + <p - x, H (p - x)> / 2 over p in the set, to 1 % of its decrease.

    By Nesterov's method in the metric of the diagonal, with restarts (O'Donoghue and Candes 2015).
    """
    feasible_set, g, n = search.set, model.gradient, x.size
    # Where the losses are flat, still prefer near points to far ones, a little.
    H = model.hessian + (1e-12 * np.trace(model.hessian) / n + _flat(search, g, x)) * np.eye(n)
    free = x - np.linalg.solve(H, g)
    if feasible_set.contains(free):
        return free
    if isinstance(feasible_set, sets.Ball):
        return _minimize_on_ball(feasible_set, H, H @ x - g)
    if isinstance(feasible_set, sets.Simplex) and search.losses.form == "features":
        # Steps within the simplex add up to 0, so that a common part of the columns (all prices
        # rise and fall together) does nothing but harm the condition of H.
        H = H - H.mean(axis=0)
        H = H - H.mean(axis=1)[:, None]
    metric = np.maximum(np.diag(H), 1e-10 * np.diag(H).max())
    steps = _INNER
    if not _is_exact(feasible_set):  # a projection takes longer, most of all in such a metric
        metric, steps = np.ones(n), _INNER // 20
    root = np.sqrt(metric)
    top = float(np.linalg.eigvalsh(H / root / root[:, None])[-1])
    p = y = x
    momentum = 1.0
    for k in range(steps):
        new = search.project(y - (g + H @ (y - x)) / (top * metric), metric)
        if (metric * (y - new)) @ (new - p) > 0:
            momentum = 1.0
        following = (1 + sqrt(1 + 4 * momentum**2)) / 2
        y = new + (momentum - 1) / following * (new - p)
        moved, p, momentum = new - p, new, following
        if k % 8 == 7:
            bend = H @ (p - x)
            decrease = -float(g @ (p - x) + (p - x) @ bend / 2)
            still = np.abs(moved).max() <= 1e-13 * np.abs(p - x).max()
            enough = max(0.01 * decrease, 0.1 * search.target)
            if still or reach(feasible_set, g + bend, p) <= enough:
                break
    return p


def _minimize_on_ball(ball: Any, H: Vector, c: Vector) -> Vector:
    """Minimize <p, H p> / 2 - <c, p> over a sphere: one number solves it in the axes of H."""
    values, axes = np.linalg.eigh(H)
    values = np.maximum(values, np.finfo(float).eps * values[-1])
    center = axes.T @ np.broadcast_to(ball.center, c.shape)
    c = axes.T @ c - values * center

    def excess(shift: float) -> float:
        return float(np.linalg.norm(c / (values + shift)) / ball.radius - 1)

    shift = 0.0
    if excess(0.0) > 0:
        most = float(np.linalg.norm(c)) / ball.radius
        shift = brentq(excess, 0.0, 2 * most, xtol=1e-300, rtol=1e-15)
    p: Vector = ball.project(axes @ (center + c / (values + shift)))
    return p


def _flat(search: _Search, g: Vector, x: Vector) -> float:
    """A curvature that matters where there is no other: next to nothing of what g can fall."""
    lowest = _lowest(search.set, g)
    if lowest is None:
        return 1e-10 * float(np.linalg.norm(g)) / (1 + float(np.linalg.norm(x)))
    away = lowest[0] - x
    return 1e-6 * max(search.slack, 0.0) / max(float(away @ away), 1e-300)


def _descend(search: _Search, x: Vector, width: float = 0.0) -> Vector:
    """Nesterov's method with restarts, where a Hessian is missing or too large."""
    y = x
    momentum, curvature = 1.0, 0.0
    while search.passes < _PASSES:
        at = search.look(y, width, hessian=False, inside=y is x)
        if search.done:
            break
        norm = float(np.linalg.norm(at.gradient))
        if norm == 0:
            break
        curvature = curvature / 2 or norm
        while search.passes < _PASSES:
            new: Vector = search.set.project(y - at.gradient / curvature)
            step = new - y
            there = search.look(new, width, hessian=False)
            above = at.merit + at.gradient @ step + curvature / 2 * (step @ step)
            if there.merit <= above + 1e-15 * abs(at.merit):
                break
            curvature *= 2
        if _fine_enough(search, there):
            return new
        if (y - new) @ (new - x) > 0:
            momentum = 1.0
        following = (1 + sqrt(1 + 4 * momentum**2)) / 2
        y = new + (momentum - 1) / following * (new - x)
        x, momentum = new, following
    return x


def _start(start: ArrayLike | None, n: int) -> Vector:
    if start is None:
        return np.zeros(n)
    x = np.array(start, dtype=np.float64)
    if x.shape != (n,):
        raise ValueError(f"start must have shape ({n},), got {x.shape}")
    return x
