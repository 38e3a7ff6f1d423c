"""Fit a decay to every pixel of an image: three parameters, 16,384 times, in one call.

The data are synthetic: an image of 128 by 128 pixels, seen at 24 times after a flash, as a camera
for fluorescence lifetimes would see it. In each pixel the signal decays as

    y(t) = a exp(-k t) + b + noise

with an amplitude a, a rate k = 1 / lifetime, an offset b, and Gaussian noise of a standard
deviation that is known and the same everywhere. The truth is known too, so the fits can be judged:
by their errors, and by the Cramer-Rao bound, the standard error that no unbiased fit can beat,
sigma^2 (J' J)^-1 with the Jacobian J of the model. Least squares should come close to that bound,
and chi square per degree of freedom to 1.

``misfit`` is a least-squares objective of one decay, with its gradient, compiled by Numba.
``per_row(decays)`` gives each problem its own decay; the times go to all. All fits begin at the
same point, and nothing is tuned: without a learning rate each fit finds its own. The first call
compiles (the solver is kept on disk for the next process); the time printed is that of the second.

Needs matplotlib. Writes many_fits.png.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numba
import numpy as np

from numbelief import minimize_many, per_row

SIDE, SIGMA = 128, 0.02
TIMES = np.linspace(0, 12, 24)  # nanoseconds
START = (1.0, 0.5, 0.0)  # amplitude, rate, offset
NAMES = ("amplitude", "lifetime (ns)", "offset")


@numba.njit
def misfit(x, grad, t, y):
    """The sum of squared residuals of one decay."""
    a, k, b = x
    value = 0.0
    grad[:] = 0.0
    for i in range(t.size):
        decay = np.exp(-k * t[i])
        residual = a * decay + b - y[i]
        value += residual**2
        grad[0] += 2 * residual * decay
        grad[1] -= 2 * residual * a * t[i] * decay
        grad[2] += 2 * residual
    return value


def truth():
    """Maps of amplitude, lifetime and offset: a cell, its nucleus, a wave, and three granules."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]

    def inside(distance, width=0.04):
        """1 inside a shape, 0 outside, and a smooth edge."""
        return 1 / (1 + np.exp(np.clip(distance / width, -50, 50)))

    angle = np.arctan2(y, x)
    cell = inside(np.hypot(x, y) - 0.78 - 0.08 * np.cos(3 * angle + 0.5))
    nucleus = inside(np.hypot(x + 0.18, 1.25 * (y - 0.1)) - 0.32)
    granules = sum(
        inside(np.hypot(x - u, y - v) - 0.1) for u, v in ((0.42, 0.35), (0.45, -0.2), (0.0, -0.52))
    )
    amplitude = 0.25 + cell * (0.45 + 0.1 * np.sin(9 * (x + 0.5 * y))) + 0.3 * granules
    lifetime = 2.0 + cell * (0.6 + 0.3 * y) + 1.0 * nucleus - 1.3 * granules
    offset = 0.1 + 0.05 * x
    return np.stack([amplitude, lifetime, offset])


def synthetic_decays(maps, random):
    """A noisy decay for each pixel, one a row."""
    amplitude, lifetime, offset = maps.reshape(3, -1, 1)
    clean = amplitude * np.exp(-TIMES / lifetime) + offset
    return clean + SIGMA * random.standard_normal(clean.shape)


def standard_errors(maps):
    """The Cramer-Rao bound on the standard error of each map."""
    amplitude, lifetime, _ = maps.reshape(3, -1, 1)
    decay = np.exp(-TIMES / lifetime)
    by_lifetime = amplitude * decay * TIMES / lifetime**2
    jacobian = np.stack([decay, by_lifetime, np.ones_like(decay)], axis=-1)
    covariance = SIGMA**2 * np.linalg.inv(jacobian.swapaxes(1, 2) @ jacobian)
    return np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).T.reshape(maps.shape)


def draw(true, fitted, in_standard_errors, path):
    """True map, fitted map and error of each parameter."""
    figure, grid = plt.subplots(3, 3, figsize=(10.5, 9.6), layout="constrained")
    for row, name in enumerate(NAMES):
        low, high = np.percentile(fitted[row], [0.5, 99.5])
        low, high = min(low, true[row].min()), max(high, true[row].max())
        for axes, image in zip(grid[row], (true[row], fitted[row]), strict=False):
            shown = axes.imshow(image, cmap="viridis", vmin=low, vmax=high, origin="lower")
        figure.colorbar(shown, ax=grid[row, :2], label=name, extend="both", shrink=0.9)
        error = grid[row, 2].imshow(
            in_standard_errors[row], cmap="RdBu_r", vmin=-4, vmax=4, origin="lower"
        )
        figure.colorbar(
            error, ax=grid[row, 2], label="error / standard error", extend="both", shrink=0.9
        )
    for axes, title in zip(grid[0], ("truth", "fitted", "fitted - truth"), strict=True):
        axes.set_title(title)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    figure.suptitle(
        f"{SIDE} x {SIDE} synthetic decays of {len(TIMES)} times, noise {SIGMA}; "
        "errors in units of the Cramér-Rao bound"
    )
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="DIR")
    chosen = parser.parse_args()

    true = truth()
    decays = synthetic_decays(true, np.random.default_rng(0))
    starts = np.tile(START, (len(decays), 1))
    for call in ("first call, with compilation", "second call"):
        began = time.perf_counter()
        res = minimize_many(misfit, starts, args=(TIMES, per_row(decays)), jac="inplace")
        seconds = time.perf_counter() - began
        print(f"{call:30s}{seconds:8.3f} s")
    print(f"{len(decays) / seconds:,.0f} fits per second on {numba.get_num_threads()} threads")
    print(f"{res.success.mean():.2%} of the fits converged, in {np.median(res.nit):.0f} iterations")

    amplitude, rate, offset = res.x.T.reshape(true.shape)
    fitted = np.stack([amplitude, 1 / rate, offset])
    in_standard_errors = (fitted - true) / standard_errors(true)
    freedom = decays.size - res.x.size
    print(
        f"chi square per degree of freedom {res.fun.sum() / SIGMA**2 / freedom:.4f}, "
        f"expected 1 +- {np.sqrt(2 / freedom):.4f}"
    )
    print(f"\n{'':15s}{'relative error':^24s}{'error / standard error':^32s}")
    print(
        f"{'map':15s}{'median':>12s}{'95 % below':>12s}{'root mean square':>20s}{'|.| < 1.96':>12s}"
    )
    for row, name in enumerate(NAMES):
        relative = abs(fitted[row] / true[row] - 1)
        scaled = in_standard_errors[row]
        print(
            f"{name:15s}{np.median(relative):12.2%}{np.percentile(relative, 95):12.2%}"
            f"{np.sqrt((scaled**2).mean()):20.3f}{(abs(scaled) < 1.96).mean():12.1%}"
        )

    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "many_fits.png"
    draw(true, fitted, in_standard_errors, file)
    print(f"\nfigure: {file}")


if __name__ == "__main__":
    main()
