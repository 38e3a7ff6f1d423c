"""The search of the automatic rate on a GPU: `numbelief._solve.quasi_newton`, around launches."""

import functools
from typing import Any

import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.template import adopt
from numbelief._gpu.compile import IN_PYTHON
from numbelief._gpu.points import Points
from numbelief._gpu.problem import CardProblem
from numbelief._gpu.reductions import higher, top, total, total_of
from numbelief._gpu.vectors import CardVectors
from numbelief._solve import quasi_newton
from numbelief._solve.loop import search_template
from numbelief._solve.quasi_newton import (
    PAIRS,
    Method,
    at_each_coordinate,
    bind_method,
    factor_of,
)
from numbelief.optimizer import Optimizer

# ---- kernels -----------------------------------------------------------------------------------


def _multiply(a, b, sums):
    """Each block's part of an inner product."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    mine = 0.0
    i = cuda.grid(1)
    while i < a.size:
        mine += np.float64(a[i]) * b[i]
        i += cuda.gridsize(1)
    mine = total(mine, shared)
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x] = mine


def _deflect(a, by, sums, k, product, alphas, second):
    """What `quasi_newton.deflect_template` does, after the launch of its inner product."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    # Each block concludes for itself; what the first loop notes, it does not read.
    factor = a.dtype.type(-factor_of(total_of(sums, shared), k, product, alphas, second))
    i = cuda.grid(1)
    while i < a.size:
        a[i] += factor * by[i]
        i += cuda.gridsize(1)


def _measure_trial(direction, x, g, x0, slopes, tops, moves):
    """Each block's part of what `quasi_newton.measure_template` finds."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    slope = 0.0
    steepest = moved = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        slope += np.float64(direction[i]) * g[i]
        steepest = higher(steepest, abs(g[i]))
        moved = higher(moved, abs(x[i] - x0[i]))
        i += cuda.gridsize(1)
    slope, moved = total(slope, shared), top(moved, shared)
    steepest = top(steepest, shared)
    if cuda.threadIdx.x == 0:
        slopes[cuda.blockIdx.x], tops[cuda.blockIdx.x] = slope, steepest
        moves[cuda.blockIdx.x] = moved


# ---- the search --------------------------------------------------------------------------------


class CardSearch:
    """The search of `numbelief._solve.quasi_newton`, around launches.

    A trial brings its fun and two results of reductions to the host, which decides on them; the
    recursion over the last steps brings none.

    Parameters
    ----------
    optimizer, queue, problem, points
        What takes the steps, queues them, evaluates and observes.
    scaled : bool
        As `numbelief._solve.quasi_newton.new_memory` takes it.

    Attributes
    ----------
    g : device array of shape (n,)
        The gradient: the method writes to it, which it may not to the user's.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        queue: Any,
        problem: CardProblem,
        points: Points,
        *,
        scaled: bool,
    ) -> None:
        vectors = optimizer.vectors
        assert isinstance(vectors, CardVectors)
        self._queue, self._problem, self._points = queue, problem, points
        self._vectors, self._launcher = vectors, vectors.launcher
        card, launcher = vectors.card, vectors.launcher
        x = card.x
        empty = quasi_newton.new_memory(np.empty(0, x.dtype), on=True, scaled=scaled)
        rows = 1 + 2 + 2 * PAIRS
        self.g, *rest = (card.vector() for _ in range(rows))
        # Python writes to the fields of a record by name in this form only.
        self._memory = empty._replace(
            search=empty.search.view(np.recarray),
            base=rest[:2],
            pairs=rest[2:],
            alphas=card.array(empty.alphas),
        )
        # Three results of each block, side by side, so that they cross over together.
        self._found, parts = card.array(np.zeros(3 * launcher.parts)), launcher.parts
        self._results = tuple(self._found[k * parts : (k + 1) * parts] for k in range(3))
        lower, upper = points.limits
        at = at_each_coordinate(bounded=lower is not None)
        method = bind_method(
            {
                **{name: functools.partial(launcher.each, each) for name, each in at.items()},
                "dot": self._dot,
                "deflect": self._deflect,
                "measure": self._measure,
                "copy": vectors.put,
                "largest": vectors.largest,
                "length_of_move": self._length,
                "take_step": self._step,
            },
            projected=False,
        )
        names = IN_PYTHON | {"fill": self._fill}
        quietly = np.errstate(all="ignore")  # as in compiled code
        propose, judge = (
            quietly(adopt(function, lambda function: function, **names))
            for function in method.values()
        )
        state = optimizer.step_state
        self._state = state._replace(timestep=state.timestep.view(np.recarray))
        self._region = optimizer.region._replace(lower=lower, upper=upper)
        #: What a run is continued from, by its names in a file.
        self.kept = {"g": self.g, **self._memory._asdict()}
        self._parts = {"propose": propose, "judge": judge}

    def evaluate(self) -> float:
        """Return fun at x, and let g be the gradient there."""
        fun = self._problem.value_and_gradient()
        self._vectors.put(self._problem.gradient, self.g)
        return fun

    def run(self, rates: NDArray[np.float64], *figures: NDArray[Any]) -> int:
        """Take a step for each rate, unless a point ends the run; see `Points.look`."""

        def observe(fun: Any, rate: Any, x: Any, g: Any, _: Any) -> int:
            self._points.note(fun, None, rate, g)
            return self._points.look(*figures)

        search = search_template(
            evaluate=lambda x, g, objective: self.evaluate(), observe=observe, **self._parts
        )
        x, record = self._vectors.x, self._memory.search
        method = Method(None, x, self.g, self._state, self._region, self._memory)
        return int(search(rates, x, self.g, figures[0], record, method, None, None))

    def _step(self, x, g, rate, step):
        self._queue(g, float(rate))

    def _fill(self, arrays, value):
        for array in arrays:
            self._vectors.fill(array, value)

    def _reduce(self, template, *arguments):
        """What the blocks found: three rows, of which a product fills one."""
        results = self._results[: 1 if template is _multiply else 3]
        self._launcher.reduce(template, *arguments, *results)
        return self._vectors.card.host(self._found).reshape(3, -1)

    def _dot(self, a, b):
        return float(self._reduce(_multiply, a, b)[0].sum())

    def _measure(self, direction, x, g, x0):
        slopes, tops, moves = self._reduce(_measure_trial, direction, x, g, x0)
        return float(slopes.sum()), float(tops.max()), moves.max() != 0

    def _length(self, x, x0, last_step):
        return self._reduce(_measure_trial, x, x, x, x0)[2].max()

    def _deflect(self, a, along, by, k, product, alphas, second):
        sums = self._results[0]
        self._launcher.reduce(_multiply, along, a, sums)
        self._launcher.map(_deflect, a, by, sums, k, product, alphas, int(second))
