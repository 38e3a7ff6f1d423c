"""What all feasible sets can do."""

import operator
import warnings
from math import inf
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief.checks import as_point, as_reals, refuse_infinite
from numbelief.sets.cuts import CutBox
from numbelief.sets.linear_programs import System
from numbelief.sets.projector import EPS, SUM_ULPS, TERM_ULPS, Projector
from numbelief.sets.vectors import norm as norm_of

# What remains of a point y after its projection counts from this share of y on.
_NOTHING = 1e-20


class FeasibleSet:
    """A closed, convex, nonempty set: what all of them can do.

    Attributes
    ----------
    exact : bool
        Whether projections and linear minima are exact up to rounding, not the last of iterations
        that may end early.
    separable : bool
        Whether each coordinate has an interval of its own: the set is a `Box`, and its projection
        is the same in every diagonal metric.
    """

    exact: ClassVar[bool] = True
    separable: ClassVar[bool] = False

    @property
    def size(self) -> int | None:
        """The number of coordinates, or None if the set fits any."""
        return None

    def limits(self, n: int, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """The bounds of a set that is no more than these, as arrays of shape (n,).

        Parameters
        ----------
        n : int
        dtype : numpy.dtype
            To which they are rounded, towards the inside of the set.

        Returns
        -------
        tuple of ndarray, or None
            None for every set except a `Box`.
        """
        return None

    def projector(self, n: int, dtype: Any) -> Projector:
        """The compiled projection, in place, for one thread: see `numbelief.sets.projector`.

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
        x = as_point("y", y)
        n = self._count(x.size, "y")
        steps = np.ones(n, x.dtype) if metric is None else steps_of(metric, n, x.dtype)
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
        slope = as_point("g", g).astype(np.float64)
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
        return norm_of(widths)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        raise NotImplementedError

    def _least(self, g: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """The linear minimum, and by how much a lower bound of it is proved to be below that."""
        return self._linear_minimum(g), 0.0

    def _cut_box(self, n: int) -> CutBox:
        """The set as a box that is cut."""
        raise NotImplementedError

    def _system(self, n: int) -> System | None:
        """The set as the first n coordinates of linear inequalities, where it is such a set."""
        return None

    def _report(self, left: float, x: NDArray[Any]) -> None:
        """Say that a projection is that far from the set."""
        warnings.warn(
            f"rounding left the projection onto the {type(self).__name__} {left:.2g} away from it",
            RuntimeWarning,
            stacklevel=3,
        )


def freeze(target: Any, **values: Any) -> None:
    """Assign to the fields of a frozen dataclass: arrays as read-only copies."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = np.array(value, order="C")
            value.flags.writeable = False
        object.__setattr__(target, name, value)


def steps_of(metric: Any, n: int, dtype: Any) -> NDArray[Any]:
    """1 / metric, in units of the largest of them, which cannot overflow."""
    weights = as_reals(metric, "metric").astype(np.float64, copy=False)
    if weights.shape not in ((), (n,)):
        raise ValueError(f"metric must have shape ({n},), got {weights.shape}")
    least = weights.min()
    if not (least > 0 and weights.max() < inf):  # NaN is the minimum, where there is one
        refuse_infinite("metric", weights)
        i = int(np.argmin(weights))
        raise ValueError(f"metric must be above 0, got {weights.flat[i]} at index {i}")
    steps: NDArray[Any] = np.divide(least, np.broadcast_to(weights, (n,)))
    return steps.astype(dtype, copy=False)
