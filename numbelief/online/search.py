"""The numerical search for a best fixed point: see `numbelief.online.comparators`."""

from collections.abc import Callable
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.optimize import brentq, linprog

from numbelief import sets
from numbelief.online.losses import Model

Vector = NDArray[np.float64]

# Up to this number of coordinates a Hessian is affordable: 8 MB, and n multiplications for each
# number.
_DENSE = 1000
# Newton steps, and gradient steps inside each; passes over the data where there is no Hessian.
_NEWTON, _INNER, _PASSES = 40, 3000, 1000
_STAGES, _HALVINGS = 15, 30
# Up to this number of rounds go into a linear program at once.
_FEW = 500


class Search:
    """The best point and the best lower bound so far; it counts the passes over the data."""

    def __init__(self, losses: Any, feasible_set: Any, upto: int, target: float) -> None:
        self.losses, self.feasible_set = losses, feasible_set
        self.upto, self.target = upto, target
        self.x: Vector = np.zeros(losses.n)
        self.value, self.slack = inf, inf
        self.lower = 0.0 if losses.nonnegative else -inf
        self.passes = 0
        self.project = _unchecked_projection(feasible_set, losses.n)

    def begin(self, start: Vector) -> Vector:
        """The best of what is near to start, 0 and 1: their losses also are what tol refers to."""
        size = 0.0
        for point in (np.zeros(start.size), start, np.ones(start.size)):
            if isfinite(self.value) and not (point is start and start.any()):
                continue
            x = self.feasible_set.project(point)
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
        """The sum of the losses at x and its gradient."""
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
        if self.losses.quadratic and not isfinite(self.slack):
            self.bound_quadratic(x, model)
        return model

    def keep(self, x: Vector, value: float) -> None:
        """Remember the best point, of those that are in the set."""
        if value < self.value and self.feasible_set.contains(x):
            self.x, self.value = x, value

    def bound(self, x: Vector, tangent: float, gradient: Vector) -> None:
        """Remember the best lower bound, given an affine minorant by its value and slope at x."""
        self.slack = inf
        if isfinite(tangent) and np.isfinite(gradient).all():
            self.slack = frank_wolfe_gap(self.feasible_set, gradient, x)
            self.lower = max(self.lower, tangent - self.slack)

    def bound_quadratic(self, x: Vector, model: Model) -> None:
        """Where the set is unbounded, the curvature of a quadratic still bounds it from below."""
        values = np.linalg.eigvalsh(model.hessian)
        least = float(values[0]) - x.size * np.finfo(float).eps * float(values[-1])
        if least > 0:
            step = self.feasible_set.project(x - model.gradient / least) - x
            self.slack = -float(model.gradient @ step + least / 2 * (step @ step))
            self.lower = max(self.lower, model.value - self.slack)

    @property
    def has_corners(self) -> bool:
        """Whether corners of the losses can be rounded."""
        return self.losses.smoothed is not None

    @property
    def done(self) -> bool:
        """Whether the target is reached."""
        return self.value - self.lower <= self.target

    def minimize(self, x: Vector) -> None:
        """Look for a minimum from x on, until the target is reached or nothing helps."""
        bends = self.losses.smooth or self.has_corners
        minimize = _newton if bends and self.losses.n <= _DENSE else _descend
        if self.has_corners:
            _smooth_corners(self, x, minimize)
        else:
            minimize(self, x)


# ---- sets --------------------------------------------------------------------------------------


def _lowest(feasible_set: Any, gradient: Vector) -> tuple[Vector, float] | None:
    """Where a linear function is lowest, and by how much that may fail; None if it is unbounded."""
    try:
        found: tuple[Vector, float] = feasible_set._least(gradient)
    except ValueError:
        return None
    return found


def frank_wolfe_gap(feasible_set: Any, gradient: Vector, x: Vector) -> float:
    """How much lower than at x a linear function can be: its Frank-Wolfe gap; inf if unbounded."""
    found = _lowest(feasible_set, gradient)
    if found is None:
        return inf
    lowest, slack = found
    # The difference first: it is small where x is a vertex.
    return float(gradient @ (x - lowest)) + slack


def _unchecked_projection(feasible_set: Any, n: int) -> Callable[..., Vector]:
    """`project` without the checks, for the many of a search."""
    projector = feasible_set.projector(n, np.float64)
    even = np.ones(n)

    def project(y: Vector, metric: Vector | None = None) -> Vector:
        x = np.array(y, dtype=np.float64)
        projector(x, even if metric is None else metric.min() / metric)
        return x

    return project


# ---- methods ------------------------------------------------------------------------------------


def _smooth_corners(search: Search, x: Vector, minimize: Callable[..., Vector]) -> None:
    """Minimize with ever finer corners; linear programs do the end where they can."""
    value, _ = search.total(x)
    width = max(value, search.target) / search.upto
    flat_sided = search.losses.form == "features" and search.losses.lowest is not None
    system = search.feasible_set._system(x.size) if flat_sided else None
    target = search.target
    if system is not None:  # few rounds make a linear program by themselves
        search.target = inf if search.upto <= _FEW else max(target, 0.01 * value)
    for _ in range(_STAGES):
        if search.done:
            break
        x = minimize(search, x, width)
        width /= 6
    search.target = target
    if system is not None and not search.done:
        _sift(search, x, system)


def _sift(search: Search, x: Vector, system: Any) -> None:
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
        x, choice[near] = search.feasible_set.project(solved[0]), solved[1]
        gradient = _combine(search, choice * scale)
        m = _margins(search, x) * scale + shift
        search.keep(x, float(np.maximum(m, losses.lowest * m).sum()))
        search.bound(x, float(choice @ m), gradient)
        over = ~near & (choice * m < np.maximum(m, losses.lowest * m))
        if search.done or not over.any():
            break
        near |= over


def _margins(search: Search, x: Vector) -> Vector:
    search.passes += 1
    return np.concatenate([a @ x for _, a, _ in search.losses.blocks(search.upto)])


def _combine(search: Search, weights: Vector) -> Vector:
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


def _fine_enough(search: Search, model: Model) -> bool:
    """Whether the target is reached, or finer corners would now help more than another step."""
    return search.done or search.slack <= max(
        search.target / 2, 0.1 * (model.value - model.tangent)
    )


def _newton(search: Search, x: Vector, width: float = 0.0) -> Vector:
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
            new = search.feasible_set.project(x + step)
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


def _minimize_model(search: Search, model: Model, x: Vector) -> Vector:
    """Minimize <g, p - x> + <p - x, H (p - x)> / 2 over p in the set, to 1 % of its decrease.

    By Nesterov's method in the metric of the diagonal, with restarts (O'Donoghue and Candes 2015).
    """
    feasible_set, g, n = search.feasible_set, model.gradient, x.size
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
    if not feasible_set.exact:  # a projection takes longer, most of all in such a metric
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
            if still or frank_wolfe_gap(feasible_set, g + bend, p) <= enough:
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


def _flat(search: Search, g: Vector, x: Vector) -> float:
    """A curvature that matters where there is no other: next to nothing of what g can fall."""
    lowest = _lowest(search.feasible_set, g)
    if lowest is None:
        return 1e-10 * float(np.linalg.norm(g)) / (1 + float(np.linalg.norm(x)))
    away = lowest[0] - x
    return 1e-6 * max(search.slack, 0.0) / max(float(away @ away), 1e-300)


def _descend(search: Search, x: Vector, width: float = 0.0) -> Vector:
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
            new: Vector = search.feasible_set.project(y - at.gradient / curvature)
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
