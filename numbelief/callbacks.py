"""What a user sees of a run between its steps: a callback, and a progress bar."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from scipy.optimize import OptimizeResult


class Callback:
    """A user's function of the point, or of SciPy's keyword ``intermediate_result``.

    Parameters
    ----------
    function : callable
    name : str
        What messages call it.

    Raises
    ------
    TypeError
        It is not callable.
    """

    def __init__(self, function: Any, name: str = "callback") -> None:
        if not callable(function):
            raise TypeError(f"{name} must be callable, got {function!r}")
        self._function = function
        try:
            self._by_keyword = set(signature(function).parameters) == {"intermediate_result"}
        except (TypeError, ValueError):  # a builtin without a signature
            self._by_keyword = False

    def __call__(self, here: Callable[[], Any], seen: Callable[[], OptimizeResult]) -> None:
        """Show what the function asks for: the point, or a result."""
        if self._by_keyword:
            self._function(intermediate_result=seen())
        else:
            self._function(here())


def as_callback(function: Any, name: str = "callback") -> Callback | None:
    """A callback that may be None."""
    return None if function is None else Callback(function, name)


def progress_bar(name: str, total: int, wanted: bool) -> Any:
    """A bar for so many steps, or None if none is wanted."""
    if not wanted:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install numbelief[progress]") from error
    return tqdm(total=total, unit="it", desc=name)
