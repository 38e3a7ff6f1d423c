"""What all losses can do, and losses that are tables of numbers."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief._compile.arrays import SUM_BLOCK
from numbelief.checks import as_array, integer
from numbelief.online.losses import compiled
from numbelief.sets import FeasibleSet


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


class Minimizer(NamedTuple):
    """A best fixed point by a formula, up to rounding and the projections of its set.

    Attributes
    ----------
    x : ndarray of shape (n,) of float64
    passes : int
        How often the formula read the data.
    value : float or None
        The sum of the losses at x, where the formula gives it, too.
    gap : float
        By how much the minimum over the set may be below that value.
    """

    x: NDArray[np.float64]
    passes: int
    value: float | None = None
    gap: float = 0.0


class GameLosses:
    """What losses say of themselves, by attributes: the base of `Losses` and `CallbackLosses`."""

    #: Whether they do not depend on what was played, so that there is a best fixed point.
    oblivious: bool = True

    #: Whether a loss that is asked for again is the same.
    replayable: ClassVar[bool] = True

    #: Whether no loss is below 0.
    nonnegative: ClassVar[bool] = False

    #: What proves a loss twice differentiable, so that Newton's method may use the curvature.
    smooth: ClassVar[bool] = False

    #: Whether a loss is a quadratic function, whose curvature is the same everywhere.
    quadratic: ClassVar[bool] = False

    #: For losses with corners: ``smoothed(z, y, width)`` returns the tangent at z (see `Model`),
    #: and the value, slope and curvature of the loss whose corner is rounded over a width.
    smoothed: ClassVar[Callable[..., Any] | None] = None

    #: For losses :math:`\max_{b\le a\le1} a m` of a margin m, the number b; `margin` goes with it.
    lowest: ClassVar[float | None] = None

    @classmethod
    def is_built_in(cls) -> bool:
        """Whether these losses are one of numbelief's own tables, known to be convex."""
        return False

    def exact_minimizer(self, feasible_set: FeasibleSet, upto: int) -> Minimizer | None:
        """The best fixed point of the first losses, where there is a formula for it, else None.

        Parameters
        ----------
        feasible_set : set of `numbelief.sets`
        upto : int
            The number of rounds.

        Returns
        -------
        Minimizer or None
        """
        return None


class Losses(GameLosses):
    r"""Losses :math:`\ell(\langle a_t, x\rangle, y_t)` or :math:`\sum_i \ell(x_i, y_{t,i})`.

    The base of the built-in losses, and of your own: a subclass defines `loss` in plain arithmetic
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
    ...     def loss(z, y):
    ...         slope = 0.1 if z > y else -0.9
    ...         return slope * (z - y), slope, 0.0
    >>> Pinball([1.0, 2.0]).total([1.5])[0]
    0.5
    """

    # What is true of a formula, and not of another one.
    _OF_THE_FORMULA: ClassVar[set[str]] = {
        "nonnegative", "smooth", "quadratic", "smoothed", "lowest", "margin", "exact_minimizer",
    }  # fmt: skip

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        # `link` is what `loss` was called: whichever is defined nearest counts.
        first = next(each for each in cls.__mro__ if {"loss", "link"} & vars(each).keys())
        if first is cls:  # what a base class says holds of its own formula
            for name in cls._OF_THE_FORMULA:
                owner = next(each for each in cls.__mro__ if name in vars(each))
                if owner is not cls and issubclass(owner, Losses):
                    setattr(cls, name, inspect.getattr_static(Losses, name))
        name = "loss" if "loss" in vars(first) else "link"
        cls.loss = cls.link = staticmethod(getattr(cls, name))  # type: ignore[method-assign]

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
    def loss(z: Any, y: Any) -> Any:
        r"""The value, a slope and the curvature of :math:`\ell(\cdot, y)` at z (y is 0 if none)."""
        raise NotImplementedError("losses define loss(z, y)")

    link: ClassVar[Callable[..., Any]] = loss

    @classmethod
    def is_built_in(cls) -> bool:
        """Whether these losses are one of numbelief's own tables, known to be convex."""
        return cls.__module__.startswith(f"{__package__}.")

    @property
    def fun(self) -> Any:
        """One round, compiled: ``fun(x, grad, *row)`` returns the loss at x and fills grad."""
        if self.form == "coordinates":
            return self._compiled(compiled.coordinates_template)
        targets = len(self.data) == 2
        template = compiled.targets_template if targets else compiled.features_template
        return self._compiled(template)

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
        point = as_point(x, self.n)
        grad = np.empty(self.n)
        value = self.fun(point, grad, *(each[t - 1] for each in self.data))
        return float(value), grad

    def __getitem__(self, rounds: slice) -> Self:
        """Some consecutive rounds: ``losses[10:20]`` are rounds 11 to 20, of the same data."""
        first, last = consecutive(rounds, self.rounds)
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
        point, upto = as_point(x, self.n), self._upto(upto)
        gradient = np.zeros(self.n)
        a, y = self._features_and_targets()
        if a is None:
            add = self._compiled(compiled.total_of_coordinates_template)
            total = add(point, gradient, upto, y)
        else:
            add = self._compiled(compiled.total_of_features_template)
            total = add(point, gradient, upto, a, y)
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
        points = as_points(points, self.rounds, self.n)
        costs, grad = np.empty(self.rounds), np.empty(self.n)
        alone = len(self.data) == 1
        template = compiled.along_template if alone else compiled.along_targets_template
        evaluate = compiled.compile_loss(template, type(self), one_round=self.fun)  # type: ignore[arg-type]
        evaluate(points, costs, grad, *self.data)
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
        point, upto = as_point(x, self.n), self._upto(upto)
        smoothed = type(self).smoothed
        if smoothed is None:
            kernel = self._compiled(compiled.model_template)
        else:
            kernel = self._compiled(compiled.model_of_corners_template, smoothed=smoothed)
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
        rows = max(1, min(SUM_BLOCK, (1 << 20) // self.n))
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
        """A template, completed by the loss of this class."""
        kind: Any = type(self)
        return compiled.compile_loss(template, kind, loss=kind.loss, **names)

    def _upto(self, upto: int | None) -> int:
        return rounds_of(upto, self.rounds)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rounds={self.rounds}, n={self.n}, dtype={self.dtype})"


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


def _first_bad_row(table: NDArray[Any]) -> int:
    """The first row with a number that is not finite, or -1."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(table.sum()):
            return -1
    good = np.isfinite(table).all(axis=1)
    return -1 if good.all() else int(np.argmin(good))


def as_point(x: ArrayLike, n: int) -> NDArray[np.float64]:
    """Read x."""
    point = np.ascontiguousarray(x, dtype=np.float64)
    if point.shape != (n,):
        raise ValueError(f"x must have shape ({n},), got {np.shape(x)}")
    return point


def as_points(points: ArrayLike, rounds: int, n: int) -> NDArray[np.float64]:
    """Read a sequence of points, one a round."""
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


def consecutive(rounds: slice, count: int) -> tuple[int, int]:
    """Read a slice of rounds: its first, and the one after its last."""
    first, last, step = rounds.indices(count)
    if step != 1 or first >= last:
        raise ValueError(f"rounds must be consecutive and at least one, got {rounds}")
    return first, last


def rounds_of(upto: int | None, rounds: int | None) -> int:
    """Read ``upto``, a number of rounds."""
    if upto is None:
        assert rounds is not None
        return rounds
    upto = at_least_one("upto", upto)
    if rounds is not None and upto > rounds:
        raise ValueError(f"upto must be at most the number of rounds, {rounds}, got {upto}")
    return upto


def at_least_one(name: str, value: Any) -> int:
    """Read an integer of at least 1."""
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return number
