"""Bounds, coordinate by coordinate."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief._compile.arrays import clip_to_bounds
from numbelief._compile.internals import array_at
from numbelief.checks import as_bound, as_reals
from numbelief.sets.base import FeasibleSet
from numbelief.sets.cuts import CutBox
from numbelief.sets.linear_programs import System, minimize_over_box
from numbelief.sets.projector import Projection, Projector


def _template():
    def project(x, steps, words):
        lower = array_at(words.first, x.size, x.dtype)
        upper = array_at(words.second, x.size, x.dtype)
        for i in range(x.size):
            x[i] = clip_to_bounds(x[i], lower[i], upper[i])
        return 0.0

    return project


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

    separable: ClassVar[bool] = True

    lower: Any = -np.inf
    upper: Any = np.inf

    def __post_init__(self) -> None:
        lower, upper = as_bound("lower", self.lower), as_bound("upper", self.upper)
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
        """The bounds as arrays; see `FeasibleSet.limits`."""
        return rounded_inwards(self.lower, self.upper, n, dtype)

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
        """Whether x is finite and lies in the box, or within tol of it in every coordinate.

        x may also hold one point a row.

        Raises
        ------
        ValueError
            x has another number of coordinates than the box.
        """
        x = as_reals(x, "x")
        if self.size is not None and (x.ndim == 0 or x.shape[-1] != self.size):
            raise ValueError(f"x must have {self.size} coordinates, as the set, got {x.shape}")
        inside = (x >= self.lower - tol) & (x <= self.upper + tol)
        return bool(np.all(inside & np.isfinite(x)))

    def _count(self, n: Any, name: str = "n") -> int:
        return super()._count(1 if n is None and self.lower.shape == (1,) else n, name)

    _projection = Projection(_template)

    def _projector(self, n: int, dtype: Any) -> Projector:
        return Projector(self._projection, n, dtype, arrays=self.limits(n, dtype))

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        return self.contains(x, tol)

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.broadcast_to(self.upper - self.lower, (n,)).copy()

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        return minimize_over_box(g, self.lower, self.upper)

    def _cut_box(self, n: int) -> CutBox:
        lower, upper = (np.broadcast_to(end, (n,)) for end in (self.lower, self.upper))
        return CutBox(lower, upper, [])

    def _system(self, n: int) -> System:
        lower, upper = (np.broadcast_to(end, (n,)) for end in (self.lower, self.upper))
        return System(lower, upper)


def rounded_inwards(
    lower: NDArray[np.float64], upper: NDArray[np.float64], n: int, dtype: Any
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bounds as arrays of a length and dtype, which allow no point that they did not allow."""
    ends = []
    for bound, inwards in ((lower, np.inf), (upper, -np.inf)):
        with np.errstate(over="ignore"):  # beyond float32 is unbounded
            near = bound.astype(dtype)
        outside = near < bound if inwards > 0 else near > bound
        ends.append(np.where(outside, np.nextafter(near, dtype.type(inwards)), near))
    low, high = ends
    narrow = low > high  # closer together than two numbers of this dtype
    low = np.where(narrow, lower.astype(dtype), low)
    high = np.where(narrow, low, high)
    full = (np.broadcast_to(end, (n,)) for end in (low, high))
    first, last = (np.ascontiguousarray(end, dtype=dtype).copy() for end in full)
    return first, last
