"""The losses of the literature."""

from math import exp, inf, log, log1p, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief.checks import as_array
from numbelief.online.losses.base import Losses, Minimizer
from numbelief.sets import FeasibleSet

__all__ = [
    "AbsoluteLosses",
    "HingeLosses",
    "LinearLosses",
    "LogisticLosses",
    "PortfolioLosses",
    "SquaredLosses",
]


class LinearLosses(Losses):
    r"""Linear losses :math:`f_t(x) = \langle c_t, x\rangle`.

    Parameters
    ----------
    gradients : array_like of shape (T, n)
        :math:`c_t`; (T,) is taken as n = 1. See `Losses` for dtypes and errors.

    Examples
    --------
    >>> from numbelief.online import LinearLosses
    >>> LinearLosses([[1.0, -1.0], [0.5, 2.0]])(2, [1.0, 1.0])
    (2.5, array([0.5, 2. ]))

    References
    ----------
    Zinkevich, Online Convex Programming and Generalized Infinitesimal Gradient Ascent, 2003.
    """

    smooth = True

    def __init__(self, gradients: ArrayLike) -> None:
        super().__init__(gradients, names=("gradients", ""))

    @staticmethod
    def loss(z: Any, y: Any) -> Any:
        r""":math:`z`."""
        return z, 1.0, 0.0

    def exact_minimizer(self, feasible_set: FeasibleSet, upto: int) -> Minimizer | None:
        """The linear minimum of their sum."""
        _, sums = self.total(np.zeros(self.n), upto)
        x, gap = feasible_set._least(sums)
        return Minimizer(x, 1, float(sums @ x), gap)


class SquaredLosses(Losses):
    r"""Half squared distances :math:`\frac12\|x - c_t\|^2`, or squared errors of a linear model.

    With the half, the gradient of the distance is :math:`x - c_t`, it is 1-strongly convex, and the
    step 1/t plays the mean of the centres so far.

    Parameters
    ----------
    targets : array_like of shape (T, n)
        The centres :math:`c_t`; (T,) is taken as n = 1. With features: :math:`b_t`, of shape (T,).
    features : array_like of shape (T, n), optional
        :math:`a_t`, for the losses :math:`\frac12(\langle a_t, x\rangle - b_t)^2`.
        See `Losses` for dtypes and errors.

    Examples
    --------
    >>> from numbelief.online import SquaredLosses
    >>> SquaredLosses([[1.0, 0.0]])(1, [0.0, 2.0])
    (2.5, array([-1.,  2.]))
    >>> SquaredLosses([1.0], features=[[1.0, 2.0]])(1, [1.0, 1.0])
    (2.0, array([2., 4.]))

    References
    ----------
    Hazan, Agarwal and Kale, Logarithmic Regret Algorithms for Online Convex Optimization, 2007.
    """

    nonnegative = smooth = quadratic = True

    def __init__(self, targets: ArrayLike, features: ArrayLike | None = None) -> None:
        super().__init__(features, targets)

    @staticmethod
    def loss(z: Any, y: Any) -> Any:
        r""":math:`\frac12 (z - y)^2`."""
        d = z - y
        return 0.5 * (d * d), d, 1.0

    def exact_minimizer(self, feasible_set: FeasibleSet, upto: int) -> Minimizer | None:
        """Of distances: the projection of the mean of the centres."""
        if self.form != "coordinates":
            return None
        _, sums = self.total(np.zeros(self.n), upto)
        return Minimizer(feasible_set.project((0.0 - sums) / upto), 1)


class AbsoluteLosses(Losses):
    r"""Distances :math:`\|x - b_t\|_1`, or absolute errors :math:`|\langle a_t, x\rangle - b_t|`.

    At the corner the subgradient is 0, the one of least norm.

    Parameters
    ----------
    targets : array_like of shape (T, n)
        :math:`b_t`; (T,) is taken as n = 1, the game of the running median. With features: (T,).
    features : array_like of shape (T, n), optional
        :math:`a_t`. See `Losses` for dtypes and errors.

    Examples
    --------
    >>> from numbelief.online import AbsoluteLosses
    >>> AbsoluteLosses([0.0, 3.0, 10.0]).total([3.0])
    (10.0, array([0.]))
    """

    nonnegative = True

    def __init__(self, targets: ArrayLike, features: ArrayLike | None = None) -> None:
        super().__init__(features, targets)

    @staticmethod
    def loss(z: Any, y: Any) -> Any:
        r""":math:`|z - y|`."""
        return abs(z - y), (1.0 if z > y else -1.0 if z < y else 0.0), 0.0

    def exact_minimizer(self, feasible_set: FeasibleSet, upto: int) -> Minimizer | None:
        """Of distances whose coordinates are free of each other: the medians, clipped.

        Clipping is best for any convex function of one number.
        """
        if self.form != "coordinates" or not (self.n == 1 or feasible_set.separable):
            return None
        medians = np.median(self.data[0][:upto], axis=0).astype(np.float64)
        return Minimizer(feasible_set.project(medians), 1)

    lowest = -1.0

    @staticmethod
    def margin(y: Any) -> Any:
        """The s and h of the margin m = s z + h."""
        return np.ones_like(y), -y

    @staticmethod
    def smoothed(z: Any, y: Any, width: Any) -> Any:
        r""":math:`|m| = \max_{|a|\le1} a m`, with a barrier of the given width around that a."""
        m = z - y
        a, barrier, bend = _within_one(m, width)
        return a * m, a * m + barrier, a, bend


def _within_one(m: Any, width: Any) -> Any:
    r"""The a that maximizes :math:`a m + w\log(1 - a^2)`, the logarithm there, and da/dm.

    The barrier is self-concordant, so that Newton's method gets along with ever smaller w.
    """
    root = sqrt(width * width + m * m)
    return (
        m / (width + root),
        width * log(2 * width / (width + root)),
        width / (root * (width + root)),
    )


class HingeLosses(Losses):
    r"""Hinge losses :math:`\max(0, 1 - y_t\langle a_t, x\rangle)`.

    At the corner, where the margin is 1, the subgradient is 0.

    Parameters
    ----------
    features : array_like of shape (T, n)
        :math:`a_t`.
    labels : array_like of shape (T,)
        :math:`y_t`, -1 or +1; where no label is -1, a 0 means -1. See `Losses` for dtypes and
        errors.

    Raises
    ------
    ValueError
        A label is none of these; its round is named.

    Examples
    --------
    >>> from numbelief.online import HingeLosses
    >>> HingeLosses([[1.0, 2.0]], [-1])(1, [1.0, 1.0])
    (4.0, array([1., 2.]))

    References
    ----------
    Shalev-Shwartz, Singer and Srebro, Pegasos: Primal Estimated sub-GrAdient SOlver for SVM, 2007.
    """

    nonnegative = True

    def __init__(self, features: ArrayLike, labels: ArrayLike) -> None:
        super().__init__(features, _labels(labels), ("features", "labels"))

    @staticmethod
    def loss(z: Any, y: Any) -> Any:
        r""":math:`\max(0, 1 - y z)`."""
        return (1 - y * z, -y, 0.0) if y * z < 1 else (0.0, 0.0, 0.0)

    lowest = 0.0

    @staticmethod
    def margin(y: Any) -> Any:
        """The s and h of the margin m = s z + h."""
        return -y, np.ones_like(y)

    @staticmethod
    def smoothed(z: Any, y: Any, width: Any) -> Any:
        r""":math:`\max(0, m) = \max_{0\le a\le1} a m`, with a barrier of the given width there."""
        m = 1 - y * z
        b, barrier, bend = _within_one(m / 2, width)
        a = (1 + b) / 2
        return a * m, a * m + barrier, -a * y, bend / 4


class LogisticLosses(Losses):
    r"""Logistic losses :math:`\log(1 + \exp(-y_t\langle a_t, x\rangle))`, without overflow.

    Parameters
    ----------
    features : array_like of shape (T, n)
        :math:`a_t`.
    labels : array_like of shape (T,)
        :math:`y_t`, -1 or +1; where no label is -1, a 0 means -1. See `Losses` for dtypes and
        errors.

    Raises
    ------
    ValueError
        A label is none of these; its round is named.

    Examples
    --------
    >>> from numbelief.online import LogisticLosses
    >>> LogisticLosses([[1.0, 0.0]], [1])(1, [-1000.0, 0.0])
    (1000.0, array([-1., -0.]))
    """

    nonnegative = smooth = True

    def __init__(self, features: ArrayLike, labels: ArrayLike) -> None:
        super().__init__(features, _labels(labels), ("features", "labels"))

    @staticmethod
    def loss(z: Any, y: Any) -> Any:
        r""":math:`\log(1 + e^{-y z})`."""
        e = exp(-abs(z))
        near, far = 1 / (1 + e), e / (1 + e)  # the probabilities of the sign of z and of the other
        wrong = far if y * z > 0 else near
        return max(-y * z, 0.0) + log1p(e), -y * wrong, near * far


class PortfolioLosses(Losses):
    r"""Losses :math:`-\log\langle r_t, x\rangle` of a portfolio x: their sum is minus log wealth.

    Where :math:`\langle r_t, x\rangle \le 0`, which takes a loss of everything, the loss is inf.

    Parameters
    ----------
    relatives : array_like of shape (T, n)
        :math:`r_t`, the price of each asset after round t over its price before, at least 0 and
        not all 0. See `Losses` for dtypes and errors.

    Raises
    ------
    ValueError
        A relative is negative, or all of a round are 0; the round is named.

    Examples
    --------
    >>> from numbelief.online import PortfolioLosses
    >>> value, gradient = PortfolioLosses([[2.0, 0.5]])(1, [0.5, 0.5])
    >>> round(value, 4), gradient
    (-0.2231, array([-1.6, -0.4]))

    References
    ----------
    Cover, Universal Portfolios, 1991.
    """

    smooth = True

    def __init__(self, relatives: ArrayLike) -> None:
        super().__init__(relatives, names=("relatives", ""))
        bad = (self.data[0].min(axis=1) < 0) | (self.data[0].max(axis=1) <= 0)
        if bad.any():
            t = int(np.argmax(bad))
            raise ValueError(
                "relatives must be at least 0 and not all 0 in a round, "
                f"got {self.data[0][t]} in round {t + 1}"
            )

    @staticmethod
    def loss(z: Any, y: Any) -> Any:
        r""":math:`-\log z`."""
        return (-log(z), -1 / z, 1 / (z * z)) if z > 0 else (inf, -inf, inf)


def _labels(value: Any) -> NDArray[Any]:
    labels = as_array(value, "labels")
    if labels.dtype.kind in "fiub" and labels.ndim == 1 and labels.size:
        if labels.dtype.kind in "ub" or not (labels == -1).any():
            labels = np.where(labels == 0, -1.0, labels)
        bad = np.abs(labels) != 1
        if bad.any():
            t = int(np.argmax(bad))
            raise ValueError(
                "labels must be -1 or +1, or else 0 or 1, "
                f"got {np.asarray(value)[t]} in round {t + 1}"
            )
    return labels
