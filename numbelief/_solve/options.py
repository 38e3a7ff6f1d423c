"""``options`` and ``method``: read, checked, and told apart."""

import difflib
import math
import os
import warnings
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np
from scipy.optimize import OptimizeWarning

from numbelief import _checkpoint as checkpoint
from numbelief._solve.session import as_callback
from numbelief._solve.stopping import Tolerances
from numbelief.checks import choice, flag, integer, limit, real
from numbelief.rules import Lookahead, Rule


@dataclass(frozen=True)
class _Shared:
    """The options that every kind of run has, checked."""

    maxtime: float = math.inf
    target: float = -math.inf
    disp: bool = False
    progress: bool = False
    iterate: str = "best"
    checkpoint: Any = None
    resume: Any = False
    finite_difference: Any = None
    max_norm: float | None = None
    max_value: float | None = None
    compiled: bool | None = None

    iterates: ClassVar[tuple[str, ...]]
    flags: ClassVar[tuple[str, ...]] = ("disp", "progress")

    def __post_init__(self) -> None:
        for name, low in (("maxtime", 0.0), ("target", -math.inf)):
            object.__setattr__(self, name, real(name, getattr(self, name), low))
        for name in ("max_norm", "max_value"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, limit(name, getattr(self, name)))
        for name in self.flags:
            if type(getattr(self, name)) is not bool:
                object.__setattr__(self, name, flag(name, getattr(self, name)))
        if not isinstance(self.compiled, (bool, np.bool_, type(None))):
            raise TypeError(f"compiled must be True, False or None, got {self.compiled!r}")
        choice("iterate", self.iterate, self.iterates)
        if self.checkpoint is not None:
            path = checkpoint.as_path("checkpoint", self.checkpoint, writable=True)
            object.__setattr__(self, "checkpoint", path)
        if isinstance(self.resume, (bool, np.bool_)):
            object.__setattr__(self, "resume", bool(self.resume))
        else:
            object.__setattr__(self, "resume", checkpoint.as_path("resume", self.resume))
        if self.resume is True and self.checkpoint is None:
            raise ValueError(
                "resume=True continues from the file checkpoint=..., which is not given"
            )

    @property
    def resume_from(self) -> str | None:
        """The file to continue from, if there is one."""
        if self.resume is True:
            return self.checkpoint if os.path.exists(self.checkpoint) else None
        return self.resume or None


@dataclass(frozen=True)
class Options(_Shared, Tolerances):
    """The options of `numbelief.minimize` that are not hyperparameters, checked."""

    maxiter: int = 10_000
    return_all: bool = False
    history: bool = False
    checkpoint_every: int = 1000

    iterates = ("best", "last", "average")
    flags = ("disp", "progress", "return_all", "history")

    def __post_init__(self) -> None:
        _Shared.__post_init__(self)
        Tolerances.__post_init__(self)
        for name, low in (("maxiter", 0), ("checkpoint_every", 1)):
            object.__setattr__(self, name, integer(name, getattr(self, name), low))


@dataclass(frozen=True)
class TrainingOptions(_Shared):
    """The options of `numbelief.minimize_stochastic` that are not hyperparameters, checked."""

    ema_decay: float = 0.999
    average_from: float = 0.5
    patience: int | None = None
    checkpoint_every: int = 0
    step_callback: Any = None

    iterates = ("best", "last", "ema", "average")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ema_decay", "average_from"):
            value = real(name, getattr(self, name), 0.0)
            if value >= 1:
                raise ValueError(f"{name} must be below 1, got {value!r}")
            object.__setattr__(self, name, value)
        for name, low in (("patience", 1), ("checkpoint_every", 0)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, integer(name, getattr(self, name), low))
        seen = as_callback(self.step_callback, "step_callback")
        object.__setattr__(self, "step_callback", seen)


Kind = TypeVar("Kind", Options, TrainingOptions)


def read_options(
    method: Any, tol: float | None, options: dict[str, Any] | None, kind: type[Kind]
) -> tuple[Rule | Lookahead, Kind]:
    """The rule and the options of one kind that a run was called with."""
    if not isinstance(options, (dict, type(None))):
        raise TypeError(f"options must be a dict, got {options!r}")
    given = dict(options or {})
    hyperparameters: dict[str, Any] = {}
    rule: Rule | Lookahead
    if isinstance(method, str):
        named = Rule.registry.get(method.lower())
        if named is None:
            near = difflib.get_close_matches(method.lower(), Rule.registry, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ValueError(
                f"unknown method {method!r}: {hint}known are {', '.join(Rule.registry)}"
            )
        names = {f.name for f in fields(named) if f.init}
        hyperparameters = {name: given.pop(name) for name in list(given) if name in names}
        rule = named(**hyperparameters)
    elif isinstance(method, (Rule, Lookahead)):
        rule = method
    else:
        raise TypeError(f"method must be a rule such as AdaBelief() or its name, got {method!r}")
    known = {f.name for f in fields(kind)}
    unknown = [name for name in given if name not in known]
    if unknown:
        message = f"Unknown solver options: {', '.join(map(str, unknown))}"
        warnings.warn(message, OptimizeWarning, stacklevel=3)
    searches = kind is Options and rule.learning_rate is None
    inner = rule.inner
    own = next(f.default for f in fields(inner) if f.name == "weight_decay")
    if searches and inner.weight_decay not in (0.0, own):
        message = (
            f"weight_decay={inner.weight_decay} is left out: it needs a learning rate, since "
            'learning_rate="auto" minimizes fun itself'
        )
        warnings.warn(message, OptimizeWarning, stacklevel=3)
    if searches and inner is not rule:
        message = (
            "Lookahead is left out: it needs a learning rate, since "
            'learning_rate="auto" is a line search'
        )
        warnings.warn(message, OptimizeWarning, stacklevel=3)
    if tol is not None:
        given.setdefault("gtol", real("tol", tol, 0.0))
    given = {name: value for name, value in given.items() if name in known and value is not None}
    return rule, kind(**given)
