"""The GPU that an array of parameters is on: its stream, and arrays of any library there."""

from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbelief._gpu.compile import SIMULATED, load
from numbelief._interop import (
    DLPACK_CUDA,
    current_stream,
    detached,
    dlpack_device,
    handle_of,
    is_device_array,
)


class _Layout(NamedTuple):
    """Where a device array lies, as it says itself."""

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


def _layout_of(value: Any, stream: int) -> _Layout:
    """Where a device array lies, by the CUDA array interface or through DLPack."""
    value = detached(value)
    if hasattr(value, "block_until_ready"):  # JAX's, whose interface names no stream to wait for
        value.block_until_ready()
    if SIMULATED:  # its arrays are those of the host
        interface = value.__array_interface__
    elif hasattr(value, "__cuda_array_interface__"):
        interface = value.__cuda_array_interface__
    else:
        from cuda.core.utils import StridedMemoryView

        view = StridedMemoryView.from_dlpack(value, stream_ptr=stream)
        size = view.dtype.itemsize
        interface = {
            "data": (view.ptr, view.readonly),
            "shape": tuple(view.shape),
            "strides": view.strides and tuple(stride * size for stride in view.strides),
            "typestr": view.dtype.str,
            "version": 3,
        }
    pointer, read_only = interface["data"]
    return _Layout(
        interface, np.dtype(interface["typestr"]), tuple(interface["shape"]), pointer, read_only
    )


def _device_of(value: Any, layout: _Layout) -> int:
    """The number of the GPU that an array is on."""
    if SIMULATED:
        return 0
    kind, index = dlpack_device(value)
    if kind in DLPACK_CUDA:
        return index
    from cuda.bindings import driver

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(driver.cuPointerGetAttribute(attribute, layout.pointer)[1])


def _check_current(name: str, device: int) -> None:
    """Refuse an array whose GPU is not the current one."""
    current = 0 if SIMULATED else load().get_current_device().id
    if device != current:
        raise ValueError(
            f"{name} is on GPU {device}, but the current one is {current}: "
            f"call numba.cuda.select_device({device}) first"
        )


def _is_elsewhere(layout: _Layout, handle: int) -> bool:
    """Whether another stream than the one of this handle makes an array."""
    return layout.interface.get("stream") not in (None, handle or 1)


def _as_taken(value: Any, layout: _Layout, handle: int) -> Any:
    """A device array as kernels on the stream of this handle take it."""
    if SIMULATED:
        return value
    if _is_elsewhere(layout, handle):
        load().external_stream(layout.interface["stream"]).synchronize()
    interface = {**layout.interface, "stream": None}
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
    layout = _layout_of(value, 0)
    if layout.dtype.kind not in "fiubc":
        raise TypeError(f"{name} must hold numbers, got dtype {layout.dtype}")
    if not layout.contiguous:
        raise ValueError(f"{name} must be C-contiguous, got a strided view: pass a copy")
    _check_current(name, _device_of(value, layout))
    handle = handle_of(current_stream(value))
    if handle:
        load().external_stream(handle).synchronize()
    return _as_taken(value, layout, 0)


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
        self._handle, self._given = handle_of(stream), stream  # the handle dies with its owner
        self.stream: Any = self.cuda.external_stream(self._handle) if self._handle else 0
        self._layout = layout = _layout_of(x, self._handle)
        if layout.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} must be float32 or float64, got {layout.dtype}")
        if len(layout.shape) != 1 or layout.shape[0] == 0:
            shape = layout.shape
            raise ValueError(f"{name} must have one dimension and not be empty, got shape {shape}")
        if not layout.contiguous:
            raise ValueError(f"{name} must be C-contiguous, got a strided view: pass a copy")
        if layout.read_only:
            raise ValueError(
                f"{name} must be writable, got a read-only array: of JAX's, pass "
                f"cupy.from_dlpack({name})"
            )
        self._device = _device_of(x, layout)
        _check_current(name, self._device)
        self.x = self._view(x, layout)
        self._latest: tuple[int, Any] = (0, None)

    def _view(self, value: Any, layout: _Layout) -> Any:
        """An array as kernels take it."""
        return _as_taken(value, layout, self._handle)

    def view(self, value: Any) -> Any:
        """An array on the GPU as kernels take it."""
        return self._view(value, _layout_of(value, self._handle))

    def array(self, values: NDArray[Any]) -> Any:
        """A copy of an array of the host."""
        array = self.cuda.to_device(np.ascontiguousarray(values), stream=self.stream)
        if self.stream:
            self.stream.synchronize()
        return array

    def vector(self) -> Any:
        """A new array like x, of any numbers."""
        # Named, the stream is the one that others wait for, such as CuPy for a slot of the state.
        return self.cuda.device_array(self.x.shape, self.x.dtype, stream=self.stream)

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
        layout, mine = _layout_of(grad, self._handle), self._layout
        if layout.dtype != mine.dtype:
            raise TypeError(f"grad must have the dtype of x, {mine.dtype}, got {layout.dtype}")
        if layout.shape != mine.shape:
            raise ValueError(f"grad must have the shape of x, {mine.shape}, got {layout.shape}")
        if not layout.contiguous:
            raise ValueError("grad must be C-contiguous, got a strided view: pass a copy")
        _check_current("x", self._device)  # another thread has a current GPU of its own
        if layout.pointer != self._latest[0] or _is_elsewhere(layout, self._handle):
            device = _device_of(grad, layout)
            if device != self._device:
                raise ValueError(f"grad must be on the GPU of x, {self._device}, got {device}")
            size = mine.shape[0] * mine.dtype.itemsize
            for name, other in (("x", self.x), *(("the optimizer's state", s) for s in state)):
                if abs(_layout_of(other, self._handle).pointer - layout.pointer) < size:
                    raise ValueError(f"grad must not share memory with {name}: pass a copy")
            self._latest = layout.pointer, self._view(grad, layout)
        return self._latest[1]

    def wait_for(self, grad: Any) -> None:
        """Let what was queued end, if the memory of a gradient could be taken back before."""
        if hasattr(grad, "block_until_ready"):  # JAX does not ask our stream
            self.cuda.synchronize()

    def number(self, value: Any, name: str = "fun") -> Any:
        """What a function returned, a number on the GPU, as kernels take it: an array of one."""
        layout = _layout_of(value, self._handle)
        if layout.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} must return a float32 or float64 number, got {layout.dtype}")
        if np.prod(layout.shape) != 1:
            raise ValueError(f"{name} must return a scalar, got shape {layout.shape}")
        if SIMULATED:
            return value.reshape(1)
        return self._view(
            value, layout._replace(interface={**layout.interface, "shape": (1,), "strides": None})
        )

    def words(self, length: int, *arrays: Any) -> tuple[Any, ...]:
        """The memory of contiguous arrays as unsigned integers, in which a length is whole.

        They are as long as they may be, up to 8 bytes.
        """
        layouts = [_layout_of(array, self._handle) for array in arrays]
        size = gcd(8, length, *(each.pointer for each in layouts))
        if SIMULATED:
            return tuple(array.reshape(-1).view(f"u{size}") for array in arrays)
        views = []
        for array, each in zip(arrays, layouts, strict=True):
            count = prod(each.shape) * each.dtype.itemsize // size
            flat = {"shape": (count,), "strides": None, "typestr": f"<u{size}"}
            views.append(self._view(array, each._replace(interface={**each.interface, **flat})))
        return tuple(views)
