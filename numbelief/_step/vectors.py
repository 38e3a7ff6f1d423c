"""Where arrays live: the seam that drivers see in place of a CPU or a GPU.

`Vectors` is what memory for arrays offers; `HostVectors` is that of this process, and
`numbelief._gpu.vectors.CardVectors` that of a GPU.
"""

from collections.abc import Callable
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from numbelief._compile import threads
from numbelief._step.call import StoredStep
from numbelief._step.kind import Kind
from numbelief._step.state import StepOptions, StepState
from numbelief._step.template import SHARES_SLOTS, SHARES_X
from numbelief.checks import as_gradient, as_parameters


class Vectors(Protocol):
    """Vectors of shape (n,) and one dtype, beside an array x of parameters.

    Attributes
    ----------
    x : array of shape (n,)
        The parameters, as kernels take them.
    size : int
        n.
    dtype : numpy.dtype
        float32 or float64.
    sum_block : int
        Coordinates that one block of a sum covers.
    """

    x: Any
    size: int
    dtype: np.dtype[Any]
    sum_block: int

    def slots(self, count: int) -> Any:
        """Memory for the slots of a rule: ``count`` vectors of zeros."""

    def zeros(self) -> Any:
        """A new vector of zeros."""

    def copy(self, vector: Any) -> Any:
        """A new vector like another one."""

    def put(self, source: Any, target: Any) -> None:
        """Copy a vector into another one."""

    def is_finite(self, vector: Any) -> bool:
        """Whether all coordinates are finite."""

    def export(self, vector: Any) -> Any:
        """A copy of a vector for the user, as an array of x's own library."""

    def to_host(self, vector: Any) -> NDArray[Any]:
        """A vector, or several in a sequence, as an array of NumPy's."""

    def from_host(self, vector: Any, values: NDArray[Any]) -> None:
        """Overwrite a vector with an array of NumPy's."""

    def stepper(
        self, kind: Kind, options: StepOptions, state: StepState
    ) -> Callable[[Any, float], None]:
        """What takes a step along a gradient that the user gives, at a rate."""


class HostVectors:
    """Vectors of NumPy's; see `Vectors`.

    Parameters
    ----------
    x : ndarray of shape (n,), float32 or float64
        C-contiguous and writable.
    target : {"auto", "serial", "parallel"}
        As in `numbelief.Optimizer`.
    """

    sum_block = 1 << 12

    def __init__(self, x: Any, target: str) -> None:
        self.x = as_parameters(x)
        self.size, self.dtype = self.x.size, self.x.dtype
        self.wants_parallel = target == "parallel" or (
            target == "auto" and self.size >= threads.PARALLEL_FROM
        )
        self._first = threads.FIRST if target == "auto" else inf

    @property
    def large(self) -> bool:
        """Whether a kernel is to release the GIL."""
        return self.size >= threads.RELEASE_GIL_FROM

    def slots(self, count: int) -> NDArray[Any]:
        return np.zeros((count, self.size), self.dtype)

    def zeros(self) -> NDArray[Any]:
        return np.zeros(self.size, self.dtype)

    def copy(self, vector: NDArray[Any]) -> NDArray[Any]:
        return vector.copy()

    export = copy

    def put(self, source: NDArray[Any], target: NDArray[Any]) -> None:
        target[:] = source

    def is_finite(self, vector: NDArray[Any]) -> bool:
        return bool(np.isfinite(vector).all())

    def to_host(self, vector: Any) -> NDArray[Any]:
        return np.asarray(vector)

    def from_host(self, vector: NDArray[Any], values: NDArray[Any]) -> None:
        vector[...] = values

    def stepper(
        self, kind: Kind, options: StepOptions, state: StepState
    ) -> Callable[[Any, float], None]:
        x, stored = self.x, StoredStep(kind, state, options, self.dtype)

        def compiled(parallel: bool) -> dict[str, Any]:
            nogil = parallel or self.large
            return {"step": stored.checked(x, parallel=parallel, nogil=nogil)}

        kernel = threads.paced(compiled, ("step",), self.wants_parallel, self._first)["step"]

        def step(grad: Any, rate: float) -> None:
            if not (
                type(grad) is np.ndarray
                and grad.dtype == x.dtype
                and grad.flags.carray
                and grad.shape == x.shape
            ):
                given, grad = grad, as_gradient(grad, x, "grad")
                if isinstance(given, np.ndarray):  # the kernel would look at the copy only
                    _refuse_sharing(
                        np.shares_memory(given, x), np.shares_memory(given, state.slots)
                    )
            refusal = kernel(grad, rate)
            if refusal:
                _refuse_sharing(refusal == SHARES_X, refusal == SHARES_SLOTS)

        return step


def _refuse_sharing(with_x: bool, with_state: bool) -> None:
    if with_x or with_state:
        other = "x" if with_x else "the optimizer's state"
        raise ValueError(f"grad must not share memory with {other}: pass a copy")
