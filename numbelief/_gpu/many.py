"""`minimize_many` with X0 on a GPU: what happens between the launches of all rows.

A launch takes some steps of the rows that still run; between launches the host looks at the clock.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from numbelief import _interop as interop
from numbelief._gpu.card import view
from numbelief._gpu.compile import load
from numbelief._gpu.minimize import move_into
from numbelief._gpu.rows import Rows, check_form
from numbelief._gpu.vectors import CardVectors, duplicate
from numbelief._objective.compiled import PerRow
from numbelief._solve import stopping
from numbelief._solve.host_rows import judge_means, result_of
from numbelief._solve.minimization import Minimization
from numbelief._solve.options import Options
from numbelief._solve.rows import Outcome
from numbelief._solve.session import Session
from numbelief._solve.stopping import RUNNING
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet


class CardRows:
    """Many minimizations on a GPU: their launches, and what happens between these.

    Parameters
    ----------
    fun, X, args, rule, jac, feasible_set, settings
        As in `minimize_many`, checked.
    session : Session
        Of the call.
    """

    def __init__(
        self,
        fun: Any,
        X: Any,
        args: tuple[Any, ...],
        rule: Rule | Lookahead,
        jac: Any,
        feasible_set: FeasibleSet | None,
        settings: Options,
        session: Session,
    ) -> None:
        if jac != "inplace":
            raise ValueError(
                "where X0 is on a GPU, jac must be 'inplace', for a device function "
                f"fun(x, grad, *args) -> float that fills grad, got {jac!r}"
            )
        if settings.compiled is False:
            raise ValueError("where X0 is on a GPU, compiled must not be False")
        check_form(fun, len(args))
        args = tuple(_argument(f"args[{i}]", arg) for i, arg in enumerate(args))
        self._settings, self._session = settings, session
        if feasible_set is not None:
            X = duplicate(X, "X0")
            move_into(feasible_set, CardVectors(X.reshape(X.size)), X.shape[1], stacklevel=4)
        # What a run on the CPU would be made of; its problem stays on the card.
        nowhere: Any = None
        self._run = Minimization(
            nowhere, rule, np.zeros(X.shape[1], X.dtype), feasible_set, settings
        )
        self._rows = Rows(fun, X, args, self._run, stopping.ITERATES[settings.iterate])

    def solve(self) -> None:
        """Launch until no row runs, or as often as there is time for."""
        session = self._session
        status, steps = self._advance(1), 1
        while (status == RUNNING).any() and session.seconds_left > 0:
            steps = session.steps
            session.begin_steps()
            status = self._advance(steps)
            session.end_steps(steps)

    def _advance(self, steps: int) -> NDArray[np.int64]:
        """Take at most ``steps`` steps of each row; return the rows' status."""
        timestep = self._run.optimizer.step_state.timestep
        steps = min(steps, max(self._settings.maxiter - int(timestep["t"][0]), 1))
        status = self._rows.advance(self._run.rates(steps))
        timestep["t"] += steps
        self._session.show(int(np.count_nonzero(status != RUNNING)))
        return status

    def result(self, *, ended: bool = False) -> OptimizeResult | None:
        """What is known, if anything is; all rows end."""
        if not self._rows.begun:
            return None
        self._rows.advance(np.zeros(0), ends=True)
        X, G, *figures = self._rows.outcome
        outcome = Outcome(X, G, *(each.copy_to_host() for each in figures))
        if ended:
            outcome.status[outcome.status == RUNNING] = stopping.MAXITER
        if self._settings.iterate == "average":
            x, g = X.copy_to_host(), G.copy_to_host()
            judge_means(outcome, x, g, self._run.optimizer.feasible_set, self._settings)
        return result_of(outcome)


def as_first_points(X0: Any) -> Any:
    """X0 as kernels take it, one first point a row."""
    X = view(X0, "X0")
    if X.dtype not in (np.float32, np.float64):
        raise TypeError(f"X0 must hold float32 or float64 numbers on a GPU, got dtype {X.dtype}")
    if len(X.shape) != 2 or X.size == 0:
        shape = tuple(X.shape)
        raise ValueError(f"X0 must have shape (B, n), with B and n at least 1, got {shape}")
    return X


def _argument(name: str, value: Any) -> Any:
    """An argument of a device function as kernels take it; arrays of the host are copied there."""
    if isinstance(value, PerRow):
        return PerRow(_argument(f"{name}.data", value.data))
    if isinstance(value, tuple):
        return tuple(_argument(f"{name}[{i}]", each) for i, each in enumerate(value))
    if interop.is_device_array(value):
        return view(value, name)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiubc":
        return load().to_device(np.ascontiguousarray(value))
    if isinstance(value, (bool, int, float, complex, np.bool_, np.number)):
        return value
    raise TypeError(
        f"{name} must be a number, an array of numbers or a tuple of these where X0 is on a GPU, "
        f"got {type(value).__name__}"
    )
