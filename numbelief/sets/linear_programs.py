"""Linear functions over sets with flat sides."""

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse
from numpy.typing import NDArray

from numbelief.sets.vectors import power_of_two

EMPTY = "the sets must have a point in common, got an empty intersection"
UNBOUNDED = "g must have a minimum over the set, got a direction in which it falls without end"


class Unbounded(ValueError):
    """There is no minimum."""


class System(NamedTuple):
    """All x with lower <= x <= upper, above @ x <= limits and equal @ x = values."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    above: Any = None
    limits: Any = None
    equal: Any = None
    values: Any = None


def joined(parts: Sequence[tuple[System | None, int, int]], n: int) -> System | None:
    """The system of all systems, each about coordinates lo to hi and columns of its own."""
    systems = [(each, lo, hi) for each, lo, hi in parts if each is not None]
    if len(systems) < len(parts):
        return None
    total = n + sum(each.lower.size - (hi - lo) for each, lo, hi in systems)
    lower, upper = np.full(total, -inf), np.full(total, inf)
    found: dict[str, list[Any]] = {name: [] for name in ("above", "limits", "equal", "values")}
    own = n
    for each, lo, hi in systems:
        extra = each.lower.size - (hi - lo)
        columns = np.concatenate([np.arange(lo, hi), np.arange(own, own + extra)])
        own += extra
        lower[columns] = np.maximum(lower[columns], each.lower)
        upper[columns] = np.minimum(upper[columns], each.upper)
        count = columns.size
        spread = scipy.sparse.csr_array(
            (np.ones(count), (np.arange(count), columns)), shape=(count, total)
        )
        for rows, sides in (("above", "limits"), ("equal", "values")):
            if getattr(each, rows) is not None:
                found[rows].append(scipy.sparse.csr_array(getattr(each, rows)) @ spread)
                found[sides].append(getattr(each, sides))
    whole = {
        name: (scipy.sparse.vstack if name in ("above", "equal") else np.concatenate)(pieces)
        for name, pieces in found.items()
        if pieces
    }
    return System(lower, upper, **whole)


def minimize(system: System, g: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point of a system that minimizes the inner product with g."""
    if (system.lower > system.upper).any():
        raise ValueError(EMPTY)
    # HiGHS allows absolute errors of 1e-7: measure in units of the set, with rows of a size of 1.
    sides = [system.lower, system.upper]
    rows = []
    for row, side in ((system.above, system.limits), (system.equal, system.values)):
        if row is None:
            rows += [None, None]
            continue
        row = scipy.sparse.csr_array(row)
        size = power_of_two(abs(row).max(axis=1).toarray().ravel())
        sides.append(side / size)
        rows += [scipy.sparse.diags_array(1 / size) @ row, side / size]
    known = np.abs(np.concatenate(sides))
    unit = power_of_two(known[np.isfinite(known)].max(initial=0.0))
    above, limits, equal, values = (
        part / unit if i % 2 and part is not None else part for i, part in enumerate(rows)
    )
    cost = np.zeros(system.lower.size)
    cost[: g.size] = g / (np.abs(g).max() or 1.0)
    result = scipy.optimize.linprog(
        cost,
        above,
        limits,
        equal,
        values,
        np.column_stack([system.lower, system.upper]) / unit,
        method="highs",
    )
    if result.status == 2:
        raise ValueError(EMPTY)
    if result.status in (3, 4):  # "unbounded", and "unbounded or infeasible"
        raise Unbounded(UNBOUNDED)
    x: NDArray[np.float64] = unit * result.x[: g.size]
    return x


def minimize_over_box(g: NDArray[np.float64], lower: Any, upper: Any) -> NDArray[np.float64]:
    """The point of a box that minimizes the inner product with g."""
    still = np.clip(0.0, lower, upper)
    x: NDArray[np.float64] = np.where(g > 0, lower, np.where(g < 0, upper, still))
    if np.isinf(x).any():
        raise ValueError(UNBOUNDED)
    return x
