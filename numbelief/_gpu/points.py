"""The points of a minimization on a GPU: observed there, and looked at by the host now and then.

A step that the host waited for would cost more than its arithmetic. So after each step a row of
figures (fun, the gradient's norm ...) is noted on the card, where the best point so far is kept,
too; every `LOOK_EVERY` steps the rows come to the host, which makes of them what
`numbelief._solve.observe` does of each point on a CPU.
"""

from math import inf, isfinite
from typing import Any

import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray

from numbelief._gpu.reductions import higher, top, top_of
from numbelief._gpu.vectors import CardVectors, duplicate
from numbelief._solve import stopping
from numbelief._solve.observe import projected_gradient
from numbelief._solve.stopping import RUNNING, is_better
from numbelief.optimizer import Optimizer

# Steps between two looks, at most: they share one wait, of some 20 us (not measured here).
LOOK_EVERY = 32

# The columns of a row of figures; the first four are those of `numbelief._solve.stopping.review`.
FUN, NORM, MOVED, REACH, BEST_FUN, BEST_NORM, FINITE, COLUMNS = range(8)

# ---- kernels -----------------------------------------------------------------------------------


def _slope_at(x, g, lower, upper, i):
    if lower is None:
        return g[i]
    else:
        return projected_gradient(x, g, lower, upper, i)


def _measure_point(x, g, lower, upper, previous, norms, moves, reaches):
    """Each block's part of the largest projected gradient, move and coordinate."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    norm = moved = reach = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        # A bound must not hide a gradient that is not finite.
        slope = _slope_at(x, g, lower, upper, i) if isfinite(g[i]) else g[i]
        norm = higher(norm, abs(slope))
        if previous is not None:
            moved = higher(moved, abs(x[i] - previous[i]))
            reach = higher(reach, abs(x[i]))
            previous[i] = x[i]
        i += cuda.gridsize(1)
    norm = top(norm, shared)
    if cuda.threadIdx.x == 0:
        norms[cuda.blockIdx.x] = norm
    if previous is not None:
        moved, reach = top(moved, shared), top(reach, shared)
        if cuda.threadIdx.x == 0:
            moves[cuda.blockIdx.x], reaches[cuda.blockIdx.x] = moved, reach


def _keep_point(
    x, g, value, position, norms, moves, reaches, figures, last, now,
    best_x, best_g, average, weight,
):  # fmt: skip
    """Note a point's figures from `now` on, keep it if it is the best one, let the mean follow."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    # Each block concludes for itself, from a row that this launch does not write.
    norm = top_of(norms, shared)
    norm = norm if norm < inf else inf
    fun = value
    if position is not None:
        fun = np.float64(position[0])
    best_fun, best_norm = figures[last + BEST_FUN], figures[last + BEST_NORM]
    finite = figures[last + FINITE] > 0 and isfinite(fun) and isfinite(norm)
    better = finite and is_better(fun, norm, best_fun, best_norm)
    moved = reach = 0.0
    if moves is not None:
        moved, reach = top_of(moves, shared), top_of(reaches, shared)
    if cuda.grid(1) == 0:
        figures[now + FUN], figures[now + NORM] = fun, norm
        figures[now + MOVED], figures[now + REACH] = moved, reach
        figures[now + BEST_FUN] = fun if better else best_fun
        figures[now + BEST_NORM] = norm if better else best_norm
        figures[now + FINITE] = 1.0 if finite else 0.0
    i = cuda.grid(1)
    while i < x.size:
        if better:
            best_x[i], best_g[i] = x[i], g[i]
        if average is not None:  # noqa: SIM102  Numba drops the branch only where it stands alone
            if finite:
                average[i] += weight * (x[i] - average[i])
        i += cuda.gridsize(1)


# ---- points ------------------------------------------------------------------------------------


class Points:
    """What is known of the points of a run, on the card and, after a look, on the host.

    Parameters
    ----------
    optimizer : Optimizer
        What takes the steps.
    average, moves, every : bool
        Whether to keep the mean of all points, to measure how far x moves, and to keep each point.

    Attributes
    ----------
    every : list of device array
        Each point, if they are kept.
    limits : tuple of device array or None
        Lower and upper bounds.
    """

    def __init__(self, optimizer: Optimizer, *, average: bool, moves: bool, every: bool) -> None:
        vectors = optimizer.vectors
        assert isinstance(vectors, CardVectors)
        self._vectors, self._launcher = vectors, vectors.launcher
        self._card = card = vectors.card
        self._best = self._like_x(), self._like_x()
        self._average = self._like_x() if average else None
        if self._average is not None:
            vectors.fill(self._average[1], 0)
        self.every: list[Any] = []
        self._keeps_every = every
        limits = optimizer.limits
        self.limits = tuple(map(card.array, limits)) if limits else (None, None)
        self._previous = vectors.zeros() if moves else None
        parts = np.zeros(self._launcher.parts)
        self._tops = tuple(card.array(parts) if k == 0 or moves else None for k in range(3))
        self._rates: list[float] = []
        self._begin(0, inf, 0.0)

    def _begin(self, count: int, best_fun: float, best_norm: float) -> None:
        """After ``count`` points, let the next one find the row of figures before it."""
        rows = np.zeros((LOOK_EVERY + 1, COLUMNS))
        rows[(count - 1) % len(rows), [BEST_FUN, BEST_NORM, FINITE]] = best_fun, best_norm, 1
        self._figures, self._count = self._card.array(rows.ravel()), count

    @property
    def kept(self) -> dict[str, Any]:
        """What is kept of them, by its names in a file."""
        kept: dict[str, Any] = {"best": [view for _, view in self._best]}
        if self._average is not None:
            kept["average"] = self._average[1]
        if self._previous is not None:
            kept["previous"] = self._previous
        if self._keeps_every:
            kept["allvecs"] = list(map(self._card.view, self.every))
        return kept

    def continue_from(self, control: NDArray[Any]) -> None:
        """Go on after the points of a file, and make room for what it kept of them."""
        last = control[0]
        self._begin(int(last["nit"]) + 1, float(last["best_fun"]), float(last["best_norm"]))
        if self._keeps_every:
            self.every = [duplicate(self._vectors.given) for _ in range(self._count)]

    def _like_x(self) -> tuple[Any, Any]:
        """An array of the user's library, and as kernels take it."""
        array = duplicate(self._vectors.given)
        return array, self._card.view(array)

    def note(self, value: float, position: Any, rate: float, g: Any) -> None:
        """Queue the observation of the point that x and its gradient g are now."""
        launcher, x = self._launcher, self._card.x
        last, now = (COLUMNS * (k % (LOOK_EVERY + 1)) for k in (self._count - 1, self._count))
        self._count += 1
        self._rates.append(rate)
        launcher.reduce(_measure_point, x, g, *self.limits, self._previous, *self._tops)
        mean = (None, None)
        if self._average is not None:
            mean = self._average[1], x.dtype.type(1 / self._count)
        launcher.map(
            _keep_point, x, g, value, position, *self._tops, self._figures, last, now,
            *(view for _, view in self._best), *mean,
        )  # fmt: skip
        if self._keeps_every:
            self.every.append(duplicate(self._vectors.given))

    def look(self, control: NDArray[Any], recent: NDArray[Any], history: NDArray[Any]) -> int:
        """Bring the figures of the points since the last look to the host; return the run's status.

        The arguments are those of `numbelief._solve.stopping.review`.
        """
        rates, self._rates = np.array(self._rates), []
        if not rates.size:
            return RUNNING
        rows = np.arange(self._count - rates.size, self._count) % (LOOK_EVERY + 1)
        figures = self._card.host(self._figures).reshape(-1, COLUMNS)[rows]
        return int(stopping.compile_review()(figures, rates, control, recent, history))

    def point(self, which: int, g: Any) -> tuple[Any, Any]:
        """Copies of one of the points to return and of the gradient that is kept with it.

        ``g`` is the gradient at the last point.
        """
        x = self._card.x
        if which == stopping.BEST:
            (_, x), (_, g) = self._best
        elif which == stopping.AVERAGE and self._average is not None:
            _, x = self._average
        return self._vectors.export(x), self._vectors.export(g)
