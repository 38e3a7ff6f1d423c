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
from numbelief._step.compiled import compile_run_blocks, compile_step, compile_threaded_step
from numbelief._step.kind import Kind, fields_of
from numbelief._step.state import Scaling, StepOptions, StepState, Work
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
    def serial(self) -> tuple[Any, Stored]:
        """The C function without threads, and what it takes."""
        stored = Stored(self._state, self._options, self._rate)
        return compile_step(self._kind, stored.layout, self._dtype), stored

    @functools.cached_property
    def threaded(self) -> tuple[Any, Stored]:
        """The same with threads."""
        taken, work = (self._state, self._options, self._rate), self._work()
        layout = Stored(*taken, work).layout
        compiled = compile_threaded_step(self._kind, layout, self._dtype)
        norms = 0 if compiled.norms is None else compiled.norms.address
        work = work._replace(block=compiled.block.address, norms=norms)
        return compiled.step, Stored(*taken, work)

    def _work(self) -> Work:
        _, coefficients = fields_of(self._kind.rule)  # type: ignore[arg-type]
        owner, sums, ratios = self._options.owner, None, None
        if owner is not None:
            sums, ratios = np.zeros((owner.size, 2)), np.zeros(owner[-1] + 1, self._dtype)
        return Work(
            size=self._state.slots.shape[1],
            run=compile_run_blocks(self._dtype).address,
            block=0,
            norms=0,
            values=np.zeros(len(coefficients._fields), self._dtype),
            scaling=np.zeros(len(Scaling._fields), self._dtype),
            sums=sums,
            ratios=ratios,
        )

    def call(self, *, parallel: bool = False) -> StepCall:
        """For compiled code."""
        function, stored = self.threaded if parallel else self.serial
        return StepCall(function.address, stored.address, self._rate)

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
        where: tuple[int, int] | None = None

        def step(g: Any, rate: float) -> int:
            nonlocal where
            if where is None:
                where = self.call(parallel=parallel)[:2]
            return kernel(x, g, slots, rates, rate, *where)  # type: ignore[no-any-return]

        return step


@functools.cache
def _compile_checked(nogil: bool) -> Any:
    """Compile the call of a step for Python: once for each dtype, for all rules."""
    return jit(named(checked_step, f"{nogil:d}_{key_of()}"), nogil=nogil, allocates=False)
