"""What every driver does around its steps: pace, callback, progress, result on an exception."""

import contextlib
import math
import time
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
    """A bar for ``total`` steps, or None if none is wanted."""
    if not wanted:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install numbelief[progress]") from error
    return tqdm(total=total, unit="it", desc=name)


# Seconds between two looks at the clock; the look itself costs a few microseconds.
LOOK_EVERY_S = 0.02


class Session:
    """One call of a driver: its clock, its pace and its progress bar.

    Parameters
    ----------
    name : str
        For the bar.
    total : int
        What the bar counts to.
    progress : bool
        Whether there is a bar.
    maxtime : float
        Seconds from now on.

    Attributes
    ----------
    steps : int
        How many steps to take before the next look at the clock.
    bar
        Of tqdm, or None.
    """

    def __init__(self, name: str, total: int, *, progress: bool, maxtime: float) -> None:
        self._began = time.perf_counter()
        self._bar = name, total, progress
        self._maxtime = maxtime
        self.bar: Any = None
        self.steps = 1
        self._started = self._began

    @property
    def timed(self) -> bool:
        """Whether the time is limited."""
        return self._maxtime < math.inf

    @property
    def seconds_left(self) -> float:
        """Until the time is over."""
        return self._maxtime - (time.perf_counter() - self._began)

    def running(self, result: Callable[[], Any]) -> "_Running":
        """Show the bar meanwhile; an exception carries the result so far, if there is one."""
        return _Running(self, result)

    def open(self) -> None:
        """Show the bar, if one is wanted."""
        self.bar = progress_bar(*self._bar)

    def begin_steps(self) -> None:
        """Look at the clock before some steps."""
        self._started = time.perf_counter()

    def end_steps(self, taken: int) -> None:
        """Look at it after them, and choose the next number of steps."""
        per_step = (time.perf_counter() - self._started) / max(taken, 1)
        self.steps = max(1, min(16 * self.steps, int(LOOK_EVERY_S / max(per_step, 1e-9))))

    def show(self, done: int, **figures: str) -> None:
        """Let the bar stand at a number of steps, with figures beside it."""
        if self.bar is None:
            return
        self.bar.update(done - self.bar.n)
        if figures:
            self.bar.set_postfix(**figures, refresh=False)


class _Running:
    """What `Session.running` returns. No generator, which would write to the user's exception."""

    def __init__(self, session: Session, result: Callable[[], Any]) -> None:
        self._session, self._result = session, result

    def __enter__(self) -> None:
        self._session.open()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            with contextlib.suppress(Exception):  # nothing may hide the user's own exception
                so_far = self._result()
                if so_far is not None:
                    error.intermediate_result = so_far  # type: ignore[attr-defined]
        if self._session.bar is not None:
            self._session.bar.close()
