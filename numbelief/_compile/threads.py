"""Where threads are safe, and where they pay."""

import functools
import os
import threading
from collections.abc import Callable, Generator
from statistics import median
from time import perf_counter
from typing import Any

import numba

# From this size on "auto" steps in parallel: where two idle cores are about even with one, 25 µs
# (asv_benchmarks/benchmarks/kernels.py, Crossover). Beside busy processes, threads pay later.
PARALLEL_FROM = int(os.environ.get("NUMBELIEF_PARALLEL_FROM", 1 << 15))
# From this size on a kernel releases the GIL. Below, waiting to take it back costs more than the
# step: another thread may hold it for its whole 5 ms turn.
RELEASE_GIL_FROM = 1 << 14

_forked_after_threads = False


def _after_fork() -> None:
    global _forked_after_threads
    try:
        numba.threading_layer()
    except ValueError:  # no thread was ever launched: the child may launch its own
        return
    _forked_after_threads = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Iterations before the first trial; how much longer the way to the next is, if one changes nothing;
# iterations of each kind that are compared.
FIRST, LONGER, COMPARED = 16, 4, 5


def are_safe() -> bool:
    """Whether a parallel kernel may run here and now.

    Not in a child forked after threads were launched (GNU OpenMP kills it), and not beside other
    Python threads under Numba's workqueue layer (concurrent calls abort the process).
    """
    if _forked_after_threads or numba.get_num_threads() == 1:  # this also launches the threads
        return False
    return numba.threading_layer() in ("omp", "tbb") or threading.active_count() == 1


def _choices(first: float) -> Generator[bool, float, None]:
    """For each iteration, whether it is to use threads; in return, how long it took.

    The bits are the same. But threads need not pay where another library has its own: OpenBLAS's
    wait busily for 25 ms after each product of matrices, and OpenMP's after each step, for the same
    cores. On two cores a product of size 400 and a step on 1.8e6 numbers took 7.2 ms with threads,
    4.5 ms without (``asv_benchmarks/benchmarks/stochastic.py``, Beside). So a few iterations of the
    other kind are tried now and then. What counts is all of an iteration, and the majority: now and
    then one does more than the others.
    """
    parallel, rest = True, first
    while True:
        left = rest
        while left > 0:
            left -= 1
            yield parallel
        usual = []
        for _ in range(COMPARED):
            usual.append((yield parallel))
        yield not parallel  # it may compile, and finds cold caches
        votes = {True: 0, False: 0}
        while max(votes.values()) <= COMPARED // 2:
            seconds = yield not parallel
            votes[seconds < median(usual)] += 1
        if votes[True] > votes[False]:
            parallel, rest = not parallel, first
        else:
            rest *= LONGER


def paced(
    compile: Callable[[bool], dict[str, Any]],
    names: tuple[str, ...],
    parallel: bool,
    first: float = FIRST,
) -> dict[str, Any]:
    """The functions of an iteration, which use threads where that is safe and faster.

    Parameters
    ----------
    compile : callable
        Compiles the functions with threads or without, ``compile(parallel)``, by name. It is called
        when the first of them is, and with threads after these were launched, which compiled code
        from the disk needs.
    names : tuple of str
        Their names; the first of them begins an iteration.
    parallel : bool
        Whether they are to use threads at all.
    first : float
        How many iterations use them before those without are tried.
    """
    compiled = functools.cache(compile)
    if not parallel:
        return compiled(False)
    choices = _choices(first)
    wanted = next(choices)
    chosen: dict[str, Any] = {}
    began: float | None = None

    def begin(*arguments: Any) -> Any:
        nonlocal wanted, began, chosen
        last, began = began, perf_counter()
        try:  # noqa: SIM105  a step is no place for a context manager
            wanted = wanted if last is None else choices.send(began - last)
        except (StopIteration, ValueError):  # Ctrl-C ended it, or another thread is in it
            pass
        chosen = compiled(wanted and are_safe())
        return call(begins, *arguments)

    def call(name: str, *arguments: Any) -> Any:
        return chosen[name](*arguments)

    begins, *others = names
    return {begins: begin, **{name: functools.partial(call, name) for name in others}}
