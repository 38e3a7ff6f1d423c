"""Half-spaces, and boxes cut by a hyperplane."""

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief._compile.internals import number_at
from numbelief.checks import as_finite, as_number
from numbelief.sets.base import FeasibleSet, freeze
from numbelief.sets.box import Box, rounded_inwards
from numbelief.sets.cuts import EQUATION, INEQUALITY, Cut, CutBox
from numbelief.sets.linear_programs import UNBOUNDED, System, minimize_over_box
from numbelief.sets.one_multiplier import (
    INFINITY,
    MINUS_INFINITY,
    ZERO,
    one_multiplier,
    plain,
    replaced,
)
from numbelief.sets.projector import EPS, SUM_ULPS, Projection, Projector
from numbelief.sets.vectors import scaled_hyperplane


def _lower_of_pair(address, i):
    """The lower bounds stand before the upper ones, in pairs."""
    return number_at(address, 2 * i)


def _upper_of_pair(address, i):
    return number_at(address, 2 * i + 1)


_FLAT = {"fold": plain, "unfold": replaced, "center_size": ZERO, "normal_at": number_at}


@dataclass(frozen=True, eq=False)
class HalfSpace(FeasibleSet):
    r"""All x with ``normal @ x <= offset``.

    The projection is

    .. math:: x = y - \frac{\max(c \cdot y - b, 0)}{\sum_i c_i^2 / a_i} \frac{c}{a}.

    Parameters
    ----------
    normal : array_like of shape (n,)
        Not all zero.
    offset : float

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        An argument is not finite, or the normal is zero or has another shape.

    Examples
    --------
    >>> from numbelief.sets import HalfSpace
    >>> HalfSpace([1.0, 1.0], 1.0).project([2.0, 1.0])
    array([1., 0.])

    References
    ----------
    S. Boyd and L. Vandenberghe, "Convex optimization", section 8.1 (2004).
    """

    normal: Any
    offset: float

    def __post_init__(self) -> None:
        freeze(self, normal=as_normal(self.normal), offset=as_number("offset", self.offset))

    @property
    def size(self) -> int:
        """The number of coordinates."""
        count: int = self.normal.size
        return count

    _projection = Projection(one_multiplier, lower_at=MINUS_INFINITY, upper_at=INFINITY, **_FLAT)

    def _projector(self, n: int, dtype: Any) -> Projector:
        normal, offset = scaled_hyperplane(self.normal, self.offset)
        numbers = [offset, 0]
        return Projector(
            self._projection, n, dtype, arrays=[normal], numbers=numbers, scratch=n, integers=n
        )

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        terms = self.normal * x
        slack = ulp * (abs(self.offset) + float(np.abs(terms).sum()))
        return bool(terms.sum() <= self.offset + tol + slack)

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.full(n, inf)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        normal, offset = scaled_hyperplane(self.normal, self.offset)
        square = normal @ normal
        share = -(g @ normal) / square
        if share < 0 or np.abs(g + share * normal).max() > 1e-12 * np.abs(g).max():
            raise ValueError(UNBOUNDED)
        return np.asarray(normal * (offset / square))

    def _cut_box(self, n: int) -> CutBox:
        free = np.full(n, inf)
        cut = Cut(INEQUALITY, 0, n, *scaled_hyperplane(self.normal, self.offset))
        return CutBox(-free, free, [cut])

    def _system(self, n: int) -> System:
        free, offset = np.full(n, inf), np.array([self.offset])
        return System(-free, free, self.normal[None], offset)


@dataclass(frozen=True, eq=False)
class BoxHyperplane(FeasibleSet):
    r"""All x in a box with ``normal @ x = offset``, or ``<= offset``.

    The projection is

    .. math:: x_i = \min(\max(y_i - \tau c_i / a_i, l_i), u_i)

    for the :math:`\tau` at which x lies in the hyperplane. The left side of the equation is
    piecewise linear in :math:`\tau`; the piece is found exactly, by searching its corners.

    The diameters are exact coordinate by coordinate; the Euclidean one is an upper bound.

    Parameters
    ----------
    lower, upper : array_like of shape (n,) or scalar
        The bounds of the box, which may be infinite.
    normal : array_like of shape (n,)
        Not all zero.
    offset : float
    equality : bool, default True
        False for ``normal @ x <= offset``.

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        The box is as `Box` refuses it, the normal or the offset is not finite, the normal is zero
        or has another shape, or the hyperplane misses the box: the set is empty.

    Examples
    --------
    >>> from numbelief.sets import BoxHyperplane
    >>> BoxHyperplane(0.0, 1.0, [1.0, 1.0, 2.0], 1.0).project([2.0, 0.5, 0.0])
    array([1., 0., 0.])

    References
    ----------
    P. M. Pardalos and N. Kovoor, "An algorithm for a singly constrained class of quadratic programs
    subject to upper and lower bounds", Mathematical Programming 46 (1990).
    """

    lower: Any
    upper: Any
    normal: Any
    offset: float
    equality: bool = True

    def __post_init__(self) -> None:
        box, normal = Box(self.lower, self.upper), as_normal(self.normal)
        if box.lower.shape not in ((), (1,), normal.shape):
            raise ValueError(
                f"lower and upper must have the shape of normal, {normal.shape}, "
                f"got {box.lower.shape}"
            )
        if not isinstance(self.equality, (bool, np.bool)):
            raise TypeError(f"equality must be a bool, got {self.equality!r}")
        freeze(
            self,
            lower=np.broadcast_to(box.lower, normal.shape),
            upper=np.broadcast_to(box.upper, normal.shape),
            normal=normal,
            offset=as_number("offset", self.offset),
        )
        least, most = (ends.sum() for ends in self._ends())
        slack = SUM_ULPS * EPS * (abs(self.offset) + sum(map(_sum_of_finite, self._ends())))
        if least > self.offset + slack or (self.equality and most < self.offset - slack):
            raise ValueError(
                f"offset must be within reach of the box, where normal @ x runs from {least:.6g} "
                f"to {most:.6g}, got {self.offset:.6g}: the set is empty"
            )

    @property
    def size(self) -> int:
        """The number of coordinates."""
        count: int = self.normal.size
        return count

    def _ends(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the greatest normal * x in the box."""
        c = self.normal
        with np.errstate(invalid="ignore"):  # 0 * inf
            ends = [np.where(c == 0, 0.0, c * bound) for bound in (self.lower, self.upper)]
        return np.minimum(*ends), np.maximum(*ends)

    _projection = Projection(
        one_multiplier, lower_at=_lower_of_pair, upper_at=_upper_of_pair, **_FLAT
    )

    def _projector(self, n: int, dtype: Any) -> Projector:
        return cut_box_projector(self._cut_box(n), dtype)

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        terms = self.normal * x
        gap = terms.sum() - self.offset
        slack = tol + ulp * (abs(self.offset) + float(np.abs(terms).sum()))
        inside = ((x >= self.lower - tol) & (x <= self.upper + tol)).all()
        return bool(inside and gap <= slack and (gap >= -slack or not self.equality))

    def _widths(self, n: int) -> NDArray[np.float64]:
        low, high = self._ends()
        most = np.minimum(high, self.offset - _sums_of_others(low))
        least = np.maximum(low, self.offset - _sums_of_others(high)) if self.equality else low
        with np.errstate(divide="ignore", invalid="ignore"):  # inf - inf where there is no bound
            widths = np.where(
                self.normal == 0, self.upper - self.lower, (most - least) / np.abs(self.normal)
            )
        return np.asarray(np.maximum(widths, 0.0))

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        # With the best multiplier t all coordinates are at the end that g - t c asks for, but those
        # where it is 0, which the projection moves. It is the least t at which c·x reaches offset.
        c = self.normal
        low, high = self._ends()
        with np.errstate(divide="ignore", invalid="ignore"):
            price = np.where(c == 0, inf, g / c)
            order = np.argsort(price, kind="stable")[: np.count_nonzero(c)]
            after = np.append(np.cumsum(low[order][::-1])[-2::-1], 0.0)
            reached = np.cumsum(high[order]) + after >= self.offset - low[c == 0].sum()
        t = price[order[int(np.argmax(reached)) if reached.any() else -1]]
        if not self.equality:
            t = min(t, 0.0)
        touched = replace(self, equality=True) if t < 0 else self
        still = (price == t) | ((c == 0) & (g == 0))
        slope = np.where(c == 0, g, np.where(price > t, c, -c))
        x = minimize_over_box(np.where(still, 0.0, slope), self.lower, self.upper)
        if touched._projector(g.size, x.dtype)(x, still.astype(np.float64)) > 0:
            raise ValueError(UNBOUNDED)
        return x

    def _cut_box(self, n: int) -> CutBox:
        kind = EQUATION if self.equality else INEQUALITY
        cut = Cut(kind, 0, n, *scaled_hyperplane(self.normal, self.offset))
        return CutBox(self.lower, self.upper, [cut])

    def _system(self, n: int) -> System:
        row, value = self.normal[None], np.array([self.offset])
        if self.equality:
            return System(self.lower, self.upper, equal=row, values=value)
        return System(self.lower, self.upper, row, value)


def cut_box_projector(cut_box: CutBox, dtype: Any) -> Projector:
    """The projection onto a box with one flat cut."""
    (cut,) = cut_box.cuts
    n = cut.row.size
    lower, upper = cut_box.lower, cut_box.upper
    if dtype == np.float32:
        lower, upper = rounded_inwards(lower, upper, n, dtype)
    return Projector(
        BoxHyperplane._projection,
        n,
        dtype,
        arrays=[cut.row, np.stack([lower, upper], axis=1, dtype=np.float64)],
        numbers=[cut.side, cut.kind == EQUATION],
        scratch=n,
        integers=n,
    )


def _sum_of_finite(array: NDArray[np.float64]) -> float:
    """The sum of the magnitudes that are finite."""
    return float(np.abs(array[np.isfinite(array)]).sum())


def _sums_of_others(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each number the sum of all the others, which may be infinite."""
    endless = np.isinf(array)
    sign = array[endless][0] if endless.any() else 0.0
    finite = np.where(endless, 0.0, array)
    # Not the total less the number, which loses the others beside a large number.
    before = np.concatenate([[0.0], np.cumsum(finite)[:-1]])
    after = np.concatenate([np.cumsum(finite[::-1])[::-1][1:], [0.0]])
    return np.where(endless.sum() - endless > 0, sign, before + after)


def as_normal(value: Any) -> NDArray[np.float64]:
    """The normal of a hyperplane."""
    normal = as_finite("normal", value)
    if normal.ndim != 1 or normal.size == 0:
        raise ValueError(f"normal must have shape (n,), got {normal.shape}")
    if not normal.any():
        raise ValueError("normal must not be zero, got only zeros")
    return normal
