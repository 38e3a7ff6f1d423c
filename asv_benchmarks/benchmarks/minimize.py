"""minimize: what an iteration adds to the user's functions, first calls, compilation."""

import statistics
import tempfile

import scipy.optimize

import numbelief

from .common import first_call, iteration_overhead, rosenbrock, rosenbrock_gradient

START = [-1.2, 1.0]
OPTIONS = {"maxiter": 2000, "gtol": 0.0}


def run(**arguments):
    """2000 iterations of AdaBelief on Rosenbrock's function, in Python."""
    options = OPTIONS | arguments.pop("options", {})
    return numbelief.minimize(
        rosenbrock, START, (), numbelief.AdaBelief(1e-3), rosenbrock_gradient, options=options,
        **arguments,
    )  # fmt: skip


def lbfgsb():
    """SciPy's L-BFGS-B on the same, until it converges."""
    return scipy.optimize.minimize(rosenbrock, START, jac=rosenbrock_gradient, method="L-BFGS-B")


RUNS = {
    "numbelief": run,
    "numbelief, bounds": lambda: run(bounds=[(-2, 2)] * 2),
    "numbelief, callback": lambda: run(callback=lambda xk: None),
    "numbelief, history": lambda: run(options={"history": True}),
    "SciPy L-BFGS-B": lbfgsb,
}


class Overhead:
    """Microseconds an iteration at n = 2 costs beyond the user's own functions."""

    params = tuple(RUNS)
    param_names = ("run",)

    def track_microseconds(self, name):
        return iteration_overhead(RUNS[name])

    track_microseconds.unit = "µs"


class FirstCall:
    """Import and a first minimize call in a process of their own."""

    unit = "s"

    def setup(self):
        first_call()  # fills the cache

    def track_cached(self):
        return statistics.median(first_call()[0] for _ in range(3))

    def track_cached_beyond_numba(self):
        return statistics.median(first_call()[1] for _ in range(3))

    def track_compiling(self):
        """Seconds that compiling adds where nothing is cached."""
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = first_call(cache), first_call(cache)
        return cold[0] - warm[0]
