"""What the user gave (fun, jac, args) as one object that evaluates, counts and checks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief.checks import as_array, as_gradient, as_scalar
from numbelief.sets import Box

_DIFFERENCES = ("2-point", "3-point", "cs")


class Problem:
    """An objective whose gradient arrives in one buffer, whatever form the user gave it in.

    Parameters
    ----------
    fun, jac, args
        As in `numbelief.minimize`.
    n : int
        Number of variables.
    box : Box or None
        Finite differences stay inside it.
    finite_difference : dict or None
        ``rel_step`` or ``abs_step`` of the differences.

    Attributes
    ----------
    nfev, njev : int
        Evaluations of the function and of the gradient so far.
    evaluate : callable
        ``evaluate(x, g)`` returns fun(x) as a float and fills g. The user's functions get copies of
        x, so that they may keep or change them.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        jac: Any,
        args: Any,
        n: int,
        box: Box | None = None,
        finite_difference: dict[str, Any] | None = None,
    ) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {fun!r}")
        self.fun = fun
        self.jac = jac
        self.args = args if isinstance(args, tuple) else (args,)
        self.nfev = 0
        self.njev = 0
        self._box = box
        self._step_option = _difference_step(finite_difference, n)
        self.evaluate: Callable[[NDArray[Any], NDArray[Any]], float]
        if callable(jac):
            self.evaluate = self._separate
        elif jac is True:
            self.evaluate = self._together
        elif jac is None or jac is False or isinstance(jac, str):
            scheme = jac or "2-point"
            if scheme == "inplace":
                self.evaluate = self._inplace
            elif scheme in _DIFFERENCES:
                self._scheme = scheme
                self.evaluate = self._differences
            else:
                raise ValueError(
                    "jac must be a callable, True, 'inplace', '2-point', '3-point', 'cs' or None, "
                    f"got {jac!r}"
                )
        else:
            raise TypeError(f"jac must be a callable, True, a string or None, got {jac!r}")

    def _separate(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        self.nfev += 1
        fun = as_scalar(self.fun(x.copy(), *self.args))
        self.njev += 1
        _fill(g, self.jac(x.copy(), *self.args), "jac")
        return fun

    def _together(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        self.nfev += 1
        self.njev += 1
        pair = self.fun(x.copy(), *self.args)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"with jac=True fun must return (value, gradient), got {pair!r}")
        fun = as_scalar(pair[0])
        _fill(g, pair[1], "the gradient that fun returns")
        return fun

    def _inplace(self, x: NDArray[Any], g: NDArray[Any]) -> float:
        self.nfev += 1
        self.njev += 1
        g.fill(np.nan)  # a coordinate that fun forgets must not pass for a gradient
        return as_scalar(self.fun(x.copy(), g, *self.args))

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
