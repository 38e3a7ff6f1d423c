"""The GPU's side. Its modules are imported on first use.

Raises
------
RuntimeError
    The package numba-cuda is missing.
"""

import importlib.util

INSTALL = 'pip install "numbelief[cuda13]", or [cuda12] for a driver of CUDA 12'

if importlib.util.find_spec("numba_cuda") is None:
    raise RuntimeError(f"the GPU needs the package numba-cuda, which is missing: {INSTALL}")
