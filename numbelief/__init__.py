"""First-order optimization over NumPy arrays: AdaBelief and its family, compiled by Numba."""

from numbelief import schedules, sets
from numbelief._version import __version__ as __version__
from numbelief.minimize import minimize
from numbelief.optimizer import Optimizer
from numbelief.rules import *  # noqa: F403  every rule, by its registry
from numbelief.rules import __all__ as _rules

__all__ = ["Optimizer", "minimize", "schedules", "sets", *_rules]
