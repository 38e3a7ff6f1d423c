"""The steps of who plays, called by address: so the game is compiled once for all of them."""

import functools
from typing import Any

import numpy as np
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.internals import larger, row
from numbelief._compile.jit import key_of
from numbelief._compile.pointers import Layout, Stored, compile_for_vectors
from numbelief._compile.template import bind
from numbelief._step.call import StepCall, StoredStep
from numbelief._step.kind import Kind
from numbelief._step.state import TIMESTEP, StepState
from numbelief._step.template import stored_template
from numbelief.optimizer import Optimizer
from numbelief.rules import Rule
from numbelief.sets import FeasibleSet


class Steps:
    """The steps of a game.

    Parameters
    ----------
    state : StepState
    last_step : ndarray of shape (2, n), optional
        Gets the rates and the directions of each step.
    call : StepCall

    Attributes
    ----------
    state, call
    last_step : ndarray of shape (2, n)
        As given; (0, n) for steps that have none.
    """

    def __init__(self, state: StepState, last_step: NDArray[Any] | None, call: StepCall) -> None:
        self.state, self.call = state, call
        self.last_step = np.zeros((0, state.slots.shape[1])) if last_step is None else last_step

    def report(self) -> None:
        """Warn if a projection did not reach the set."""


class RuleSteps(Steps):
    """The steps of a rule for x, in a set; ``traced``: with their rates and directions."""

    def __init__(
        self, rule: Rule, x: NDArray[Any], feasible_set: FeasibleSet | None, *, traced: bool
    ) -> None:
        self._optimizer = Optimizer(rule, x, feasible_set=feasible_set, target="serial")
        options, state = self._optimizer.step_options, self._optimizer.step_state
        if traced and options.last_step is None:
            options = options._replace(last_step=np.zeros((2, x.size)))
        self._step = StoredStep(Kind.of(rule, options), state, options, x.dtype)
        super().__init__(state, options.last_step, self._step.call())

    def report(self) -> None:
        """Warn if a projection did not reach the set."""
        self._optimizer.report()


class WeightSteps(Steps):
    r"""The steps of exponential weights for x, which begins at x0 on a simplex.

    x is proportional to :math:`x_0 e^{-\eta L}` with the sum L of the gradients. The slots are L
    and the logarithm of x0, the number is the sum of x.
    """

    def __init__(self, x: NDArray[np.float64]) -> None:
        slots = np.zeros((2, x.size))
        with np.errstate(divide="ignore"):
            slots[1] = np.log(x)
        state, rate = StepState(slots, np.zeros(1, TIMESTEP), np.array([x.sum()])), np.zeros(1)
        self._stored = Stored(state, None, rate)
        address = compile_weights(self._stored.layout).address
        super().__init__(state, None, StepCall(address, self._stored.address, rate))


def multiply_weights(x, g, state, rate, options):
    """One step of exponential weights, for arrays of shape (n,) and float64."""
    sums, start = row(state.slots, 0), row(state.slots, 1)
    top = -np.inf
    for i in range(x.size):
        sums[i] += g[i]
        x[i] = start[i] - rate * sums[i]
        top = larger(top, x[i])
    total = 0.0
    for i in range(x.size):
        x[i] = np.exp(x[i] - top)
        total += x[i]
    for i in range(x.size):
        x[i] *= state.numbers[0] / total


@functools.cache
def compile_weights(layout: Layout) -> Any:
    """`multiply_weights` as a C function."""
    names = {"advance": multiply_weights, "LAYOUT": layout.pointer, "NUMBER": nb.float64}
    step = bind(stored_template, f"weights_{key_of(layout)}", **names)
    return compile_for_vectors(step, nb.float64, allocates=False)
