"""The steps of who plays, called by address: so the game is compiled once for all of them."""

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.internals import call_c, larger, row
from numbelief._compile.jit import key_of
from numbelief._compile.pointers import Stored, compile_for_address
from numbelief._compile.template import bind
from numbelief._step.compiled import compile_at_address
from numbelief._step.kind import Kind
from numbelief._step.state import CLOCK, StepOptions, StepState
from numbelief._step.template import addressed_template
from numbelief.optimizer import Optimizer
from numbelief.rules import Rule
from numbelief.sets import FeasibleSet


class StepCall(NamedTuple):
    """What the game calls a step with.

    Attributes
    ----------
    address, data : int
        Of a C function ``f(n, x, g, data)``, see `numbelief._compile.pointers`.
    rate : ndarray of shape (1,), float64
        Gets the learning rate of the step.
    """

    address: int
    data: int
    rate: Any


def call_step(x, g, rate, step):
    """Step x along g, both of shape (n,)."""
    step.rate[0] = rate
    call_c(step.address, x, g, step.data)


class Steps:
    """The steps of a game.

    Attributes
    ----------
    state : StepState
    trace : ndarray of shape (2, n)
        Gets the rates and the directions of each step, where that was asked for; (0, n) for steps
        that have none.
    call : StepCall
    """

    def __init__(self, state: StepState, options: StepOptions) -> None:
        self.state = state
        trace = options.trace
        self.trace = np.zeros((0, state.slots.shape[1])) if trace is None else trace
        rate = np.zeros(1)
        self._stored = Stored((state, options, rate))
        self._compiled = self._compile(self._stored.kind)
        self.call = StepCall(self._compiled.address, self._stored.address, rate)

    def _compile(self, taken: Any) -> Any:
        """The C function of a step, which finds what it takes at its ``data``."""
        raise NotImplementedError

    def report(self) -> None:
        """Warn if a projection did not reach the set."""


class RuleSteps(Steps):
    """The steps of a rule for x, in a set; ``traced``: with their rates and directions."""

    def __init__(
        self, rule: Rule, x: NDArray[Any], feasible_set: FeasibleSet | None, *, traced: bool
    ) -> None:
        self._optimizer = Optimizer(rule, x, feasible_set=feasible_set, target="serial")
        options = self._optimizer.step_options
        if traced and options.trace is None:
            options = options._replace(trace=np.zeros((2, x.size)))
        self._kind = Kind.of(rule, options)
        super().__init__(self._optimizer.step_state, options)

    def _compile(self, taken: Any) -> Any:
        return compile_at_address(self._kind, taken, nb.float64, parallel=False)

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
        super().__init__(StepState(slots, np.zeros(1, CLOCK), np.array([x.sum()])), StepOptions())

    def _compile(self, taken: Any) -> Any:
        return compile_weights(taken)


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
def compile_weights(taken: Any) -> Any:
    """`multiply_weights` as a C function."""
    names = {"advance": multiply_weights, "TAKEN": taken, "NUMBER": nb.float64}
    step = bind(addressed_template, f"weights_{key_of(taken)}", **names)
    return compile_for_address(step, nb.float64, allocates=False)
