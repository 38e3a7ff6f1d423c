"""Memory of a step beyond the arrays it works on: x, the gradient and the slots."""

import resource
import sys
import tracemalloc

from numbelief import Optimizer, minimize
from numbelief.rules import Rule

from .common import RATE, numbers

# ru_maxrss counts KiB, but bytes on macOS.
UNIT = 1 if sys.platform == "darwin" else 1024
N = 10_000_000


def peak_bytes():
    """The largest memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


class Extra:
    """Bytes per element of a step at n = 10⁷ float32; a temporary array would show as 4."""

    params = (tuple(Rule.registry), ("serial", "parallel"))
    param_names = ("rule", "target")
    unit = "B/element"

    def setup(self, rule, target):
        rule = Rule.registry[rule](RATE)
        few = 1 << 16  # the same kernels
        Optimizer(rule, numbers(few), target=target).step(numbers(few))
        self.g = numbers(N, seed=1)
        self.optimizer = Optimizer(rule, numbers(N), target=target)
        for slot in self.optimizer.state.values():
            slot.fill(0)  # fresh zeros take no memory before they are touched

    def track_process(self, rule, target):
        """All memory, by the peak of the process."""
        before = peak_bytes()
        self.optimizer.step(self.g)
        return (peak_bytes() - before) / N

    def track_numpy(self, rule, target):
        """What NumPy and Python allocated."""
        tracemalloc.start()
        self.optimizer.step(self.g)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / N


class Peak:
    """Peak memory of a whole run: x, gradient, two slots, the best point and the user's copies."""

    def peakmem_minimize(self):
        x0 = numbers(N)
        minimize(
            lambda x: (0.5 * float(x @ x), x),
            x0,
            jac=True,
            options={"maxiter": 5},
        )
