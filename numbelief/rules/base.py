"""What all rules share: hyperparameters and their ranges, state, decay, the registry."""

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

from numbelief.rules import hyperparameters
from numbelief.rules.hyperparameters import Rate


@functools.cache
def _fields(rule: Any) -> tuple[Any, ...]:
    return fields(rule)


class Method:
    """What a run may have as its method: a `Rule`, or what goes around one."""

    # It is also a method of scipy.optimize.minimize; numbelief.minimize provides the call.
    __call__: ClassVar[Callable[..., Any]]


def _learning_rate(given: Any) -> Any:
    """None where it is left open, else a schedule, an array of rates or a number."""
    if given is None or (isinstance(given, str) and given == "auto"):
        return None
    if callable(given) and not isinstance(given, (Method, type)):
        return given
    if hyperparameters.is_array(given):
        return hyperparameters.rates(given)
    return hyperparameters.number("learning_rate", given, 0.0)


@dataclass(frozen=True)
class Rule(Method):
    r"""What every rule has: a learning rate and weight decay.

    Parameters
    ----------
    learning_rate : float, callable, ndarray or "auto", optional
        Step size :math:`\alpha`, or a schedule that maps the step number (from 1) to it. "auto",
        the same as None and the default, leaves it open: `numbelief.minimize` then finds the rate
        by itself, and `numbelief.Optimizer` takes ``default_rate``, the value of the rule's paper.
        An array of one dimension, of which a read-only float64 copy is kept, gives each coordinate
        its own rate; for `LAMB` also each segment. What a step reports as its rate is then the
        largest, decoupled decay and the limits of `AdaBound` shrink with a coordinate's share of
        it, and a coordinate whose rate is 0 stays where it is.
    weight_decay : float, default 0
        Decay :math:`\lambda \ge 0`.
    decoupled : bool, default False
        False adds :math:`\lambda x` to the gradient (L2 regularization); True multiplies x by
        :math:`1 - \alpha\lambda` before the step (Loshchilov & Hutter 2017). The caller's gradient
        array is never changed.

    Raises
    ------
    TypeError
        A hyperparameter is not a number (or not a bool where one is expected).
    ValueError
        A hyperparameter is NaN, infinite or outside its range; an array of rates is empty.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0, 1.0])
    >>> rule = numbelief.SGD(learning_rate=np.array([0.5, 0.0]))
    >>> numbelief.Optimizer(rule, x).step(np.array([1.0, 1.0]))
    >>> x
    array([0.5, 1. ])
    """

    learning_rate: Rate | None = None
    _: KW_ONLY
    weight_decay: float = 0.0
    decoupled: bool = False

    #: All rules by their lower-case names.
    registry: ClassVar[dict[str, type["Rule"]]] = {}
    #: Where hyperparameters may lie: from the first number on and below the second.
    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "weight_decay": (0.0, math.inf),
        "beta1": (0.0, 1.0),
        "beta2": (0.0, 1.0),
        "momentum": (0.0, 1.0),
        "eps": (0.0, math.inf),
        "eps_root": (0.0, math.inf),
        "final_lr": (0.0, math.inf),
        "gamma": (0.0, math.inf),
    }
    #: Hyperparameters that are not numbers for compiled code, with what checks and converts them.
    checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "learning_rate": _learning_rate,
        "segments": hyperparameters.segments,
    }

    #: The learning rate of the rule's paper.
    default_rate: ClassVar[float] = 1e-3
    #: Names of the state, and of more of it where an option is set.
    slots: ClassVar[tuple[str, ...]] = ()
    slots_if: ClassVar[dict[str, str]] = {}
    #: Names of what `coefficients` returns.
    scalars: ClassVar[tuple[str, ...]] = ("rate",)
    #: Whether the step of each segment is scaled to the size of its parameters.
    layerwise: ClassVar[bool] = False
    #: As of a `Lookahead`, which a rule is not.
    synchronization: ClassVar[None] = None

    def __init_subclass__(cls) -> None:
        name = cls.__name__.lower()
        # A rule of one's own may be defined again, as a notebook cell that runs twice does.
        if name in Rule.registry and Rule.registry[name].is_built_in():
            raise ValueError(f"a rule named {name!r} exists already in numbelief")
        Rule.registry[name] = cls
        # Those of a dataclass ask an array of rates whether it is true.
        cls.__eq__, cls.__hash__ = Rule.__eq__, Rule.__hash__  # type: ignore[method-assign]

    def _key(self) -> tuple[Any, ...]:
        """What tells this rule from others of its class."""
        values = (getattr(self, f.name) for f in fields(self))
        return tuple(v.tobytes() if hyperparameters.is_array(v) else v for v in values)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __post_init__(self) -> None:
        for f in _fields(type(self)):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if f.name in self.checks:
                checked = self.checks[f.name](value)
            elif isinstance(f.default, bool):
                checked = hyperparameters.flag(f.name, value)
            else:
                checked = hyperparameters.number(f.name, value, *self.ranges.get(f.name, ()))
            object.__setattr__(self, f.name, checked)

    @classmethod
    def is_built_in(cls) -> bool:
        """Whether the rule is one of numbelief's own."""
        return cls.__module__.startswith(f"{__package__}.")

    @property
    def inner(self) -> "Rule":
        """The rule itself; of a `Lookahead`, the rule inside it."""
        return self

    @property
    def segments(self) -> tuple[int, ...] | None:
        """Where the segments of a layerwise rule start; None: there is but one."""
        return None

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state arrays that this instance's options need."""
        extra = (slot for option, slot in self.slots_if.items() if getattr(self, option))
        return (*self.slots, *extra)

    @classmethod
    def number_names(cls) -> tuple[str, ...]:
        """Names of the hyperparameters that compiled code sees."""
        names = (f.name for f in _fields(cls))  # type: ignore[arg-type]
        return tuple(name for name in names if name not in cls.checks)

    @property
    def numbers(self) -> dict[str, float]:
        """The hyperparameters that compiled code sees, as floats."""
        return {name: float(getattr(self, name)) for name in self.number_names()}

    @property
    def betas(self) -> tuple[float, float]:
        """The decays of the two bias corrections, 0 where the rule has no such hyperparameter."""
        return getattr(self, "beta1", 0.0), getattr(self, "beta2", 0.0)

    @staticmethod
    def decay(h, rate):
        """The factor on x, and the factor of x that is added to the gradient."""
        if h.decoupled:
            return 1 - rate * h.weight_decay, 0.0
        return 1.0, h.weight_decay

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        return (rate,)

    @staticmethod
    def update(x, g, c, *slots):
        raise NotImplementedError("a rule defines update(x, g, c, *slots)")
