"""First-order optimization over NumPy arrays: AdaBelief and its family, compiled by Numba."""

import importlib
from typing import TYPE_CHECKING, Any

from numbelief import rules as rules
from numbelief import schedules as schedules
from numbelief import sets as sets
from numbelief._solve.many import minimize_many as minimize_many
from numbelief._solve.many import per_row as per_row
from numbelief._solve.minimize import minimize as minimize
from numbelief._solve.stochastic import minimize_stochastic as minimize_stochastic
from numbelief._version import __version__ as __version__
from numbelief.optimizer import Optimizer as Optimizer
from numbelief.rules import *  # noqa: F403  every rule, by its registry

if not TYPE_CHECKING:
    __all__ = [
        "Optimizer",
        "minimize",
        "minimize_many",
        "minimize_stochastic",
        "per_row",
        "schedules",
        "sets",
        *rules.__all__,
    ]


def __getattr__(name: str) -> Any:
    # On use only: it takes as long to import as all the rest.
    if name == "online":
        return importlib.import_module("numbelief.online")
    raise AttributeError(f"module 'numbelief' has no attribute {name!r}")
