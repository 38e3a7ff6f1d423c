"""Feasible sets: where an iterate may lie.

Every set projects in a diagonal metric, and exactly: the nearest point as measured by the steps of
an adaptive rule is another one than the nearest point, and only the former makes it converge.
"""

import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, sqrt
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from numbelief.checks import as_reals
from numbelief.projections import (
    DIAMOND,
    EPS,
    EQUATION,
    LINEAR,
    ROUND,
    SUM_ULPS,
    TERM_ULPS,
    Projector,
    intersection_words,
)

__all__ = [
    "Affine",
    "Ball",
    "Box",
    "BoxHyperplane",
    "FeasibleSet",
    "HalfSpace",
    "Intersection",
    "L1Ball",
    "Product",
    "Simplex",
]


class FeasibleSet:
    """A closed, convex, nonempty set: what all of them can do."""

    @property
    def size(self) -> int | None:
        """The number of coordinates, or None if the set fits any."""
        return None

    def projector(self, n: int, dtype: Any) -> Projector:
        """The compiled projection, in place, for one thread: see `numbelief.projections`.

        Parameters
        ----------
        n : int
            Number of coordinates.
        dtype : dtype
            float64 or float32.

        Returns
        -------
        Projector
            ``projector(x, steps)`` moves x in the metric 1 / steps, and returns how far it is from
            the set then: 0 if all went well.
        """
        number = np.dtype(dtype)
        if number not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
        return self._projector(self._count(n), number)

    def project(self, y: ArrayLike, metric: ArrayLike | None = None) -> NDArray[Any]:
        r"""The nearest point of the set,

        .. math:: \operatorname*{argmin}_{x \in F} \sum_i a_i (x_i - y_i)^2.

        A point of the set comes back as it is, bit for bit.

        Parameters
        ----------
        y : array_like of shape (n,)
        metric : array_like of shape (n,) or scalar, optional
            The weights a, above 0; only their ratios matter. Default: all equal.

        Returns
        -------
        ndarray of shape (n,)
            Of the dtype of y: float32, or else float64.

        Raises
        ------
        TypeError
            y or metric is not real.
        ValueError
            They are not finite, have another shape than the set, or a weight is not above 0.
        """
        x = _point("y", y)
        n = self._count(x.size, "y")
        steps = np.ones(n, x.dtype) if metric is None else _steps(metric, n, x.dtype)
        # Far below the rounding of y, a set that is the point 0 leaves something of it.
        rounded = _NOTHING * float(np.abs(x).max())
        left = self._projector(n, x.dtype)(x, steps)
        if not left <= rounded:
            self._report(left, x)
        return x

    def contains(self, x: ArrayLike, tol: ArrayLike = 0.0) -> bool:
        """Whether x lies in the set, to the rounding errors of its dtype.

        Parameters
        ----------
        x : array_like of shape (n,)
        tol : float, optional
            By how much more each constraint may be violated.
        """
        point = as_reals(x, "x")
        if point.ndim != 1:
            raise ValueError(f"x must have one dimension, got shape {point.shape}")
        self._count(point.size, "x")
        single = point.dtype == np.float32
        ulp = TERM_ULPS * float(np.finfo(np.float32).eps if single else EPS) + SUM_ULPS * EPS
        wide = point.astype(np.float64)
        return bool(np.isfinite(wide).all()) and self._contains(wide, tol, ulp)

    def diameter(self, n: int | None = None, norm: float | None = None) -> Any:
        """How far apart two points of the set can be.

        Parameters
        ----------
        n : int, optional
            Number of coordinates, of a set that fits any.
        norm : {None, 2, inf}, optional
            The norm. Default: coordinate by coordinate.

        Returns
        -------
        ndarray of shape (n,), or float with a norm

        Raises
        ------
        ValueError
            The set is unbounded.
        """
        if norm not in (None, 2, inf):
            raise ValueError(f"norm must be None, 2 or inf, got {norm!r}")
        widths = self._widths(self._count(n))
        if not np.isfinite(widths).all():
            i = int(np.argmin(np.isfinite(widths)))
            raise ValueError(
                f"the set must be bounded to have a diameter, "
                f"got a {type(self).__name__} that is unbounded along coordinate {i}"
            )
        if norm is None:
            return widths
        return float(widths.max()) if norm == inf else self._length(widths)

    def linear_minimum(self, g: ArrayLike) -> NDArray[np.float64]:
        """A point of the set that minimizes the inner product with g.

        Parameters
        ----------
        g : array_like of shape (n,)

        Returns
        -------
        ndarray of shape (n,)

        Raises
        ------
        TypeError
            g is not real.
        ValueError
            g is not finite or has another shape than the set, or there is no minimum.
        """
        slope = _point("g", g).astype(np.float64)
        self._count(slope.size, "g")
        return self._linear_minimum(slope)

    def _count(self, n: Any, name: str = "n") -> int:
        """The number of coordinates, after a check."""
        if n is None:
            if self.size is None:
                raise ValueError(f"n must be given: this {type(self).__name__} fits any")
            return self.size
        try:
            count = operator.index(n)
        except TypeError:
            raise TypeError(f"{name} must be an integer, got {n!r}") from None
        if count < 1:
            raise ValueError(f"{name} must have at least 1 coordinate, got {count}")
        if self.size not in (None, count):
            raise ValueError(f"{name} must have {self.size} coordinates, as the set, got {count}")
        return count

    # What each set says of itself: its arguments are checked and its arrays are of float64.

    def _projector(self, n: int, dtype: Any) -> Projector:
        raise NotImplementedError

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        raise NotImplementedError

    def _widths(self, n: int) -> NDArray[np.float64]:
        """The largest differences of coordinates; infinity where the set is unbounded."""
        raise NotImplementedError

    def _length(self, widths: NDArray[np.float64]) -> float:
        """The Euclidean diameter."""
        return _norm(widths)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        raise NotImplementedError

    def _least(self, g: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """The linear minimum, and by how much a lower bound of it is proved to be below that."""
        return self._linear_minimum(g), 0.0

    def _pieces(self, n: int) -> "_Pieces":
        """The set as a box that is cut."""
        raise NotImplementedError

    def _system(self, n: int) -> "_System | None":
        """The set as the first n coordinates of linear inequalities, where it is such a set."""
        return None

    def _report(self, left: float, x: NDArray[Any]) -> None:
        """Say that a projection is that far from the set."""
        warnings.warn(
            f"rounding left the projection onto the {type(self).__name__} {left:.2g} away from it",
            RuntimeWarning,
            stacklevel=3,
        )


@dataclass(frozen=True, eq=False)
class Box(FeasibleSet):
    r"""All x with ``lower <= x <= upper``, coordinate by coordinate.

    Parameters
    ----------
    lower, upper : array_like of shape (n,) or scalar, default -inf and inf
        The bounds; equal bounds fix a coordinate.

    Raises
    ------
    TypeError
        A bound is not real.
    ValueError
        A bound is NaN, a lower bound lies above its upper bound (the set is empty), or the shapes
        do not match.

    Examples
    --------
    >>> import numpy as np
    >>> from numbelief.sets import Box
    >>> Box(0.0, [1.0, 2.0]).project(np.array([-3.0, 5.0]))
    array([0., 2.])
    """

    lower: Any = -np.inf
    upper: Any = np.inf

    def __post_init__(self) -> None:
        lower, upper = _bound("lower", self.lower), _bound("upper", self.upper)
        try:
            lower, upper = np.broadcast_arrays(lower, upper)
        except ValueError as error:
            raise ValueError(
                f"lower and upper must have one length, got {lower.shape} and {upper.shape}"
            ) from error
        if (lower > upper).any():
            i = int(np.argmax(lower > upper))
            raise ValueError(
                f"the lower bound must not exceed the upper bound, "
                f"got {lower.flat[i]} > {upper.flat[i]} at index {i}"
            )
        if (lower == np.inf).any() or (upper == -np.inf).any():
            raise ValueError("bounds leave no finite point: lower is inf or upper is -inf")
        for name, value in (("lower", lower), ("upper", upper)):
            value = value.copy()
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @classmethod
    def from_bounds(cls, bounds: Any, n: int) -> "Box":
        """Read the two forms of SciPy's ``bounds``.

        Parameters
        ----------
        bounds : scipy.optimize.Bounds or sequence of n (min, max) pairs
            None in a pair means unbounded.
        n : int
            Number of coordinates.

        Returns
        -------
        Box

        Raises
        ------
        TypeError, ValueError
            The bounds have another length or form, or make no box.
        """
        if isinstance(bounds, cls):
            box = bounds
        elif hasattr(bounds, "lb") and hasattr(bounds, "ub"):
            box = cls(bounds.lb, bounds.ub)
        else:
            try:
                pairs = [(low, high) for low, high in bounds]
            except (TypeError, ValueError) as error:
                raise ValueError(
                    "bounds must be a scipy.optimize.Bounds or a sequence of (min, max) pairs, "
                    f"got {bounds!r}"
                ) from error
            if len(pairs) != n:
                raise ValueError(
                    f"bounds must hold one pair for each of {n} coordinates, got {len(pairs)}"
                )
            box = cls(
                [-np.inf if low is None else low for low, _ in pairs],
                [np.inf if high is None else high for _, high in pairs],
            )
        if box.lower.size not in (1, n) or box.lower.ndim > 1:
            raise ValueError(f"bounds must have length {n}, got {box.lower.size}")
        return box

    def limits(self, n: int, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """The bounds as arrays of a length and dtype, rounded towards the inside of the box."""
        ends = []
        for bound, inwards in ((self.lower, np.inf), (self.upper, -np.inf)):
            with np.errstate(over="ignore"):  # beyond float32 is unbounded
                near = bound.astype(dtype)
            outside = near < bound if inwards > 0 else near > bound
            ends.append(np.where(outside, np.nextafter(near, dtype.type(inwards)), near))
        lower, upper = ends
        narrow = lower > upper  # closer together than two numbers of this dtype
        lower = np.where(narrow, self.lower.astype(dtype), lower)
        upper = np.where(narrow, lower, upper)
        full = (np.broadcast_to(end, (n,)) for end in (lower, upper))
        first, last = (np.ascontiguousarray(end, dtype=dtype).copy() for end in full)
        return first, last

    @property
    def size(self) -> int | None:
        """The number of coordinates, or None if one bound is for all."""
        return None if self.lower.size == 1 else self.lower.size

    def project(self, y: ArrayLike, metric: ArrayLike | None = None) -> NDArray[Any]:
        """The nearest point of the box, the same in every diagonal metric.

        As in `FeasibleSet.project`; y may also hold one point a row, in which NaN stays.
        """
        if np.ndim(y) == 1:
            return super().project(y, metric)
        return np.asarray(np.clip(as_reals(y, "y"), self.lower, self.upper))

    def contains(self, x: ArrayLike, tol: ArrayLike = 0.0) -> bool:
        """Whether x lies in the box, or within tol of it in every coordinate."""
        x = as_reals(x, "x")
        return bool(np.all((x >= self.lower - tol) & (x <= self.upper + tol)))

    def _count(self, n: Any, name: str = "n") -> int:
        return super()._count(1 if n is None and self.lower.shape == (1,) else n, name)

    def _projector(self, n: int, dtype: Any) -> Projector:
        return Projector("box", n, dtype, arrays=self.limits(n, dtype))

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        return self.contains(x, tol)

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.broadcast_to(self.upper - self.lower, (n,)).copy()

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        return _corner(g, self.lower, self.upper)

    def _pieces(self, n: int) -> "_Pieces":
        lower, upper = (np.broadcast_to(end, (n,)) for end in (self.lower, self.upper))
        return _Pieces(lower, upper, [])

    def _system(self, n: int) -> "_System":
        lower, upper = (np.broadcast_to(end, (n,)) for end in (self.lower, self.upper))
        return _System(lower, upper)


@dataclass(frozen=True, eq=False)
class _Centered(FeasibleSet):
    """What the balls share: a radius along each coordinate, and a center."""

    radius: float = 1.0
    center: Any = 0.0
    _kind: ClassVar[int]

    def __post_init__(self) -> None:
        _freeze(self, radius=_size("radius", self.radius), center=_center(self.center))

    @property
    def size(self) -> int | None:
        """The number of coordinates of the center, or None if it is a scalar."""
        return self.center.size if self.center.ndim else None

    def diameter(self, n: int | None = None, norm: float | None = None) -> Any:
        """As in `FeasibleSet.diameter`; with a norm, n does not matter."""
        return super().diameter(1 if norm and n is None and self.size is None else n, norm)

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.full(n, 2 * self.radius)

    def _length(self, widths: NDArray[np.float64]) -> float:
        return 2 * self.radius

    def _pieces(self, n: int) -> "_Pieces":
        center = np.broadcast_to(self.center, (n,))
        if self.radius == 0:
            return _Pieces(center, center, [])
        # A box around it bounds what is squared.
        reach = self.radius + _MARGIN * (self.radius + np.abs(center))
        cut = _Cut(self._kind, 0, n, center, self.radius)
        return _Pieces(center - reach, center + reach, [cut])


@dataclass(frozen=True, eq=False)
class Ball(_Centered):
    r"""All x with a Euclidean distance of at most a radius from a center.

    The projection is

    .. math:: x_i = c_i + \frac{a_i}{a_i + \lambda} (y_i - c_i)

    for the :math:`\lambda \ge 0` at which x lies on the sphere, found by Newton's method on
    :math:`1 / \|x - c\| = 1 / r`.

    Parameters
    ----------
    radius : float, default 1
        At least 0.
    center : array_like of shape (n,) or scalar, default 0

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        An argument is not finite, the radius is negative, or the center has another shape.

    Examples
    --------
    >>> from numbelief.sets import Ball
    >>> Ball(1.0).project([3.0, 4.0])
    array([0.6, 0.8])

    References
    ----------
    J. J. Moré and D. C. Sorensen, "Computing a trust region step", SIAM Journal on Scientific and
    Statistical Computing 4 (1983).
    """

    _kind = ROUND

    def _projector(self, n: int, dtype: Any) -> Projector:
        kind, center = _placed("ball", self.center, n)
        return Projector(kind, n, dtype, arrays=center, numbers=[self.radius])

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        slack = ulp * (self.radius + _norm(x))
        return bool(_norm(x - self.center) <= self.radius + tol + slack)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        top = np.abs(g).max()
        if top == 0:
            return np.broadcast_to(self.center, g.shape).copy()
        g = g / top
        return np.asarray(self.center - self.radius * (g / _norm(g)))


@dataclass(frozen=True, eq=False)
class L1Ball(_Centered):
    r"""All x whose differences from a center have magnitudes that add up to at most a radius.

    The projection is

    .. math:: x_i = c_i + \operatorname{sign}(y_i - c_i) \max(|y_i - c_i| - \tau / a_i, 0)

    for the :math:`\tau \ge 0` at which x lies on the surface, found as for a `Simplex`.

    Parameters
    ----------
    radius : float, default 1
        At least 0.
    center : array_like of shape (n,) or scalar, default 0

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        An argument is not finite, the radius is negative, or the center has another shape.

    Examples
    --------
    >>> from numbelief.sets import L1Ball
    >>> L1Ball(1.0).project([2.0, -1.5, 0.25])
    array([ 0.75, -0.25,  0.  ])

    References
    ----------
    J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, "Efficient projections onto the l1-ball
    for learning in high dimensions", ICML 2008.
    """

    _kind = DIAMOND

    def _projector(self, n: int, dtype: Any) -> Projector:
        kind, center = _placed("l1 ball", self.center, n)
        numbers = [self.radius, 0]
        return Projector(kind, n, dtype, arrays=center, numbers=numbers, scratch=n, index=n)

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        slack = ulp * (self.radius + float(np.abs(x).sum()))
        return bool(np.abs(x - self.center).sum() <= self.radius + tol + slack)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.broadcast_to(self.center, g.shape).copy()
        i = int(np.argmax(np.abs(g)))
        x[i] -= self.radius * np.sign(g[i])
        return x

    def _system(self, n: int) -> "_System":
        # |x - c| <= t, coordinate by coordinate, and the sum of t is at most the radius.
        eye = scipy.sparse.eye_array(n)
        center = np.broadcast_to(self.center, (n,))
        above = scipy.sparse.block_array(
            [[eye, -eye], [-eye, -eye], [None, np.ones((1, n))]], format="csr"
        )
        free = np.full(2 * n, inf)
        return _System(-free, free, above, np.concatenate([center, -center, [self.radius]]))


@dataclass(frozen=True, eq=False)
class Simplex(FeasibleSet):
    r"""All x without negative coordinates that add up to a total.

    The projection is

    .. math:: x_i = \max(y_i - \tau / a_i, 0)

    for the :math:`\tau` at which x has that total. It is found exactly, without sorting.

    Parameters
    ----------
    total : float, default 1
        At least 0.

    Raises
    ------
    TypeError
        The total is not real.
    ValueError
        The total is not finite or negative: the set is empty.

    Examples
    --------
    >>> from numbelief.sets import Simplex
    >>> Simplex().project([1.0, 0.5, -1.0])
    array([0.75, 0.25, 0.  ])

    In the metric of weights 1, 3 and 1 the second coordinate moves a third as much:

    >>> Simplex().project([1.0, 0.5, -1.0], metric=[1.0, 3.0, 1.0])
    array([0.625, 0.375, 0.   ])

    References
    ----------
    C. Michelot, "A finite algorithm for finding the projection of a point onto the canonical
    simplex", Journal of Optimization Theory and Applications 50 (1986); L. Condat, "Fast projection
    onto the simplex and the l1 ball", Mathematical Programming 158 (2016).
    """

    total: float = 1.0

    def __post_init__(self) -> None:
        _freeze(self, total=_size("total", self.total))

    def _projector(self, n: int, dtype: Any) -> Projector:
        return Projector("simplex", n, dtype, numbers=[self.total, 1], scratch=n, index=n)

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        slack = ulp * (self.total + float(np.abs(x).sum()))
        return bool((x >= -np.asarray(tol)).all() and abs(x.sum() - self.total) <= tol + slack)

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.full(n, self.total if n > 1 else 0.0)

    def _length(self, widths: NDArray[np.float64]) -> float:
        return sqrt(2) * float(widths[0])

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.zeros_like(g)
        x[np.argmin(g)] = self.total
        return x

    def _pieces(self, n: int) -> "_Pieces":
        cut = _Cut(EQUATION, 0, n, np.ones(n), self.total)
        return _Pieces(np.zeros(n), np.full(n, inf), [cut])

    def _system(self, n: int) -> "_System":
        one, total = np.ones((1, n)), np.array([self.total])
        return _System(np.zeros(n), np.full(n, inf), equal=one, values=total)


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
        _freeze(self, normal=_normal(self.normal), offset=_number("offset", self.offset))

    @property
    def size(self) -> int:
        """The number of coordinates."""
        count: int = self.normal.size
        return count

    def _projector(self, n: int, dtype: Any) -> Projector:
        normal, offset = _unit(self.normal, self.offset)
        numbers = [offset, 0]
        return Projector(
            "half-space", n, dtype, arrays=[normal], numbers=numbers, scratch=n, index=n
        )

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        terms = self.normal * x
        slack = ulp * (abs(self.offset) + float(np.abs(terms).sum()))
        return bool(terms.sum() <= self.offset + tol + slack)

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.full(n, inf)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        normal, offset = _unit(self.normal, self.offset)
        square = normal @ normal
        share = -(g @ normal) / square
        if share < 0 or np.abs(g + share * normal).max() > 1e-12 * np.abs(g).max():
            raise ValueError(_UNBOUNDED)
        return np.asarray(normal * (offset / square))

    def _pieces(self, n: int) -> "_Pieces":
        free = np.full(n, inf)
        return _Pieces(-free, free, [_Cut(LINEAR, 0, n, *_unit(self.normal, self.offset))])

    def _system(self, n: int) -> "_System":
        free, offset = np.full(n, inf), np.array([self.offset])
        return _System(-free, free, self.normal[None], offset)


@dataclass(frozen=True, eq=False)
class Affine(FeasibleSet):
    r"""All x with ``A @ x = b``.

    The projection is

    .. math:: x = y - \operatorname{diag}(a)^{-1} A^T \mu, \quad
        A \operatorname{diag}(a)^{-1} A^T \mu = A y - b,

    by orthogonalizing the rows of :math:`A \operatorname{diag}(a)^{-1/2}`, for each metric anew:
    O(m² n) operations.

    Parameters
    ----------
    A : array_like of shape (m, n)
        Rows may depend on one another.
    b : array_like of shape (m,) or scalar

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        An argument is not finite, the shapes do not match, or no x solves the equations.

    Examples
    --------
    >>> from numbelief.sets import Affine
    >>> Affine([[1.0, 1.0, 1.0]], 3.0).project([4.0, 4.0, 4.0])
    array([1., 1., 1.])

    References
    ----------
    Å. Björck, "Numerics of Gram-Schmidt orthogonalization", Linear Algebra and its Applications
    197-198 (1994).
    """

    A: Any
    b: Any
    _rows: Any = field(init=False, repr=False)
    _values: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        A = np.atleast_2d(_finite("A", self.A))
        if A.ndim != 2 or A.size == 0:
            raise ValueError(f"A must have shape (m, n), got {A.shape}")
        try:
            b = np.broadcast_to(_finite("b", self.b), A.shape[:1]).copy()
        except ValueError as error:
            shape = np.shape(self.b)
            raise ValueError(f"b must have shape {A.shape[:1]}, got {shape}") from error
        # Powers of two make the rows comparable and change no digit.
        scale = _power_of_two(np.abs(A).max(axis=1))
        rows, values = A / scale[:, None], b / scale
        R, order = scipy.linalg.qr(rows.T, mode="r", pivoting=True)
        pivots = np.abs(np.diag(R))
        rank = int((pivots > max(A.shape) * EPS * pivots.max()).sum()) if pivots.max() > 0 else 0
        kept = np.sort(order[:rank])
        x = np.linalg.lstsq(rows[kept], values[kept], rcond=None)[0]
        off = np.abs(rows @ x - values)
        size = np.abs(rows) @ np.abs(x) + np.abs(values)
        if (off > 1e-10 * size).any():
            i = int(np.argmax(off > 1e-10 * size))
            raise ValueError(
                f"A @ x = b must have a solution, got equations that contradict one another: "
                f"row {i} is off by {off[i] * scale[i]:.3g}"
            )
        _freeze(self, A=A, b=b, _rows=rows[kept], _values=values[kept])

    @property
    def size(self) -> int:
        """The number of coordinates."""
        count: int = self.A.shape[1]
        return count

    def _projector(self, n: int, dtype: Any) -> Projector:
        m = len(self._rows)
        return Projector(
            "affine",
            n,
            dtype,
            arrays=[self._rows, self._values],
            scratch=(m + 2) * n + m * m + 2 * m,
            index=m,
            count=m,
        )

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        slack = ulp * (np.abs(self.A) @ np.abs(x) + np.abs(self.b))
        return bool((np.abs(self.A @ x - self.b) <= tol + slack).all())

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.full(n, 0.0 if len(self._rows) == n else inf)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        share = np.linalg.lstsq(self._rows.T, g, rcond=None)[0]
        if np.abs(g - self._rows.T @ share).max() > 1e-10 * np.abs(g).max():
            raise ValueError(_UNBOUNDED)
        return np.asarray(np.linalg.lstsq(self._rows, self._values, rcond=None)[0])

    def _pieces(self, n: int) -> "_Pieces":
        free = np.full(n, inf)
        rows = zip(self._rows, self._values, strict=True)
        return _Pieces(-free, free, [_Cut(EQUATION, 0, n, row, float(b)) for row, b in rows])

    def _system(self, n: int) -> "_System":
        free = np.full(n, inf)
        return _System(-free, free, equal=self._rows, values=self._values)


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
        box, normal = Box(self.lower, self.upper), _normal(self.normal)
        if box.lower.shape not in ((), (1,), normal.shape):
            raise ValueError(
                f"lower and upper must have the shape of normal, {normal.shape}, "
                f"got {box.lower.shape}"
            )
        if not isinstance(self.equality, (bool, np.bool)):
            raise TypeError(f"equality must be a bool, got {self.equality!r}")
        _freeze(
            self,
            lower=np.broadcast_to(box.lower, normal.shape),
            upper=np.broadcast_to(box.upper, normal.shape),
            normal=normal,
            offset=_number("offset", self.offset),
        )
        least, most = (ends.sum() for ends in self._ends())
        slack = SUM_ULPS * EPS * (abs(self.offset) + sum(map(_finite_size, self._ends())))
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

    def _projector(self, n: int, dtype: Any) -> Projector:
        return _cut_box(n, dtype, self._pieces(n))

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
        x = _corner(np.where(still, 0.0, slope), self.lower, self.upper)
        if touched._projector(g.size, x.dtype)(x, still.astype(np.float64)) > 0:
            raise ValueError(_UNBOUNDED)
        return x

    def _pieces(self, n: int) -> "_Pieces":
        kind = EQUATION if self.equality else LINEAR
        return _Pieces(self.lower, self.upper, [_Cut(kind, 0, n, *_unit(self.normal, self.offset))])

    def _system(self, n: int) -> "_System":
        row, value = self.normal[None], np.array([self.offset])
        if self.equality:
            return _System(self.lower, self.upper, equal=row, values=value)
        return _System(self.lower, self.upper, row, value)


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

    def __post_init__(self) -> None:
        parts = _sets("sets", self.sets)
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
        _freeze(self, sets=parts, sizes=sizes)

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return sum(self.sizes)

    @property
    def _blocks(self) -> list[tuple[FeasibleSet, int, int]]:
        stops = np.cumsum(self.sizes).tolist()
        starts = [0, *stops[:-1]]
        return list(zip(self.sets, starts, stops, strict=True))

    def _projector(self, n: int, dtype: Any) -> Projector:
        parts = [(each.projector(hi - lo, dtype), lo, hi) for each, lo, hi in self._blocks]
        return Projector("product", n, dtype, parts=parts)

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
        return _norm(np.array([each._length(widths[lo:hi]) for each, lo, hi in self._blocks]))

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([each._linear_minimum(g[lo:hi]) for each, lo, hi in self._blocks])

    def _least(self, g: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        found = [each._least(g[lo:hi]) for each, lo, hi in self._blocks]
        return np.concatenate([x for x, _ in found]), sum(slack for _, slack in found)

    def _pieces(self, n: int) -> "_Pieces":
        lower, upper, cuts = np.empty(n), np.empty(n), []
        for each, lo, hi in self._blocks:
            lower[lo:hi], upper[lo:hi], own = each._pieces(hi - lo)
            for cut in own:
                row = np.zeros(n)
                row[lo:hi] = cut.row
                cuts.append(cut._replace(lo=cut.lo + lo, hi=cut.hi + lo, row=row))
        return _Pieces(lower, upper, cuts)

    def _system(self, n: int) -> "_System | None":
        return _joined([(each._system(hi - lo), lo, hi) for each, lo, hi in self._blocks], n)


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

    sets: tuple[FeasibleSet, ...]
    tol: float
    maxiter: int

    def __init__(self, *sets: FeasibleSet, tol: float = 1e-12, maxiter: int = 200) -> None:
        parts = _sets("sets", sets)
        sizes = sorted({each.size for each in parts if each.size is not None})
        if len(sizes) > 1:
            raise ValueError(f"sets must have one number of coordinates, got {sizes}")
        tol = _size("tol", tol)
        try:
            cycles = operator.index(maxiter)
        except TypeError:
            raise TypeError(f"maxiter must be an integer, got {maxiter!r}") from None
        if cycles < 1:
            raise ValueError(f"maxiter must be at least 1, got {maxiter}")
        _freeze(self, sets=parts, tol=tol, maxiter=cycles)

    @property
    def size(self) -> int | None:
        """The number of coordinates, or None if every set fits any."""
        return next((each.size for each in self.sets if each.size is not None), None)

    def _projector(self, n: int, dtype: Any) -> Projector:
        pieces = lower, upper, cuts = self._pieces(n)
        if len(cuts) == 1 and cuts[0].kind in (LINEAR, EQUATION):
            return _cut_box(n, dtype, pieces)  # exact, in any metric
        ends = Box(lower, upper).limits(n, dtype)
        return Projector(
            "intersection",
            n,
            dtype,
            arrays=[
                np.array([cut.row for cut in cuts]).reshape(len(cuts), n),
                np.stack(ends, axis=1, dtype=np.float64),
            ],
            numbers=[self.tol, self.maxiter, *(cut.side for cut in cuts)],
            scratch=intersection_words.py_func(n, len(cuts)),
            index=len(cuts),
            table=[(cut.kind, cut.lo, cut.hi) for cut in cuts],
            count=len(cuts),
        )

    def _pieces(self, n: int) -> "_Pieces":
        pieces = [each._pieces(n) for each in self.sets]
        lower = np.max([each.lower for each in pieces], axis=0)
        upper = np.min([each.upper for each in pieces], axis=0)
        if (lower > upper).any():
            raise ValueError(_EMPTY)
        return _Pieces(lower, upper, [cut for each in pieces for cut in each.cuts])

    def _report(self, left: float, x: NDArray[Any]) -> None:
        message = (
            f"the projection onto the Intersection has not converged after {self.maxiter} of "
            f"Newton's steps: the residual is {left:.3g}"
        )
        system = self._system(x.size)
        if system is not None:
            _minimize(system, np.zeros(x.size))  # raises where the set is empty
        elif not left <= 1e-6 * float(np.abs(x).max()):
            # In the metric of equal weights it does not fail for the metric.
            point = np.zeros_like(x)
            there = self._projector(x.size, x.dtype)(point, np.ones_like(x))
            known = there <= 1e-6 * float(np.abs(point).max())
            why = "metric's weights differ too much" if known else "sets may have no common point"
            raise ValueError(f"{message}. The {why}")
        warnings.warn(message, RuntimeWarning, stacklevel=4)

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
        lower, upper, _ = self._pieces(n)
        widths = np.min([upper - lower, *(each._widths(n) for each in self.sets)], axis=0)
        system = self._system(n)
        if system is not None:
            for i in np.flatnonzero(np.isinf(widths)):
                g = np.zeros(n)
                g[i] = 1.0
                try:
                    widths[i] = _minimize(system, -g)[i] - _minimize(system, g)[i]
                except _Unbounded:
                    break
        return np.asarray(widths)

    def _length(self, widths: NDArray[np.float64]) -> float:
        n = widths.size
        finite = [
            each._length(own)
            for each, own in ((each, each._widths(n)) for each in self.sets)
            if np.isfinite(own).all()
        ]
        return min([_norm(widths), *finite])

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
                raise ValueError(_UNBOUNDED)
            x = nearest(_minimize(system, g))
            widths = np.full(n, np.abs(x).max())
        size, slope = _norm(widths), _norm(g)
        slack = slope * size
        if slack == 0:
            return x, 0.0
        t = _FAR * size / slope
        for _ in range(_TURNS):
            new = nearest(x - t * g)
            bound = _norm(x - new) * size / t + 4 * EPS * slope * size
            if not bound < slack:
                break
            x, slack = new, bound
        return x, slack

    def _system(self, n: int) -> "_System | None":
        return _joined([(each._system(n), 0, n) for each in self.sets], n)


# ---- what intersections are made of --------------------------------------------------------------

# By how much a box around a ball is wider than the ball, and than rounding its points to float32.
_MARGIN = 2.0**-16
# A projection from so many diameters away is nearly a linear minimization; so many of them.
_FAR, _TURNS = 1e6, 20
# Up to so many coordinates diameters are worth two linear minimizations each.
_MANY = 200


class _Cut(NamedTuple):
    """A constraint on the coordinates lo to hi, as `numbelief.projections` numbers its kinds."""

    kind: int
    lo: int
    hi: int
    row: NDArray[np.float64]
    side: float


class _Pieces(NamedTuple):
    """A box, and what cuts it."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    cuts: list[_Cut]


def _cut_box(n: int, dtype: Any, pieces: _Pieces) -> Projector:
    """The projection onto a box with one flat cut."""
    (cut,) = pieces.cuts
    ends: Any = pieces.lower, pieces.upper
    if dtype == np.float32:
        ends = Box(*ends).limits(n, dtype)
    return Projector(
        "cut box",
        n,
        dtype,
        arrays=[cut.row, np.stack(ends, axis=1, dtype=np.float64)],
        numbers=[cut.side, cut.kind == EQUATION],
        scratch=n,
        index=n,
    )


# ---- linear programs ---------------------------------------------------------------------------

# What remains of a point y after its projection counts from this share of y on.
_NOTHING = 1e-20
_EMPTY = "the sets must have a point in common, got an empty intersection"
_UNBOUNDED = "g must have a minimum over the set, got a direction in which it falls without end"


class _Unbounded(ValueError):
    """There is no minimum."""


class _System(NamedTuple):
    """All x with lower <= x <= upper, above @ x <= limits and equal @ x = values."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    above: Any = None
    limits: Any = None
    equal: Any = None
    values: Any = None


def _joined(parts: Sequence[tuple[_System | None, int, int]], n: int) -> _System | None:
    """The system of all systems, each about coordinates lo to hi and columns of its own."""
    systems = [(each, lo, hi) for each, lo, hi in parts if each is not None]
    if len(systems) < len(parts):
        return None
    total = n + sum(each.lower.size - (hi - lo) for each, lo, hi in systems)
    lower, upper = np.full(total, -inf), np.full(total, inf)
    found: dict[str, list[Any]] = {name: [] for name in ("above", "limits", "equal", "values")}
    own = n
    for each, lo, hi in systems:
        extra = each.lower.size - (hi - lo)
        columns = np.concatenate([np.arange(lo, hi), np.arange(own, own + extra)])
        own += extra
        lower[columns] = np.maximum(lower[columns], each.lower)
        upper[columns] = np.minimum(upper[columns], each.upper)
        count = columns.size
        place = scipy.sparse.csr_array(
            (np.ones(count), (np.arange(count), columns)), shape=(count, total)
        )
        for rows, sides in (("above", "limits"), ("equal", "values")):
            if getattr(each, rows) is not None:
                found[rows].append(scipy.sparse.csr_array(getattr(each, rows)) @ place)
                found[sides].append(getattr(each, sides))
    joined = {
        name: (scipy.sparse.vstack if name in ("above", "equal") else np.concatenate)(pieces)
        for name, pieces in found.items()
        if pieces
    }
    return _System(lower, upper, **joined)


def _minimize(system: _System, g: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point of a system that minimizes the inner product with g."""
    if (system.lower > system.upper).any():
        raise ValueError(_EMPTY)
    # HiGHS allows absolute errors of 1e-7: measure in units of the set, with rows of a size of 1.
    sides = [system.lower, system.upper]
    rows = []
    for row, side in ((system.above, system.limits), (system.equal, system.values)):
        if row is None:
            rows += [None, None]
            continue
        row = scipy.sparse.csr_array(row)
        size = _power_of_two(abs(row).max(axis=1).toarray().ravel())
        sides.append(side / size)
        rows += [scipy.sparse.diags_array(1 / size) @ row, side / size]
    known = np.abs(np.concatenate(sides))
    unit = _power_of_two(known[np.isfinite(known)].max(initial=0.0))
    above, limits, equal, values = (
        part / unit if i % 2 and part is not None else part for i, part in enumerate(rows)
    )
    cost = np.zeros(system.lower.size)
    cost[: g.size] = g / (np.abs(g).max() or 1.0)
    result = scipy.optimize.linprog(
        cost,
        above,
        limits,
        equal,
        values,
        np.column_stack([system.lower, system.upper]) / unit,
        method="highs",
    )
    if result.status == 2:
        raise ValueError(_EMPTY)
    if result.status in (3, 4):  # "unbounded", and "unbounded or infeasible"
        raise _Unbounded(_UNBOUNDED)
    x: NDArray[np.float64] = unit * result.x[: g.size]
    return x


# ---- arguments ---------------------------------------------------------------------------------


def _freeze(target: Any, **values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = np.array(value, order="C")
            value.flags.writeable = False
        object.__setattr__(target, name, value)


def _bound(name: str, value: Any) -> NDArray[np.float64]:
    bound = as_reals(value, name).astype(np.float64)
    if np.isnan(bound).any():
        raise ValueError(f"{name} must not be NaN, got {value!r}")
    return bound


def _finite(name: str, value: Any) -> NDArray[np.float64]:
    array = as_reals(value, name)
    _refuse_infinite(name, array)
    return array.astype(np.float64)


def _refuse_infinite(name: str, array: NDArray[Any]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        i = int(np.argmin(finite))
        raise ValueError(f"{name} must be finite, got {array.flat[i]} at index {i}")


def _number(name: str, value: Any) -> float:
    array = _finite(name, value)
    if array.ndim > 0:
        raise TypeError(f"{name} must be a number, got shape {array.shape}")
    return float(array)


def _size(name: str, value: Any) -> float:
    number = _number(name, value)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {number:g}")
    return number


def _center(value: Any) -> NDArray[np.float64]:
    center = _finite("center", value)
    if center.ndim > 1 or center.size == 0:
        raise ValueError(f"center must be a number or have shape (n,), got {center.shape}")
    return center


def _normal(value: Any) -> NDArray[np.float64]:
    normal = _finite("normal", value)
    if normal.ndim != 1 or normal.size == 0:
        raise ValueError(f"normal must have shape (n,), got {normal.shape}")
    if not normal.any():
        raise ValueError("normal must not be zero, got only zeros")
    return normal


def _sets(name: str, value: Any) -> tuple[FeasibleSet, ...]:
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


def _point(name: str, value: Any) -> NDArray[Any]:
    """A copy of a point, of float32 or float64."""
    given = as_reals(value, name)
    if given.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {given.shape}")
    _refuse_infinite(name, given)
    return np.array(given, dtype=np.float32 if given.dtype == np.float32 else np.float64)


def _steps(metric: Any, n: int, dtype: Any) -> NDArray[Any]:
    """1 / metric, in units of the largest of them, which cannot overflow."""
    weights = as_reals(metric, "metric").astype(np.float64, copy=False)
    if weights.shape not in ((), (n,)):
        raise ValueError(f"metric must have shape ({n},), got {weights.shape}")
    least = weights.min()
    if not (least > 0 and weights.max() < inf):  # NaN is the minimum, where there is one
        _refuse_infinite("metric", weights)
        i = int(np.argmin(weights))
        raise ValueError(f"metric must be above 0, got {weights.flat[i]} at index {i}")
    steps: NDArray[Any] = np.divide(least, np.broadcast_to(weights, (n,)))
    return steps.astype(dtype, copy=False)


def _placed(kind: str, center: NDArray[np.float64], n: int) -> tuple[str, list[NDArray[Any]]]:
    """The kind of a ball, and the array of its center if that is not zero."""
    if not center.any():
        return kind, []
    return f"{kind} elsewhere", [np.ascontiguousarray(np.broadcast_to(center, (n,)))]


def _unit(normal: NDArray[np.float64], offset: float) -> tuple[NDArray[np.float64], float]:
    """The same hyperplane with a normal whose squares neither overflow nor vanish."""
    scale = _power_of_two(np.abs(normal).max())
    return normal / scale, float(offset / scale)


def _power_of_two(value: Any) -> Any:
    """The power of two at or below a magnitude, between 2**-1000 and 2**1000; 1 for 0."""
    exponent = np.frexp(value)[1] - 1
    return np.where(np.asarray(value) > 0, np.ldexp(1.0, np.clip(exponent, -1000, 1000)), 1.0)


def _norm(x: NDArray[np.float64]) -> float:
    """The Euclidean norm, of numbers of any size."""
    scale = _power_of_two(np.abs(x).max())
    return float(scale * np.linalg.norm(x / scale))


def _corner(g: NDArray[np.float64], lower: Any, upper: Any) -> NDArray[np.float64]:
    """The point of a box that minimizes the inner product with g."""
    still = np.clip(0.0, lower, upper)
    x: NDArray[np.float64] = np.where(g > 0, lower, np.where(g < 0, upper, still))
    if np.isinf(x).any():
        raise ValueError(_UNBOUNDED)
    return x


def _finite_size(array: NDArray[np.float64]) -> float:
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
