"""What a hyperparameter may be: a number in a range, a flag, an array of rates, offsets."""

import math
from collections.abc import Callable
from typing import Any, Protocol


class Array(Protocol):
    """A NumPy array, which the rules do not import."""

    def __array__(self) -> Any:
        """Return it."""


Rate = float | Callable[[int], float] | str | Array


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number of at least low and below high."""
    kind = type(value).__name__
    # A NumPy complex number has __float__ and drops its imaginary part there.
    refused = isinstance(value, (str, bytes)) or kind.startswith(("bool", "complex"))
    if refused or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a real number, got {value!r} ({kind})")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a finite number, got an integer above 1.8e308") from None
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a real number, got {value!r} ({kind})") from error
    if not (math.isfinite(number) and low <= number < high):
        until = "a finite number" if high == math.inf else f"a number in [{low:g}, {high:g})"
        at_least = f" of at least {low:g}" if high == math.inf and low > -math.inf else ""
        raise ValueError(f"{name} must be {until}{at_least}, got {value!r}")
    return number


def flag(name: str, value: Any) -> bool:
    """True or False."""
    # numpy.bool is not a bool; its type is named "bool" too, and the rules do not import NumPy.
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def is_array(value: Any) -> bool:
    """Whether it is an array of one dimension."""
    return hasattr(value, "__array__") and getattr(value, "ndim", None) == 1


def rates(given: Any) -> Any:
    """A read-only copy of an array of rates."""
    array = given.__array__()
    if array.dtype.kind not in "fiu":
        raise TypeError(f"learning_rate must hold real numbers, got dtype {array.dtype}")
    rates = array.astype("float64")
    if not (rates.size and rates.min() >= 0 and rates.max() < math.inf):
        raise ValueError(
            f"learning_rate must hold finite numbers of at least 0, and not be empty, got {given!r}"
        )
    rates.setflags(write=False)
    return rates


def segments(given: Any) -> tuple[int, ...] | None:
    """Offsets at which segments of x start, from 0 on; None where there is but one."""
    if given is None:
        return None
    try:
        offsets = tuple(int(offset) for offset in given)
        exact = all(offset == each for offset, each in zip(offsets, given, strict=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"segments must be a sequence of integers, got {given!r}") from error
    rising = list(offsets) == sorted(set(offsets))
    if not (exact and rising and offsets and offsets[0] == 0):
        raise ValueError(f"segments must start with 0 and increase, got {given!r}")
    return offsets
