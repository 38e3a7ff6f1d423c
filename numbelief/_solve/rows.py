"""Many problems, one after the other, from a pile that several threads share."""

import functools
from math import inf, nan
from typing import Any, NamedTuple

from numbelief._compile.arrays import copy, fill, largest
from numbelief._compile.internals import fetch_and_add, row, window
from numbelief._compile.jit import jit, key_of, part
from numbelief._compile.pointers import loaded
from numbelief._compile.template import bind
from numbelief._objective.compiled import CALLS, ROW, evaluate
from numbelief._solve.loop import (
    MethodCall,
    ObserveCall,
    observe_at_address,
    run_for_address,
    search_at_address,
    search_at_address_template,
)
from numbelief._solve.observe import (
    AVERAGE,
    BEST,
    MAXITER,
    NONFINITE,
    RUNNING,
    kind_of_region,
    observe_part,
    which_point,
)
from numbelief._step.kind import Kind
from numbelief._step.state import Region

# For this many steps the rates of many rows are tabulated at first.
CHUNK = 1024


class Jobs(NamedTuple):
    """What threads share, and what a thread stops at.

    Attributes
    ----------
    pile, stop : ndarray of shape (1,), int64
        The row to take next; whether to end early. Shared by all threads.
    held : ndarray of shape (1,), int64
        The row of this thread that has come to the end of the rates, or -1.
    scheduled : bool
        Whether each step has a rate of its own.
    """

    pile: Any
    stop: Any
    held: Any
    scheduled: bool


class Start(NamedTuple):
    """What each row begins with: its first point, the records of a run, and what it returns."""

    X0: Any
    clock: Any
    control: Any
    search: Any
    iterate: int


class Outcome(NamedTuple):
    """The results of all rows: x and jac of shape (B, n), the others of shape (B,)."""

    x: Any
    jac: Any
    fun: Any
    nit: Any
    nfev: Any
    njev: Any
    status: Any


class SearchCall(NamedTuple):
    """What calls a search: its address, and what it calls in turn."""

    address: int
    method: MethodCall
    observe: ObserveCall


def start_row_template(first):
    """Begin row k, with a look at its first point."""

    def start_row(k, start, x, g, state, taken, watch, search, objective):
        objective.block[ROW] = k
        objective.block[CALLS] = 0
        copy(row(start.X0, k), x)
        state.clock[0] = start.clock[0]
        watch.control[0] = start.control[0]
        search[0] = start.search[0]
        fill(g, 0)
        fill(state.slots, 0)
        fill(watch.recent, inf)
        fill(watch.best, 0)
        fill(watch.average, 0)
        fill(watch.previous, 0)
        if largest(x) < inf:
            return first(x, g, taken, watch, objective)
        return NONFINITE

    return start_row


def finish_row_template(evaluate):
    """Note what became of row k, which ends with this status."""

    def finish_row(k, status, outcome, iterate, x, g, watch, objective):
        control = watch.control
        outcome.fun[k] = control[0].fun
        which = which_point(iterate, control)
        if which == BEST:
            outcome.fun[k] = control[0].best_fun
            copy(row(watch.best, 0), x)
            copy(row(watch.best, 1), g)
        elif which == AVERAGE:
            copy(watch.average, x)
            outcome.fun[k] = evaluate(x, g, objective)
        outcome.nfev[k] = outcome.njev[k] = objective.block[CALLS]
        outcome.nit[k] = control[0].nit if control[0].nit > 0 else 0
        outcome.status[k] = status
        copy(x, row(outcome.x, k))
        copy(g, row(outcome.jac, k))

    return finish_row


def first_template(evaluate, observe):
    """Look at the first point."""

    def first(x, g, taken, watch, objective):
        return observe(evaluate(x, g, objective), nan, x, g, watch)

    return first


def _first_of_search(x, g, taken, watch, objective):
    return observe_at_address(evaluate(x, g, objective), nan, x, g, taken.observe)


def solve_template(start_row, advance, finish_row):
    """Take problems from the pile and solve them; return whether one needs more rates.

    ``advance`` takes the steps of `numbelief._solve.loop.run_template` or ``search_template``; what
    is ``taken`` is the `StepOptions` or the `SearchCall`. Other threads end a row by setting the
    maxiter of its control to 0.
    """

    def solve_rows(jobs, outcome, start, rates, x, g, state, taken, watch, memory, objective):
        control = watch.control
        while jobs.held[0] >= 0 or not jobs.stop[0]:
            k, status = jobs.held[0], RUNNING
            if k < 0:
                k = fetch_and_add(jobs.pile)
                if k >= len(start.X0):
                    break
                status = start_row(k, start, x, g, state, taken, watch, memory.search, objective)
            jobs.held[0] = -1
            while status == RUNNING and not jobs.stop[0]:
                lo = control[0].nit if jobs.scheduled else 0
                if lo == rates.size:
                    jobs.held[0] = k
                    return True
                some = window(rates, lo, rates.size)
                status = advance(some, x, g, state, taken, watch, memory, objective)
            if status == MAXITER and control[0].nit < start.control[0].maxiter:
                status = RUNNING  # it was ended early
            finish_row(k, status, outcome, start.iterate, x, g, watch, objective)
        return False

    return solve_rows


def advance_template(run):
    """The loop of a rate that is given, in place of a search, which remembers more."""

    def advance(rates, x, g, state, options, watch, memory, objective):
        return run(rates, x, g, state, options, watch, objective)

    return advance


def _search_template(search):
    """A search at an address."""

    def advance(rates, x, g, state, taken, watch, memory, objective):
        address, method, observe = taken
        return search(
            address, rates, x, g, watch.control, memory.search, method, observe, objective
        )

    return advance


# ---- compilation -------------------------------------------------------------------------------


class Rows(NamedTuple):
    """What a thread solves rows with, which lies in memory."""

    jobs: Jobs
    outcome: Outcome
    start: Start
    x: Any
    g: Any
    state: Any
    taken: Any
    watch: Any
    memory: Any


def _stored_template(solve, TAKEN):
    """`solve_rows` with all but the rates and the objective in memory."""

    def stored_rows(rates, data, objective):
        jobs, outcome, start, x, g, state, taken, watch, memory = loaded(data, TAKEN)[0]
        return solve(jobs, outcome, start, rates, x, g, state, taken, watch, memory, objective)

    return stored_rows


def compile_rows(kind: Kind, region: Region, taken: Any) -> Any:
    """Compile ``solve_rows(rates, data, objective)`` with a rate that is given.

    ``taken`` is the type of a pointer to `Rows`, in a tuple, and ``data`` its value.
    """
    return _compile_rows(kind, kind_of_region(region), taken)


@functools.cache
def _compile_rows(kind: Kind, region: Region, taken: Any) -> Any:
    run = part(run_for_address(kind, region, parallel=False), allocates=False)
    first = bind(first_template, evaluate=evaluate, observe=observe_part(region, parallel=False))
    return _compile(kind.key, taken, first, bind(advance_template, run=run))


@functools.cache
def compile_searched_rows(taken: Any, dtype: Any) -> Any:
    """The same with the automatic rate, around a search at an address."""
    search = bind(search_at_address_template, SEARCH=search_at_address(dtype).kind)
    return _compile("auto", taken, _first_of_search, bind(_search_template, search=search))


def _compile(rule: str | None, taken: Any, first: Any, advance: Any) -> Any:
    solve = bind(
        solve_template,
        start_row=bind(start_row_template, first=first),
        advance=advance,
        finish_row=bind(finish_row_template, evaluate=evaluate),
    )
    key = rule and f"{rule}_{key_of(taken)}"
    stored = bind(_stored_template, key, solve=solve, TAKEN=taken)
    return jit(stored, cache=key is not None, nogil=True, allocates=False)
