"""The iteration itself, written once: step, evaluate, observe.

`run_template` is in the part of Python that Numba compiles. Around a Python objective the
interpreter runs it, with compiled kernels inside.
"""

import functools
from collections.abc import Callable
from math import nan
from typing import Any, NamedTuple

import numpy as np

from numbelief._compile import threads
from numbelief._compile.internals import call_compiled, leave
from numbelief._compile.jit import jit, key_of
from numbelief._compile.pointers import Addressed, addressed
from numbelief._compile.template import bind
from numbelief._objective.compiled import Call, evaluate
from numbelief._solve.observe import (
    PRECISION,
    RUNNING,
    Watch,
    compile_observe,
    kind_of_region,
    observe_part,
)
from numbelief._solve.quasi_newton import LOST, STEPPED, Memory, Stepper, compile_method
from numbelief._step.compiled import compile_advance, compile_step_for_loops
from numbelief._step.kind import Kind
from numbelief._step.state import Region, StepState


def run_template(step, evaluate, observe):
    """From an observed point, take one step for each rate, unless a point ends the run."""

    def run(rates, x, g, state, options, watch, objective):
        status = RUNNING
        for rate in rates:
            step(x, g, state, rate, options)
            fun = evaluate(x, g, objective)
            status = observe(fun, rate, x, g, watch)
            if status != RUNNING:
                break
        return status

    return run


def search_template(propose, evaluate, judge, observe):
    """Take as many steps with the automatic rate; see `numbelief._solve.quasi_newton`."""

    def search(rates, x, g, state, stepper, watch, memory, objective):
        status = RUNNING
        rate = 0.0
        region = watch.region
        for _ in range(rates.size):
            fun = watch.control["fun"][0]
            verdict = LOST
            while verdict != STEPPED:
                if verdict == LOST:
                    if not propose(stepper, fun, x, g, state, region, memory):
                        return PRECISION
                    rate = memory.search["rate"][0]
                fun = evaluate(x, g, objective)
                verdict = judge(stepper, fun, x, g, state, region, memory)
            status = observe(fun, rate, x, g, watch)
            if status != RUNNING:
                break
        return status

    return search


def first_template(evaluate, observe):
    """Look at the first point."""

    def first(x, g, watch, objective):
        return observe(evaluate(x, g, objective), nan, x, g, watch)

    return first


# ---- around a Python objective -----------------------------------------------------------------


def bind_run(kind: Kind, region: Region, evaluate: Any, *, parallel: bool, nogil: bool) -> Any:
    """`run` around an objective that Python calls, ``evaluate(x, g, objective)``."""

    def compiled(parallel: bool) -> dict[str, Any]:
        return {
            "step": compile_step_for_loops(kind, parallel=parallel, nogil=nogil),
            "observe": compile_observe(region, parallel=parallel, nogil=nogil),
        }

    return run_template(evaluate=evaluate, **threads.paced(compiled, parallel))


def bind_search(
    region: Region,
    stepper: Callable[[bool], Any],
    evaluate: Any,
    *,
    parallel: bool,
    nogil: bool,
) -> Any:
    """`search` around an objective that Python calls; ``stepper(parallel)`` is its `Stepper`."""
    bounded, projected = region.lower is not None, region.projection is not None

    def compiled(parallel: bool) -> dict[str, Any]:
        propose, judge = compile_method(
            parallel=parallel, bounded=bounded, projected=projected, nogil=nogil
        ).values()
        mine = stepper(parallel)
        return {
            "propose": lambda _, *rest: propose(mine, *rest),
            "judge": judge,
            "observe": compile_observe(region, parallel=parallel, nogil=nogil),
        }

    return search_template(evaluate=evaluate, **threads.paced(compiled, parallel))


# ---- around an objective at an address ---------------------------------------------------------


def compile_run(kind: Kind, region: Region, *, parallel: bool) -> Any:
    """Compile `run`; its ``objective`` is a `numbelief._objective.compiled.Call`."""
    return _compile_run(kind, kind_of_region(region), parallel)


@functools.cache
def _compile_run(kind: Kind, region: Region, parallel: bool) -> Any:
    key = kind.key and f"{parallel:d}_{kind.key}_{key_of(region)}"
    run = run_for_address(kind, region, parallel, key)
    return jit(run, cache=key is not None, nogil=True, allocates=False)


def run_for_address(kind: Kind, region: Region, parallel: bool, key: str | None = None) -> Any:
    """`run` around objectives at addresses, as plain Python."""
    return bind(
        run_template,
        key,
        step=compile_advance(kind, parallel=parallel),
        evaluate=evaluate,
        observe=observe_part(region, parallel),
    )


# ---- the search, in parts that are called by address --------------------------------------------


class Search(NamedTuple):
    """The parts of a search, and the loop around them, compiled for the CPU."""

    propose: Addressed
    judge: Addressed
    observe: Addressed
    loop: Any
    whole: Addressed


def _propose_template(PROPOSE):
    def propose(stepper, fun, x, g, state, region, memory):
        given = (stepper, fun, x, g, state, region, memory)
        return call_compiled(stepper.propose, PROPOSE, given)[1]

    return propose


def _judge_template(JUDGE):
    def judge(stepper, fun, x, g, state, region, memory):
        given = (stepper, fun, x, g, state, region, memory)
        return call_compiled(stepper.judge, JUDGE, given)[1]

    return judge


def observe_at_address_template(OBSERVE):
    """`observe` at the address in its ``watch``."""

    def observe(fun, rate, x, g, watch):
        return call_compiled(watch.observe, OBSERVE, (fun, rate, x, g, watch))[1]

    return observe


def search_at_address_template(SEARCH):
    """`search` at the address in its ``stepper``."""

    def search(rates, x, g, state, stepper, watch, memory, objective):
        given = (rates, x, g, state, stepper, watch, memory, objective)
        failed, status = call_compiled(stepper.search, SEARCH, given)
        leave(failed)
        return status

    return search


_SEARCHES: dict[Any, Search] = {}


def compile_search(
    x: Any, state: StepState, stepper: Stepper, watch: Watch, memory: Memory, *, parallel: bool
) -> Search:
    """Compile `search` and its parts: once for each dtype and kind of region, for all rules.

    The arguments are like those that it will be called with.
    """
    region = watch.region
    kind = kind_of_region(region)
    found = _SEARCHES.get((kind, x.dtype, parallel))
    if found is not None:
        return found
    bounded, projected = region.lower is not None, region.projection is not None
    method = compile_method(parallel=parallel, bounded=bounded, projected=projected, nogil=False)
    given = (stepper, 0.0, x, x, state, region, memory)
    propose, judge = (addressed(method[name], *given) for name in ("propose", "judge"))
    look = compile_observe(region, parallel=parallel, nogil=False)
    observe = addressed(look, 0.0, 0.0, x, x, watch)
    search = bind(
        search_template,
        key_of(kind, parallel, propose.kind, judge.kind, observe.kind),
        propose=bind(_propose_template, PROPOSE=propose.kind),
        evaluate=evaluate,
        judge=bind(_judge_template, JUDGE=judge.kind),
        observe=bind(observe_at_address_template, OBSERVE=observe.kind),
    )
    loop = jit(search, nogil=True, allocates=False)
    objective = Call(0, 0, np.zeros(1, np.intp))
    whole = addressed(loop, np.zeros(1), x, x, state, stepper, watch, memory, objective)
    found = _SEARCHES[kind, x.dtype, parallel] = Search(propose, judge, observe, loop, whole)
    return found
