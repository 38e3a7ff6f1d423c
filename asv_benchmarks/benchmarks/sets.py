"""Projections onto feasible sets, beside a sort and a pass over memory."""

import numpy as np

from numbelief.sets import (
    Affine,
    Ball,
    Box,
    BoxHyperplane,
    HalfSpace,
    Intersection,
    L1Ball,
    Product,
    Simplex,
)

from .common import ratio, side_by_side

# The least number of coordinates that a timed function projects.
WORK = 1_000_000

SETS = {
    "box": lambda n: Box(-0.5, 0.5),
    "ball": lambda n: Ball(0.5 * np.sqrt(n)),
    "l1 ball": lambda n: L1Ball(0.3 * n),
    "simplex": lambda n: Simplex(),
    "half-space": lambda n: HalfSpace(np.ones(n), -1.0),
    "affine": lambda n: Affine(np.ones((1, n)), 1.0),
    "box and hyperplane": lambda n: BoxHyperplane(-0.5, 0.5, np.ones(n), 0.1 * n),
    "product": lambda n: Product([Simplex(), Ball()], [n // 2, n - n // 2]),
    "intersection": lambda n: Intersection(Box(-0.5, 0.5), Ball(0.4 * np.sqrt(n))),
}
METRICS = {
    "none": lambda n: np.ones(n),
    "mild": lambda n: 10 ** np.random.default_rng(1).uniform(-2, 2, n),
    "extreme": lambda n: 10 ** np.random.default_rng(1).uniform(-16, 16, n),
}


def point(n, dtype="float64"):
    return np.random.default_rng(0).standard_normal(n).astype(dtype)


class Projections:
    """In place, as loops project: at least 10⁶ coordinates in total."""

    params = (tuple(SETS), (10, 1_000, 1_000_000), ("float32", "float64"), tuple(METRICS))
    param_names = ("set", "n", "dtype", "metric")

    def setup(self, name, n, dtype, metric):
        self.y = point(n, dtype)
        self.x = self.y.copy()
        weights = METRICS[metric](n)
        self.steps = (weights.min() / weights).astype(dtype)
        self.projector = SETS[name](n).projector(n, dtype)
        self.calls = range(max(1, WORK // n if name != "intersection" else WORK // n // 100))
        self.projector(self.x, self.steps)

    def time_projections(self, name, n, dtype, metric):
        for _ in self.calls:
            self.x[:] = self.y
            self.projector(self.x, self.steps)


class Limits:
    """`project` over a sort of the same array (the ball: over a copy of it), n = 10⁶, float64."""

    params = (("ball", "l1 ball", "simplex"), tuple(METRICS))
    param_names = ("set", "metric")
    unit = "ratio"

    def track_ratio(self, name, metric):
        n = 1_000_000
        y, feasible_set = point(n), SETS[name](n)
        weights = None if metric == "none" else METRICS[metric](n)
        steps = {
            "project": lambda: feasible_set.project(y, weights),
            "other": y.copy if name == "ball" else lambda: np.sort(y),
        }
        return ratio(side_by_side(steps, calls=3, rounds=5), "project", "other")
