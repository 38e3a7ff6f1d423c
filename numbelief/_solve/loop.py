"""The iteration itself, written once: step, evaluate, observe.

`run_template` is in the part of Python that Numba compiles. Around a Python objective the
interpreter runs it, with compiled kernels inside.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numbelief._compile import threads
from numbelief._compile.internals import call_with_numbers
from numbelief._compile.jit import jit, key_of
from numbelief._compile.pointers import Addressed, Layout, addressed, loaded
from numbelief._compile.template import bind
from numbelief._objective.compiled import Call, evaluate
from numbelief._solve.observe import observe_part
from numbelief._solve.quasi_newton import LOST, STEPPED
from numbelief._solve.stopping import PRECISION, RUNNING
from numbelief._step.compiled import compile_advance
from numbelief._step.kind import Kind
from numbelief._step.state import Region
from numbelief._step.template import call_step


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

    def search(rates, x, g, control, record, method, watch, objective):
        status = RUNNING
        rate = 0.0
        for _ in range(rates.size):
            fun = control["fun"][0]
            verdict = LOST
            while verdict != STEPPED:
                if verdict == LOST:
                    if not propose(fun, method):
                        return PRECISION
                    rate = record["rate"][0]
                fun = evaluate(x, g, objective)
                verdict = judge(fun, method)
            status = observe(fun, rate, x, g, watch)
            if status != RUNNING:
                break
        return status

    return search


# ---- around a Python objective -----------------------------------------------------------------

# The parts take numbers, and find all else in memory. They know its address, except that of the
# `Watch`, whose arrays may grow: it comes with each call.


def run_in_python(compiled: Callable[[bool], dict[str, Any]], evaluate: Any, parallel: bool) -> Any:
    """`run` around an objective that Python calls, ``evaluate(x, g, objective)``.

    ``compiled(parallel)`` has ``step(rate)`` and ``observe(fun, rate, watch)``.
    """
    parts = threads.paced(compiled, ("step", "observe"), parallel)
    step, observe = parts["step"], parts["observe"]
    return run_template(
        step=lambda x, g, state, rate, options: step(rate),
        evaluate=evaluate,
        observe=lambda fun, rate, x, g, watch: observe(fun, rate, watch),
    )


def search_in_python(
    compiled: Callable[[bool], dict[str, Any]], evaluate: Any, parallel: bool
) -> Any:
    """`search` around an objective that Python calls.

    ``compiled(parallel)`` has ``propose`` and ``judge`` of (fun, method), and ``observe``.
    """
    parts = threads.paced(compiled, ("propose", "judge", "observe"), parallel)
    observe = parts["observe"]
    return search_template(
        propose=parts["propose"],
        evaluate=evaluate,
        judge=parts["judge"],
        observe=lambda fun, rate, x, g, watch: observe(fun, rate, watch),
    )


# ---- around an objective at an address ---------------------------------------------------------


@functools.cache
def compile_run(kind: Kind, region: Region, layout: Layout) -> Any:
    """Compile ``run(rates, data, objective)`` for a kind of rule and a `kind_of_region`.

    ``layout`` is that of (x, g, state, options, watch), which lie at ``data``, and ``objective`` a
    `numbelief._objective.compiled.Call`.
    """
    step, observe = compile_advance(kind), observe_part(region, parallel=False)
    return _compile_run(kind.key and key_of(kind.key, layout), layout, step, observe)


@functools.cache
def compile_threaded_run(layout: Layout) -> Any:
    """The same with threads, once for each dtype: it calls step and observation by address.

    In place of state, options and watch lie None, a `StepCall` and an `ObserveCall`.
    """
    return _compile_run(key_of(layout), layout, _step_at_address, observe_at_address)


def _compile_run(key: str | None, layout: Layout, step: Any, observe: Any) -> Any:
    run = bind(run_template, step=step, evaluate=evaluate, observe=observe)
    stored = bind(_stored_run_template, key, run=run, LAYOUT=layout.pointer)
    return jit(stored, cache=key is not None, nogil=True, allocates=False)


def _step_at_address(x, g, state, rate, step):
    call_step(x, g, rate, step)


def _stored_run_template(run, LAYOUT):
    """`run` with all but the rates and the objective in memory."""

    def stored_run(rates, data, objective):
        x, g, state, options, watch = loaded(data, LAYOUT)
        return run(rates, x, g, state, options, watch, objective)

    return stored_run


class MethodCall(NamedTuple):
    """The parts of a search at their addresses, with what they take.

    Attributes
    ----------
    propose, judge : int
        Of C functions of (fun, 0, data), see `numbelief._solve.quasi_newton.compile_method`.
    data : int
    """

    propose: int
    judge: int
    data: int


class ObserveCall(NamedTuple):
    """What observes a point, at its address: a C function of (fun, rate, data)."""

    address: int
    data: int


def _propose(fun, method):
    return call_with_numbers(method.propose, fun, 0.0, method.data)


def _judge(fun, method):
    return call_with_numbers(method.judge, fun, 0.0, method.data)


def observe_at_address(fun, rate, x, g, watch):
    """Observe a point; ``watch`` is an `ObserveCall`."""
    return call_with_numbers(watch.address, fun, rate, watch.data)


@functools.cache
def compile_search(layout: Layout) -> Any:
    """Compile ``search(rates, data, objective)``, once for each dtype: it calls parts by address.

    ``layout`` is that of (x, g, control, record, method, observe), which lie at ``data``, with a
    `MethodCall` and an `ObserveCall`.
    """
    search = bind(
        search_template,
        propose=_propose,
        evaluate=evaluate,
        judge=_judge,
        observe=observe_at_address,
    )
    stored = bind(_stored_search_template, key_of(layout), search=search, LAYOUT=layout.pointer)
    return jit(stored, nogil=True, allocates=False)


def _stored_search_template(search, LAYOUT):
    """`search` with all but the rates and the objective in memory."""

    def stored_search(rates, data, objective):
        x, g, control, record, method, watch = loaded(data, LAYOUT)
        return search(rates, x, g, control, record, method, watch, objective)

    return stored_search


def loop_at_address(loop: Any) -> Addressed:
    """A compiled `run` or `search` for compiled code to call; all have one type."""
    return addressed(loop, np.zeros(1), 0, Call(0, 0, np.zeros(1, np.intp)))
