"""Vectors on a GPU: what `numbelief._step.vectors.Vectors` is for arrays there."""

from collections.abc import Callable
from math import inf, isfinite
from typing import Any

import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.arrays import clip_to_bounds
from numbelief._gpu import launch
from numbelief._gpu.card import Card
from numbelief._gpu.compile import load
from numbelief._gpu.launch import Launcher, copy_at, fill_at
from numbelief._gpu.reductions import higher, top
from numbelief._gpu.step import StepLauncher
from numbelief._step.kind import Kind
from numbelief._step.state import StepOptions, StepState

# ---- kernels -----------------------------------------------------------------------------------


def measure_largest(x, tops):
    """Each block's part of the largest magnitude."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    found = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        found = higher(found, abs(x[i]))
        i += cuda.gridsize(1)
    found = top(found, shared)
    if cuda.threadIdx.x == 0:
        tops[cuda.blockIdx.x] = found


def clip_points(x, lower, upper, slack, tops):
    """Clip points, row after row; each block's part of how far one lay out, beyond its rounding."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    found = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        j = i % lower.size
        inside = clip_to_bounds(x[i], lower[j], upper[j])
        if isfinite(x[i]):
            found = max(found, abs(x[i] - inside) - slack * abs(x[i]))
        x[i] = inside
        i += cuda.gridsize(1)
    found = top(found, shared)
    if cuda.threadIdx.x == 0:
        tops[cuda.blockIdx.x] = found


# ---- vectors -----------------------------------------------------------------------------------


def duplicate(array: Any, name: str = "x0") -> Any:
    """A copy of a device array of any shape, made by its own library; the name is for a message.

    Raises
    ------
    TypeError
        Its library does not write to arrays, or is not known.
    ValueError
        It is a strided array of Numba's.
    """
    if getattr(array, "__cuda_ndarray__", False) is True:  # Numba's
        if not array.is_c_contiguous():
            raise ValueError(f"{name} must be C-contiguous, got a strided view: pass a copy")
        copied = load().device_array(array.shape, array.dtype)
        copied.copy_to_device(array)
        return copied
    if hasattr(array, "detach"):  # PyTorch's
        return array.detach().clone()
    library = type(array).__module__.partition(".")[0]
    if library.startswith("jax") or not hasattr(array, "copy"):
        raise TypeError(
            f"{name} on a GPU must be an array that can be written to, of CuPy, PyTorch or Numba, "
            f"got one of {library}: pass cupy.from_dlpack({name}), and convert it in fun"
        )
    return array.copy()


class CardVectors:
    """Vectors on the GPU of x; see `numbelief._step.vectors.Vectors`.

    Parameters
    ----------
    x : device array of shape (n,), float32 or float64
        C-contiguous and writable.
    stream : stream or int, optional
        As in `numbelief.Optimizer`.
    name : str
        What messages call x.

    Attributes
    ----------
    given : device array of shape (n,)
        x as the user gave it.
    card : Card
    launcher : Launcher
        Of kernels on these vectors.
    """

    def __init__(self, x: Any, stream: Any = None, name: str = "x") -> None:
        self.given = x
        self.card = Card(x, stream, name)
        self.x = self.card.x
        self.size, self.dtype = int(self.x.size), np.dtype(self.x.dtype)
        self.sum_block = launch.SUM_BLOCK
        self.launcher = Launcher(self.size, self.card.stream)

    def slots(self, count: int) -> tuple[Any, ...]:
        return tuple(self.zeros() for _ in range(count))

    def zeros(self) -> Any:
        vector = self.card.vector()
        self.fill(vector, 0)
        return vector

    def copy(self, vector: Any) -> Any:
        mine = self.card.vector()
        self.put(vector, mine)
        return mine

    def put(self, source: Any, target: Any) -> None:
        self.launcher.each(copy_at, source, target)

    def fill(self, vector: Any, value: float) -> None:
        """Let all of a vector be a number, without bringing any there."""
        self.launcher.each(fill_at, vector, self.dtype.type(value))

    def is_finite(self, vector: Any) -> bool:
        return self.largest(vector) < inf

    def largest(self, vector: Any) -> float:
        """The largest magnitude in a vector, or NaN if there is one."""
        return self._highest(measure_largest, vector)

    def clip_to_bounds(self, lower: NDArray[Any], upper: NDArray[Any]) -> bool:
        """Clip the points in x, each as long as the bounds; whether one lay outside."""
        array, slack = self.card.array, self.dtype.type(np.finfo(self.dtype).eps)
        return self._highest(clip_points, self.x, array(lower), array(upper), slack) > 0

    def _highest(self, kernel: Any, *arguments: Any) -> float:
        tops = self.card.array(np.zeros(self.launcher.parts))
        self.launcher.reduce(kernel, *arguments, tops)
        return float(self.card.host(tops).max())

    def export(self, vector: Any) -> Any:
        array = duplicate(self.given)
        self.put(vector, self.card.view(array))
        return array

    def to_host(self, vector: Any) -> NDArray[Any]:
        if isinstance(vector, (list, tuple)):
            rows = [self.to_host(row) for row in vector]
            return np.stack(rows) if rows else np.zeros((0, self.size), self.dtype)
        return vector if isinstance(vector, np.ndarray) else self.card.host(vector)

    def from_host(self, vector: Any, values: NDArray[Any]) -> None:
        if isinstance(vector, (list, tuple)):
            for row, value in zip(vector, values, strict=True):
                self.from_host(row, value)
        elif isinstance(vector, np.ndarray):
            vector[...] = values
        else:
            self.card.assign(vector, values)

    def queue(
        self, kind: Kind, options: StepOptions, state: StepState
    ) -> Callable[[Any, float], None]:
        """What queues a step along a gradient that kernels take, at a rate."""
        return StepLauncher(self.card, kind, options, state).step

    def stepper(
        self, kind: Kind, options: StepOptions, state: StepState
    ) -> Callable[[Any, float], None]:
        queue, card = self.queue(kind, options, state), self.card

        def step(grad: Any, rate: float) -> None:
            # A view does not own what it shows: grad must not be let go before the launch.
            view = card.gradient(grad, state.slots)
            queue(view, rate)
            card.wait_for(grad)

        return step
