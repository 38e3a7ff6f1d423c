r"""The update rules: every algorithm of numbelief, each written once.

A rule is a frozen dataclass of hyperparameters and two static functions over plain numbers:

``coefficients(h, rate, t, bias1, bias2)``
    runs once per step, in float64. ``h`` holds the hyperparameters, ``rate`` is the learning rate
    of step ``t`` (counted from 1), ``bias1`` and ``bias2`` are :math:`1-\beta_1^t` and
    :math:`1-\beta_2^t` (1 where the rule has no such hyperparameter). It returns the numbers that
    ``scalars`` names.
``update(x, g, c, *slots)``
    runs once per coordinate. ``c`` holds the hyperparameters, the scalars and the constants
    ``zero``, ``one`` and ``tiny``, all in the precision of ``x``. It returns the direction
    :math:`d`, the per-coordinate rate :math:`\eta` and the new slots; whoever calls it computes
    :math:`x - \eta d`. A slot that the rule's options leave out arrives as None.

The functions are ordinary Python, which is compiled elsewhere: the rules import nothing but the
standard library and each other. Write numbers that are not in ``c`` as integer exponents only: a
literal such as ``1 - c.beta1`` would turn float32 arithmetic into float64. To add a rule, add a
class; the registry takes it from there.
"""

from typing import TYPE_CHECKING

# The registry, and with it the README's table, has the order of these lines.
# ruff: noqa: F403
# isort: off
from numbelief.rules.base import Rule as Rule
from numbelief.rules.sgd import *
from numbelief.rules.adagrad import *
from numbelief.rules.adam import *
from numbelief.rules.adabelief import *
from numbelief.rules.adabound import *
from numbelief.rules.lamb import *
from numbelief.rules.lookahead import Lookahead as Lookahead
from numbelief.rules.lookahead import without_lookahead as without_lookahead

if not TYPE_CHECKING:  # a type checker sees the classes themselves, and cannot read this list
    __all__ = ["Rule", *(rule.__name__ for rule in Rule.registry.values()), "Lookahead"]
