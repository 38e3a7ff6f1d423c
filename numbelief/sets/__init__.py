"""Feasible sets: where an iterate may lie.

Every set projects in a diagonal metric, and exactly: the nearest point as measured by the steps of
an adaptive rule is another one than the nearest point, and only the former makes it converge.
"""

from numbelief.sets.affine import Affine
from numbelief.sets.balls import Ball, L1Ball
from numbelief.sets.base import FeasibleSet
from numbelief.sets.box import Box
from numbelief.sets.combined import Intersection, Product
from numbelief.sets.linear import BoxHyperplane, HalfSpace
from numbelief.sets.simplex import Simplex

__all__ = [
    "Affine",
    "Ball",
    "Box",
    "BoxHyperplane",
    "FeasibleSet",
    "HalfSpace",
    "Intersection",
    "L1Ball",
    "Product",
    "Simplex",
]
