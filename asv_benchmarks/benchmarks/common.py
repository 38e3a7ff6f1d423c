"""What the benchmarks share: data, the memory limit, timing side by side, fresh processes."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import numba
import numpy as np
from numba import prange

import numbelief
from numbelief._compile.arrays import BLOCK

Step = Callable[[], object]

# The gradient is the same in every step; a rate this small keeps x finite for millions of them.
RATE = 1e-6


def numbers(n: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Normally distributed numbers; many repeat, since drawing 1e7 takes too long."""
    return np.resize(np.random.default_rng(seed).standard_normal(1 << 16).astype(dtype), n)


@numba.njit
def _nothing():
    pass


_nothing()  # Numba's first call takes 0.3 s: made here, a forkserver makes it once


# ---- the memory limit


@numba.njit(error_model="numpy")
def _traffic_block(x, g, m, s):
    for i in range(x.size):
        x[i] += g[i]
        m[i] += g[i]
        s[i] += g[i]


@numba.njit(error_model="numpy", parallel=True, nogil=True)
def traffic(x, g, state):
    """Read x, g and two slots and write x and the slots, like a step, with trivial arithmetic."""
    for b in prange((x.size + BLOCK - 1) // BLOCK):
        lo, hi = b * BLOCK, min(x.size, (b + 1) * BLOCK)
        _traffic_block(x[lo:hi], g[lo:hi], state[0, lo:hi], state[1, lo:hi])


def traffic_step(n: int, dtype: str = "float32") -> Step:
    """The memory limit of a step at one size."""
    x, g, state = numbers(n, dtype), numbers(n, dtype, seed=1), np.zeros((2, n), dtype)
    return lambda: traffic(x, g, state)


# ---- timing


def side_by_side(
    steps: dict[str, Step], *, calls: int, rounds: int, pause: float = 0.02
) -> dict[str, np.ndarray]:
    """Seconds per call of each step, one figure a round, in turns and in alternating order.

    A pause before each turn lets the other contestants' threads stop spinning.
    """
    seconds = {name: np.empty(rounds) for name in steps}
    for r in range(rounds):
        for name in list(steps)[:: 1 if r % 2 else -1]:
            step = steps[name]
            time.sleep(pause)
            for _ in range(1 + calls // 10):
                step()
            start = time.perf_counter()
            for _ in range(calls):
                step()
            seconds[name][r] = (time.perf_counter() - start) / calls
    return seconds


def ratio(seconds: dict[str, np.ndarray], name: str, other: str) -> float:
    """The median over the rounds of how many times as long as the other one step took."""
    return float(np.median(seconds[name] / seconds[other]))


# ---- minimize around a Python objective


def rosenbrock(x):
    a, b = x.tolist()
    return (1 - a) ** 2 + 100 * (b - a * a) ** 2


def rosenbrock_gradient(x):
    a, b = x.tolist()
    return np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])


def iteration_overhead(run: Callable[[], object], rounds: int = 15) -> float:
    """Microseconds that one iteration of a run on Rosenbrock adds to the user's own functions."""
    result, x = run(), np.array([-1.2, 1.0])

    def own():
        for _ in range(result.nfev):
            rosenbrock(x)
        for _ in range(result.njev):
            rosenbrock_gradient(x)

    seconds = side_by_side({"run": run, "own": own}, calls=1, rounds=rounds, pause=0)
    return 1e6 * float(np.median(seconds["run"] - seconds["own"])) / result.nit


# ---- fresh processes

_FIRST_CALL = """
import time
start = time.perf_counter()
import numba
imported = time.perf_counter()
import numbelief
numbelief.minimize(
    lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2,
    [-1.2, 1.0],
    options={"maxiter": 10},
)
end = time.perf_counter()
print(end - start, end - imported)
"""


def first_call(cache: str | os.PathLike | None = None) -> tuple[float, float]:
    """Seconds of import and first minimize call in a fresh process: all, and beyond numba's import.

    The kernels come from Numba's usual cache, or from the folder given.
    """
    package = pathlib.Path(numbelief.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-c", _FIRST_CALL]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    whole, beyond = map(float, done.stdout.split())
    return whole, beyond
