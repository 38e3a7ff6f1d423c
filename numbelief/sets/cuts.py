"""Sets as boxes that are cut: the form in which `numbelief.sets.Intersection` takes its parts."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Kinds of cuts: ``row @ x <= side`` or ``== side``, and the points x with a Euclidean or an L1
#: distance of at most ``side`` from ``row``.
INEQUALITY, EQUATION, BALL, L1_BALL = range(4)


class Cut(NamedTuple):
    """A constraint on the coordinates lo to hi."""

    kind: int
    lo: int
    hi: int
    row: NDArray[np.float64]
    side: float


class CutBox(NamedTuple):
    """A box, and what cuts it."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    cuts: list[Cut]
