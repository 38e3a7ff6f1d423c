"""First-order optimization over NumPy arrays: AdaBelief and its family, compiled by Numba."""

from typing import TYPE_CHECKING

from numbelief import rules as rules
from numbelief import schedules as schedules
from numbelief import sets as sets
from numbelief._version import __version__ as __version__
from numbelief.many import minimize_many as minimize_many
from numbelief.many import per_row as per_row
from numbelief.minimize import minimize as minimize
from numbelief.optimizer import Optimizer as Optimizer
from numbelief.rules import *  # noqa: F403  every rule, by its registry

if not TYPE_CHECKING:
    __all__ = [
        "Optimizer",
        "minimize",
        "minimize_many",
        "per_row",
        "schedules",
        "sets",
        *rules.__all__,
    ]
