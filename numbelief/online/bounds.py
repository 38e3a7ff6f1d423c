r"""Regret bounds as executable theorems: a number, its terms, and whether a run is entitled to it.

A theorem about a run is a formula and a list of assumptions. `bound` evaluates the formula on what
was played, and checks each assumption on what was played: a game is replayed, and the directions,
steps, metrics and gradients of its rounds are compared with those that the theorem speaks of. A
violated assumption never hides the number; the number comes with the assumption marked.

One function a theorem, below; its docstring states it, derives what was corrected, and names the
source. Three facts carry all of them. For :math:`x_{t+1} = \Pi_{F, H_t}(x_t - H_t^{-1} m_t)`,

.. math:: \langle m_t, x_t - x\rangle \le \tfrac12\|x_t - x\|_{H_t}^2
    - \tfrac12\|x_{t+1} - x\|_{H_t}^2 + \tfrac12\|m_t\|_{H_t^{-1}}^2

because a projection in the metric :math:`H_t` brings no point of F further away in it; for the same
reason :math:`\langle m_t, x_t - x_{t+1}\rangle \le \|m_t\|_{H_t^{-1}}^2`; and convexity gives
:math:`f_t(x_t) - f_t(x) \le \langle g_t, x_t - x\rangle`. Then :math:`D_i` is the extent of F along
coordinate i, so that :math:`\sum_t \|x_t - x\|^2_{H_t - H_{t-1}} \le \sum_i D_i^2 H_{T,i}` where no
step grows.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief.online.audit import Assumption, Audit, Vector, convex_losses
from numbelief.online.theorems import *  # noqa: F403
from numbelief.online.theorems import registry as theorems
from numbelief.online.theorems.base import Terms
from numbelief.online.theorems.terms import product

__all__ = ["Assumption", "Bound", "bound", "theorems"]


@dataclass(frozen=True, eq=False)
class Bound:
    """A bound on the regret of a run, at the checkpoints.

    Attributes
    ----------
    theorem, variant : str
        What was asked for.
    statement : str
        The bound in one line.
    t : ndarray of int64
        Rounds.
    value : ndarray of float64
        The bound on R(t): the sum of the terms.
    terms : dict of str to ndarray
        The terms separately.
    trivial : ndarray of float64
        No play loses more than sum_t sum_i D_i |g_{t,i}|: a bound above it says nothing.
    assumptions : tuple of Assumption
        Checked on this run, with the evidence.
    """

    theorem: str
    variant: str
    statement: str
    t: NDArray[np.int64]
    value: Vector
    terms: Terms
    trivial: Vector
    assumptions: tuple[Assumption, ...]

    @property
    def holds(self) -> bool:
        """Whether the run satisfied every assumption."""
        return all(each.holds for each in self.assumptions)

    @property
    def final(self) -> float:
        """The bound on R(T)."""
        return float(self.value[-1])

    def __repr__(self) -> str:
        how = "holds" if self.holds else "an assumption is violated"
        number = f"R({self.t[-1]}) <= {self.final:.6g}"
        return f"<Bound: {self.theorem}, {self.variant}: {number}; {how}>"

    def __str__(self) -> str:
        columns = {**self.terms, "bound": self.value, "trivial": self.trivial}
        lines = [f"{self.theorem}, {self.variant}: {self.statement}"]
        lines.append(" ".join([f"{'t':>10}", *(f"{name:>12}" for name in columns)]))
        for k in np.unique(np.linspace(0, len(self.t) - 1, 8).astype(int)):
            numbers = (f"{column[k]:12.5g}" for column in columns.values())
            lines.append(" ".join([f"{self.t[k]:10d}", *numbers]))
        if not self.value[-1] < self.trivial[-1]:
            lines.append("says nothing: it is not below the trivial bound")
        for each in self.assumptions:
            lines.append(f"{'holds' if each.holds else 'FAILS'}  {each.name}: {each.evidence}")
        return "\n".join(lines)


def bound(audit: Audit, theorem: str, variant: str = "corrected", comparator: Any = None) -> Bound:
    """Evaluate a theorem on a run; see `OnlineResult.bound`."""
    if theorem not in theorems:
        raise ValueError(f"theorem must be one of {', '.join(theorems)}, got {theorem!r}")
    found = theorems[theorem]
    if variant not in ("corrected", "printed"):
        raise ValueError(f"variant must be 'corrected' or 'printed', got {variant!r}")
    if variant not in found.variants:
        why = {
            "corrected": "is false, and has no corrected form but 'amsgrad-4' and the certificate",
            "printed": "was printed nowhere",
        }
        raise ValueError(f"{theorem} {why[variant]}; ask for variant={found.variants[0]!r}")
    if not isinstance(audit.method, found.methods):
        names = ", ".join(each.__name__ for each in found.methods)
        raise ValueError(f"{theorem} is about {names}, got a run of {audit.result.name}")
    if comparator is not None and theorem != "certificate":
        raise ValueError(f"a comparator is for the certificate, got one for {theorem}")
    at = () if comparator is None else (comparator,)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        statement, terms, assumptions = found.function(audit, variant == "printed", *at)
        # Where a step underflows, the difference of two weights is undefined.
        terms = {name: np.where(np.isnan(term), inf, term) for name, term in terms.items()}
        value = np.sum(list(terms.values()), axis=0)
        trivial = product(audit.extent(comparator is not None), audit.sums["g1"]).sum(1)
    return Bound(
        theorem,
        variant,
        statement,
        audit.t,
        value,
        terms,
        trivial,
        (convex_losses(audit), *assumptions),
    )
