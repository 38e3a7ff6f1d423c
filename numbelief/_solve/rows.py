"""Many problems, one after the other, from a pile that several threads share."""

import functools
from math import inf, nan
from typing import Any, NamedTuple

from numbelief._compile.arrays import copy, fill, largest
from numbelief._compile.internals import call_compiled, fetch_and_add, leave, row, window
from numbelief._compile.jit import jit, key_of
from numbelief._compile.pointers import Layout, loaded
from numbelief._compile.template import bind
from numbelief._objective.compiled import CALLS, ROW, evaluate
from numbelief._solve.loop import ObserveCall, observe_at_address
from numbelief._solve.stopping import AVERAGE, BEST, MAXITER, NONFINITE, RUNNING, which_point

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
    timestep: Any
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


class LoopCall(NamedTuple):
    """What takes the steps of a row: a loop at its address, and what observes its first point."""

    address: int
    data: int
    observe: ObserveCall


def start_row_template(first):
    """Begin row k, with a look at its first point."""

    def start_row(k, start, x, g, state, loop, watch, search, objective):
        objective.block[ROW] = k
        objective.block[CALLS] = 0
        copy(row(start.X0, k), x)
        state.timestep[0] = start.timestep[0]
        watch.control[0] = start.control[0]
        search[0] = start.search[0]
        fill(g, 0)
        fill(state.slots, 0)
        fill(watch.recent, inf)
        fill(watch.best, 0)
        fill(watch.average, 0)
        fill(watch.previous, 0)
        status = NONFINITE
        if largest(x) < inf:
            status = first(x, g, loop, watch, objective)
            watch.control[0].first_fun = watch.control[0].fun
        return status

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


def _first(x, g, loop, watch, objective):
    """Look at the first point."""
    return observe_at_address(evaluate(x, g, objective), nan, x, g, loop.observe)


def solve_template(start_row, finish_row, LOOP, LAYOUT):
    """Take problems from the pile and solve them; return whether one needs more rates.

    Other threads end a row by setting the maxiter of its control to 0.
    """

    def solve_rows(rates, data, objective):
        jobs, outcome, start, x, g, state, loop, watch, search = loaded(data, LAYOUT)[0]
        control = watch.control
        while jobs.held[0] >= 0 or not jobs.stop[0]:
            k, status = jobs.held[0], RUNNING
            if k < 0:
                k = fetch_and_add(jobs.pile)
                if k >= len(start.X0):
                    break
                status = start_row(k, start, x, g, state, loop, watch, search, objective)
            jobs.held[0] = -1
            while status == RUNNING and not jobs.stop[0]:
                lo = control[0].nit if jobs.scheduled else 0
                if lo == rates.size:
                    jobs.held[0] = k
                    return True
                given = (window(rates, lo, rates.size), loop.data, objective)
                failed, status = call_compiled(loop.address, LOOP, given)
                leave(failed)
            if status == MAXITER and control[0].nit < start.control[0].maxiter:
                status = RUNNING  # it was ended early
            finish_row(k, status, outcome, start.iterate, x, g, watch, objective)
        return False

    return solve_rows


class Rows(NamedTuple):
    """What a thread solves rows with.

    Attributes
    ----------
    jobs, outcome, start
        See there.
    x, g : ndarray of shape (n,)
        The point of the row, and its gradient.
    state : StepState
    loop : LoopCall
    watch : Watch
    search : ndarray of shape (1,)
        The record of the search, see `numbelief._solve.quasi_newton`.
    """

    jobs: Jobs
    outcome: Outcome
    start: Start
    x: Any
    g: Any
    state: Any
    loop: LoopCall
    watch: Any
    search: Any


@functools.cache
def compile_rows(layout: Layout, loop: Any) -> Any:
    """Compile ``solve_rows(rates, data, objective)``: once for each dtype, for all rules.

    ``layout`` is that of `Rows`, which lie at ``data``, ``loop`` the type of a compiled loop.
    """
    solve = bind(
        solve_template,
        key_of(layout, loop),
        start_row=bind(start_row_template, first=_first),
        finish_row=bind(finish_row_template, evaluate=evaluate),
        LOOP=loop,
        LAYOUT=layout.pointer,
    )
    return jit(solve, nogil=True, allocates=False)
