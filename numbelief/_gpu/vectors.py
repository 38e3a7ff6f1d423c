"""Vectors on a GPU: launches on them, and `numbelief._step.vectors.Vectors` of a card."""

import functools
from collections.abc import Callable
from math import inf, isfinite
from typing import Any

import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.template import bind
from numbelief._gpu import compile as gpu
from numbelief._gpu.card import Card
from numbelief._gpu.step import SUM_BLOCK, Stepper, over_threads_template, plus
from numbelief._step.kind import Kind
from numbelief._step.state import StepOptions, StepState

# Thread blocks that take part in a reduction, at most: each block of the next launch reads what all
# of them found.
PARTS = 1024


# ---- templates ---------------------------------------------------------------------------------


def higher(a, b):
    """The larger of two numbers, NaN if one is."""
    return b if b > a or b != b else a


def _over_parts_template(join, over_threads):
    """What the results of the blocks of an earlier launch come to, for all threads."""

    def over_parts(parts, shared):
        value = 0.0
        for k in range(cuda.threadIdx.x, parts.size, cuda.blockDim.x):
            value = join(value, parts[k])
        return over_threads(value, shared)

    return over_parts


top = bind(over_threads_template, join=higher)
top_of = bind(_over_parts_template, join=higher, over_threads=top)
total = bind(over_threads_template, join=plus)
total_of = bind(_over_parts_template, join=plus, over_threads=total)


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


def confine(x, lower, upper, slack, tops):
    """Clip points, row after row; each block's part of how far one lay out, beyond its rounding."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    found = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        j = i % lower.size
        inside = min(max(x[i], lower[j]), upper[j])
        if isfinite(x[i]):
            found = max(found, abs(x[i] - inside) - slack * abs(x[i]))
        x[i] = inside
        i += cuda.gridsize(1)
    found = top(found, shared)
    if cuda.threadIdx.x == 0:
        tops[cuda.blockIdx.x] = found


def each_template(at):
    """Do something at each coordinate."""

    def each(arguments):
        i = cuda.grid(1)
        while i < arguments[0].size:
            at(i, *arguments)
            i += cuda.gridsize(1)

    return each


def copy_at(i, source, target):
    """Copy coordinate i."""
    target[i] = source[i]


@functools.cache
def kernel_of(template: Any, at: Any = None) -> Any:
    """A kernel as ``numba.cuda`` compiles it; with ``at``, of a template that takes it."""
    return gpu.for_card(template if at is None else bind(template, at=at))


@functools.cache
def _compiled(template: Any, at: Any, kinds: tuple[Any, ...]) -> Any:
    return gpu.compile_kernel(kernel_of(template, at), kinds)


# ---- launches ----------------------------------------------------------------------------------


def duplicate(array: Any, name: str = "x0") -> Any:
    """A copy of a device array, made by its own library; the name is for a message.

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
        copied = gpu.load().device_array(array.shape, array.dtype)
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


class Launcher:
    """Launches on the vectors of a card."""

    def __init__(self, card: Card) -> None:
        self.card, self.n = card, card.x.shape[0]
        self.parts = min(-(-self.n // gpu.THREADS), PARTS)
        self._most_blocks = gpu.most_blocks()
        self._launches: dict[tuple[Any, ...], Any] = {}

    def reduce(self, template: Any, *arguments: Any) -> None:
        """Launch as many blocks as there are parts."""
        self._launch(template, None, self.parts, arguments)

    def conclude(self, template: Any, *arguments: Any) -> None:
        """Launch one block."""
        self._launch(template, None, 1, arguments)

    def map(self, template: Any, *arguments: Any) -> None:
        """Launch as many blocks as there is work for."""
        self.spread(self.n, template, None, *arguments)

    def each(self, at: Any, *arguments: Any) -> None:
        """Do something at each coordinate: ``at(i, *arguments)``."""
        self.spread(self.n, each_template, at, arguments)

    def spread(self, work: int, template: Any, at: Any, *arguments: Any) -> None:
        """Launch at most as many blocks as ``work`` threads take."""
        blocks = min(-(-work // gpu.THREADS), self._most_blocks)
        self._launch(template, at, blocks, arguments)

    def _launch(self, template: Any, at: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
        key = (template, at, blocks, *map(_sort_of, arguments))
        launch = self._launches.get(key)
        if launch is None:
            kernel = _compiled(template, at, tuple(map(gpu.kind_of, arguments)))
            stream = self.card.stream
            launch = gpu.configured(kernel, blocks, gpu.THREADS, stream, 8 * gpu.THREADS)
            self._launches[key] = launch
        launch(*arguments)

    def largest(self, x: Any) -> float:
        """The largest magnitude in a vector, or NaN if there is one."""
        return self._highest(measure_largest, x)

    def confine(self, lower: NDArray[Any], upper: NDArray[Any]) -> bool:
        """Clip the points in the card's x, one row after another; whether one lay outside."""
        x, card = self.card.x, self.card
        slack = x.dtype.type(np.finfo(x.dtype).eps)
        return self._highest(confine, x, card.array(lower), card.array(upper), slack) > 0

    def _highest(self, template: Any, *arguments: Any) -> float:
        tops = self.card.array(np.zeros(self.parts))
        self.reduce(template, *arguments, tops)
        return float(self.card.host(tops).max())

    def copy(self, x: Any, like: Any) -> Any:
        """A copy of a vector, as an array of the library of another one."""
        array = duplicate(like)
        self.put(x, self.card.view(array))
        return array

    def vector(self, x: Any = None) -> Any:
        """A new vector, as kernels take it: a copy, or zeros."""
        vector = self.card.vector()
        if x is not None:
            self.put(x, vector)
        return vector

    def put(self, x: Any, vector: Any) -> None:
        """Copy a vector into another one."""
        self.each(copy_at, x, vector)


def _sort_of(value: Any) -> Any:
    """What tells the kernels of a template apart."""
    if type(value) is tuple:
        return tuple(map(_sort_of, value))
    return getattr(value, "dtype", type(value))


class CardVectors:
    """Vectors of a card; see `numbelief._step.vectors.Vectors`.

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
    """

    sum_block = SUM_BLOCK

    def __init__(self, x: Any, stream: Any = None, name: str = "x") -> None:
        self.given = x
        self.card = Card(x, stream, name)
        self.launcher = Launcher(self.card)
        self.x = self.card.x
        self.size, self.dtype = int(self.x.size), np.dtype(self.x.dtype)

    def slots(self, count: int) -> tuple[Any, ...]:
        return tuple(self.card.vector() for _ in range(count))

    def zeros(self) -> Any:
        return self.card.vector()

    def copy(self, vector: Any) -> Any:
        return self.launcher.vector(vector)

    def put(self, source: Any, target: Any) -> None:
        self.launcher.put(source, target)

    def is_finite(self, vector: Any) -> bool:
        return self.launcher.largest(vector) < inf

    def export(self, vector: Any) -> Any:
        return self.launcher.copy(vector, self.given)

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
        return Stepper(self.card, kind, options, state).step

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
