"""The loop compiled whole, and many problems at once, beside JAX, PyTorch and SciPy."""

import os
import time
from functools import cache, partial

import numba
import numpy as np
import scipy.optimize

import numbelief
from numbelief import AdaBelief, minimize, minimize_many, per_row

from .common import Step, side_by_side

RATE = 1e-3
SIZES = (2, 10, 100, 1000)


@numba.njit(fastmath=True)  # the sum in any order, as XLA takes it
def rosenbrock(x, grad):
    """The sum of Rosenbrock's function over neighbouring coordinates."""
    value = before = 0.0
    for i in range(x.size - 1):
        gap = x[i + 1] - x[i] * x[i]
        value += 100 * gap * gap + (1 - x[i]) ** 2
        grad[i] = 200 * before - 400 * gap * x[i] - 2 * (1 - x[i])
        before = gap
    grad[x.size - 1] = 200 * before
    return value


@numba.njit
def value_and_gradient(x):
    grad = np.empty_like(x)
    return rosenbrock(x, grad), grad


def start(n: int) -> np.ndarray:
    return np.resize([-1.2, 1.0], n)


# ---- iterations at a fixed rate, each contestant a function of the number of iterations


def whole_loop(n: int):
    def run(iterations):
        options = {"maxiter": iterations, "gtol": 0.0}
        return minimize(rosenbrock, start(n), (), AdaBelief(RATE), "inplace", options=options)

    return run


def optax_loop(n: int):
    """jax.lax.while_loop around optax, compiled once, in float64."""
    jax = double_precision_jax()
    import optax

    rule = optax.adabelief(RATE)
    gradient = jax.grad(jax_rosenbrock)

    @jax.jit
    def loop(x, iterations):
        def body(carry):
            i, x, state = carry
            updates, state = rule.update(gradient(x), state, x)
            return i + 1, optax.apply_updates(x, updates), state

        return jax.lax.while_loop(lambda c: c[0] < iterations, body, (0, x, rule.init(x)))[1]

    return lambda iterations: jax.block_until_ready(loop(start(n), iterations))


def optax_loop_that_looks(n: int):
    """The same, doing what `minimize` does: the value, the best point, the end at gtol."""
    jax = double_precision_jax()
    import optax

    numpy = jax.numpy
    rule = optax.adabelief(RATE)
    value_and_gradient = jax.value_and_grad(jax_rosenbrock)

    @jax.jit
    def loop(x, iterations):
        value, gradient = value_and_gradient(x)

        def running(carry):
            i, _, gradient, *_ = carry
            return (i < iterations) & (abs(gradient).max() > 0.0)

        def body(carry):
            i, x, gradient, state, lowest, best = carry
            updates, state = rule.update(gradient, state, x)
            x = optax.apply_updates(x, updates)
            value, gradient = value_and_gradient(x)
            best = numpy.where(value < lowest, x, best)
            return i + 1, x, gradient, state, numpy.minimum(value, lowest), best

        return jax.lax.while_loop(running, body, (0, x, gradient, rule.init(x), value, x))[-1]

    return lambda iterations: jax.block_until_ready(loop(start(n), iterations))


def torch_loop(n: int):
    """The loop that one writes in PyTorch."""
    import torch

    torch.set_num_threads(1)

    def run(iterations):
        x = torch.tensor(start(n), requires_grad=True)
        optimizer = torch.optim.Adam([x], RATE)
        for _ in range(iterations):
            optimizer.zero_grad()
            a, b = x[:-1], x[1:]
            ((1 - a) ** 2 + 100 * (b - a**2) ** 2).sum().backward()
            optimizer.step()

    return run


def double_precision_jax():
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def jax_rosenbrock(x):
    a, b = x[:-1], x[1:]
    return ((1 - a) ** 2 + 100 * (b - a**2) ** 2).sum()


LOOPS = {
    "numbelief": whole_loop,
    "jax": optax_loop,
    "jax that looks": optax_loop_that_looks,
    "torch": torch_loop,
}


def nanoseconds(names: list[str], n: int, iterations: int, rounds: int) -> dict[str, np.ndarray]:
    """Time of an iteration of each loop, in turns: of a long run less that of a short one."""
    steps = {}
    counts = {}
    for name in names:
        run = LOOPS[name](n)
        counts[name] = count = 100 if name == "torch" else iterations
        steps[name, "long"] = partial(run, 11 * count)
        steps[name, "short"] = partial(run, count)
    seconds = side_by_side(steps, calls=1, rounds=rounds, pause=0)
    return {
        name: 1e9 * (seconds[name, "long"] - seconds[name, "short"]) / (10 * counts[name])
        for name in names
    }


# ---- a new objective


def new_objective() -> float:
    """Milliseconds of a first minimize call beyond a second, for a compiled objective."""

    @numba.njit
    def fresh(x, grad, scale):
        grad[:] = 2 * scale * x
        return scale * (x * x).sum()

    x0, grad = np.ones(3), np.empty(3)
    fresh(x0, grad, 2.0)

    def call():
        began = time.perf_counter()
        minimize(fresh, x0, (2.0,), jac="inplace", options={"maxiter": 3})
        return time.perf_counter() - began

    first = call()
    return 1e3 * (first - call())


# ---- many fits


def starts(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-2, 2, (count, 2))


def share_solved(x) -> float:
    return float((np.abs(np.asarray(x) - 1).max(axis=1) < 1e-3).mean())


def many_fits(X0):
    return minimize_many(rosenbrock, X0, jac="inplace", options={"gtol": 1e-6}).x


def scipy_fits(X0):
    options = {"gtol": 1e-6}
    call = scipy.optimize.minimize
    return [
        call(value_and_gradient, x0, jac=True, method="L-BFGS-B", options=options).x for x0 in X0
    ]


@cache
def vmapped(rate: float):
    """jax.vmap of a while_loop around optax that stops at gtol."""
    jax = double_precision_jax()
    import optax

    rule = optax.adabelief(rate)
    gradient = jax.grad(jax_rosenbrock)

    def solve(x):
        def body(carry):
            i, x, g, state = carry
            updates, state = rule.update(g, state, x)
            x = optax.apply_updates(x, updates)
            return i + 1, x, gradient(x), state

        def running(carry):
            return (carry[0] < 10_000) & (abs(carry[2]).max() > 1e-6)

        return jax.lax.while_loop(running, body, (0, x, gradient(x), rule.init(x)))[1]

    every = jax.jit(jax.vmap(solve))
    return lambda X0: jax.block_until_ready(every(X0))


@numba.njit
def decay(x, grad, t, y):
    """Squared misfit of x[0] exp(-x[1] t) + x[2] to a row of data."""
    value = 0.0
    grad[:] = 0
    for i in range(t.size):
        e = np.exp(-x[1] * t[i])
        residual = x[0] * e + x[2] - y[i]
        value += residual * residual
        grad[0] += 2 * residual * e
        grad[1] -= 2 * residual * x[0] * t[i] * e
        grad[2] += 2 * residual
    return value


@cache
def decays(count: int):
    random = np.random.default_rng(1)
    t = np.linspace(0, 3, 30)
    truth = random.uniform([0.5, 0.5, 0.0], [2.0, 3.0, 0.5], (count, 3))
    model = truth[:, :1] * np.exp(-truth[:, 1:2] * t) + truth[:, 2:]
    return t, model + 0.02 * random.standard_normal(model.shape)


def pixel_fits(count: int):
    t, Y = decays(count)
    return minimize_many(decay, np.ones((count, 3)), (t, per_row(Y)), jac="inplace")


def curve_fits(count: int):
    t, Y = decays(count)

    def model(t, a, k, c):
        return a * np.exp(-k * t) + c

    def jacobian(t, a, k, c):
        e = np.exp(-k * t)
        return np.stack([e, -a * t * e, np.ones_like(t)], axis=1)

    return [scipy.optimize.curve_fit(model, t, y, np.ones(3), jac=jacobian)[0] for y in Y]


def seconds_of(function, *arguments, rounds: int = 5) -> float:
    """The median time of a call, after a first one."""
    function(*arguments)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def with_threads(count: int, function: Step):
    """The same function on a number of threads."""

    def run():
        before = numba.get_num_threads()
        numba.set_num_threads(count)
        try:
            return function()
        finally:
            numba.set_num_threads(before)

    return run


def scaling(count: int = 10_000, rounds: int = 9) -> float:
    """How many times faster two threads solve many problems than one."""
    X0 = starts(count)
    steps = {n: with_threads(n, lambda: many_fits(X0)) for n in (1, 2)}
    seconds = side_by_side(steps, calls=1, rounds=rounds, pause=0)
    return float(np.median(seconds[1] / seconds[2]))


# ---- asv


class WholeLoop:
    """Nanoseconds an iteration of AdaBelief takes on Rosenbrock's function."""

    params = (SIZES,)
    param_names = ("n",)
    unit = "ns"

    def track_iteration(self, n):
        times = nanoseconds(["numbelief"], n, max(1000, 2_000_000 // (n + 20)), 9)
        return float(np.median(times["numbelief"]))


class NewObjective:
    """Milliseconds that an objective costs beyond its own compilation."""

    unit = "ms"

    def setup(self):
        new_objective()  # the loop itself

    def track_milliseconds(self):
        return float(np.median([new_objective() for _ in range(5)]))


class Many:
    """Seconds for ten thousand problems, and how they spread over two cores."""

    def setup(self):
        many_fits(starts(10))
        pixel_fits(10)

    def time_rosenbrock_10000(self):
        many_fits(starts(10_000))

    def time_decays_10000(self):
        pixel_fits(10_000)

    def track_scaling_1_to_2(self):
        return scaling()


class Automatic:
    """learning_rate="auto" from Rosenbrock's start to gtol."""

    params = (SIZES,)
    param_names = ("n",)

    def setup(self, n):
        self.x0 = start(n)
        self.time_minimize(n)

    def time_minimize(self, n):
        minimize(rosenbrock, self.x0, jac="inplace")

    def track_gradients(self, n):
        return numbelief.minimize(rosenbrock, self.x0, jac="inplace").nfev
