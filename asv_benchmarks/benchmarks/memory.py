"""Memory of a step beyond the arrays it works on: x, the gradient and the slots."""

import resource
import sys

from numbelief import AdaBelief, Optimizer, minimize
from numbelief.rules import Rule

from .common import RATE, numbers

# ru_maxrss counts KiB, but bytes on macOS.
UNIT = 1 if sys.platform == "darwin" else 1024
N = 10_000_000


def peak_bytes():
    """The largest memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


class Extra:
    """By how much a step raises the peak of the process; a temporary array would be 4 B/element.

    At n = 10⁷, float32.
    """

    params = tuple(Rule.registry)
    param_names = ("rule",)
    unit = "B/element"

    def setup(self, rule):
        rule = Rule.registry[rule](RATE)
        few = 1 << 16  # the same kernels
        Optimizer(rule, numbers(few), target="parallel").step(numbers(few))
        self.g = numbers(N, seed=1)
        self.optimizer = Optimizer(rule, numbers(N), target="parallel")
        for slot in self.optimizer.state.values():
            slot.fill(0)  # fresh zeros take no memory before they are touched

    def track_extra(self, rule):
        before = peak_bytes()
        self.optimizer.step(self.g)
        return (peak_bytes() - before) / N


class Peak:
    """Peak memory of a whole run: x, gradient, two slots, the best point and the user's copies."""

    def peakmem_minimize(self):
        x0 = numbers(N)
        minimize(
            lambda x: (0.5 * float(x @ x), x),
            x0,
            method=AdaBelief(RATE),
            jac=True,
            options={"maxiter": 5},
        )
