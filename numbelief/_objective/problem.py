"""What the user gave (fun, jac, args) as one object that evaluates, counts and checks."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief._objective import compiled as _compiled
from numbelief._objective.compiled import Form
from numbelief._objective.differences import SCHEMES, Differences, difference_step
from numbelief.checks import as_gradient, as_scalar
from numbelief.sets import FeasibleSet

# A compiled function that writes past its array is caught if it stays within _MARGIN numbers, as
# one for many times as many variables does. The margins hold a number that none is added to unseen.
_MARGIN, _MARK = 4096, 0.7310585786300049


class Problem:
    """An objective whose gradient arrives in one buffer, whatever form the user gave it in.

    Parameters
    ----------
    fun, jac, args
        As in `numbelief.minimize`.
    x : ndarray of shape (n,)
        A point: its size and dtype are those of all points to come.
    feasible_set : FeasibleSet or None
        Finite differences stay inside it, if it is a `Box`.
    finite_difference : dict or None
        ``rel_step`` or ``abs_step`` of the differences.
    compiled : bool or None
        Whether a loop in compiled code is to call the functions; None: if they are compiled.

    Attributes
    ----------
    nfev, njev : int
        Evaluations of the function and of the gradient so far.
    compiled : numbelief._objective.compiled.Objective or None
        The same for a loop in compiled code.
    why_not_compiled : str or None
        What keeps these functions from such a loop.
    """

    def __init__(
        self,
        fun: Any,
        jac: Any,
        args: Any,
        x: NDArray[Any],
        feasible_set: FeasibleSet | None = None,
        finite_difference: dict[str, Any] | None = None,
        compiled: bool | None = None,
    ) -> None:
        if not (callable(fun) or _compiled.is_compiled(fun)):
            raise TypeError(f"fun must be callable, got {fun!r}")
        self._given = as_args(args)
        self.args = self._of_row(0)
        self.fun, self.jac = (self._callable(function, jac, x) for function in (fun, jac))
        self.nfev = 0
        self.njev = 0
        step = difference_step(finite_difference, x.size)
        self._form = form_of(jac)
        if self._form is Form.DIFFERENCES:
            scheme = jac if isinstance(jac, str) else SCHEMES[0]
            self._finite_differences = Differences(scheme, step, feasible_set)
        self.why_not_compiled = self._why_not_compiled(fun, jac)
        self.compiled = self._compile(fun, jac, compiled, x)

    @property
    def evaluate(self) -> Callable[[NDArray[Any], NDArray[Any]], float]:
        """``evaluate(x, g)`` returns fun(x) as a float and fills g.

        The user's functions get copies of x, so that they may keep or change them.
        """
        # Not an attribute: a problem that holds its own method lives, with args, until the garbage
        # collector runs.
        method: Callable[[NDArray[Any], NDArray[Any]], float] = getattr(
            self, f"_{self._form.value}"
        )
        return method

    @property
    def shared(self) -> tuple[Any, ...]:
        """The arguments that all rows share."""
        return tuple(arg for arg in self._given if not isinstance(arg, _compiled.PerRow))

    def of_row(self, row: int) -> "Problem":
        """The same with row i of each argument that is `numbelief._objective.compiled.PerRow`."""
        problem = copy.copy(self)
        problem.args = self._of_row(row)
        problem.nfev = problem.njev = 0
        return problem

    def _of_row(self, row: int) -> tuple[Any, ...]:
        return tuple(a.data[row] if isinstance(a, _compiled.PerRow) else a for a in self._given)

    def _callable(self, function: Any, jac: Any, x: NDArray[Any]) -> Any:
        """A user's function as Python calls it."""
        if not _compiled.is_c_function(function):
            return _compiled.as_dispatcher(function)
        if jac != "inplace" or self.args:
            raise TypeError(
                "a C function fills the gradient and takes no args: it needs jac='inplace' and "
                f"args=(), got jac={jac!r}, args={self.args!r}"
            )
        return _compiled.CFunction(function, x.dtype)

    def _compile(
        self, fun: Any, jac: Any, compiled: bool | None, x: NDArray[Any]
    ) -> _compiled.Objective | None:
        """The objective for a loop in compiled code, or None for Python's loop."""
        separate = self._form is Form.SEPARATE
        half = separate and _compiled.is_compiled(fun) and not _compiled.is_compiled(jac)
        if compiled is False or (self.why_not_compiled and not (compiled or half)):
            return None
        if self.why_not_compiled:
            raise TypeError(
                f"a loop in compiled code is not possible: {self.why_not_compiled}; "
                "options={'compiled': False} runs Python's loop around any function"
            )
        return _compiled.Objective(self.fun, self.jac, self._form, self._given, x.dtype)

    def _why_not_compiled(self, fun: Any, jac: Any) -> str | None:
        given = {"fun": fun, "jac": jac} if self._form is Form.SEPARATE else {"fun": fun}
        for name, function in given.items():
            if not _compiled.is_compiled(function):
                return f"{name} is not compiled (numba.njit)"
        if self._form is Form.DIFFERENCES:
            return f"jac={jac!r} takes finite differences"
        count = 1 + (self._form is Form.INPLACE) + len(self.args)
        for name in given:
            if not _compiled.is_fixed(getattr(self, name), count):
                return f"{name} has a default, a star or a keyword among its arguments"
        return None

    def value(self, x: NDArray[Any]) -> float:
        """fun(x), without its gradient where the two are apart."""
        if self._form in (Form.SEPARATE, Form.DIFFERENCES):
            return self._value(x.copy())
        return self.evaluate(x, np.empty_like(x))

    def first(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        """Evaluate, and look whether a compiled function writes past the end of its gradient."""
        guarded = self.guarded(x)
        fun = self.evaluate(x, guarded)
        self.check(guarded)
        g[:] = guarded
        return fun

    def guarded(self, x: NDArray[Any]) -> NDArray[Any]:
        """Memory for gradients that `check` can look around."""
        if self._form is not Form.INPLACE or self.compiled is None:
            return np.zeros_like(x)
        padded = np.full(x.size + 2 * _MARGIN, _MARK, x.dtype)
        padded[_MARGIN:-_MARGIN] = 0
        return padded[_MARGIN:-_MARGIN]

    def check(self, guarded: NDArray[Any]) -> None:
        """Raise ValueError if a compiled function wrote past the end of what `guarded` made."""
        padded = guarded.base
        if padded is None:
            return
        mark = padded.dtype.type(_MARK)
        if (padded[:_MARGIN] != mark).any() or (padded[-_MARGIN:] != mark).any():
            raise ValueError(
                f"fun must fill the {guarded.size} numbers of grad, and wrote beyond them"
            )

    def _separate(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        fun = as_scalar(self.fun(x.copy(), *self.args))
        _fill(g, self.jac(x.copy(), *self.args), "jac")
        self._count()
        return fun

    def _together(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        pair = self.fun(x.copy(), *self.args)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"with jac=True fun must return (value, gradient), got {pair!r}")
        fun = as_scalar(pair[0])
        _fill(g, pair[1], "the gradient that fun returns")
        self._count()
        return fun

    def _inplace(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        g.fill(np.nan)  # a coordinate that fun forgets must not pass for a gradient
        fun = as_scalar(self.fun(x.copy(), g, *self.args))
        self._count()
        return fun

    def _count(self) -> None:
        """Count an evaluation that came to its end, as compiled code does."""
        self.nfev += 1
        self.njev += 1

    def _differences(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        self.njev += 1
        value = self._call(x.copy())
        fun = as_scalar(value)
        self._finite_differences.fill(self._call, x, g, value)
        return fun

    def _value(self, x: NDArray[Any]) -> float:
        return as_scalar(self._call(x))

    def _call(self, x: NDArray[Any]) -> Any:
        self.nfev += 1
        return self.fun(x, *self.args)


def form_of(jac: Any) -> Form:
    """How a gradient given like this arrives."""
    if callable(jac) or _compiled.is_compiled(jac):
        return Form.SEPARATE
    if jac is True:
        return Form.TOGETHER
    if not (jac is None or jac is False or isinstance(jac, str)):
        raise TypeError(f"jac must be a callable, True, a string or None, got {jac!r}")
    if jac == "inplace":
        return Form.INPLACE
    if jac and jac not in SCHEMES:
        raise ValueError(
            "jac must be a callable, True, 'inplace', '2-point', '3-point', 'cs' or None, "
            f"got {jac!r}"
        )
    return Form.DIFFERENCES


def as_args(args: Any) -> tuple[Any, ...]:
    """Further arguments as a tuple, where a single one may stand for itself."""
    single = not isinstance(args, tuple) or isinstance(args, _compiled.PerRow)
    given: tuple[Any, ...] = (args,) if single else args
    for i, arg in enumerate(given):
        if not isinstance(arg, _compiled.PerRow) and _marks_rows(arg):
            raise TypeError(f"per_row must mark an argument as a whole, not a part of args[{i}]")
    return given


def _marks_rows(value: Any) -> bool:
    inside = isinstance(value, (tuple, list)) and any(map(_marks_rows, value))
    return isinstance(value, _compiled.PerRow) or inside


def _fill(g: NDArray[Any], grad: Any, name: str) -> None:
    if type(grad) is np.ndarray and grad.dtype == g.dtype and grad.shape == g.shape:
        g[:] = grad
    else:
        g[:] = as_gradient(grad, g, name)
