"""Affine sets: the solutions of linear equations."""

from dataclasses import dataclass, field
from math import inf, sqrt
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from numbelief._compile.arrays import largest
from numbelief._compile.internals import array_at, window
from numbelief._compile.jit import part
from numbelief.checks import as_finite
from numbelief.sets.base import FeasibleSet, freeze
from numbelief.sets.cuts import EQUATION, Cut, CutBox
from numbelief.sets.gram_schmidt import SPANNED, orthogonalize
from numbelief.sets.linear_programs import UNBOUNDED, System
from numbelief.sets.projector import (
    EPS,
    REFINEMENTS,
    Projection,
    Projector,
    give_up,
    heavy_step,
    lightest_step,
    rounding,
    scaled_step,
    unit_of,
)
from numbelief.sets.vectors import power_of_two

# ---- the projection ----------------------------------------------------------------------------
#
# x = y + sqrt(steps) W' z, where the rows of W are orthonormal and span those of A sqrt(steps).
# Then what is left of A x - b is projected away again.


def _template():
    fast: dict[str, Any] = {"fastmath": {"reassoc"}, "allocates": False}
    return _project_template(part(_violation, **fast), part(orthogonalize, **fast))


def _violation(x, v, A, b, m, n):
    """By how much the worst equation fails, beyond what rounding explains."""
    worst = 0.0
    for k in range(m):
        total = -b[k]
        size = abs(b[k])
        for i in range(n):
            total += A[k * n + i] * v[i]
            size += abs(A[k * n + i] * v[i])
        if not abs(total) <= rounding(x) * size and not abs(total) <= worst:
            worst = abs(total)
    return worst


def _scratch_size(n, m):
    """How many numbers the projection onto m equations needs to work."""
    return (m + 2) * n + m * m + 2 * m


def _project_template(violation, orthogonalize):
    def project(x, steps, words):
        n, m = x.size, words.rows
        A, b = array_at(words.first, m * n, np.float64), array_at(words.second, m, np.float64)
        scratch = array_at(words.scratch, _scratch_size(n, m), np.float64)
        order = array_at(words.integers, m, np.intp)
        v, W = window(scratch, 0, n), window(scratch, n, n + m * n)
        at = n + m * n
        L, at = window(scratch, at, at + m * m + m), at + m * m + m
        z, at = window(scratch, at, at + m), at + m
        rates = window(scratch, at, at + n)
        top = largest(steps)
        if not (largest(x) < inf and top < inf):
            return give_up(x)
        for i in range(n):
            v[i] = x[i]
        worst = violation(x, v, A, b, m, n)
        if worst == 0:
            return 0.0
        scale, heavy, spanned = 1 / unit_of(top), 0.0, SPANNED
        for _ in range(2):
            for i in range(n):  # as many equations as coordinates have one solution, in any metric
                rates[i] = 1.0 if m == n else scaled_step(np.float64(steps[i]), scale, heavy)
            rank = orthogonalize(A, rates, W, L, order, m, n, spanned)
            for _ in range(REFINEMENTS):
                for j in range(rank):
                    row = order[j]
                    total = b[row]
                    for i in range(n):
                        total -= A[row * n + i] * v[i]
                    for k in range(j):
                        total -= L[row * m + k] * z[k]
                    z[j] = total / L[row * m + j]
                for i in range(n):
                    total = 0.0
                    for j in range(rank):
                        total += W[order[j] * n + i] * z[j]
                    v[i] += total * sqrt(rates[i])
                worst = violation(x, v, A, b, m, n)
                if worst == 0:
                    break
            if worst == 0:
                break
            least, fixed = lightest_step(steps)
            if fixed:
                heavy = heavy_step(least, scale)
            else:  # the rows are independent, however little the metric leaves of one
                spanned = 0.0
        for i in range(n):
            x[i] = v[i]
        return worst

    return project


# ---- the set -----------------------------------------------------------------------------------


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
        A = np.atleast_2d(as_finite("A", self.A))
        if A.ndim != 2 or A.size == 0:
            raise ValueError(f"A must have shape (m, n), got {A.shape}")
        try:
            b = np.broadcast_to(as_finite("b", self.b), A.shape[:1]).copy()
        except ValueError as error:
            shape = np.shape(self.b)
            raise ValueError(f"b must have shape {A.shape[:1]}, got {shape}") from error
        # Powers of two make the rows comparable and change no digit.
        scale = power_of_two(np.abs(A).max(axis=1))
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
        freeze(self, A=A, b=b, _rows=rows[kept], _values=values[kept])

    @property
    def size(self) -> int:
        """The number of coordinates."""
        count: int = self.A.shape[1]
        return count

    _projection = Projection(_template)

    def _projector(self, n: int, dtype: Any) -> Projector:
        m = len(self._rows)
        return Projector(
            self._projection,
            n,
            dtype,
            arrays=[self._rows, self._values],
            scratch=_scratch_size(n, m),
            integers=m,
            rows=m,
        )

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        slack = ulp * (np.abs(self.A) @ np.abs(x) + np.abs(self.b))
        return bool((np.abs(self.A @ x - self.b) <= tol + slack).all())

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.full(n, 0.0 if len(self._rows) == n else inf)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        share = np.linalg.lstsq(self._rows.T, g, rcond=None)[0]
        if np.abs(g - self._rows.T @ share).max() > 1e-10 * np.abs(g).max():
            raise ValueError(UNBOUNDED)
        return np.asarray(np.linalg.lstsq(self._rows, self._values, rcond=None)[0])

    def _cut_box(self, n: int) -> CutBox:
        free = np.full(n, inf)
        rows = zip(self._rows, self._values, strict=True)
        return CutBox(-free, free, [Cut(EQUATION, 0, n, row, float(b)) for row, b in rows])

    def _system(self, n: int) -> System:
        free = np.full(n, inf)
        return System(-free, free, equal=self._rows, values=self._values)
