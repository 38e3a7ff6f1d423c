"""What a kernel depends on, in one key."""

import functools
import hashlib
import sys
import types
from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np

from numbelief._compile.jit import package_salt
from numbelief._compile.template import codes, used_by
from numbelief._step.state import StepOptions
from numbelief.rules import Rule

# `update` and its caller see these besides the hyperparameters and the rule's scalars.
_COMMON = ("zero", "one", "tiny")


class Kind(NamedTuple):
    """What a kernel depends on besides its template and the dtype of x.

    Attributes
    ----------
    rule : subclass of Rule
        Its hyperparameters are arguments of the kernel.
    slots : int
        How many of its slots are in use.
    options : tuple of str
        Which of the `StepOptions` are given.
    """

    rule: type[Rule]
    slots: int
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, rule: Rule, options: StepOptions) -> "Kind":
        """The kind of the kernels that step a rule with these options."""
        given = tuple(
            name for name, value in zip(options._fields, options, strict=True) if value is not None
        )
        return cls(type(rule), len(rule.state_names), given)

    def has(self, option: str) -> bool:
        """Whether an option is given."""
        return option in self.options

    @property
    def key(self) -> str | None:
        """What names its kernels on disk; None if that cannot be told, as for some users' rules."""
        key = rule_key(self.rule)
        if key is None:
            return None
        return "_".join((self.rule.__name__, str(self.slots), *self.options, key))


@functools.cache
def fields_of(rule: type[Rule]) -> tuple[Any, Any]:
    """The types of a rule's h and c, after a look at how the rule is declared."""
    name = rule.__name__
    if "__dataclass_fields__" not in vars(rule):
        raise TypeError(f"{name} must be decorated with @dataclass(frozen=True)")
    if len(rule.slots_if) > 1 or len(rule.slots) + len(rule.slots_if) > 3:
        raise ValueError(f"{name} may have 3 slots, of which one may be in slots_if")
    names = rule.number_names()
    everything = names + rule.scalars + _COMMON
    if len({*everything}) < len(everything):
        twice = {n for n in everything if everything.count(n) > 1}
        raise ValueError(f"{name} gives c a name twice: {', '.join(sorted(twice))}")
    return namedtuple("Hyperparameters", names), namedtuple("Coefficients", everything)


def never_decays(rule: Rule) -> bool:
    """Whether weight decay, as the rule does it, leaves x and the gradient as they are."""
    hyperparameters, _ = fields_of(type(rule))  # type: ignore[arg-type]
    return bool(rule.decay(hyperparameters(**rule.numbers), 1.0) == (1.0, 0.0))


def check_rule(rule: Rule) -> None:
    """Run a rule once on plain numbers, where a mistake of its author has a readable error."""
    name = type(rule).__name__
    hyperparameters, coefficients = fields_of(type(rule))  # type: ignore[arg-type]
    slots = len(rule.state_names)
    h = hyperparameters(**rule.numbers)
    try:
        scalars = rule.coefficients(h, 0.1, 1, 0.5, 0.5)
        if not isinstance(scalars, tuple) or len(scalars) != len(rule.scalars):
            raise TypeError(
                f"{name}.coefficients must return the {len(rule.scalars)} numbers {rule.scalars}, "
                f"got {scalars!r}"
            )
        c = coefficients(*h, *scalars, *(0.5 for _ in _COMMON))
        returned = rule.update(1.0, 1.0, c, *(0.5 for _ in range(slots)))
    except (ArithmeticError, ValueError):  # only these numbers were not the rule's kind
        return
    if not isinstance(returned, tuple) or len(returned) < 2 + slots:
        raise TypeError(
            f"{name}.update must return the direction, the rate and {slots} slots, got {returned!r}"
        )


def rule_key(rule: type[Rule]) -> str | None:
    """A short hash of a rule and of all that its functions use; None if that cannot be told."""
    if rule.is_built_in():
        return package_salt()
    parts = [package_salt(), repr((rule.number_names(), rule.scalars, rule.slots, rule.slots_if))]
    seen = set()

    def known(value: Any) -> bool:
        """Add a value that compiled code may depend on."""
        if isinstance(value, (tuple, list)):
            return all(map(known, value))
        if isinstance(value, types.ModuleType):
            parts.append(value.__name__)
            return value.__name__ in ("math", "numpy")
        if hasattr(value, "py_func"):  # a helper that the user compiled
            parts.append(repr(value.targetoptions))
            value = value.py_func
        if isinstance(value, types.FunctionType):
            if value in seen:
                return True
            seen.add(value)
            # Compiled code from the disk imports the modules of the functions in it.
            if value.__module__ not in sys.modules:
                return False
            parts.append(value.__module__)
            parts.extend(repr((code.co_code, code.co_names)) for code in codes(value.__code__))
            return known(value.__defaults__) and known(used_by(value))
        parts.append(repr(value))
        plain = (bool, int, float, str, type(None), np.number, types.BuiltinFunctionType)
        return isinstance(value, plain)

    if not all(map(known, (rule.update, rule.coefficients, rule.decay))):
        return None
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
