"""What the user gave (fun, jac, args) as one object that evaluates, counts and checks."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief import native
from numbelief.checks import as_array, as_gradient, as_scalar
from numbelief.sets import Box, FeasibleSet

_DIFFERENCES = ("2-point", "3-point", "cs")
# A compiled function that writes past its array is caught if it stays within so many numbers, as
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
    place : FeasibleSet or None
        Finite differences stay inside it, if it is a `Box`.
    finite_difference : dict or None
        ``rel_step`` or ``abs_step`` of the differences.
    compiled : bool or None
        Whether a loop in machine code shall call the functions; None: if they are compiled.

    Attributes
    ----------
    nfev, njev : int
        Evaluations of the function and of the gradient so far.
    native : numbelief.native.Objective or None
        The same for a loop in machine code.
    hindrance : str or None
        What keeps these functions from such a loop.
    """

    def __init__(
        self,
        fun: Any,
        jac: Any,
        args: Any,
        x: NDArray[Any],
        place: FeasibleSet | None = None,
        finite_difference: dict[str, Any] | None = None,
        compiled: bool | None = None,
    ) -> None:
        if not (callable(fun) or native.is_compiled(fun)):
            raise TypeError(f"fun must be callable, got {fun!r}")
        self._given = as_args(args)
        self.args = self._of_row(0)
        self.fun, self.jac = (self._callable(function, jac, x) for function in (fun, jac))
        self.nfev = 0
        self.njev = 0
        self._box = place if isinstance(place, Box) else None
        self._step_option = _difference_step(finite_difference, x.size)
        self._form: str  # the method that evaluates
        if callable(jac) or native.is_compiled(jac):
            self._form = "_separate"
        elif jac is True:
            self._form = "_together"
        elif jac is None or jac is False or isinstance(jac, str):
            scheme = jac or "2-point"
            if scheme == "inplace":
                self._form = "_inplace"
            elif scheme in _DIFFERENCES:
                self._scheme = scheme
                self._form = "_differences"
            else:
                raise ValueError(
                    "jac must be a callable, True, 'inplace', '2-point', '3-point', 'cs' or None, "
                    f"got {jac!r}"
                )
        else:
            raise TypeError(f"jac must be a callable, True, a string or None, got {jac!r}")
        self.hindrance = self._hindrance(fun, jac)
        self.native = self._compile(fun, jac, compiled, x)

    @property
    def evaluate(self) -> Callable[[NDArray[Any], NDArray[Any]], float]:
        """``evaluate(x, g)`` returns fun(x) as a float and fills g.

        The user's functions get copies of x, so that they may keep or change them.
        """
        # Not an attribute: a problem that holds its own method lives, with args, until the garbage
        # collector runs.
        method: Callable[[NDArray[Any], NDArray[Any]], float] = getattr(self, self._form)
        return method

    @property
    def shared(self) -> tuple[Any, ...]:
        """The arguments that all rows share."""
        return tuple(arg for arg in self._given if not isinstance(arg, native.PerRow))

    def of_row(self, row: int) -> "Problem":
        """The same with row i of each argument that is `numbelief.native.PerRow`."""
        problem = copy.copy(self)
        problem.args = self._of_row(row)
        problem.nfev = problem.njev = 0
        return problem

    def _of_row(self, row: int) -> tuple[Any, ...]:
        return tuple(a.data[row] if isinstance(a, native.PerRow) else a for a in self._given)

    def _callable(self, function: Any, jac: Any, x: NDArray[Any]) -> Any:
        """A user's function as Python calls it."""
        if not native.is_c_function(function):
            return native.as_dispatcher(function)
        if jac != "inplace" or self.args:
            raise TypeError(
                "a C function fills the gradient and takes no args: it needs jac='inplace' and "
                f"args=(), got jac={jac!r}, args={self.args!r}"
            )
        return native.CFunction(function, x.dtype)

    def _compile(
        self, fun: Any, jac: Any, compiled: bool | None, x: NDArray[Any]
    ) -> native.Objective | None:
        """The objective for a loop in machine code, if there shall be one."""
        separate = self._form == "_separate"
        half = separate and native.is_compiled(fun) and not native.is_compiled(jac)
        if compiled is False or (self.hindrance and not (compiled or half)):
            return None
        if self.hindrance:
            raise TypeError(
                f"a loop in machine code is not possible: {self.hindrance}; "
                "options={'compiled': False} runs Python's loop around any function"
            )
        form = "separate" if separate else jac
        return native.Objective(self.fun, self.jac, form, self._given, x.dtype)

    def _hindrance(self, fun: Any, jac: Any) -> str | None:
        given = {"fun": fun, "jac": jac} if self._form == "_separate" else {"fun": fun}
        for name, function in given.items():
            if not native.is_compiled(function):
                return f"{name} is not compiled (numba.njit)"
        if self._form == "_differences":
            return f"jac={jac!r} takes finite differences"
        count = 1 + (self._form == "_inplace") + len(self.args)
        for name in given:
            if not native.is_fixed(getattr(self, name), count):
                return f"{name} has a default, a star or a keyword among its arguments"
        return None

    def value(self, x: NDArray[Any]) -> float:
        """fun(x), without its gradient where the two are apart."""
        if self._form in ("_separate", "_differences"):
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
        if self._form != "_inplace" or self.native is None:
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
        """Count an evaluation that came to its end, as machine code does."""
        self.nfev += 1
        self.njev += 1

    def _differences(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        self.njev += 1
        fun = self._value(x.copy())
        if self._scheme == "cs":
            self._complex_differences(x, g)
        else:
            self._real_differences(x, g, fun)
        return fun

    def _value(self, x: NDArray[Any]) -> float:
        self.nfev += 1
        return as_scalar(self.fun(x, *self.args))

    def _real_differences(self, x: NDArray[Any], g: NDArray[Any], fun: float) -> None:
        steps = self._steps(x, 1 / 3 if self._scheme == "3-point" else 1 / 2)
        lower, upper = (-np.inf, np.inf) if self._box is None else self._box.limits(x.size, x.dtype)
        up = np.broadcast_to(np.subtract(upper, x, dtype=float), x.shape)
        down = np.broadcast_to(np.subtract(x, lower, dtype=float), x.shape)

        def at(i: int, step: float) -> tuple[float, float]:
            moved = x.copy()
            moved[i] += step
            if moved[i] == x[i]:  # the step was lost in rounding
                moved[i] = np.nextafter(x[i], x.dtype.type(np.copysign(np.inf, step)))
            return self._value(moved), float(moved[i]) - float(x[i])

        for i in range(x.size):
            step = steps[i]
            room = max(up[i], down[i])
            if room == 0:  # the bounds fix this coordinate
                g[i] = 0
            elif self._scheme == "3-point" and abs(step) <= min(up[i], down[i]):
                right, a = at(i, abs(step))
                left, b = at(i, -abs(step))
                g[i] = (right - left) / (a - b)
            elif self._scheme == "3-point":  # one-sided, still of second order
                sign = 1 if up[i] >= down[i] else -1
                near, a = at(i, sign * min(abs(step), room / 2))
                if 2 * abs(a) > room:  # hardly two numbers between the bounds
                    g[i] = (near - fun) / a
                    continue
                far, b = at(i, 2 * a)
                g[i] = ((near - fun) * b / a - (far - fun) * a / b) / (b - a)
            else:
                if abs(step) > (up[i] if step > 0 else down[i]):
                    step = min(abs(step), room) * (1 if up[i] >= down[i] else -1)
                value, a = at(i, step)
                g[i] = (value - fun) / a

    def _complex_differences(self, x: NDArray[Any], g: NDArray[Any]) -> None:
        steps = self._steps(x, 1 / 2)
        for i in range(x.size):
            moved = x.astype(np.result_type(x.dtype, np.complex64))
            moved[i] += 1j * steps[i]
            self.nfev += 1
            value = np.asarray(self.fun(moved, *self.args))
            if value.size != 1:
                raise ValueError(f"fun must return a scalar, got shape {value.shape}")
            g[i] = value.reshape(()).imag / float(moved[i].imag)

    def _steps(self, x: NDArray[Any], power: float) -> NDArray[np.float64]:
        """SciPy's step: relative to x above 1, absolute below, away from 0."""
        name, given = self._step_option
        size = np.maximum(1.0, np.abs(x, dtype=float))
        if name == "abs_step":
            return np.broadcast_to(given, x.shape)
        relative = np.finfo(x.dtype).eps ** power if given is None else given
        return np.asarray(relative * np.where(x >= 0, 1.0, -1.0) * size)


def as_args(args: Any) -> tuple[Any, ...]:
    """Further arguments as a tuple, where a single one may stand for itself."""
    single = not isinstance(args, tuple) or isinstance(args, native.PerRow)
    given: tuple[Any, ...] = (args,) if single else args
    for i, arg in enumerate(given):
        if not isinstance(arg, native.PerRow) and _marks_rows(arg):
            raise TypeError(f"per_row must mark an argument as a whole, not a part of args[{i}]")
    return given


def _marks_rows(value: Any) -> bool:
    inside = isinstance(value, (tuple, list)) and any(map(_marks_rows, value))
    return isinstance(value, native.PerRow) or inside


def _fill(g: NDArray[Any], grad: Any, name: str) -> None:
    if type(grad) is np.ndarray and grad.dtype == g.dtype and grad.shape == g.shape:
        g[:] = grad
    else:
        g[:] = as_gradient(grad, g, name)


def _difference_step(options: Any, n: int) -> tuple[str, Any]:
    if options is None:
        return "rel_step", None
    if (
        not isinstance(options, dict)
        or len(options) != 1
        or not {*options} < {"rel_step", "abs_step"}
    ):
        raise ValueError(
            f"finite_difference must be a dict with rel_step or abs_step, got {options!r}"
        )
    ((name, value),) = options.items()
    step = as_array(value, name)
    if step.dtype.kind not in "fiu" or step.shape not in ((), (n,)):
        raise ValueError(f"{name} must be one number, or one for each of {n}, got {value!r}")
    if not (np.isfinite(step).all() and (step > 0).all()):
        raise ValueError(f"{name} must be finite and above 0, got {value!r}")
    return name, step.astype(float)
