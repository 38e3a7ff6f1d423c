"""A million parameters, stepped where they live: on the GPU if there is one, else on the CPU.

The parameters are a signal of 1,000,000 samples, found again from noisy measurements of which one
in fifty is far off:

    f(x) = sum log cosh(x - y) + c/2 sum (x[i+1] - x[i])^2,

whose gradient is three lines of array code. CuPy, PyTorch and NumPy run the same three lines, and
the loop does not know which of them it is: ``Optimizer`` steps a GPU's array on the GPU, in place,
on the current stream of CuPy or PyTorch, and nothing is copied to the host. On a GPU that
takes CuPy or PyTorch, and numba-cuda (pip install "numbelief[cuda13]").

There is no published finding here. The run works if the objective falls and most of the noise is
gone. The last column is the time of one step; the gradient is not in it.
"""

import argparse
import importlib
import pathlib
import time

import numbelief.cuda
import numpy as np

import numbelief

N, STEPS, SMOOTHNESS = 1_000_000, 40, 1.0


def measurements():
    """The true signal, and what was measured of it."""
    random = np.random.default_rng(0)
    where = np.linspace(0, 60, N, dtype=np.float32)
    truth = np.sin(where) * np.cos(where / 7)
    noise = 0.3 * random.standard_normal(N, dtype=np.float32)
    noise[random.integers(N, size=N // 50)] += 5
    return truth, truth + noise


def on_cupy(array):
    """CuPy, an array there, and how to wait for its stream."""
    cupy = importlib.import_module("cupy")
    x = cupy.asarray(array) + 0  # the first kernel shows whether CuPy can compile here
    return cupy, x, cupy.cuda.get_current_stream().synchronize


def on_torch(array):
    """The same of PyTorch."""
    torch = importlib.import_module("torch")
    x = torch.tensor(array, device="cuda")
    return torch, x, torch.cuda.current_stream().synchronize


def on_cpu(array):
    """The same of NumPy, which waits anyway."""
    return np, array.copy(), lambda: None


def place(array):
    """The first of the three that works here."""
    try:
        numbelief.cuda.load()
    except RuntimeError as error:
        print(error)
        return on_cpu(array)
    for there in (on_cupy, on_torch):
        try:
            return there(array)
        except Exception as error:  # not installed, or not for this GPU: each has its own way
            print(f"not {there.__name__.removeprefix('on_')}: {error}")
    return on_cpu(array)


def gradient(xp, x, y):
    """The gradient of f, in the library of x."""
    rise = x[1:] - x[:-1]
    g = xp.tanh(x - y)
    g[:-1] -= SMOOTHNESS * rise
    g[1:] += SMOOTHNESS * rise
    return g


def objective(xp, x, y):
    """A value of f, per sample."""
    rise = x[1:] - x[:-1]
    return float(xp.log(xp.cosh(x - y)).mean() + SMOOTHNESS / 2 * (rise**2).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR", help="not used: no figure")
    parser.parse_args()

    truth, measured = measurements()
    xp, x, wait = place(measured)
    y = x + 0  # a copy, in any of the three
    print(f"used: {'the CPU' if xp is np else 'the GPU'}, with {xp.__name__}\n")

    rate = numbelief.schedules.cosine(0.5, steps=STEPS)
    optimizer = numbelief.Optimizer(numbelief.AdaBelief(rate), x)
    print(f"{'step':>4s}{'objective':>12s}{'rms error':>12s}{'one step':>14s}")
    seconds = []
    for step in range(STEPS + 1):
        if step % 10 == 0:
            values = x if xp is np else (x.get() if hasattr(x, "get") else x.cpu().numpy())
            error = np.sqrt(np.mean((values - truth) ** 2))
            took = f"{np.median(seconds) * 1e3:11.3f} ms" if seconds else ""
            print(f"{step:4d}{objective(xp, x, y):12.5f}{error:12.4f}{took:>14s}")
        if step < STEPS:
            g = gradient(xp, x, y)
            wait()
            began = time.perf_counter()
            optimizer.step(g)
            wait()
            seconds.append(time.perf_counter() - began)


if __name__ == "__main__":
    main()
