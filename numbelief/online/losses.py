r"""Convex losses, one a round, that are tables of numbers.

Nearly every loss of online learning is a scalar function of one number a round: of the margin
:math:`z = \langle a_t, x\rangle` (hinge, logistic, portfolio, least squares), or of each coordinate
of x (squared distance, distance). So a loss is written once, as that function: ``link(z, y)``
returns its value, its slope and its curvature at z, where y is the round's target or label. Two
templates make the rest of it: the compiled function of one round, which a loop in machine code
plays, and the sum over rounds with its gradient, which a comparator needs. A `Losses` of your own
is a class with a ``link``.

Rounds count from 1, as in the papers; round t is row t - 1 of the data. Whatever the dtype of the
data, products and sums are taken in float64: regret is a small difference of large sums.

>>> import numpy as np
>>> from numbelief.online import losses
>>> f = losses.LogisticLosses([[1.0, 2.0], [0.0, 1.0]], [1, -1])
>>> value, gradient = f.total(np.zeros(2))
>>> round(value, 4), gradient
(1.3863, array([-0.5, -0.5]))
"""

import functools
from collections.abc import Callable, Iterator
from math import exp, inf, log, log1p, sqrt
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.extending import register_jitable
from numpy.typing import ArrayLike, NDArray

from numbelief import kernels
from numbelief.checks import as_array, integer

__all__ = [
    "AbsoluteLosses",
    "CallbackLosses",
    "HingeLosses",
    "LinearLosses",
    "LogisticLosses",
    "Losses",
    "PortfolioLosses",
    "SquaredLosses",
]

# Sums are taken block after block of so many rounds: 3e6 terms one by one lose 3 digits.
_BLOCK = 1 << 12


# ---- templates ---------------------------------------------------------------------------------
# Bound by `kernels.lift`.
link: Any = None
smoothed: Any = None
one_round: Any = None
function: Any = None


def _dot(a: Any, x: Any) -> Any:
    total = 0.0
    for i in range(x.size):
        total += np.float64(a[i]) * np.float64(x[i])
    return total


# Only where the sum may be reordered does it use vectors, and then it is the same for all callers.
dot = kernels.part(_dot, inline=False, fastmath={"reassoc"})


@register_jitable  # type: ignore[untyped-decorator]
def _target(y: Any, t: Any) -> Any:
    if y is None:
        return 0.0
    else:
        return np.float64(y[t])


def _round_of_features(x: Any, grad: Any, a: Any) -> Any:
    value, slope, _ = link(dot(a, x), 0.0)
    for i in range(x.size):
        grad[i] = slope * a[i]
    return value


def _round_of_targets(x: Any, grad: Any, a: Any, y: Any) -> Any:
    value, slope, _ = link(dot(a, x), np.float64(y))
    for i in range(x.size):
        grad[i] = slope * a[i]
    return value


def _round_of_coordinates(x: Any, grad: Any, y: Any) -> Any:
    total = 0.0
    for i in range(x.size):
        value, slope, _ = link(np.float64(x[i]), np.float64(y[i]))
        total += value
        grad[i] = slope
    return total


def _total_of_features(x: Any, gradient: Any, upto: Any, a: Any, y: Any) -> Any:
    total = 0.0
    for first in range(0, upto, _BLOCK):
        block = 0.0
        for t in range(first, min(first + _BLOCK, upto)):
            row = a[t]
            value, slope, _ = link(dot(row, x), _target(y, t))
            block += value
            for i in range(x.size):
                gradient[i] += slope * row[i]
        total += block
    return total


def _total_of_coordinates(x: Any, gradient: Any, upto: Any, y: Any) -> Any:
    total = 0.0
    for first in range(0, upto, _BLOCK):
        block = 0.0
        for t in range(first, min(first + _BLOCK, upto)):
            for i in range(x.size):
                value, slope, _ = link(x[i], np.float64(y[t, i]))
                block += value
                gradient[i] += slope
        total += block
    return total


def _along(points: Any, costs: Any, grad: Any, a: Any) -> None:
    for t in range(costs.size):
        costs[t] = one_round(points[t], grad, a[t])


def _along_targets(points: Any, costs: Any, grad: Any, a: Any, y: Any) -> None:
    for t in range(costs.size):
        costs[t] = one_round(points[t], grad, a[t], y[t])


def _bend(z: Any, y: Any, width: Any, slope: Any, curvature: Any) -> Any:
    total = 0.0
    for k in range(z.size):
        value, slope[k], curvature[k] = link(z[k], _target(y, k))
        total += value
    return total, total, total


def _bend_corners(z: Any, y: Any, width: Any, slope: Any, curvature: Any) -> Any:
    total = tangent = merit = 0.0
    for k in range(z.size):
        total += link(z[k], _target(y, k))[0]
        linear, rounded, slope[k], curvature[k] = smoothed(z[k], _target(y, k), width)
        tangent += linear
        merit += rounded
    return total, tangent, merit


def _round_of_callback(x: Any, grad: Any, t: Any) -> Any:
    value, gradient = function(t, x)
    if np.shape(gradient) != x.shape:  # else it would be spread over the coordinates
        raise ValueError("function must return a gradient of the shape of x")
    grad[:] = gradient
    return value


def _total_of_callback(x: Any, gradient: Any, begin: Any, upto: Any) -> Any:
    total, grad = 0.0, np.empty_like(x)
    for first in range(0, upto, _BLOCK):
        block = 0.0
        for t in range(first, min(first + _BLOCK, upto)):
            block += one_round(x.copy(), grad, begin + t + 1)
            gradient += grad
        total += block
    return total


def _first_bad_row(table: Any) -> Any:
    for t in range(table.shape[0]):
        for i in range(table.shape[1]):
            if not np.isfinite(table[t, i]):
                return t
    return -1


_first_bad_row = kernels.jit(_first_bad_row)

_ROUNDS = {
    "features": _round_of_features,
    "targets": _round_of_targets,
    "coordinates": _round_of_coordinates,
}


@functools.cache
def _compile(template: Any, losses: type["Losses"], **names: Any) -> Any:
    """A template for the link of a class; what this file does not define is not kept on disk."""
    names["link"] = register_jitable(losses.link)
    if losses.smoothed is not None:
        names["smoothed"] = register_jitable(losses.smoothed)
    lifted = kernels.lift(template, losses.__name__, **names)
    return kernels.jit(lifted, cache=losses.__module__ == __name__)


def _compile_callback(function: Any) -> tuple[Any, Any]:
    """One round of a compiled function, and the sum of many; nothing is compiled before a call."""
    names = {"function": function}
    names["one_round"] = kernels.jit(kernels.lift(_round_of_callback, **names), cache=False)
    total = kernels.jit(kernels.lift(_total_of_callback, **names), cache=False)
    return names["one_round"], total


# ---- what a table of numbers is ----------------------------------------------------------------


class Model(NamedTuple):
    r"""The sum F of losses near a point, and what proves a lower bound of its minimum.

    ``tangent`` is the value at x of an affine minorant of F, and ``gradient`` its gradient, so that
    :math:`F(y) \ge` tangent :math:`+ \langle` gradient :math:`, y - x\rangle` for every y.

    Attributes
    ----------
    value : float
        F(x).
    tangent : float
        F(x) where the losses are smooth, else a little less.
    gradient : ndarray of shape (n,)
        Of F, or of F with its corners rounded.
    merit : float
        F(x), or that of F with its corners rounded, whose gradient and hessian these are.
    hessian : ndarray of shape (n, n), or None
    """

    value: float
    tangent: float
    gradient: NDArray[np.float64]
    merit: float
    hessian: Any


class Losses:
    r"""Losses :math:`\ell(\langle a_t, x\rangle, y_t)` or :math:`\sum_i \ell(x_i, y_{t,i})`.

    The base of the built-in losses, and of your own: a subclass defines `link` in plain arithmetic
    and the functions of `math`, and calls ``super().__init__``.

    Parameters
    ----------
    features : array_like of shape (T, n), optional
        :math:`a_t`, one row a round. A column (T,) is taken as n = 1. Without features the loss is
        the sum over the coordinates.
    targets : array_like, optional
        :math:`y_t`: of shape (T,), or (T, n) without features, where (T,) is taken as n = 1.
    names : tuple of two str, default ("features", "targets")
        What messages call them.

    Attributes
    ----------
    rounds, n : int
        The number of rounds T, and of coordinates.
    dtype : numpy.dtype
        float32 or float64, as features have it (targets, without them); targets are given it, too.
    data : tuple of ndarray
        What `fun` takes after x and grad, with the round as the first axis: features, targets, or
        both. Read-only views: an array of that dtype in C order is not copied, so that a change of
        it changes the losses; anything else is converted once.

    Raises
    ------
    TypeError
        The data are not real numbers of at most 64 bits.
    ValueError
        They have another shape, no round, or a number that is not finite, whose round is named.

    Examples
    --------
    The pinball loss, whose best fixed point is a quantile:

    >>> from numbelief.online import losses
    >>> class Pinball(losses.Losses):
    ...     def __init__(self, targets):
    ...         super().__init__(targets=targets)
    ...
    ...     @staticmethod
    ...     def link(z, y):
    ...         slope = 0.1 if z > y else -0.9
    ...         return slope * (z - y), slope, 0.0
    >>> Pinball([1.0, 2.0]).total([1.5])[0]
    0.5
    """

    #: For losses with corners: ``smoothed(z, y, width)`` returns the tangent at z (see `Model`),
    #: and the value, slope and curvature of the loss whose corner is rounded over a width.
    smoothed: ClassVar[Callable[..., Any] | None] = None

    #: For losses :math:`\max_{b\le a\le1} a m` of a margin m, the number b; `margin` goes with it.
    lowest: ClassVar[float | None] = None

    #: What proves a loss twice differentiable, so that Newton's method may use the curvature.
    smooth: ClassVar[bool] = False

    def __init__(
        self,
        features: Any = None,
        targets: Any = None,
        names: tuple[str, str] = ("features", "targets"),
    ) -> None:
        if features is None and targets is None:
            raise TypeError(f"{type(self).__name__} needs {names[0]} or {names[1]}")
        given = []
        if features is not None:
            given.append(_table(names[0], features))
        if targets is not None:
            single = features is not None
            given.append(_table(names[1], targets, given[0].dtype if single else None, single))
        if len({len(each) for each in given}) > 1:
            raise ValueError(
                f"{names[0]} and {names[1]} must have one row for each round, "
                f"got {len(given[0])} and {len(given[1])}"
            )
        self._set(tuple(given), "coordinates" if features is None else "features")

    def _set(self, data: tuple[NDArray[Any], ...], form: str) -> None:
        self.data = data
        self.rounds, self.n = data[0].shape
        self.dtype = data[0].dtype
        self.form = form

    @staticmethod
    def margin(y: Any) -> Any:
        """The s and h of the margin m = s z + h, for arrays of targets y."""
        raise NotImplementedError("losses with `lowest` define margin(y)")

    @staticmethod
    def link(z: Any, y: Any) -> Any:
        r"""The value, a slope and the curvature of :math:`\ell(\cdot, y)` at z (y is 0 if none)."""
        raise NotImplementedError("losses define link(z, y)")

    @property
    def fun(self) -> Any:
        """One round, compiled: ``fun(x, grad, *row)`` returns the loss at x and fills grad."""
        form = "targets" if len(self.data) == 2 else self.form
        return self._compiled(_ROUNDS[form])

    def __call__(self, t: int, x: ArrayLike) -> tuple[float, NDArray[Any]]:
        """The loss of round t (from 1) at x, and a gradient: what `CallbackLosses` takes.

        Parameters
        ----------
        t : int
        x : array_like of shape (n,)

        Returns
        -------
        float, ndarray of shape (n,)

        Raises
        ------
        ValueError
            There is no round t, or x has another shape.
        """
        if not 1 <= t <= self.rounds:
            raise ValueError(f"t must be a round from 1 to {self.rounds}, got {t}")
        point = _point(x, self.n)
        grad = np.empty(self.n)
        value = self.fun(point, grad, *(each[t - 1] for each in self.data))
        return float(value), grad

    def __getitem__(self, rounds: slice) -> Self:
        """Some consecutive rounds: ``losses[10:20]`` are rounds 11 to 20, of the same data."""
        first, last = _consecutive(rounds, self.rounds)
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part._set(tuple(each[first:last] for each in self.data), self.form)
        return part

    def total(self, x: ArrayLike, upto: int | None = None) -> tuple[float, NDArray[np.float64]]:
        r"""The sum :math:`F_t(x)` of the first losses and its gradient, in one pass over the data.

        Parameters
        ----------
        x : array_like of shape (n,)
        upto : int, default all
            The number t of rounds.

        Returns
        -------
        float, ndarray of shape (n,) of float64
            Of a loss with a corner, a subgradient: the one that `fun` gives.

        Raises
        ------
        ValueError
            x has another shape, or there are fewer rounds.

        Examples
        --------
        >>> from numbelief.online import losses
        >>> losses.SquaredLosses([0.0, 2.0, 9.0]).total([1.0], upto=2)
        (1.0, array([0.]))
        """
        point, upto = _point(x, self.n), self._upto(upto)
        gradient = np.zeros(self.n)
        a, y = self._features_and_targets()
        if a is None:
            total = self._compiled(_total_of_coordinates)(point, gradient, upto, y)
        else:
            total = self._compiled(_total_of_features)(point, gradient, upto, a, y)
        return float(total), gradient

    def along(self, points: ArrayLike) -> NDArray[np.float64]:
        r"""The losses :math:`f_t(u_t)` of a sequence of points, one a round.

        Parameters
        ----------
        points : array_like of shape (T, n)

        Returns
        -------
        ndarray of shape (T,) of float64

        Raises
        ------
        ValueError
            points has another shape.
        """
        points = _points(points, self.rounds, self.n)
        costs, grad = np.empty(self.rounds), np.empty(self.n)
        template = _along if len(self.data) == 1 else _along_targets
        self._compiled(template, one_round=self.fun)(points, costs, grad, *self.data)
        return costs

    def model(
        self, x: ArrayLike, upto: int | None = None, width: float = 0.0, hessian: bool = True
    ) -> Model:
        """The second-order model of the sum of the first losses, in one pass over the data.

        Parameters
        ----------
        x : array_like of shape (n,)
        upto : int, default all
        width : float, default 0
            Over which the corners of a loss that has `smoothed` are rounded; above 0 there.
        hessian : bool, default True
            Whether to take the Hessian, too, which is most of the work.

        Returns
        -------
        Model
        """
        point, upto = _point(x, self.n), self._upto(upto)
        template = _bend if self.smoothed is None else _bend_corners
        kernel = self._compiled(template)
        value = tangent = merit = 0.0
        gradient = np.zeros(self.n)
        bend = np.zeros((self.n, self.n)) if hessian else None
        for part, a, y in self.blocks(upto):
            if a is None:
                z, y = np.tile(point, part.stop - part.start), y.reshape(-1)
            else:
                z = a @ point
            slope, curvature = np.empty_like(z), np.empty_like(z)
            sums = kernel(z, y, width, slope, curvature)
            value, tangent, merit = value + sums[0], tangent + sums[1], merit + sums[2]
            if a is None:
                gradient += slope.reshape(-1, self.n).sum(axis=0)
                if bend is not None:
                    bend[np.diag_indices(self.n)] += curvature.reshape(-1, self.n).sum(axis=0)
            else:
                gradient += slope @ a
                if bend is not None:
                    bent = a[curvature > 0] * np.sqrt(curvature[curvature > 0])[:, None]
                    bend += bent.T @ bent
        return Model(value, tangent, gradient, merit, bend)

    def blocks(self, upto: int | None = None) -> Iterator[tuple[slice, Any, Any]]:
        """The data of the first rounds piece by piece, features in float64.

        Yields
        ------
        slice, ndarray of shape (B, n) of float64 or None, ndarray or None
            Rows of the data, their features, their targets.
        """
        upto = self._upto(upto)
        rows = max(1, min(_BLOCK, (1 << 20) // self.n))
        a, y = self._features_and_targets()
        for first in range(0, upto, rows):
            part = slice(first, min(first + rows, upto))
            features = None if a is None else a[part].astype(np.float64, copy=False)
            yield part, features, None if y is None else y[part]

    def _features_and_targets(self) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        if self.form == "coordinates":
            return None, self.data[0]
        return self.data[0], self.data[1] if len(self.data) == 2 else None

    def _compiled(self, template: Any, **names: Any) -> Any:
        return _compile(template, type(self), **names)  # type: ignore[arg-type]

    def _upto(self, upto: int | None) -> int:
        return _rounds(upto, self.rounds)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rounds={self.rounds}, n={self.n}, dtype={self.dtype})"


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
    def link(z: Any, y: Any) -> Any:
        r""":math:`z`."""
        return z, 1.0, 0.0


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

    smooth = True

    def __init__(self, targets: ArrayLike, features: ArrayLike | None = None) -> None:
        super().__init__(features, targets)

    @staticmethod
    def link(z: Any, y: Any) -> Any:
        r""":math:`\frac12 (z - y)^2`."""
        return 0.5 * (z - y) ** 2, z - y, 1.0


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

    def __init__(self, targets: ArrayLike, features: ArrayLike | None = None) -> None:
        super().__init__(features, targets)

    @staticmethod
    def link(z: Any, y: Any) -> Any:
        r""":math:`|z - y|`."""
        return abs(z - y), (1.0 if z > y else -1.0 if z < y else 0.0), 0.0

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


@register_jitable  # type: ignore[untyped-decorator]
def _within_one(m: Any, width: Any) -> Any:
    r"""The a that maximizes :math:`a m + w\log(1 - a^2)`, the logarithm there, and da/dm.

    The barrier is self-concordant, so that Newton's method gets along with ever smaller w.
    """
    root = sqrt(width**2 + m**2)
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

    def __init__(self, features: ArrayLike, labels: ArrayLike) -> None:
        super().__init__(features, _labels(labels), ("features", "labels"))

    @staticmethod
    def link(z: Any, y: Any) -> Any:
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

    smooth = True

    def __init__(self, features: ArrayLike, labels: ArrayLike) -> None:
        super().__init__(features, _labels(labels), ("features", "labels"))

    @staticmethod
    def link(z: Any, y: Any) -> Any:
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
    def link(z: Any, y: Any) -> Any:
        r""":math:`-\log z`."""
        return (-log(z), -1 / z, 1 / z**2) if z > 0 else (inf, -inf, inf)


class CallbackLosses:
    r"""Losses that a function makes up as the game goes on; an adversary may look at x.

    Parameters
    ----------
    function : callable
        ``function(t, x)`` returns the loss of round t (from 1) at x, and a (sub)gradient of shape
        (n,). A Python function gets a copy of x. It may be compiled by ``numba.njit``.
    n : int
        Number of coordinates.
    rounds : int, optional
        How many there are; without it, as many as are played.
    oblivious : bool, default False
        Says that function depends on t and x only, so that it may be asked again about another x:
        then the best fixed point in hindsight can be computed. For an adversary it does not exist,
        and only the linearized regret does.

    Attributes
    ----------
    dtype : numpy.dtype
        float64.
    compiled : bool
        Whether function is compiled by Numba.
    fun : callable, or None
        One round ``fun(x, grad, t)``, compiled; None around a Python function.

    Raises
    ------
    TypeError
        function is not callable; n or rounds is not an integer.
    ValueError
        n or rounds is below 1.

    Examples
    --------
    An adversary who makes every decision wrong:

    >>> import numpy as np
    >>> from numbelief.online import CallbackLosses
    >>> def wrong(t, x):
    ...     sign = 1.0 if x[0] >= 0 else -1.0
    ...     return sign * x[0], np.array([sign])
    >>> CallbackLosses(wrong, n=1)(7, [-0.5])
    (0.5, array([-1.]))
    """

    def __init__(
        self,
        function: Callable[[int, NDArray[Any]], tuple[float, ArrayLike]],
        n: int,
        rounds: int | None = None,
        *,
        oblivious: bool = False,
    ) -> None:
        if not callable(function):
            raise TypeError(f"function must be callable, got {function!r}")
        self.function = function
        self.n = _at_least_one("n", n)
        self.rounds = None if rounds is None else _at_least_one("rounds", rounds)
        self.oblivious = bool(oblivious)
        self.dtype = np.dtype(np.float64)
        self.compiled = isinstance(function, Dispatcher)
        self._first = 0  # rounds of function before the first of these
        self.fun: Any
        self._total: Any
        self.fun, self._total = _compile_callback(function) if self.compiled else (None, None)

    @property
    def data(self) -> tuple[NDArray[Any], ...]:
        """What `fun` takes after x and grad: the numbers of the rounds."""
        if self.rounds is None:
            raise ValueError("CallbackLosses need rounds to have a table of them, got None")
        return (np.arange(self._first + 1, self._first + self.rounds + 1),)

    def __getitem__(self, rounds: slice) -> Self:
        """Some consecutive rounds, as of `Losses`; without a number of them they must end."""
        last = self.rounds if self.rounds is not None else rounds.stop
        if last is None:
            raise ValueError(f"rounds must end, as losses have no number of them, got {rounds}")
        part = object.__new__(type(self))
        first, stop = _consecutive(rounds, last)
        part.__dict__.update(self.__dict__, _first=self._first + first, rounds=stop - first)
        return part

    def __call__(self, t: int, x: ArrayLike) -> tuple[float, NDArray[Any]]:
        """The loss of round t (from 1) at x and a gradient, checked.

        Raises
        ------
        TypeError
            The function does not return a pair of real numbers and vector.
        ValueError
            The gradient has another shape than x, or one of them is not finite.
        """
        point = _point(x, self.n)
        if not 1 <= t <= (self.rounds or inf):
            raise ValueError(f"t must be a round from 1 to {self.rounds}, got {t}")
        t += self._first
        returned = self.function(t, point.copy())
        try:
            given, gradient = returned
            value, grad = float(given), np.asarray(gradient, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"function must return (loss, gradient), got {returned!r} in round {t}"
            ) from error
        if grad.shape != (self.n,):
            raise ValueError(
                f"function must return a gradient of shape ({self.n},), "
                f"got {grad.shape} in round {t}"
            )
        if not (np.isfinite(value) and np.isfinite(grad).all()):
            raise ValueError(
                f"function must return finite numbers, got {value} and {grad} in round {t}"
            )
        return value, grad

    def total(self, x: ArrayLike, upto: int | None = None) -> tuple[float, NDArray[np.float64]]:
        """The sum of the first losses and its gradient, as `Losses.total`.

        Raises
        ------
        ValueError
            The function is not said to be oblivious, so that it has no sum at another point than
            the one played; or upto is missing where rounds is.
        """
        if not self.oblivious:
            raise ValueError(
                "the losses of a callback have a sum at another point only with oblivious=True"
            )
        point, upto = _point(x, self.n), self._upto(upto)
        gradient = np.zeros(self.n)
        if self.compiled:
            return float(self._total(point, gradient, self._first, upto)), gradient
        total = 0.0
        for t in range(1, upto + 1):
            value, grad = self(t, point)
            total += value
            gradient += grad
        return total, gradient

    def along(self, points: ArrayLike) -> NDArray[np.float64]:
        """The losses of a sequence of points, one a round, as `Losses.along`."""
        if not self.oblivious:
            raise ValueError("the losses of a callback can be asked again only if oblivious=True")
        table = np.asarray(points, dtype=np.float64)
        table = _points(table, len(table) if self.rounds is None else self.rounds, self.n)
        return np.array([self(t, x)[0] for t, x in enumerate(table, start=1)])

    def _upto(self, upto: int | None) -> int:
        if upto is None and self.rounds is None:
            raise ValueError("upto must be given where rounds is not")
        return _rounds(upto, self.rounds)

    def __repr__(self) -> str:
        return f"CallbackLosses({self.function!r}, n={self.n}, rounds={self.rounds})"


# ---- checks ------------------------------------------------------------------------------------


def _table(name: str, value: Any, dtype: Any = None, single: bool = False) -> NDArray[Any]:
    """A read-only view with the round as its first axis; (T,) if single, else (T, n)."""
    array = as_array(value, name)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype.newbyteorder("=") not in (np.float32, np.float64):
        raise TypeError(
            f"{name} must hold float32, float64 or integer numbers, got dtype {array.dtype}"
        )
    if array.ndim == 1 and not single:
        array = array.reshape(-1, 1)
    shape = "(T,)" if single else "(T, n)"
    if array.ndim != (1 if single else 2) or array.size == 0:
        raise ValueError(f"{name} must have shape {shape} and not be empty, got {array.shape}")
    dtype = array.dtype.newbyteorder("=") if dtype is None else dtype
    view = np.ascontiguousarray(array, dtype=dtype).view(np.ndarray)[:]
    bad = _first_bad_row(view.reshape(len(view), -1))
    if bad >= 0:
        raise ValueError(f"{name} must be finite, got {array[bad]} in round {bad + 1}")
    view.flags.writeable = False
    return view


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


def _point(x: ArrayLike, n: int) -> NDArray[np.float64]:
    point = np.ascontiguousarray(x, dtype=np.float64)
    if point.shape != (n,):
        raise ValueError(f"x must have shape ({n},), got {np.shape(x)}")
    return point


def _points(points: ArrayLike, rounds: int, n: int) -> NDArray[np.float64]:
    table = np.ascontiguousarray(points, dtype=np.float64)
    if table.ndim == 1 and n == 1:
        table = table.reshape(-1, 1)
    if table.shape != (rounds, n):
        raise ValueError(f"points must have shape ({rounds}, {n}), got {np.shape(points)}")
    wrong = ~np.isfinite(table).all(axis=1)
    if wrong.any():
        t = int(np.argmax(wrong))
        raise ValueError(f"points must be finite, got {table[t]} for round {t + 1}")
    return table


def _consecutive(rounds: slice, count: int) -> tuple[int, int]:
    first, last, step = rounds.indices(count)
    if step != 1 or first >= last:
        raise ValueError(f"rounds must be consecutive and at least one, got {rounds}")
    return first, last


def _rounds(upto: int | None, rounds: int | None) -> int:
    if upto is None:
        assert rounds is not None
        return rounds
    upto = _at_least_one("upto", upto)
    if rounds is not None and upto > rounds:
        raise ValueError(f"upto must be at most the number of rounds, {rounds}, got {upto}")
    return upto


def _at_least_one(name: str, value: Any) -> int:
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return number
