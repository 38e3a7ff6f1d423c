"""A step with all that it takes in memory: one compiled function for all who call it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbelief._compile.internals import address_of_data
from numbelief._compile.jit import jit, key_of
from numbelief._compile.pointers import Stored, vectors_from_python
from numbelief._compile.template import named
from numbelief._step.compiled import compile_step
from numbelief._step.kind import Kind
from numbelief._step.state import StepOptions, StepState
from numbelief._step.template import checked_step


class StepCall(NamedTuple):
    """What compiled code calls a step with.

    Attributes
    ----------
    address, data : int
        Of a C function ``f(n, x, g, data)``, see `numbelief._compile.pointers`.
    rate : ndarray of shape (1,), float64
        Gets the learning rate of the step.
    """

    address: int
    data: int
    rate: Any


class StoredStep:
    """A step with its state and options, compiled when somebody first calls it.

    Parameters
    ----------
    kind : Kind
    state : StepState
    options : StepOptions
    dtype : numpy.dtype
        Of x.
    """

    def __init__(self, kind: Kind, state: StepState, options: StepOptions, dtype: Any) -> None:
        self._kind, self._state, self._options, self._dtype = kind, state, options, dtype
        self._rate = np.zeros(1)

    @functools.cached_property
    def _stored(self) -> Stored:
        return Stored(self._state, self._options, self._rate)

    def compiled(self, parallel: bool) -> Any:
        """The C function."""
        return compile_step(self._kind, self._stored.layout, self._dtype, parallel=parallel)

    @functools.cached_property
    def _serial(self) -> int:
        return self.compiled(False).address  # type: ignore[no-any-return]

    @functools.cached_property
    def _parallel(self) -> int:
        return self.compiled(True).address  # type: ignore[no-any-return]

    def call(self, *, parallel: bool = False) -> StepCall:
        """For compiled code."""
        address = self._parallel if parallel else self._serial
        return StepCall(address, self._stored.address, self._rate)

    def along(
        self, x: NDArray[Any], g: NDArray[Any], *, parallel: bool, nogil: bool
    ) -> Callable[[float], Any]:
        """A function of the rate that steps x along g, for loops that Python runs."""
        address, data, _ = self.call(parallel=parallel)
        function = vectors_from_python(address, nogil=nogil)
        given = x.size, address_of_data(x), address_of_data(g), data

        def step(rate: float) -> None:
            self._rate[0] = rate  # which also keeps what lies at data
            function(*given)

        return step

    def checked(self, x: NDArray[Any], *, parallel: bool, nogil: bool) -> Callable[..., int]:
        """``step(g, rate)`` for a gradient of the caller's; STEPPED, or why it is refused."""
        kernel = _compile_checked(nogil)
        slots, rates = self._state.slots, self._rate

        def step(g: Any, rate: float) -> int:
            address, data, _ = self.call(parallel=parallel)
            return kernel(x, g, slots, rates, rate, address, data)  # type: ignore[no-any-return]

        return step


@functools.cache
def _compile_checked(nogil: bool) -> Any:
    """Compile the call of a step for Python: once for each dtype, for all rules."""
    return jit(named(checked_step, f"{nogil:d}_{key_of()}"), nogil=nogil, allocates=False)
