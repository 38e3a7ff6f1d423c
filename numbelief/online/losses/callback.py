"""Losses that a function makes up."""

from collections.abc import Callable
from math import inf
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief._compile.internals import Dispatcher
from numbelief.online.losses.base import (
    GameLosses,
    as_point,
    as_points,
    at_least_one,
    consecutive,
    rounds_of,
)
from numbelief.online.losses.compiled import compile_callback


class CallbackLosses(GameLosses):
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

    replayable = False

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
        self.n = at_least_one("n", n)
        self.rounds = None if rounds is None else at_least_one("rounds", rounds)
        self.oblivious = bool(oblivious)
        self.dtype = np.dtype(np.float64)
        self.compiled = isinstance(function, Dispatcher)
        self._first = 0  # rounds of function before the first of these
        self.fun: Any
        self._total: Any
        self.fun, self._total = compile_callback(function) if self.compiled else (None, None)

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
        first, stop = consecutive(rounds, last)
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
        point = as_point(x, self.n)
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
        point, upto = as_point(x, self.n), self._upto(upto)
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
        table = as_points(table, len(table) if self.rounds is None else self.rounds, self.n)
        return np.array([self(t, x)[0] for t, x in enumerate(table, start=1)])

    def _upto(self, upto: int | None) -> int:
        if upto is None and self.rounds is None:
            raise ValueError("upto must be given where rounds is not")
        return rounds_of(upto, self.rounds)

    def __repr__(self) -> str:
        return f"CallbackLosses({self.function!r}, n={self.n}, rounds={self.rounds})"
