"""A rule of your own in sixteen lines, and every kernel that comes with it.

The rule is Lion (Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2): a
step of fixed size along the sign of an interpolation between the momentum and the gradient,

    d = sign(beta1 m + (1 - beta1) g),    x = (1 - rate * decay) x - rate * d,
    m = beta2 m + (1 - beta2) g.

What to write: the hyperparameters with their defaults, the names of the state (``slots``), and two
static functions over plain numbers. ``coefficients`` runs once a step; ``update`` runs once a
coordinate and returns the direction, its rate, and the new slots. Moving x is the kernel's part,
and so are bounds, weight decay and clipping. In ``update`` take numbers from ``c``, where they have
the precision of x (``c.zero``, ``c.one``, the hyperparameters, the scalars): a literal such as 1.0
is a float64, and would turn float32 arithmetic into float64.

Defining the class registers it. The rest of this file uses it: by name in ``minimize``, as a method
of SciPy, and in ``Optimizer``, whose serial and parallel kernels are both compiled from these
lines and give the same bits. The table compares them with NumPy, bits and speed (threads pay only
where cores are idle; ``target="auto"`` uses them for large arrays).
"""

import argparse
import pathlib
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize, rosen, rosen_der

import numbelief


@dataclass(frozen=True)
class Lion(numbelief.Rule):
    decoupled: bool = True
    beta1: float = 0.9
    beta2: float = 0.99

    default_rate: ClassVar[float] = 1e-4
    slots: ClassVar[tuple[str, ...]] = ("m",)
    scalars: ClassVar[tuple[str, ...]] = ("rate", "one_minus_beta1", "one_minus_beta2")

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        return rate, 1 - h.beta1, 1 - h.beta2

    @staticmethod
    def update(x, g, c, m):
        d = c.beta1 * m + c.one_minus_beta1 * g
        m = c.beta2 * m + c.one_minus_beta2 * g
        return (c.one if d > c.zero else -c.one if d < c.zero else c.zero), c.rate, m


def lion_in_numpy(x, gradient, steps):
    """The same steps, as one would write them without a kernel."""
    rate, beta1, beta2 = map(x.dtype.type, (1e-4, 0.9, 0.99))
    one_minus_beta1, one_minus_beta2 = map(x.dtype.type, (1 - 0.9, 1 - 0.99))
    m = np.zeros_like(x)
    for _ in range(steps):
        x -= rate * np.sign(beta1 * m + one_minus_beta1 * gradient)
        m = beta2 * m + one_minus_beta2 * gradient
    return x


def lion(x, gradient, steps, target):
    """x after a number of steps of an Optimizer."""
    optimizer = numbelief.Optimizer(Lion(), x, target=target)
    for _ in range(steps):
        optimizer.step(gradient)
    return x


def timed(function, x, gradient, *target, steps=10):
    """x after the steps, and the milliseconds of one step in the best of five runs."""
    result = function(x.copy(), gradient, steps, *target)
    seconds = []
    for _ in range(5):
        copy = x.copy()
        began = time.perf_counter()
        function(copy, gradient, steps, *target)
        seconds.append(time.perf_counter() - began)
    return result, min(seconds) / steps * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR", help="not used: no figure")
    parser.parse_args()

    cosine = numbelief.schedules.cosine(0.02, steps=3000)
    by_name = numbelief.minimize(
        rosen, [-1.2, 1.0], method="lion", jac=rosen_der,
        options={"learning_rate": cosine, "maxiter": 3000},
    )  # fmt: skip
    by_scipy = minimize(
        rosen, [-1.2, 1.0], method=Lion(cosine), jac=rosen_der, bounds=[(-2, 0.8), (-2, 2)],
        options={"maxiter": 3000},
    )  # fmt: skip
    print("Rosenbrock, minimum at (1, 1)")
    print(f"  numbelief.minimize(method='lion')                        x = {by_name.x.round(3)}")
    print(f"  scipy.optimize.minimize(method=Lion(...)), x[0] <= 0.8   x = {by_scipy.x.round(3)}")

    n = 1_000_000
    print(f"\n{'n = 1e6':10s}{'kernel':10s}{'one step':>12s}   same bits as serial")
    random = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        x, gradient = random.standard_normal((2, n)).astype(dtype)
        rows = {kernel: timed(lion, x, gradient, kernel) for kernel in ("serial", "parallel")}
        rows["NumPy"] = timed(lion_in_numpy, x, gradient)
        for kernel, (result, milliseconds) in rows.items():
            same = "yes" if result.tobytes() == rows["serial"][0].tobytes() else "no"
            print(f"{np.dtype(dtype).name:10s}{kernel:10s}{milliseconds:9.2f} ms   {same}")


if __name__ == "__main__":
    main()
