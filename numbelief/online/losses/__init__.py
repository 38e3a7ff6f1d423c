r"""Convex losses, one a round, that are tables of numbers.

Nearly every loss of online learning is a scalar function of one number a round: of the margin
:math:`z = \langle a_t, x\rangle` (hinge, logistic, portfolio, least squares), or of each coordinate
of x (squared distance, distance). So a loss is written once, as that function: ``loss(z, y)``
returns its value, its slope and its curvature at z, where y is the round's target or label. Two
kinds of templates make the rest of it: the compiled function of one round, which a compiled loop
plays, and the sum over rounds with its gradient, which a comparator needs. A `Losses` of your own
is a class with a ``loss``.

Rounds count from 1, as in the papers; round t is row t - 1 of the data. Whatever the dtype of the
data, products and sums are taken in float64: regret is a small difference of large sums.

>>> import numpy as np
>>> from numbelief.online import losses
>>> f = losses.LogisticLosses([[1.0, 2.0], [0.0, 1.0]], [1, -1])
>>> value, gradient = f.total(np.zeros(2))
>>> round(value, 4), gradient
(1.3863, array([-0.5, -0.5]))
"""

from numbelief.online.losses.base import Losses as Losses
from numbelief.online.losses.base import Minimizer as Minimizer
from numbelief.online.losses.base import Model as Model
from numbelief.online.losses.builtin import *  # noqa: F403
from numbelief.online.losses.builtin import __all__ as _built_in
from numbelief.online.losses.callback import CallbackLosses as CallbackLosses

__all__ = ["CallbackLosses", "Losses", *_built_in]
