"""The compiled steps: every rule at every size, memory speed, where threads pay, denormals."""

from functools import partial

import numpy as np

from numbelief import LAMB, SGD, AdaBelief, Adam, Lookahead, Optimizer
from numbelief._compile.threads import RELEASE_GIL_FROM
from numbelief._step.call import StoredStep
from numbelief.rules import Rule

from .common import RATE, Step, numbers, ratio, side_by_side, traffic_step

# The least number of elements that a timed function steps.
WORK = 1_000_000


def kernel_step(rule, n, dtype="float32", target="parallel"):
    """One call of a compiled step, after a first one that compiles it."""
    optimizer = Optimizer(rule, numbers(n, dtype), target=target)
    parallel = target == "parallel"
    nogil = parallel or n >= RELEASE_GIL_FROM
    state, options = optimizer.step_state, optimizer.step_options
    stored = StoredStep(optimizer.kind, state, options, optimizer.x.dtype)
    kernel = stored.checked(optimizer.x, parallel=parallel, nogil=nogil)
    step = partial(kernel, numbers(n, dtype, seed=1), optimizer.rates(1)[0])
    step()
    return step


class Kernels:
    """Steps of at least 10⁶ elements in total; Crossover has the small sizes."""

    params = (
        tuple(Rule.registry),
        (100_000, 10_000_000),
        ("float32", "float64"),
        ("serial", "parallel"),
    )
    param_names = ("rule", "n", "dtype", "target")

    def setup(self, rule, n, dtype, target):
        self.calls = range(max(1, WORK // n))
        self.step = kernel_step(Rule.registry[rule](RATE), n, dtype, target)

    def time_steps(self, rule, n, dtype, target):
        for _ in self.calls:
            self.step()


STEPS = {
    "memory limit": traffic_step,
    "adabelief": partial(kernel_step, AdaBelief(RATE)),
    "adam": partial(kernel_step, Adam(RATE)),
}


def large_steps(names, dtype="float32", n=20_000_000):
    """Seconds per step, far beyond the caches."""
    steps = {name: STEPS[name](n, dtype) for name in names}
    return n, side_by_side(steps, calls=3, rounds=7)


class Bandwidth:
    """Memory speed: four arrays read, three written."""

    params = (tuple(STEPS), ("float32", "float64"))
    param_names = ("step", "dtype")
    unit = "GB/s"

    def track_gigabytes(self, step, dtype):
        n, seconds = large_steps([step], dtype)
        return 7 * np.dtype(dtype).itemsize * n / float(np.median(seconds[step])) / 1e9


class Limit:
    """Time of a float32 step over that of the same traffic with trivial arithmetic."""

    params = ("adabelief", "adam")
    param_names = ("step",)
    unit = "ratio"

    def track_time_over_limit(self, step):
        return ratio(large_steps([step, "memory limit"])[1], step, "memory limit")


INNER = {"adabelief": AdaBelief(RATE), "adam": Adam(RATE), "sgd": SGD(RATE)}


def lookahead_steps(rule: str, n: int) -> dict[str, Step]:
    """A step of a rule, alone and with Lookahead."""
    inner = INNER[rule]
    return {
        "inner": kernel_step(inner, n),
        "lookahead": kernel_step(Lookahead(inner, k=5), n),
    }


class LookaheadStep:
    """Time of a float32 step with Lookahead, averaged over k = 5, over that of its inner rule.

    Must reach: 1.15 with AdaBelief and Adam. Plain SGD moves three arrays instead of seven, so that
    the slow weights weigh more there.
    """

    params = tuple(INNER)
    param_names = ("rule",)
    unit = "ratio"
    n = 20_000_000

    def track_time_over_inner(self, rule):
        steps = lookahead_steps(rule, self.n)
        # Any five steps in a row synchronize once.
        return ratio(side_by_side(steps, calls=5, rounds=9), "lookahead", "inner")


class Crossover:
    """Where threads begin to pay: `numbelief._compile.threads.PARALLEL_FROM` is read off this."""

    params = (
        (1_000, 10_000, 100_000, 300_000, 1_000_000, 10_000_000),
        ("serial", "parallel", "auto"),
    )
    param_names = ("n", "target")

    def setup(self, n, target):
        self.calls = range(max(1, WORK // n))
        self.g = numbers(n, seed=1)
        self.optimizer = Optimizer(AdaBelief(RATE), numbers(n), target=target)
        self.optimizer.step(self.g)

    def time_steps(self, n, target):
        for _ in self.calls:
            self.optimizer.step(self.g)


# Without a stored epsilon the belief itself sinks.
RULES = {name: Rule.registry[name](RATE) for name in ("momentum", "rmsprop", "adam", "adamax")}
RULES["adabelief"] = AdaBelief(RATE, eps_root=0.0)
RULES["lamb"] = LAMB(RATE)


class Denormals:
    """Time of a step after 10⁵ steps along a zero gradient, over that of a first step."""

    n = RELEASE_GIL_FROM  # the kernels of the larger sizes
    params = tuple(RULES)
    param_names = ("rule",)

    def track_time_over_first(self, rule):
        first, late = (Optimizer(RULES[rule], numbers(self.n)) for _ in range(2))
        g, zero = numbers(self.n, seed=1), np.zeros(self.n, "float32")
        late.step(g)
        for _ in range(100_000):
            late.step(zero)
        steps = {"first": lambda: first.step(g), "late": lambda: late.step(zero)}
        return ratio(side_by_side(steps, calls=100, rounds=15), "late", "first")

    track_time_over_first.unit = "ratio"
