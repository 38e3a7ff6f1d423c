"""The theorems: a formula and a list of assumptions each; see `numbelief.online.bounds`."""

# In the order in which messages list them.
# isort: off
from numbelief.online.theorems.base import registry
from numbelief.online.theorems.averages import certificate
from numbelief.online.theorems.descent import adagrad, ogd
from numbelief.online.theorems.belief import adabelief, adabelief_corollary
from numbelief.online.theorems.moments import adam, amsgrad
from numbelief.online.theorems.weights import hedge
# isort: on

__all__ = [
    "adabelief",
    "adabelief_corollary",
    "adagrad",
    "adam",
    "amsgrad",
    "certificate",
    "hedge",
    "ogd",
    "registry",
]
