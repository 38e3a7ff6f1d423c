"""Check every rule on the GPU, then compare steps with PyTorch, optax, CuPy and a copy.

    python asv_benchmarks/benchmarks/gpu.py [--quick] [--sizes 1e4 1e6 1e8 1e9]

Needs an NVIDIA GPU, numba-cuda and the tests' folder beside it; prints one Markdown table. First
each rule takes steps on random data in float32 and float64 beside the float64 oracle of the tests,
options and the arrays of PyTorch and CuPy beside the CPU. Then the contestants step float32 arrays,
one after the other: medians, timed by events on the device; optax by the host's clock over 10 steps
and one wait, since JAX has streams of its own. At small n an event sees how long a launch takes,
not how long its kernel does. Peers that are not installed, or have no room for a size, are left
out. GB/s counts what a step must read and write.
"""

import argparse
import contextlib
import gc
import importlib.util
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # as asv does

import numbelief
from benchmarks.common import Step, numbers

RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
BETAS = {"beta1": BETA1, "beta2": BETA2}
SIZES = (1e4, 1e5, 1e6, 1e7, 1e8, 1e9)


# ---- correctness


def check_rules(gpu, steps: int = 20) -> int:
    """Each rule and option of the tests beside the float64 oracle; how many there were."""
    import cases

    for name, rule in cases.CASES:
        for dtype in (np.float32, np.float64):
            x = cases.start(dtype=dtype)
            oracle = cases.oracle(rule, x.astype(np.float64))
            there = gpu.to_device(x)
            optimizer = numbelief.Optimizer(rule, there)
            way = np.abs(oracle.x)
            for g in cases.gradients("ordinary", steps=steps, dtype=dtype):
                before = oracle.x
                oracle.step(g.astype(np.float64))
                optimizer.step(gpu.to_device(g))
                way = way + np.abs(oracle.x - before)
            error = np.max(np.abs(there.copy_to_host() - oracle.x) / (way + 1e-30))
            # Where a slot is a difference of nearly equal numbers, float32 keeps few digits.
            if not error <= (1e-2 if dtype is np.float32 else 1e-11):
                sys.exit(f"{name} in {dtype.__name__} is wrong: relative error {error:.2g}")
    return 2 * len(cases.CASES)


# More than a GPU runs at once, so that its threads take several turns.
MANY = 5_000_001
# Each of these takes its own way through the kernels.
OPTIONS = {
    "bounds": (numbelief.AdaBelief(RATE), {"feasible_set": numbelief.sets.Box(-0.1, 0.3)}),
    "max_norm": (numbelief.AdaBelief(RATE), {"max_norm": 1.0}),
    "max_value": (numbelief.AdaBelief(RATE), {"max_value": 0.1}),
    "Lookahead": (numbelief.Lookahead(numbelief.AdaBelief(RATE), 3), {}),
    "schedule": (numbelief.AdaBelief(numbelief.schedules.inverse_sqrt(RATE)), {}),
    "rates": (numbelief.AdaBelief(np.linspace(0, RATE, MANY)), {}),
    "segments": (numbelief.LAMB(RATE, segments=(0, 1, 5_000)), {"max_norm": 1.0}),
}


def check_options(gpu, steps: int = 20) -> int:
    """Options beside the CPU; how many there were."""
    x0 = numbers(MANY)
    for name, (rule, options) in OPTIONS.items():
        here, there = x0.copy(), gpu.to_device(x0)
        one, other = (numbelief.Optimizer(rule, x, **options) for x in (here, there))
        for seed in range(steps):
            g = numbers(x0.size, seed=seed)
            one.step(g)
            other.step(gpu.to_device(g))
        agree(name, there.copy_to_host(), here)
    return len(OPTIONS)


def in_torch(x0: np.ndarray, steps: int) -> np.ndarray:
    """Steps on a tensor, on a stream that is not the default one."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.tensor(x0, device="cuda")
        optimizer = numbelief.Optimizer(numbelief.AdaBelief(RATE), x)
        for _ in range(steps):
            optimizer.step(x * 2)
    stream.synchronize()
    return x.cpu().numpy()


def in_cupy(x0: np.ndarray, steps: int) -> np.ndarray:
    """The same in CuPy, on a stream that is named."""
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x = cupy.asarray(x0)
        optimizer = numbelief.Optimizer(numbelief.AdaBelief(RATE), x, stream=stream)
        for _ in range(steps):
            optimizer.step(x * 2)
    stream.synchronize()
    return cupy.asnumpy(x)


def check_libraries(steps: int = 50) -> list[str]:
    """Steps in place on the arrays of others; whose there were."""
    x0 = numbers(100_003)
    here = x0.copy()
    optimizer = numbelief.Optimizer(numbelief.AdaBelief(RATE), here)
    for _ in range(steps):
        optimizer.step(here * 2)
    libraries = {"torch": in_torch, "cupy": in_cupy}
    found = []
    for name in filter(importlib.util.find_spec, libraries):
        try:
            there = libraries[name](x0, steps)
        except Exception as error:  # such as a PyTorch without CUDA
            print(f"{name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        agree(name, there, here)
        found.append(name)
    return found


def agree(name: str, there: np.ndarray, here: np.ndarray) -> None:
    """Leave, if the GPU is further from the CPU than rounding explains."""
    error = np.max(np.abs(there - here))
    if not error <= 1e-5:
        sys.exit(f"{name} is wrong: {error:.2g} away from the CPU")


# ---- contestants: a function of the GPU and n that returns the step


def numbelief_step(rule: numbelief.Rule, gpu, n: int) -> Step:
    x, g = (gpu.to_device(numbers(n, seed=seed)) for seed in (0, 1))
    return partial(numbelief.Optimizer(rule, x).step, g)


def copy_step(gpu, n: int) -> Step:
    from numba.cuda.cudadrv.driver import device_to_device

    source, target = (gpu.to_device(numbers(n, seed=seed)) for seed in (0, 1))
    # What `copy_to_device` does besides would show in the time.
    return partial(device_to_device, target, source, source.nbytes)


def torch_parameter(n: int):
    import torch

    parameter = torch.nn.Parameter(torch.tensor(numbers(n), device="cuda"))
    parameter.grad = torch.tensor(numbers(n, seed=1), device="cuda")
    return parameter


def torch_adam(options: dict[str, bool], gpu, n: int) -> Step:
    import torch

    return torch.optim.Adam([torch_parameter(n)], RATE, (BETA1, BETA2), EPS, **options).step


def torch_adabelief(gpu, n: int) -> Step:
    """As PyTorch's own optimizers write it with ``foreach=True``."""
    import torch

    parameter = torch_parameter(n)
    x, g = [parameter.detach()], [parameter.grad]
    m, s = [torch.zeros_like(x[0])], [torch.zeros_like(x[0])]
    t = 0

    def step():
        nonlocal t
        t += 1
        torch._foreach_lerp_(m, g, 1 - BETA1)
        residual = torch._foreach_sub(g, m)
        torch._foreach_mul_(s, BETA2)
        torch._foreach_addcmul_(s, residual, residual, 1 - BETA2)
        torch._foreach_add_(s, EPS)
        root = torch._foreach_div(s, 1 - BETA2**t)
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, EPS)
        torch._foreach_addcdiv_(x, m, root, -RATE / (1 - BETA1**t))

    return step


def official_adabelief(gpu, n: int) -> Step:
    """The package of AdaBelief's authors."""
    from adabelief_pytorch import AdaBelief

    with contextlib.redirect_stdout(sys.stderr):  # it prints its options
        return AdaBelief(
            [torch_parameter(n)], RATE, (BETA1, BETA2), EPS, rectify=False, print_change_log=False
        ).step


def optax_adabelief(gpu, n: int) -> Step:
    """Jitted, with parameters and state donated, so that they may be updated in place."""
    import jax
    import optax

    if jax.default_backend() != "gpu":
        raise ImportError("this JAX has no GPU")
    rule = optax.adabelief(RATE, BETA1, BETA2, eps=EPS, eps_root=EPS)
    x, g = jax.numpy.array(numbers(n)), jax.numpy.array(numbers(n, seed=1))
    state = rule.init(x)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(x, state, g):
        updates, state = rule.update(g, state, x)
        return optax.apply_updates(x, updates), state

    def step():
        nonlocal x, state
        x, state = update(x, state, g)
        return x

    return step


def cupy_adabelief(gpu, n: int) -> Step:
    """One fused elementwise kernel."""
    import cupy

    kernel = cupy.ElementwiseKernel(
        "T g, T rate, T inverse, T beta1, T rest1, T beta2, T rest2, T eps", "T x, T m, T s",
        "m = beta1 * m + rest1 * g; s = beta2 * s + rest2 * (g - m) * (g - m) + eps;"
        "x -= rate * m / (sqrt(s * inverse) + eps)", "adabelief",
    )  # fmt: skip
    x, g = cupy.asarray(numbers(n)), cupy.asarray(numbers(n, seed=1))
    m, s = cupy.zeros_like(x), cupy.zeros_like(x)
    t = 0

    def step():
        nonlocal t
        t += 1
        f = np.float32
        kernel(
            g, f(RATE / (1 - BETA1**t)), f(1 / (1 - BETA2**t)),
            f(BETA1), f(1 - BETA1), f(BETA2), f(1 - BETA2), f(EPS), x, m, s,
        )  # fmt: skip

    return step


OURS = "numbelief AdaBelief"
COPY = "device-to-device copy"
FUSED = "`torch.optim.Adam(fused=True)`"
# What each needs installed, its bytes per coordinate, and itself. A step of two slots reads four
# arrays and writes three.
CONTESTANTS: dict[str, tuple[str, int, Callable[..., Step]]] = {
    OURS: (
        "numba",
        28,
        partial(numbelief_step, numbelief.AdaBelief(RATE, **BETAS, eps=EPS, eps_root=EPS)),
    ),
    "numbelief Adam": (
        "numba",
        28,
        partial(numbelief_step, numbelief.Adam(RATE, **BETAS, eps=EPS)),
    ),
    COPY: ("numba", 8, copy_step),
    FUSED: ("torch", 28, partial(torch_adam, {"fused": True})),
    "`torch.optim.Adam(foreach=True)`": ("torch", 28, partial(torch_adam, {"foreach": True})),
    "AdaBelief, PyTorch foreach": ("torch", 28, torch_adabelief),
    "AdaBelief, adabelief-pytorch": ("adabelief_pytorch", 28, official_adabelief),
    "AdaBelief, jitted optax": ("optax", 28, optax_adabelief),
    "AdaBelief, CuPy elementwise": ("cupy", 28, cupy_adabelief),
}


# ---- timing


def on_device(gpu, step: Step, rounds: int) -> float:
    """Median seconds of a step, between two events on the default stream."""
    for _ in range(3):
        step()
    pairs = [(gpu.event(), gpu.event()) for _ in range(rounds)]
    for began, ended in pairs:
        began.record()
        step()
        ended.record()
    gpu.synchronize()
    return statistics.median(gpu.event_elapsed_time(*pair) for pair in pairs) / 1e3


def on_host(gpu, step: Step, rounds: int, calls: int = 10) -> float:
    """Median seconds of a step, of several that are waited for together."""
    seconds = []
    for _ in range(1 + rounds):  # the first compiles
        began = time.perf_counter()
        for _ in range(calls):
            result = step()
        result.block_until_ready()
        seconds.append((time.perf_counter() - began) / calls)
    return statistics.median(seconds[1:])


def measure(gpu, name: str, n: int, rounds: int) -> float | None:
    """Median seconds of a step, or None where a peer is missing or has no room."""
    needs, _, setup = CONTESTANTS[name]
    if importlib.util.find_spec(needs) is None:
        return None
    try:
        clock = on_host if needs == "optax" else on_device
        return clock(gpu, setup(gpu, n), rounds)
    except Exception as error:
        print(f"{name} at n = {n:g} is left out: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    finally:
        give_back(gpu)


def give_back(gpu) -> None:
    """Return to the GPU what the libraries keep of freed memory, for the next contestant."""
    gc.collect()
    gpu.current_context().memory_manager.deallocations.clear()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


def _nothing(
    x, g, slots, values, clip, most, keep, l2, lower, upper, scale, slow, weight, phase,
):  # fmt: skip
    """A kernel with the arguments of a step."""


def overhead(gpu, n: int = 1000, calls: int = 2000) -> tuple[float, float]:
    """Seconds of the host for a step, and for a launch of an empty kernel with its arguments."""
    from numbelief._gpu.compile import compile_kernel, kind_of
    from numbelief._gpu.launch import THREADS, configured
    from numbelief._gpu.step import StepLauncher

    launched = []
    step = numbelief_step(numbelief.AdaBelief(RATE), gpu, n)
    with mock.patch.object(StepLauncher, "_launch", lambda self, *given: launched.append(given)):
        step()
    _, blocks, *arguments = launched[0]
    kernel = compile_kernel(_nothing, tuple(map(kind_of, arguments)))
    empty = partial(configured(kernel, blocks, THREADS), *arguments)

    def seconds(call: Step) -> float:
        call()
        found = []
        for _ in range(15):
            gpu.synchronize()
            began = time.perf_counter()
            for _ in range(calls // 15):
                call()
            gpu.synchronize()
            found.append((time.perf_counter() - began) / (calls // 15))
        return statistics.median(found)

    return seconds(step), seconds(empty)


# ---- the table


def report(gpu, sizes: list[int], rounds: int) -> None:
    """Print everything."""
    name = gpu.get_current_device().name
    print(f"On {name.decode() if isinstance(name, bytes) else name}.")
    print(f"{check_rules(gpu)} rules with their options and dtypes agree with the oracle,")
    print(f"{check_options(gpu)} other options with the CPU,")
    print(f"arrays on streams of their own: {', '.join(check_libraries()) or 'none installed'}.\n")

    times: dict[tuple[str, int], float] = {}
    print("| float32 step: ms (GB/s) | " + " | ".join(f"n = {n:.0e}" for n in sizes) + " |")
    print("|---|" + "---:|" * len(sizes))
    for contestant, (_, width, _) in CONTESTANTS.items():
        cells = []
        for n in sizes:
            seconds = measure(gpu, contestant, n, rounds)
            if seconds is None:
                cells.append("-")
                continue
            times[contestant, n] = seconds
            cells.append(f"{seconds * 1e3:.4f} ({width * n / seconds / 1e9:.0f})")
        if set(cells) != {"-"}:
            print(f"| {contestant} | " + " | ".join(cells) + " |")

    step, empty = overhead(gpu)
    print(
        f"\nOverhead at n = 1000: {step * 1e6:.1f} µs a step, {empty * 1e6:.1f} µs a launch of an"
    )
    print(f"empty kernel with the same arguments: {step / empty:.2f} times (at most 2.5).")
    for n in sizes:
        ours, limit = times.get((OURS, n)), times.get((COPY, n))
        if n < 1e8 or ours is None or limit is None:
            continue
        print(f"\nAt n = {n:.0e}:")
        print(f"- of the copy's bandwidth: {28 / ours / (8 / limit):.1%} (at least 90 %)")
        if (FUSED, n) in times:
            print(f"- times fused Adam: {ours / times[FUSED, n]:.3f} (at most 1.03)")
        for other in CONTESTANTS:
            if other.startswith("AdaBelief, ") and (other, n) in times:
                wanted = "" if "CuPy" in other else " (at least 3)"
                print(f"- faster than {other}: {times[other, n] / ours:.2f} times{wanted}")


def main() -> None:
    """Find the GPU and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small arrays, few rounds")
    parser.add_argument("--sizes", nargs="+", type=float, default=SIZES, metavar="N")
    parser.add_argument("--rounds", type=int, default=50, help="steps per median")
    chosen = parser.parse_args()
    try:
        from numbelief._gpu.compile import SIMULATED, load

        gpu = load()
    except RuntimeError as error:
        sys.exit(str(error))
    if SIMULATED:
        sys.exit("the simulator has no speed to measure: unset NUMBA_ENABLE_CUDASIM")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX leaves room for others
    sizes = [10_000] if chosen.quick else [int(n) for n in chosen.sizes]
    report(gpu, sizes, 5 if chosen.quick else chosen.rounds)


if __name__ == "__main__":
    main()
