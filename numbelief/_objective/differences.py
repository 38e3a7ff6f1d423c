"""Finite differences: a gradient from values alone, inside bounds."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief.checks import as_array, as_scalar
from numbelief.sets import FeasibleSet

SCHEMES = ("2-point", "3-point", "cs")


class Differences:
    """A scheme of finite differences.

    Parameters
    ----------
    scheme : {"2-point", "3-point", "cs"}
        As in `numbelief.minimize`.
    step : tuple of str and array or None
        See `difference_step`.
    feasible_set : FeasibleSet or None
        What the points lie in.
    """

    def __init__(
        self, scheme: str, step: tuple[str, Any], feasible_set: FeasibleSet | None
    ) -> None:
        self._scheme = scheme
        self._step = step
        self._feasible_set = feasible_set

    def fill(
        self, call: Callable[[NDArray[Any]], Any], x: NDArray[Any], g: NDArray[Any], value: Any
    ) -> None:
        """Fill g from what ``call`` returns near x, where it returned ``value``."""
        if self._scheme == "cs":
            self._complex(call, x, g, value)
        else:
            self._real(call, x, g, value)

    def _real(
        self, call: Callable[[NDArray[Any]], Any], x: NDArray[Any], g: NDArray[Any], value: Any
    ) -> None:
        fun = as_scalar(value)
        steps = self._steps(x, 1 / 3 if self._scheme == "3-point" else 1 / 2, value)
        allowed = self._feasible_set
        limits = None if allowed is None else allowed.limits(x.size, x.dtype)
        lower, upper = (-np.inf, np.inf) if limits is None else limits
        up = np.broadcast_to(np.subtract(upper, x, dtype=float), x.shape)
        down = np.broadcast_to(np.subtract(x, lower, dtype=float), x.shape)

        def at(i: int, step: float) -> tuple[float, float]:
            moved = x.copy()
            moved[i] += step
            if moved[i] == x[i]:  # the step was lost in rounding
                moved[i] = np.nextafter(x[i], x.dtype.type(np.copysign(np.inf, step)))
            taken = float(moved[i]) - float(x[i])  # now: the function may write to its x
            return as_scalar(call(moved)), taken

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

    def _complex(
        self, call: Callable[[NDArray[Any]], Any], x: NDArray[Any], g: NDArray[Any], value: Any
    ) -> None:
        steps = self._steps(x, 1 / 2, value)
        for i in range(x.size):
            moved = x.astype(np.result_type(x.dtype, np.complex64))
            moved[i] += 1j * steps[i]
            taken = float(moved[i].imag)  # now: the function may write to its x
            near = np.asarray(call(moved))
            if near.size != 1:
                raise ValueError(f"fun must return a scalar, got shape {near.shape}")
            g[i] = near.reshape(()).imag / taken

    def _steps(self, x: NDArray[Any], power: float, value: Any) -> NDArray[np.float64]:
        """SciPy's step: relative to x above 1, absolute below, away from 0.

        It is as long as the coarser of the dtypes of x and of the function's value needs.
        """
        name, given = self._step
        size = np.maximum(1.0, np.abs(x, dtype=float))
        if name == "abs_step":
            return np.broadcast_to(given, x.shape)
        kinds = [each for each in (x.dtype, as_array(value, "fun").dtype) if each.kind in "fc"]
        eps = max(float(np.finfo(kind).eps) for kind in kinds)
        relative = eps**power if given is None else given
        return np.asarray(relative * np.where(x >= 0, 1.0, -1.0) * size)


def difference_step(options: Any, n: int) -> tuple[str, Any]:
    """The option ``finite_difference`` as ("rel_step" or "abs_step", steps); None: SciPy's."""
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
