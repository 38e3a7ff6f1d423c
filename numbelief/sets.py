"""Feasible sets: where an iterate may lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Box"]


@dataclass(frozen=True, eq=False)
class Box:
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

    def project(self, y: ArrayLike, metric: ArrayLike | None = None) -> NDArray[Any]:
        """The nearest point of the box, the same in every diagonal metric."""
        return np.clip(y, self.lower, self.upper)

    def contains(self, x: ArrayLike, tol: ArrayLike = 0.0) -> bool:
        """Whether x lies in the box, or within tol of it in every coordinate."""
        x = np.asarray(x)
        return bool(np.all((x >= self.lower - tol) & (x <= self.upper + tol)))


def _bound(name: str, value: Any) -> NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {value!r}")
    bound = array.astype(np.float64)
    if np.isnan(bound).any():
        raise ValueError(f"{name} must not be NaN, got {value!r}")
    return bound
