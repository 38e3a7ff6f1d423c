"""Sets made of sets."""

import operator
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from numbelief._compile.internals import array_at, window
from numbelief._compile.pointers import call_c
from numbelief.checks import as_nonnegative
from numbelief.sets.base import FeasibleSet, freeze
from numbelief.sets.box import rounded_inwards
from numbelief.sets.cuts import EQUATION, INEQUALITY, CutBox
from numbelief.sets.dual_newton import dual_newton, scratch_size
from numbelief.sets.linear import cut_box_projector
from numbelief.sets.linear_programs import EMPTY, UNBOUNDED, System, Unbounded, joined, minimize
from numbelief.sets.projector import EPS, Projection, Projector
from numbelief.sets.vectors import norm

# From this number of diameters away a projection is nearly a linear minimization.
_FAR, _TURNS = 1e6, 20
# Up to this many coordinates, diameters are worth two linear minimizations each.
_MANY = 200

# ---- products ----------------------------------------------------------------------------------

# A row of the table of parts: address, data, first coordinate, the next part's.
_PART = 4


def _template():
    def project(x, steps, words):
        parts = array_at(words.table, words.rows * _PART, np.intp)
        worst = 0.0
        for k in range(words.rows):
            address, data = parts[k * _PART], parts[k * _PART + 1]
            lo, hi = parts[k * _PART + 2], parts[k * _PART + 3]
            left = call_c(address, window(x, lo, hi), window(steps, lo, hi), data)
            worst = left if not left <= worst else worst
        return worst

    return project


@dataclass(frozen=True, eq=False)
class Product(FeasibleSet):
    r"""All x whose blocks of consecutive coordinates lie in one set each.

    .. math:: F = F_1 \times F_2 \times \dots

    Parameters
    ----------
    sets : sequence of sets
    sizes : sequence of int
        How many coordinates each of them has.

    Raises
    ------
    TypeError
        An element is not a set, or a size is not an integer.
    ValueError
        There is not one size for each set, or a size is not that of its set.

    Examples
    --------
    >>> from numbelief.sets import Box, Product, Simplex
    >>> Product([Simplex(), Box(0.0, 1.0)], [2, 1]).project([1.0, 0.5, 7.0])
    array([0.75, 0.25, 1.  ])

    References
    ----------
    S. Boyd and L. Vandenberghe, "Convex optimization", section 8.1 (2004).
    """

    sets: Any
    sizes: Any

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether all of the sets are."""
        return all(each.exact for each in self.sets)

    def __post_init__(self) -> None:
        parts = _as_sets("sets", self.sets)
        try:
            sizes = tuple(self.sizes)
        except TypeError:
            raise TypeError(f"sizes must be a sequence of integers, got {self.sizes!r}") from None
        if len(sizes) != len(parts):
            raise ValueError(
                f"sizes must hold one number for each of {len(parts)} sets, got {len(sizes)}"
            )
        pairs = enumerate(zip(parts, sizes, strict=True))
        sizes = tuple(each._count(size, f"sizes[{i}]") for i, (each, size) in pairs)
        freeze(self, sets=parts, sizes=sizes)

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return sum(self.sizes)

    @property
    def _blocks(self) -> list[tuple[FeasibleSet, int, int]]:
        stops = np.cumsum(self.sizes).tolist()
        starts = [0, *stops[:-1]]
        return list(zip(self.sets, starts, stops, strict=True))

    _projection = Projection(_template)

    def _projector(self, n: int, dtype: Any) -> Projector:
        parts = [(each.projector(hi - lo, dtype), lo, hi) for each, lo, hi in self._blocks]
        table = [(each.address, each.data, lo, hi) for each, lo, hi in parts]
        return Projector(self._projection, n, dtype, table=table, rows=len(parts), keep=parts)

    def _report(self, left: float, x: NDArray[Any]) -> None:
        for each, lo, hi in self._blocks:
            if not each.contains(x[lo:hi]):
                each._report(left, x[lo:hi])
                return
        super()._report(left, x)

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        return all(each._contains(x[lo:hi], tol, ulp) for each, lo, hi in self._blocks)

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.concatenate([each._widths(hi - lo) for each, lo, hi in self._blocks])

    def _length(self, widths: NDArray[np.float64]) -> float:
        return norm(np.array([each._length(widths[lo:hi]) for each, lo, hi in self._blocks]))

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([each._linear_minimum(g[lo:hi]) for each, lo, hi in self._blocks])

    def _least(self, g: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        found = [each._least(g[lo:hi]) for each, lo, hi in self._blocks]
        return np.concatenate([x for x, _ in found]), sum(slack for _, slack in found)

    def _cut_box(self, n: int) -> CutBox:
        lower, upper, cuts = np.empty(n), np.empty(n), []
        for each, lo, hi in self._blocks:
            lower[lo:hi], upper[lo:hi], own = each._cut_box(hi - lo)
            for cut in own:
                row = np.zeros(n)
                row[lo:hi] = cut.row
                cuts.append(cut._replace(lo=cut.lo + lo, hi=cut.hi + lo, row=row))
        return CutBox(lower, upper, cuts)

    def _system(self, n: int) -> System | None:
        return joined([(each._system(hi - lo), lo, hi) for each, lo, hi in self._blocks], n)


# ---- intersections -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, init=False)
class Intersection(FeasibleSet):
    r"""All x that lie in every one of several sets.

    The sets together are a box with m constraints :math:`h_k(x) \le 0` or :math:`h_k(x) = 0`: a
    half-space, a ball and the total of a simplex are one each, an affine set is one for each of its
    rows. The projection is

    .. math:: x(\mu) = \operatorname*{argmin}_{l \le x \le u}
        \sum_i \tfrac{a_i}{2} (x_i - y_i)^2 + \sum_k \mu_k h_k(x)

    for the multipliers :math:`\mu` at which this least value is greatest. That of a single flat
    constraint is found exactly, as by `BoxHyperplane`. Otherwise Newton's method finds them, in
    O(m² n) operations a step, and ends where no constraint is violated by more than ``tol`` times
    its terms. If it does not get there, ``project`` warns with the residual, or raises ValueError
    if that is large, as it is where the sets have no point in common. It may fail in metrics whose
    weights differ by more than 1e8, and where sets only just touch.

    A linear minimum is a projection from far away, repeated until it is proved to rounding; it
    needs a bounded set, or flat sides. The diameters are exact coordinate by coordinate for up to
    200 coordinates, from two linear minima each, and otherwise upper bounds, as is the Euclidean
    one.

    Parameters
    ----------
    *sets : sets
    tol : float, default 1e-12
        Where the method ends.
    maxiter : int, default 200
        Newton's steps after which it gives up.

    Raises
    ------
    TypeError
        An argument is not a set.
    ValueError
        There are no sets, they have different numbers of coordinates, or tol or maxiter is out of
        range.

    Examples
    --------
    >>> from numbelief.sets import Ball, HalfSpace, Intersection
    >>> disk = Intersection(Ball(1.0), HalfSpace([1.0, 0.0], 0.6))
    >>> disk.project([2.0, 2.0]).round(6)
    array([0.6, 0.8])

    References
    ----------
    D. P. Bertsekas, "Projected Newton methods for optimization problems with simple constraints",
    SIAM Journal on Control and Optimization 20 (1982).
    """

    exact: ClassVar[bool] = False

    sets: tuple[FeasibleSet, ...]
    tol: float
    maxiter: int

    def __init__(self, *sets: FeasibleSet, tol: float = 1e-12, maxiter: int = 200) -> None:
        parts = _as_sets("sets", sets)
        sizes = sorted({each.size for each in parts if each.size is not None})
        if len(sizes) > 1:
            raise ValueError(f"sets must have one number of coordinates, got {sizes}")
        tol = as_nonnegative("tol", tol)
        try:
            cycles = operator.index(maxiter)
        except TypeError:
            raise TypeError(f"maxiter must be an integer, got {maxiter!r}") from None
        if cycles < 1:
            raise ValueError(f"maxiter must be at least 1, got {maxiter}")
        freeze(self, sets=parts, tol=tol, maxiter=cycles)

    @property
    def size(self) -> int | None:
        """The number of coordinates, or None if every set fits any."""
        return next((each.size for each in self.sets if each.size is not None), None)

    _projection = Projection(dual_newton)

    def _projector(self, n: int, dtype: Any) -> Projector:
        whole = lower, upper, cuts = self._cut_box(n)
        if len(cuts) == 1 and cuts[0].kind in (INEQUALITY, EQUATION):
            return cut_box_projector(whole, dtype)  # exact, in any metric
        ends = rounded_inwards(lower, upper, n, dtype)
        return Projector(
            self._projection,
            n,
            dtype,
            arrays=[
                np.array([cut.row for cut in cuts]).reshape(len(cuts), n),
                np.stack(ends, axis=1, dtype=np.float64),
            ],
            numbers=[self.tol, self.maxiter, *(cut.side for cut in cuts)],
            scratch=scratch_size(n, len(cuts)),
            integers=len(cuts),
            table=[(cut.kind, cut.lo, cut.hi) for cut in cuts],
            rows=len(cuts),
        )

    def _cut_box(self, n: int) -> CutBox:
        pieces = [each._cut_box(n) for each in self.sets]
        lower = np.max([each.lower for each in pieces], axis=0)
        upper = np.min([each.upper for each in pieces], axis=0)
        if (lower > upper).any():
            raise ValueError(EMPTY)
        return CutBox(lower, upper, [cut for each in pieces for cut in each.cuts])

    def _report(self, left: float, x: NDArray[Any]) -> None:
        message = (
            f"the projection onto the Intersection has not converged after {self.maxiter} of "
            f"Newton's steps: the residual is {left:.3g}"
        )
        system = self._system(x.size)
        if system is not None:
            minimize(system, np.zeros(x.size))  # raises where the set is empty
        elif not left <= 1e-6 * float(np.abs(x).max()):
            # In the metric of equal weights it does not fail for the metric.
            point = np.zeros_like(x)
            there = self._projector(x.size, x.dtype)(point, np.ones_like(x))
            known = there <= 1e-6 * float(np.abs(point).max())
            why = "metric's weights differ too much" if known else "sets may have no common point"
            raise ValueError(f"{message}. The {why}")
        warnings.warn(message, RuntimeWarning, stacklevel=3)

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        return all(each._contains(x, tol, ulp + 4 * self.tol) for each in self.sets)

    def _widths(self, n: int) -> NDArray[np.float64]:
        widths = self._outer_widths(n)
        if n > _MANY or np.isinf(widths).any():
            return widths
        for i, e in enumerate(np.eye(n)):
            (low, under), (high, over) = self._least(e), self._least(-e)
            widths[i] = min(widths[i], max(high[i] - low[i], 0.0) + under + over)
        return widths

    def _outer_widths(self, n: int) -> NDArray[np.float64]:
        """Upper bounds, finite where the set is bounded."""
        lower, upper, _ = self._cut_box(n)
        widths = np.min([upper - lower, *(each._widths(n) for each in self.sets)], axis=0)
        system = self._system(n)
        if system is not None:
            for i in np.flatnonzero(np.isinf(widths)):
                g = np.zeros(n)
                g[i] = 1.0
                try:
                    widths[i] = minimize(system, -g)[i] - minimize(system, g)[i]
                except Unbounded:
                    break
        return np.asarray(widths)

    def _length(self, widths: NDArray[np.float64]) -> float:
        n = widths.size
        finite = [
            each._length(own)
            for each, own in ((each, each._widths(n)) for each in self.sets)
            if np.isfinite(own).all()
        ]
        return min([norm(widths), *finite])

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._least(g)[0]

    def _least(self, g: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        # If x is the projection of z - t g, no y of the set has <g, y> below <g, x> by more than
        # <z - x, x - y> / t. From z = x on, that is soon nothing.
        n = g.size
        projector, even = self._projector(n, np.dtype(np.float64)), np.ones(n)

        def nearest(y: NDArray[np.float64]) -> NDArray[np.float64]:
            x = y.copy()
            left = projector(x, even)
            if left > 0:
                self._report(left, x)
            return x

        widths = self._outer_widths(n)
        if np.isfinite(widths).all():
            x = nearest(np.zeros(n))
        else:
            system = self._system(n)
            if system is None:
                raise ValueError(UNBOUNDED)
            x = nearest(minimize(system, g))
            widths = np.full(n, np.abs(x).max())
        size, slope = norm(widths), norm(g)
        slack = slope * size
        if slack == 0:
            return x, 0.0
        t = _FAR * size / slope
        for _ in range(_TURNS):
            new = nearest(x - t * g)
            bound = norm(x - new) * size / t + 4 * EPS * slope * size
            if not bound < slack:
                break
            x, slack = new, bound
        return x, slack

    def _system(self, n: int) -> System | None:
        return joined([(each._system(n), 0, n) for each in self.sets], n)


# ---- arguments ---------------------------------------------------------------------------------


def _as_sets(name: str, value: Any) -> tuple[FeasibleSet, ...]:
    try:
        parts = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of sets, got {value!r}") from None
    if not parts:
        raise ValueError(f"{name} must hold at least one set, got none")
    for i, each in enumerate(parts):
        if not isinstance(each, FeasibleSet):
            raise TypeError(f"{name}[{i}] must be a set of numbelief.sets, got {each!r}")
    return parts
