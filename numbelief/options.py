"""What stands in ``options`` and ``method``: read, checked, and told apart."""

import difflib
import math
import warnings
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.optimize import OptimizeWarning

from numbelief import checkpoint
from numbelief.checks import integer, real
from numbelief.rules import Rule


@dataclass(frozen=True)
class Options:
    """The options that are not hyperparameters, checked."""

    maxiter: int = 10_000
    gtol: float = 1e-5
    ftol: float = 0.0
    xtol: float = 0.0
    maxtime: float = math.inf
    target: float = -math.inf
    disp: bool = False
    return_all: bool = False
    history: bool = False
    progress: bool = False
    iterate: str = "best"
    checkpoint: Any = None
    checkpoint_every: int = 1000
    resume: Any = False
    finite_difference: Any = None
    max_norm: float | None = None
    max_value: float | None = None
    compiled: bool | None = None

    def __post_init__(self) -> None:
        for name in ("maxiter", "checkpoint_every"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        for name in ("gtol", "ftol", "xtol", "maxtime", "target"):
            low = -math.inf if name == "target" else 0.0
            object.__setattr__(self, name, real(name, getattr(self, name), low))
        if self.checkpoint_every == 0:
            raise ValueError("checkpoint_every must be at least 1, got 0")
        if self.compiled not in (None, True, False):
            raise TypeError(f"compiled must be True, False or None, got {self.compiled!r}")
        if self.iterate not in ("best", "last", "average"):
            raise ValueError(f"iterate must be 'best', 'last' or 'average', got {self.iterate!r}")
        if self.checkpoint is not None:
            path = checkpoint.as_path("checkpoint", self.checkpoint, writable=True)
            object.__setattr__(self, "checkpoint", path)
        if isinstance(self.resume, (bool, np.bool)):
            object.__setattr__(self, "resume", bool(self.resume))
        else:
            object.__setattr__(self, "resume", checkpoint.as_path("resume", self.resume))
        if self.resume is True and self.checkpoint is None:
            raise ValueError(
                "resume=True continues from the file checkpoint=..., which is not given"
            )


def read_options(
    method: Any, tol: float | None, options: dict[str, Any] | None
) -> tuple[Rule, Options]:
    """The rule and the options that minimize was called with."""
    if not isinstance(options, (dict, type(None))):
        raise TypeError(f"options must be a dict, got {options!r}")
    given = dict(options or {})
    hyperparameters: dict[str, Any] = {}
    if isinstance(method, str):
        kind = Rule.registry.get(method.lower())
        if kind is None:
            near = difflib.get_close_matches(method.lower(), Rule.registry, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ValueError(
                f"unknown method {method!r}: {hint}known are {', '.join(Rule.registry)}"
            )
        names = {f.name for f in fields(kind) if f.init}
        hyperparameters = {name: given.pop(name) for name in list(given) if name in names}
        rule = kind(**hyperparameters)
    elif isinstance(method, Rule):
        rule = method
    else:
        raise TypeError(f"method must be a rule such as AdaBelief() or its name, got {method!r}")
    known = {f.name for f in fields(Options)}
    unknown = [name for name in given if name not in known]
    if unknown:
        message = f"Unknown solver options: {', '.join(map(str, unknown))}"
        warnings.warn(message, OptimizeWarning, stacklevel=3)
    own = next(f.default for f in fields(rule) if f.name == "weight_decay")
    if rule.learning_rate is None and rule.weight_decay not in (0.0, own):
        message = (
            f"weight_decay={rule.weight_decay} is left out: it needs a learning rate, since "
            'learning_rate="auto" minimizes fun itself'
        )
        warnings.warn(message, OptimizeWarning, stacklevel=3)
    if tol is not None:
        given.setdefault("gtol", real("tol", tol, 0.0))
    given = {name: value for name, value in given.items() if name in known and value is not None}
    return rule, Options(**given)
