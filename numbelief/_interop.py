"""Arrays of other libraries on a GPU: whether one is, and where its library queues its work.

Nothing here imports CUDA. What needs it lies in `numbelief._gpu`, which is imported on first use.
"""

import sys
from typing import Any

import numpy as np

# The kinds of memory that DLPack calls CUDA's and CUDA's managed memory.
DLPACK_CUDA = (2, 13)


def is_device_array(value: Any) -> bool:
    """Whether a value is an array on a GPU, by what it says of itself."""
    return not isinstance(value, np.ndarray) and (
        hasattr(detached(value), "__cuda_array_interface__")
        or getattr(value, "__cuda_ndarray__", False) is True
        or dlpack_device(value)[0] in DLPACK_CUDA
    )


def is_device_function(value: Any) -> bool:
    """Whether ``numba.cuda.jit(device=True)`` made this."""
    options = getattr(value, "targetoptions", {})
    return bool(options.get("device")) or getattr(value, "_device", None) is True


def detached(value: Any) -> Any:
    """A PyTorch tensor without its graph, which would refuse to tell where it is."""
    return value.detach() if getattr(value, "requires_grad", False) else value


def dlpack_device(value: Any) -> tuple[int, int]:
    """The kind of memory that an array lies in, and the number of its device."""
    if not hasattr(value, "__dlpack_device__"):
        return 0, 0
    try:
        kind, index = value.__dlpack_device__()
    except (BufferError, ValueError):  # such as a JAX array that lies on several devices
        return 0, 0
    return int(kind), int(index)


def current_stream(array: Any) -> Any:
    """The stream on which the library of an array queues its work now; 0 is CUDA's default one."""
    torch, cupy = map(sys.modules.get, ("torch", "cupy"))
    if torch is not None and isinstance(array, torch.Tensor):
        return torch.cuda.current_stream(array.device)
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy.cuda.get_current_stream()
    return 0


def handle_of(stream: Any) -> int:
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
