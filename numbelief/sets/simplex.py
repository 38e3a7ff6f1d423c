"""The simplex."""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief.checks import as_nonnegative
from numbelief.sets.base import FeasibleSet, freeze
from numbelief.sets.cuts import EQUATION, Cut, CutBox
from numbelief.sets.linear_programs import System
from numbelief.sets.one_multiplier import INFINITY, ONE, ZERO, one_multiplier, plain, replaced
from numbelief.sets.projector import Projection, Projector


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
        freeze(self, total=as_nonnegative("total", self.total))

    _projection = Projection(
        one_multiplier,
        fold=plain,
        unfold=replaced,
        center_size=ZERO,
        normal_at=ONE,
        lower_at=ZERO,
        upper_at=INFINITY,
    )

    def _projector(self, n: int, dtype: Any) -> Projector:
        return Projector(self._projection, n, dtype, numbers=[self.total, 1], scratch=n, integers=n)

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

    def _cut_box(self, n: int) -> CutBox:
        cut = Cut(EQUATION, 0, n, np.ones(n), self.total)
        return CutBox(np.zeros(n), np.full(n, inf), [cut])

    def _system(self, n: int) -> System:
        one, total = np.ones((1, n)), np.array([self.total])
        return System(np.zeros(n), np.full(n, inf), equal=one, values=total)
