"""The GPU of the tests, or Numba's simulator of one; functions of NumPy arrays for arrays there."""

import contextlib
import importlib.util
import re
import sys

import numba
import numpy as np
import pytest

from numbelief import LAMB, SGD, AdaBelief, Adam, Lookahead, schedules

INSTALLED = importlib.util.find_spec("numba_cuda") is not None
SIMULATED = INSTALLED and bool(numba.config.ENABLE_CUDASIM)
gpu, LARGE = None, {}
if INSTALLED:
    from numbelief._gpu import compile, launch
    from numbelief._gpu import rows as many

    # What users have is large.
    LARGE = {name: getattr(launch, name) for name in ("THREADS", "SUM_BLOCK", "most_blocks")}
    with contextlib.suppress(RuntimeError):
        gpu = compile.load()
if gpu is not None:  # several small blocks, of which one takes two turns and one is not full
    launch.THREADS, launch.SUM_BLOCK, launch.most_blocks = 4, 16, lambda: 3
    launch.PARTS, many.THREADS = 3, 2
if SIMULATED:
    sys.setswitchinterval(1e-5)  # the simulator spins while its threads wait for the GIL

needs_package = pytest.mark.skipif(not INSTALLED, reason="no numba-cuda[cu13]")
needs_gpu = pytest.mark.skipif(gpu is None, reason="no GPU: see NUMBA_ENABLE_CUDASIM")
needs_compiler = pytest.mark.skipif(SIMULATED or not INSTALLED, reason="no numba-cuda[cu13]")
# In the simulator arithmetic is NumPy's, and its warnings are those of other threads.
quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# What is compiled without a GPU is for these.
CAPABILITIES = [(8, 0), (9, 0)]


def count(pattern, text):
    return len(re.findall(pattern, text))


def host(array):
    return array.copy_to_host()


def on_card(function):
    """What a function of NumPy arrays is for those on the card."""

    def wrapped(*args):
        result = function(*map(host, args))
        return gpu.to_device(result) if isinstance(result, np.ndarray) else result

    return wrapped


def forms(value, slope):
    """An objective in every form that a GPU takes: fun and jac by name."""

    def number(*args):
        return gpu.to_device(np.array(value(*map(host, args))))

    def together(*args):
        return number(*args), on_card(slope)(*args)

    def inplace(x, grad, *args):
        assert np.isnan(host(grad)).all() or np.isfinite(host(grad)).all()
        args = tuple(map(host, (x, *args)))
        grad.copy_to_device(slope(*args))
        return value(*args)

    return {
        "callable": (on_card(value), on_card(slope)),
        "numbers on the card": (number, on_card(slope)),
        "together": (together, True),
        "inplace": (inplace, "inplace"),
    }


def rules(segments):
    """A rule of each kind."""
    return {
        "SGD": SGD(0.1),
        "AdaBelief": AdaBelief(schedules.inverse_sqrt(0.3)),
        "Lookahead": Lookahead(Adam(0.1, weight_decay=0.01), 3),
        "LAMB": LAMB(0.05, segments=segments),
    }
