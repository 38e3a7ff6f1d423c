"""Compile a rule for an NVIDIA GPU: the only file that imports ``numba.cuda``.

A kernel is a loop around `kernels._element`, the same text with which the loops of the CPU step a
coordinate; `lifted` makes copies of it, and of the rule that it calls, for the card. What does
not depend on the coordinate is computed on the host, in float64, and goes to the card by value. An
elementwise rule takes one launch. A norm takes two more: first each thread block sums one block of
coordinates after another, then one thread block these sums, always in the same order, so that the
bits are the same each run.
"""

import functools
import importlib.util
import sys
import warnings
from math import gcd, inf, prod, sqrt
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types as nb
from numpy.typing import NDArray

from numbelief import kernels
from numbelief.kernels import anchor_at, shrinking, synchronize_at, trust
from numbelief.rules import Rule

# Threads in a thread block, a power of two.
THREADS = 256
# Sums are taken over blocks of this size, and then over the blocks in order.
SUM_BLOCK = 1 << 12
# Thread blocks for each multiprocessor, at most: a few times as many as are resident at once.
BLOCKS_PER_MULTIPROCESSOR = 32
# In this unit the square of a float64 does not overflow.
UNIT = 2.0**600

# What a Lookahead does in a step.
ANCHOR, SYNCHRONIZE = 1, 2

# Numba's simulator runs kernels without a GPU, on arrays that are those of the host.
SIMULATED = bool(numba.config.ENABLE_CUDASIM)

_INSTALL = 'pip install "numbelief[cuda13]", or [cuda12] for a driver of CUDA 12'
# The kinds of memory that DLPack calls CUDA's and CUDA's managed memory.
_DLPACK = (2, 13)


# ---- templates ---------------------------------------------------------------------------------
# Bound by `lifted`: numba.cuda, what depends on the rule, the templates that others call, how two
# results are joined.
cuda: Any
Coefficients: Any
updated: Any
element: Any
squares: Any
conclude: Any
join: Any


def _larger(a, b):
    """Python's max: CUDA's own drops a NaN."""
    return b if b > a else a


def _smaller(a, b):
    """Python's min."""
    return b if b < a else a


def _first(array):
    if array is None:
        return None
    else:
        return array[0]


def _coordinate(
    x, g, slots, i, c, extras, ratio, lower, upper, scale, slow, weight, phase,
):  # fmt: skip
    """Step coordinate i, and let the slow weights of a Lookahead follow."""
    if slow is not None:  # noqa: SIM102  Numba drops the branch only where it stands alone
        if phase & ANCHOR:
            anchor_at(x, slow, i, lower, upper)
    element(x, g, slots, i, c, extras, ratio, lower, upper, None, None, scale)
    if slow is not None:  # noqa: SIM102
        if phase & SYNCHRONIZE:
            synchronize_at(x, slow, i, weight, lower, upper)


def _step(
    x, g, slots, values, clip, max_value, keep, l2,
    lower, upper, scale, slow, weight, phase,
):  # fmt: skip
    """One step of an elementwise rule."""
    c = Coefficients(*values)
    extras = (_first(clip), max_value, keep, l2)
    i = cuda.grid(1)
    while i < x.size:
        _coordinate(x, g, slots, i, c, extras, None, lower, upper, scale, slow, weight, phase)
        i += cuda.gridsize(1)


def _step_layerwise(
    x, g, slots, values, clip, max_value, keep, l2,
    lower, upper, scale, slow, weight, phase, edges, owner, ratios,
):  # fmt: skip
    """One step of a rule that scales each segment's step; block b is as in `kernels`."""
    c = Coefficients(*values)
    extras = (_first(clip), max_value, keep, l2)
    for b in range(cuda.blockIdx.x, owner.size, cuda.gridDim.x):
        ratio = ratios[owner[b]]
        for i in range(edges[b] + cuda.threadIdx.x, edges[b + 1], cuda.blockDim.x):
            _coordinate(
                x, g, slots, i, c, extras, ratio, lower, upper, scale, slow, weight, phase
            )  # fmt: skip


def _squares_of_gradient(x, g, slots, i, c, extras):
    """The square of a coordinate of the gradient, also in a unit in which it does not overflow."""
    value = np.float64(g[i])
    return value**2, (value / UNIT) ** 2


def _clip_of(total, in_units, most):
    """The factor that clips a gradient to a norm."""
    return shrinking(sqrt(total) if total < inf else UNIT * sqrt(in_units), most)


def _squares_of_step(x, g, slots, i, c, extras):
    """The squares of a coordinate of x and of the direction that the coming update will take."""
    direction = updated(x[i], g[i], slots, i, c, extras)[0]
    return np.float64(x[i]) ** 2, np.float64(direction) ** 2


def _ratio_of(of_x, of_direction, most):
    """The ratio by which LAMB scales a segment."""
    return trust(of_x, of_direction)


def over_threads(value, shared):
    """What the numbers of the threads of a block come to, for all of them."""
    cuda.syncthreads()  # the last result has been read
    shared[cuda.threadIdx.x] = value
    width = cuda.blockDim.x // 2
    while width > 0:
        cuda.syncthreads()
        if cuda.threadIdx.x < width:
            shared[cuda.threadIdx.x] = join(
                shared[cuda.threadIdx.x], shared[cuda.threadIdx.x + width]
            )
        width //= 2
    cuda.syncthreads()
    return shared[0]


def plus(a, b):
    """The sum of two numbers."""
    return a + b


_total = kernels.lift(over_threads, join=plus)


def _measure(x, g, slots, values, clip, max_value, keep, l2, edges, firsts, seconds):
    """The two sums of squares over each block."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    c = Coefficients(*values)
    extras = (_first(clip), max_value, keep, l2)
    for b in range(cuda.blockIdx.x, firsts.size, cuda.gridDim.x):
        first = second = 0.0
        for i in range(edges[b] + cuda.threadIdx.x, edges[b + 1], cuda.blockDim.x):
            square, other = squares(x, g, slots, i, c, extras)
            first += square
            second += other
        first, second = _total(first, shared), _total(second, shared)
        if cuda.threadIdx.x == 0:
            firsts[b], seconds[b] = first, second


def _conclude(firsts, seconds, starts, most, results):
    """A number for each segment, of the two sums over its blocks, from starts[s] on."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    for s in range(cuda.blockIdx.x, results.size, cuda.gridDim.x):
        first = second = 0.0
        for b in range(starts[s] + cuda.threadIdx.x, starts[s + 1], cuda.blockDim.x):
            first += firsts[b]
            second += seconds[b]
        first, second = _total(first, shared), _total(second, shared)
        if cuda.threadIdx.x == 0:
            results[s] = conclude(first, second, most)


def _fill(array, value):
    """Let each coordinate be a value."""
    i = cuda.grid(1)
    while i < array.size:
        array[i] = value
        i += cuda.gridsize(1)


# What compiles to a kernel of a rule: a template, and the names to bind in it besides the rule's.
KERNELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "step": (_step, {}),
    "step_layerwise": (_step_layerwise, {}),
    "measure_gradient": (_measure, {"squares": _squares_of_gradient}),
    "measure_step": (_measure, {"squares": _squares_of_step}),
    "clip": (_conclude, {"conclude": _clip_of}),
    "ratios": (_conclude, {"conclude": _ratio_of}),
}


# ---- compilation -------------------------------------------------------------------------------


@functools.cache
def load() -> Any:
    """``numba.cuda``, after checking that it can run kernels here.

    Raises
    ------
    RuntimeError
        The package numba-cuda, one of CUDA's or the GPU is missing.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise RuntimeError(f"the GPU needs the package numba-cuda, which is missing: {_INSTALL}")
    from numba import cuda

    if not cuda.is_available():
        raise RuntimeError(
            "no GPU can be used here: numba-cuda finds no NVIDIA GPU with its driver, or not the "
            f"packages of CUDA ({_INSTALL}); the driver says: "
            f"{' '.join(str(cuda.cuda_error() or 'nothing').split())}"
        )
    return cuda


def compiler() -> Any:
    """``numba.cuda``, which needs no GPU to compile."""
    from numba import cuda

    return cuda


def adopted(function: Any, **names: Any) -> Any:
    """A plain function, with what it calls, for the card; the names are bound in all of it."""
    cuda = compiler()
    device = functools.partial(cuda.jit, device=True)
    everywhere = {"cuda": cuda, "max": device(_larger), "min": device(_smaller)}
    return kernels._adopt(function, device, **everywhere, **names)


def lifted(name: str, rule: type[Rule], slots: int) -> Any:
    """One of `KERNELS` for a rule of so many slots, as ``numba.cuda`` compiles it."""
    template, names = KERNELS[name]
    _, load_slots, store_slots = kernels._SLOTS[slots]
    updated, element = kernels._coordinate(rule.update, load_slots, store_slots)
    _, coefficients = kernels._tuples(rule)  # type: ignore[arg-type]
    kernel = adopted(
        kernels.lift(template, **names),
        updated=adopted(updated),
        element=adopted(element),
        Coefficients=coefficients,
    )
    return kernel.py_func  # what it calls is for the device; it itself is a kernel


def kind_of(value: Any) -> Any:
    """The Numba type of a kernel's argument."""
    if value is None:
        return nb.none
    if isinstance(value, tuple):
        return nb.Tuple([kind_of(each) for each in value])
    if not hasattr(value, "dtype"):
        return {int: nb.int64, float: nb.float64}[type(value)]
    kind = numba.from_dtype(value.dtype)
    return nb.Array(kind, 1, "C") if value.shape else kind


class _NoneIsNothing:
    """Lets a launch pass None: a kernel has a pointer in its place, and does not read it."""

    @staticmethod
    def prepare_args(kind: Any, value: Any, **_: Any) -> tuple[Any, Any]:
        return (nb.uintp, 0) if value is None else (kind, value)


@functools.cache
def _compile(name: str, rule: type[Rule], slots: int, kinds: tuple[Any, ...]) -> Any:
    """A kernel for types of arguments: with these known, a launch does not look for them."""
    return compile_kernel(lifted(name, rule, slots), kinds)


@functools.cache
def _compile_fill(kinds: tuple[Any, ...]) -> Any:
    return compile_kernel(adopted(_fill).py_func, kinds)


def compile_kernel(kernel: Any, kinds: tuple[Any, ...]) -> Any:
    """The same for a kernel of any template."""
    options = {} if SIMULATED else {"extensions": [_NoneIsNothing]}
    return load().jit(nb.void(*kinds), **options)(kernel)


def configured(kernel: Any, blocks: int, threads: int, stream: Any = 0, shared: int = 0) -> Any:
    """A kernel with its launch, which arguments complete."""
    with warnings.catch_warnings():  # that so few blocks leave most of the card idle
        warnings.simplefilter("ignore")
        return kernel[blocks, threads, stream, shared]


def most_blocks() -> int:
    """Thread blocks of a launch, at most."""
    multiprocessors = 1 if SIMULATED else load().get_current_device().MULTIPROCESSOR_COUNT
    return int(multiprocessors * BLOCKS_PER_MULTIPROCESSOR)


# ---- arrays ------------------------------------------------------------------------------------


class _Told(NamedTuple):
    """What a device array tells of itself."""

    interface: dict[str, Any]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pointer: int
    read_only: bool

    @property
    def contiguous(self) -> bool:
        strides = self.interface.get("strides")
        if strides is None:
            return True
        size = self.dtype.itemsize
        for length, stride in zip(self.shape[::-1], strides[::-1], strict=True):
            if length != 1 and stride != size:
                return False
            size *= length
        return True


def is_device_array(value: Any) -> bool:
    """Whether a value is an array on a GPU, by what it says of itself."""
    return not isinstance(value, np.ndarray) and (
        hasattr(_detached(value), "__cuda_array_interface__")
        or getattr(value, "__cuda_ndarray__", False) is True
        or _dlpack_device(value)[0] in _DLPACK
    )


def _detached(value: Any) -> Any:
    """A PyTorch tensor without its graph, which would refuse to tell where it is."""
    return value.detach() if getattr(value, "requires_grad", False) else value


def _dlpack_device(value: Any) -> tuple[int, int]:
    if not hasattr(value, "__dlpack_device__"):
        return 0, 0
    try:
        kind, index = value.__dlpack_device__()
    except (BufferError, ValueError):  # such as a JAX array that lies on several devices
        return 0, 0
    return int(kind), int(index)


def _ask(value: Any, stream: int) -> _Told:
    """What a device array tells of itself, in the CUDA array interface or through DLPack."""
    value = _detached(value)
    if hasattr(value, "block_until_ready"):  # JAX's, whose interface names no stream to wait for
        value.block_until_ready()
    if SIMULATED:  # its arrays are those of the host
        told = value.__array_interface__
    elif hasattr(value, "__cuda_array_interface__"):
        told = value.__cuda_array_interface__
    else:
        from cuda.core.utils import StridedMemoryView

        view = StridedMemoryView.from_dlpack(value, stream_ptr=stream)
        size = view.dtype.itemsize
        told = {
            "data": (view.ptr, view.readonly),
            "shape": tuple(view.shape),
            "strides": view.strides and tuple(stride * size for stride in view.strides),
            "typestr": view.dtype.str,
            "version": 3,
        }
    pointer, read_only = told["data"]
    return _Told(told, np.dtype(told["typestr"]), tuple(told["shape"]), pointer, read_only)


def _device_of(value: Any, told: _Told) -> int:
    """The number of the GPU that an array is on."""
    if SIMULATED:
        return 0
    kind, index = _dlpack_device(value)
    if kind in _DLPACK:
        return index
    from cuda.bindings import driver

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(driver.cuPointerGetAttribute(attribute, told.pointer)[1])


def _check_current(name: str, device: int) -> None:
    """Refuse an array whose GPU is not the current one."""
    current = 0 if SIMULATED else load().get_current_device().id
    if device != current:
        raise ValueError(
            f"{name} is on GPU {device}, but the current one is {current}: "
            f"call numba.cuda.select_device({device}) first"
        )


def _is_elsewhere(told: _Told, handle: int) -> bool:
    """Whether another stream than the one of this handle makes an array."""
    return told.interface.get("stream") not in (None, handle or 1)


def _seen(value: Any, told: _Told, handle: int) -> Any:
    """A device array as kernels on the stream of this handle take it."""
    if SIMULATED:
        return value
    if _is_elsewhere(told, handle):
        load().external_stream(told.interface["stream"]).synchronize()
    interface = {**told.interface, "stream": None}
    return load().from_cuda_array_interface(interface, owner=None, sync=False)


def view(value: Any, name: str) -> Any:
    """A device array of any shape, as kernels on CUDA's default stream take it, once it is made.

    Raises
    ------
    RuntimeError
        There is no GPU here, or not what it takes to use it.
    TypeError
        It does not hold numbers.
    ValueError
        It is not contiguous, or on another GPU than the current one.
    """
    load()
    told = _ask(value, 0)
    if told.dtype.kind not in "fiubc":
        raise TypeError(f"{name} must hold numbers, got dtype {told.dtype}")
    if not told.contiguous:
        raise ValueError(f"{name} must be C-contiguous, got a strided view: pass a copy")
    _check_current(name, _device_of(value, told))
    handle = _handle_of(current_stream(value))
    if handle:
        load().external_stream(handle).synchronize()
    return _seen(value, told, 0)


def current_stream(array: Any) -> Any:
    """The stream on which the library of an array queues its work now; 0 is CUDA's default one."""
    torch, cupy = map(sys.modules.get, ("torch", "cupy"))
    if torch is not None and isinstance(array, torch.Tensor):
        return torch.cuda.current_stream(array.device)
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy.cuda.get_current_stream()
    return 0


def _handle_of(stream: Any) -> int:
    """The handle of a stream, which every library calls by another name."""
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr", "handle"):  # PyTorch, CuPy, Numba
        handle = getattr(stream, name, None)
        if handle is not None:
            return int(getattr(handle, "value", handle) or 0)
    raise TypeError(f"stream must be a CUDA stream or its handle, got {stream!r}")


class Card:
    """The GPU for one parameter array: its stream, and arrays there.

    Parameters
    ----------
    x : device array of shape (n,), float32 or float64
        The parameters.
    stream : stream or int, optional
        The stream, or its handle, on which everything happens; default: `current_stream` of x.
    name : str
        What messages call x.

    Attributes
    ----------
    x : device array
        A view of the parameters.

    Raises
    ------
    RuntimeError
        There is no GPU here, or not what it takes to use it.
    TypeError
        x is not an array of floats on a GPU; stream is not a stream.
    ValueError
        x is not 1-D, empty, not contiguous, read-only, or on another GPU than the current one.
    """

    def __init__(self, x: Any, stream: Any = None, name: str = "x") -> None:
        self.cuda = load()
        if not is_device_array(x):
            raise TypeError(
                f"{name} must be on the GPU for target='cuda', such as cupy.asarray(x), "
                f"got {type(x).__name__}"
            )
        stream = current_stream(x) if stream is None else stream
        self._handle, self._given = _handle_of(stream), stream  # the handle dies with its owner
        self.stream: Any = self.cuda.external_stream(self._handle) if self._handle else 0
        self._told = told = _ask(x, self._handle)
        if told.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} must be float32 or float64, got {told.dtype}")
        if len(told.shape) != 1 or told.shape[0] == 0:
            shape = told.shape
            raise ValueError(f"{name} must have one dimension and not be empty, got shape {shape}")
        if not told.contiguous:
            raise ValueError(f"{name} must be C-contiguous, got a strided view: pass a copy")
        if told.read_only:
            raise ValueError(
                f"{name} must be writable, got a read-only array: of JAX's, pass "
                f"cupy.from_dlpack({name})"
            )
        self._device = _device_of(x, told)
        _check_current(name, self._device)
        self.x = self._view(x, told)
        self._latest: tuple[int, Any] = (0, None)

    def _view(self, value: Any, told: _Told) -> Any:
        """An array as kernels take it."""
        return _seen(value, told, self._handle)

    def view(self, value: Any) -> Any:
        """An array on the GPU as kernels take it."""
        return self._view(value, _ask(value, self._handle))

    def array(self, values: NDArray[Any]) -> Any:
        """A copy of an array of the host."""
        array = self.cuda.to_device(np.ascontiguousarray(values), stream=self.stream)
        if self.stream:
            self.stream.synchronize()
        return array

    def vector(self) -> Any:
        """A new array like x, of zeros."""
        # Named, the stream is the one that others wait for, such as CuPy for a slot of the state.
        array = self.cuda.device_array(self.x.shape, self.x.dtype, stream=self.stream)
        self.fill(array, 0)
        return array

    def fill(self, array: Any, value: float) -> None:
        """Let all of an array be a number, without bringing any there."""
        arguments = array, array.dtype.type(value)
        blocks = min(-(-array.size // THREADS), most_blocks())
        kernel = _compile_fill(tuple(map(kind_of, arguments)))
        configured(kernel, blocks, THREADS, self.stream)(*arguments)

    def host(self, array: Any) -> NDArray[Any]:
        """A copy of an array on the host, of what the stream has made of it so far."""
        values = array.copy_to_host(stream=self.stream)
        if self.stream:
            self.stream.synchronize()
        return np.asarray(values)

    def assign(self, array: Any, values: NDArray[Any]) -> None:
        """Copy an array of the host into one here."""
        array.copy_to_device(np.ascontiguousarray(values), stream=self.stream)
        if self.stream:
            self.stream.synchronize()

    def gradient(self, grad: Any, state: tuple[Any, ...]) -> Any:
        """A gradient as kernels take it, after checking that they can.

        Raises
        ------
        TypeError
            It is not on a GPU, or of another dtype than x.
        ValueError
            It has another shape, is not contiguous, is on another GPU, or shares memory with x or
            the state.
        """
        if not is_device_array(grad):
            raise TypeError(f"grad must be on the GPU, as x is, got {type(grad).__name__}")
        told, mine = _ask(grad, self._handle), self._told
        if told.dtype != mine.dtype:
            raise TypeError(f"grad must have the dtype of x, {mine.dtype}, got {told.dtype}")
        if told.shape != mine.shape:
            raise ValueError(f"grad must have the shape of x, {mine.shape}, got {told.shape}")
        if not told.contiguous:
            raise ValueError("grad must be C-contiguous, got a strided view: pass a copy")
        _check_current("x", self._device)  # another thread has a current GPU of its own
        if told.pointer != self._latest[0] or _is_elsewhere(told, self._handle):
            device = _device_of(grad, told)
            if device != self._device:
                raise ValueError(f"grad must be on the GPU of x, {self._device}, got {device}")
            size = mine.shape[0] * mine.dtype.itemsize
            for name, other in (("x", self.x), *(("the optimizer's state", s) for s in state)):
                if abs(_ask(other, self._handle).pointer - told.pointer) < size:
                    raise ValueError(f"grad must not share memory with {name}: pass a copy")
            self._latest = told.pointer, self._view(grad, told)
        return self._latest[1]

    def wait_for(self, grad: Any) -> None:
        """Let what was queued end, if the memory of a gradient could be taken back before."""
        if hasattr(grad, "block_until_ready"):  # JAX does not ask our stream
            self.cuda.synchronize()

    def number(self, value: Any, name: str = "fun") -> Any:
        """What a function returned, a number on the GPU, as kernels take it: an array of one."""
        told = _ask(value, self._handle)
        if told.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} must return a float32 or float64 number, got {told.dtype}")
        if np.prod(told.shape) != 1:
            raise ValueError(f"{name} must return a scalar, got shape {told.shape}")
        if SIMULATED:
            return value.reshape(1)
        return self._view(
            value, told._replace(interface={**told.interface, "shape": (1,), "strides": None})
        )

    def words(self, length: int, *arrays: Any) -> tuple[Any, ...]:
        """The memory of contiguous arrays as unsigned integers, in which a length is whole.

        They are as long as they may be, up to 8 bytes.
        """
        told = [_ask(array, self._handle) for array in arrays]
        size = gcd(8, length, *(each.pointer for each in told))
        if SIMULATED:
            return tuple(array.reshape(-1).view(f"u{size}") for array in arrays)
        views = []
        for array, each in zip(arrays, told, strict=True):
            count = prod(each.shape) * each.dtype.itemsize // size
            flat = {"shape": (count,), "strides": None, "typestr": f"<u{size}"}
            views.append(self._view(array, each._replace(interface={**each.interface, **flat})))
        return tuple(views)


class Stepper:
    """The launches of a rule's step on a card.

    Parameters
    ----------
    rule : Rule
        The rule.
    card : Card
        Where x is.
    state : tuple of device arrays of shape (n,)
        The rule's slots and, with a Lookahead, the slow weights.
    decays : bool
        Whether weight decay, as the rule does it, changes anything.
    max_norm, max_value : float or None
        Limits of the gradient.
    limits : tuple of ndarray or None
        Lower and upper bounds.
    scale : ndarray or None
        Each coordinate's rate as a share of the largest.
    lookahead : tuple of int and float or None
        k and alpha.
    blocks : tuple of ndarray or None
        For a layerwise rule: the edges of its blocks and the segment that each belongs to.
    """

    def __init__(
        self,
        rule: Rule,
        card: Card,
        state: tuple[Any, ...],
        *,
        decays: bool,
        max_norm: float | None,
        max_value: float | None,
        limits: tuple[NDArray[Any], NDArray[Any]] | None,
        scale: NDArray[Any] | None,
        lookahead: tuple[int, float] | None,
        blocks: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    ) -> None:
        self._card, self._rule, self._x = card, type(rule), card.x
        self._count = len(rule.state_names)
        self._slots = state[: self._count]
        self._n = n = card.x.shape[0]
        dtype = np.dtype(card.x.dtype)
        self._announce = kernels.compile_announce(type(rule))  # type: ignore[arg-type]
        _, coefficients = kernels._tuples(type(rule))  # type: ignore[arg-type]
        self._ahead = np.zeros(1, kernels.CLOCK)
        self._values = np.empty(len(coefficients._fields), dtype)
        self._decays = np.empty(2, dtype)
        self._decaying = decays
        self._max_value = None if max_value is None else dtype.type(max_value)
        self._lookahead = lookahead
        lower, upper = (None, None) if limits is None else map(card.array, limits)
        slow, alpha = (None, None) if lookahead is None else (state[-1], dtype.type(lookahead[1]))
        self._options = (lower, upper, None if scale is None else card.array(scale), slow, alpha)
        self._most = self._clip = self._blocks = None
        if max_norm is not None:
            edges = np.append(np.arange(0, n, SUM_BLOCK), n)
            self._most, self._clip = max_norm, _Norm(card, edges, np.array([0, edges.size - 1]))
        if blocks is not None:
            edges, owner = blocks
            starts = np.searchsorted(owner, np.arange(owner[-1] + 2))
            self._ratios = _Norm(card, edges, starts)
            self._blocks = card.array(owner)
        self._most_blocks = most_blocks()
        self._launches: dict[str, Any] = {}

    def step(self, g: Any, clock: Any, numbers: Any, rate: float) -> None:
        """Queue one step along a gradient that the card has checked."""
        # Time passes once the step is queued: Ctrl-C may come while a first launch compiles.
        ahead = self._ahead
        ahead[...] = clock
        self._announce(self._values, self._decays, ahead, numbers, rate)
        keep, l2 = self._decays if self._decaying else (None, None)
        before = (self._x, g, self._slots, tuple(self._values))
        clip = None
        if self._clip is not None:
            clip = self._clip.results
            self._reduce("measure_gradient", "clip", self._clip, (*before, *(None,) * 4))
        taken = (*before, clip, self._max_value, keep, l2)
        phase = 0
        if self._lookahead is not None:
            t = int(ahead["t"][0])
            phase = ANCHOR * (t == 1) | SYNCHRONIZE * (t % self._lookahead[0] == 0)
        if self._blocks is None:
            self._launch("step", -(-self._n // THREADS), *taken, *self._options, phase)
        else:
            self._reduce("measure_step", "ratios", self._ratios, taken)
            edges, blocks = self._ratios.edges, self._blocks
            self._launch(
                "step_layerwise", blocks.shape[0], *taken, *self._options, phase,
                edges, blocks, self._ratios.results,
            )  # fmt: skip
        clock[...] = ahead

    def _reduce(self, measure: str, conclude: str, norm: "_Norm", taken: tuple[Any, ...]) -> None:
        """The two passes of a norm."""
        sums = (norm.firsts, norm.seconds)
        most = 0.0 if self._most is None else self._most
        results, shared = norm.results, 8 * THREADS
        self._launch(
            measure, norm.firsts.shape[0], *taken, norm.edges, *sums, shared=shared
        )  # fmt: skip
        self._launch(
            conclude, results.shape[0], *sums, norm.starts, most, results, shared=shared
        )  # fmt: skip

    def _launch(self, name: str, blocks: int, *arguments: Any, shared: int = 0) -> None:
        launch = self._launches.get(name)
        if launch is None:
            kinds = tuple(map(kind_of, arguments))
            kernel = _compile(name, self._rule, self._count, kinds)  # type: ignore[arg-type]
            blocks = min(blocks, self._most_blocks)
            launch = configured(kernel, blocks, THREADS, self._card.stream, shared)
            self._launches[name] = launch
        launch(*arguments)


class _Norm:
    """What the two passes of a norm need: blocks, sums over them, a number for each segment."""

    def __init__(self, card: Card, edges: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        self.edges, self.starts = card.array(edges), card.array(starts)
        self.firsts, self.seconds = (card.array(np.zeros(edges.size - 1)) for _ in range(2))
        self.results = card.array(np.zeros(starts.size - 1, card.x.dtype))
