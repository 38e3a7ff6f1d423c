"""The steps of who plays, called by address: so the game is compiled once for all of them."""

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import carray
from numba import types as nb
from numpy.typing import NDArray

from numbelief import kernels
from numbelief._compile.arrays import larger, row
from numbelief._compile.internals import call_c
from numbelief._compile.jit import key_of
from numbelief._compile.pointers import Stored, compile_for_address, loaded
from numbelief._compile.template import bind
from numbelief.optimizer import Optimizer
from numbelief.rules import Rule
from numbelief.sets import FeasibleSet


class StepState(NamedTuple):
    """What a step keeps: slots of shape (k, n), the clock, and the numbers of the rule."""

    slots: Any
    clock: Any
    numbers: Any


class StepOptions(NamedTuple):
    """What a step may do besides the rule's update."""

    decays: Any = None
    max_norm: Any = None
    max_value: Any = None
    lower: Any = None
    upper: Any = None
    trace: Any = None
    projection: Any = None
    edges: Any = None
    owner: Any = None
    scale: Any = None
    lookahead: Any = None


class Stepper(NamedTuple):
    """A step at an address.

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


def take_step(x, g, rate, stepper):
    """Step x along g, both of shape (n,)."""
    stepper.rate[0] = rate
    call_c(stepper.address, x, g, stepper.data)


class Steps:
    """The steps of a game.

    Attributes
    ----------
    state : StepState
    trace : ndarray of shape (2, n)
        Gets the rates and the directions of each step, where that was asked for; (0, n) for steps
        that have none.
    stepper : Stepper
    """

    def __init__(self, advance: Any, key: Any, state: StepState, options: StepOptions) -> None:
        self.state = state
        trace = options.trace
        self.trace = np.zeros((0, state.slots.shape[1])) if trace is None else trace
        rate = np.zeros(1)
        self._stored = Stored((state, options, rate))
        self._compiled = _compile_step(advance, key, self._stored.kind)
        self.stepper = Stepper(self._compiled.address, self._stored.address, rate)

    def report(self) -> None:
        """Warn if a projection did not reach the set."""


class RuleSteps(Steps):
    """The steps of a rule for x, in a set."""

    def __init__(
        self, rule: Rule, x: NDArray[Any], feasible_set: FeasibleSet | None, *, traced: bool
    ) -> None:
        self._optimizer = Optimizer(rule, x, feasible_set=feasible_set, target="serial")
        options = StepOptions(*self._optimizer.options)
        if traced and options.trace is None:
            options = options._replace(trace=np.zeros((2, x.size)))
        slots, clock, numbers = self._optimizer.arrays
        kind, count = type(rule), len(rule.state_names)
        state = StepState(slots, clock, numbers.copy())
        super().__init__(_advance(kind, count), _key(kind, count), state, options)  # type: ignore[arg-type]

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
        state = StepState(slots, np.zeros(1, kernels.CLOCK), np.array([x.sum()]))
        super().__init__(multiply_weights, "weights", state, StepOptions())


def multiply_weights(x, g, state, rate, options):
    """One step of exponential weights."""
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


# ---- compilation -------------------------------------------------------------------------------


def advance_template(advance):
    """The step of a rule, with its arguments by name."""

    def advance_by_name(x, g, state, rate, options):
        o = options
        advance(
            x, g, state.slots, state.clock, state.numbers, rate,
            o.decays, o.max_norm, o.max_value, o.lower, o.upper, o.trace, o.projection,
            o.edges, o.owner, o.scale, o.lookahead,
        )  # fmt: skip

    return advance_by_name


def step_template(advance, loaded, TAKEN):
    """A step with what it takes at an address: (state, options, rate), the rate in an array."""

    def step(n, x, g, data):
        state, options, rate = loaded(data, TAKEN)
        advance(carray(x, n), carray(g, n), state, rate[0], options)
        return 0.0

    return step


@functools.cache
def _advance(rule: type[Rule], slots: int) -> Any:
    return bind(advance_template, advance=kernels.compile_advance(rule, slots, False))  # type: ignore[arg-type]


def _key(rule: type[Rule], slots: int) -> Any:
    salt = kernels.rule_salt(rule)
    return salt and (rule.__name__, slots, salt)


@functools.cache
def _compile_step(advance: Any, key: Any, taken: Any) -> Any:
    name = key and key_of(key, taken)
    step = bind(step_template, name, advance=advance, loaded=loaded, TAKEN=taken)
    return compile_for_address(step, nb.float64, cache=name is not None)
