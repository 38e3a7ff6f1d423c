"""The user's objective on a GPU: Python functions of device arrays."""

from math import nan
from typing import Any

from numbelief import _interop as interop
from numbelief._gpu.card import Card
from numbelief._gpu.vectors import CardVectors, duplicate
from numbelief._objective.compiled import is_compiled
from numbelief._objective.problem import as_args
from numbelief.checks import as_scalar


class CardProblem:
    """An objective on a GPU: what `numbelief._objective.problem.Problem` is for x there.

    Parameters
    ----------
    fun, jac, args
        As in `numbelief.minimize`.
    vectors : CardVectors
        Those of x, which changes from one evaluation to the next.
    wants_compiled : bool or None
        The option ``compiled``.

    Attributes
    ----------
    nfev, njev : int
        Evaluations so far.
    gradient : device array of shape (n,)
        The latest gradient, as kernels take it.
    args : tuple
        Those of the coming evaluation.
    """

    def __init__(
        self,
        fun: Any,
        jac: Any,
        args: Any,
        vectors: CardVectors,
        wants_compiled: bool | None = None,
    ) -> None:
        if wants_compiled:
            raise TypeError("a loop in compiled code is not possible: x0 is on a GPU")
        for name, function in (("fun", fun), ("jac", jac)):
            if is_compiled(function):
                raise TypeError(
                    f"{name} must be a Python function of device arrays where x0 is on a GPU, got "
                    "one that is compiled for the CPU"
                )
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {fun!r}")
        if not (callable(jac) or jac is True or (isinstance(jac, str) and jac == "inplace")):
            raise ValueError(
                "jac must be a callable, True or 'inplace' where x0 is on a GPU, which takes no "
                f"finite differences, got {jac!r}"
            )
        self._fun, self._jac, self.args = fun, jac, as_args(args)
        self._x, self._card = vectors.given, vectors.card
        self.nfev = self.njev = 0
        self._grad: Any = None
        if jac == "inplace":
            self._grad = duplicate(self._x)
            # A coordinate that fun forgets must not pass for a gradient.
            vectors.fill(self._card.view(self._grad), nan)
        self.gradient: Any = None
        self._alive: Any = None, None

    def wait(self) -> None:
        """Let what reads the latest gradient end, if it must before that is let go."""
        self._card.wait_for(self._alive[1])

    def value(self, x: Any) -> float:
        """fun(x), without its gradient where the two are apart."""
        if callable(self._jac):
            return number(self._fun(x, *self.args), self._card)
        return self.value_and_gradient(x)

    def value_and_gradient(self, x: Any = None) -> float:
        """The value at x, or at another point, as a number; ``gradient`` is then the one there."""
        value, position = self.evaluate(x)
        return value if position is None else float(self._card.host(position)[0])

    def evaluate(self, x: Any = None) -> tuple[float, Any]:
        """The value at x, either as a number or, on the card, as an array of one (and nan)."""
        x = self._x if x is None else x
        if self._jac is True:
            pair = self._fun(x, *self.args)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"with jac=True fun must return (value, gradient), got {pair!r}")
            value, grad = pair
        elif callable(self._jac):
            value, grad = self._fun(x, *self.args), self._jac(x, *self.args)
        else:
            grad = self._grad
            value = self._fun(x, grad, *self.args)
        self.wait()
        self._alive = value, grad  # a view does not keep the memory of what it shows
        self.gradient = self._card.gradient(grad, ())
        self.nfev += 1
        self.njev += 1
        if interop.is_device_array(value):
            return nan, self._card.number(value)
        return as_scalar(value), None


def number(value: Any, card: Card, name: str = "fun") -> float:
    """What a function returned, on the host or on the card, as a number."""
    if interop.is_device_array(value):
        return float(card.host(card.number(value, name))[0])
    return as_scalar(value, name)
