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

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from numbelief import kernels
from numbelief.checks import as_array
from numbelief.online import game, losses
from numbelief.online.comparators import reach
from numbelief.online.play import OGD, Hedge
from numbelief.online.regret import SPACE
from numbelief.rules import SGD, AdaBelief, Adagrad, Adam, Rule
from numbelief.sets import Box

if TYPE_CHECKING:
    from numbelief.online.play import OnlineResult

__all__ = ["Assumption", "Bound", "bound", "theorems"]

Vector = NDArray[np.float64]
Terms = dict[str, Vector]
Findings = tuple[str, Terms, list["Assumption"]]
Evaluation = TypeVar("Evaluation", bound=Callable[..., Findings])

# How far numbers may be apart that a theorem takes for equal: rounding, and a printed theorem that
# forgets an epsilon far below everything else.
_ROUNDING, _NEGLIGIBLE = 1e-8, 1e-6


@dataclass(frozen=True)
class Assumption:
    """What a theorem asks of a run, and what the run says to it.

    Attributes
    ----------
    name : str
    holds : bool
    evidence : str
        What was seen.
    """

    name: str
    holds: bool
    evidence: str


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


@dataclass(frozen=True)
class Theorem:
    """A function that evaluates a theorem, whom it is about, and its variants."""

    function: Callable[..., "Findings"]
    methods: tuple[type, ...]
    variants: tuple[str, ...]


#: The theorems by name.
theorems: dict[str, Theorem] = {}


def _theorem(
    name: str, *methods: type, variants: tuple[str, ...] = ("corrected", "printed")
) -> Callable[[Evaluation], Evaluation]:
    def register(function: Evaluation) -> Evaluation:
        theorems[name] = Theorem(function, methods, variants)
        return function

    return register


def bound(
    audit: "Audit", theorem: str, variant: str = "corrected", comparator: Any = None
) -> Bound:
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
        # Where a step underflows, the difference of two weights is none of numbers.
        terms = {name: np.where(np.isnan(term), inf, term) for name, term in terms.items()}
        value = np.sum(list(terms.values()), axis=0)
        trivial = _product(audit.extent(comparator is not None), audit.row(game.G1)).sum(1)
    return Bound(
        theorem, variant, statement, audit.t, value, terms, trivial, (_convex(audit), *assumptions)
    )


# ---- what a run adds up to ---------------------------------------------------------------------


class Audit:
    """A game that was played again, and its sums at the checkpoints."""

    def __init__(self, result: "OnlineResult") -> None:
        self.result = result
        self.player = player = result._player
        _, sums, figures, slots, at, place, *kept = player.audit()
        known = int(place[0])
        self.t: NDArray[np.int64] = at[:known]
        tables = [table[:known] for table in kept]
        if not known or self.t[-1] != result.rounds:  # the game ended between two checkpoints
            self.t = np.append(self.t, result.rounds)
            last = (sums, figures, slots)
            pairs = zip(tables, last, strict=True)
            tables = [np.vstack([table, each.reshape(1, -1)]) for table, each in pairs]
        self.n = n = result.losses.n
        self._rows = tables[0].reshape(len(self.t), -1, n)
        self._figures = tables[1]
        self._slots = tables[2].reshape(len(self.t), -1, n)
        self.method: Any = result.method
        self.place: Any = result.feasible_set or SPACE
        self.rule: Any = player.rule
        self.decay = float(player.decay)
        self.beta1 = float(getattr(self.rule, "beta1", 0.0))

    def row(self, k: int) -> Vector:
        """The sums of a kind, for each checkpoint and coordinate."""
        rows: Vector = self._rows[:, k]
        return rows

    def figure(self, k: int) -> Vector:
        """The sum of a kind, for each checkpoint."""
        figures: Vector = self._figures[:, k]
        return figures

    @property
    def second(self) -> Vector:
        """What is under the root of the rule: the last of its slots."""
        slots: Vector = self._slots[:, -1]
        return slots

    def extent(self, unbounded: bool = False) -> Vector:
        """How far apart two points of the set may be along each coordinate.

        A set without an extent is refused, unless infinity will do.
        """
        try:
            return np.asarray(self.place.diameter(self.n))
        except (ValueError, NotImplementedError) as error:
            if unbounded:
                return np.full(self.n, inf)
            raise ValueError(f"a bound needs a feasible_set with a diameter: {error}") from None

    def length(self) -> float:
        """The Euclidean diameter of the set."""
        self.extent()
        return float(self.place.diameter(self.n, norm=2))

    def rates(self) -> Vector:
        """The learning rates of the rounds."""
        return kernels.tabulate(self.player.schedule, 1, self.result.rounds)

    def at(self, curve: Vector) -> Vector:
        """A curve over all rounds, at the checkpoints."""
        here: Vector = curve[self.t - 1]
        return here

    @property
    def alpha(self) -> float:
        """The rate of the first round, alpha of a schedule alpha / sqrt(t)."""
        return float(self.rates()[0])


def _product(*factors: Any) -> Any:
    """A product in which 0 times infinity is 0: nothing is at stake there, whatever the weight."""
    product: Any = np.float64(1.0)
    for factor in factors:
        product = np.where((product == 0) | (np.asarray(factor) == 0), 0.0, product * factor)
    return product


def _inverse(value: Any) -> Any:
    """1 / value, infinite at 0."""
    return np.float64(1.0) / np.asarray(value, dtype=np.float64)


# ---- assumptions -------------------------------------------------------------------------------


def _convex(run: Audit) -> Assumption:
    given = run.result.losses
    ours = type(given).__module__ == losses.__name__
    known = ours and not isinstance(given, losses.CallbackLosses)
    name = type(given).__name__
    seen = f"{name} are" if known else f"{name}: promised by the caller, it cannot be seen"
    return Assumption("convex losses", True, seen)


def _average(run: Audit) -> Assumption:
    stray = float(run.figure(game.STRAY)[-1])
    name = "direction m_t = beta1 m_(t-1) + (1 - beta1) g_t" if run.beta1 else "direction g_t"
    return Assumption(name, stray <= _ROUNDING, f"off by at most {stray:.2g} of its size")


def _metric(run: Audit) -> Assumption:
    """Whether x_{t+1} is the projection of the step: whether no point of F is nearer in 1/eta.

    For that to be so, the gradient H (x_{t+1} - x_t) + m_t of the distance must have its minimum
    over F at x_{t+1}. On a set that does not tell where this is, or not exactly, the step is taken
    again.
    """
    name = "projected in the metric of the step"
    weights, direction = run.row(game.WEIGHT), run.row(game.DIRECTION)
    before, after = run.row(game.BEFORE), run.row(game.POINT)
    moves = run.row(game.STEP) > 0
    force = np.where(moves, weights * (after - before) + direction, 0.0)
    size = weights * (abs(after) + abs(before)) + abs(direction)
    worst, seen = 0.0, "no point is nearer, within {:.2g} of the terms"
    try:
        for f, s, x in zip(force, size, after, strict=True):
            y = run.place.linear_minimum(f)
            gap, unit = f @ (x - y), s @ (abs(x) + abs(y))
            worst = max(worst, float(gap / unit) if unit > 0 else 0.0)
    except (ValueError, NotImplementedError):
        worst = inf
    if worst > _ROUNDING:
        metric = np.where(weights > 0, weights, 1.0)
        goals = np.where(moves, before - run.row(game.STEP) * direction, before)
        again = np.array([run.place.project(y, h) for y, h in zip(goals, metric, strict=True)])
        unit = np.maximum(abs(before), abs(after)).max(1)
        worst = float(np.max(abs(after - again).max(1) / (unit + 1e-300)))
        seen = "the projection is the same, within {:.2g} of the point"
    decays = not kernels.never_decays(run.rule)
    seen = f"at {len(run.t)} rounds " + seen.format(worst)
    if isinstance(run.place, Box):
        seen += "; a box has the same projection in all diagonal metrics"
    if decays:
        seen = "x decays before the step, or lambda x is added to g"
    return Assumption(name, worst <= _ROUNDING and not decays, seen)


def _moving(run: Audit) -> Assumption:
    count = int(run.figure(game.FROZEN)[-1])
    name = "no coordinate held by a step of 0"
    if isinstance(run.place, Box):
        return Assumption(name, True, "on a box each coordinate plays by itself")
    return Assumption(name, count == 0, f"{count} rounds with such a coordinate")


def _shrinking(run: Audit) -> Assumption:
    """Whether the weights, which are infinite where a step is 0 along a direction, never fell."""
    shrinks = run.figure(game.WEIGHTS_GROW)[-1] == 1
    seen = "none grew in any round" if shrinks else "some grew in some round"
    return Assumption("steps never grow", bool(shrinks), seen)


def _constant_beta1(run: Audit) -> Assumption:
    seen = f"beta1 = {run.beta1:g}"
    if run.decay < 1:
        seen += f" * {run.decay:g}^(t-1)"
    return Assumption("constant beta1", run.decay == 1 or run.beta1 == 0, seen)


def _decaying_beta1(run: Audit) -> Assumption:
    seen = f"beta1 = {run.beta1:g}, lambda = {run.decay:g}"
    holds = run.decay < 1 or run.beta1 == 0
    return Assumption("beta1_t = beta1 lambda^(t-1), lambda < 1", holds, seen)


def _fading_rate(run: Audit) -> Assumption:
    scaled = run.rates() * np.sqrt(np.arange(1, run.result.rounds + 1))
    low, high = float(scaled.min()), float(scaled.max())
    seen = f"alpha_t sqrt(t) is between {low:.6g} and {high:.6g}"
    return Assumption("alpha_t = alpha / sqrt(t)", high - low <= _ROUNDING * high, seen)


def _steps(run: Audit, name: str, weights: Vector, slack: float = _ROUNDING) -> Assumption:
    """Whether the steps were 1 / weights, where there was a direction to step along."""
    steps = run.row(game.STEP)
    asked = (steps > 0) | (run.row(game.DIRECTION) != 0) & np.isfinite(weights)
    off = float(np.max(abs(weights * steps - 1), where=asked, initial=0.0))
    return Assumption(f"steps {name}", off <= slack, f"off by at most {off:.2g} of their size")


def _second_grows(run: Audit, name: str) -> Assumption:
    grows = run.figure(game.SLOTS_GROW)[-1] == 1
    return Assumption(
        f"{name}_t never falls", bool(grows), "in no round" if grows else "it fell in some round"
    )


def _bounded(run: Audit, name: str = "G") -> Assumption:
    top = float(run.row(game.LARGEST)[-1].max())
    return Assumption(
        "bounded gradients", True, f"the largest |g_i| of this run, {top:.6g}, was taken for {name}"
    )


# ---- the certificate ---------------------------------------------------------------------------


@_theorem("certificate", Rule, OGD, variants=("corrected",))
def certificate(run: Audit, printed: bool, comparator: Any = None) -> Findings:
    r"""One theorem for every rule that steps along an average of the gradients.

    For constant :math:`\beta_1 = \beta`, :math:`m_0 = 0`, :math:`H_t = \mathrm{diag}(1/\eta_t)`
    with the steps :math:`\eta_t` really taken, and :math:`x_{t+1} = \Pi_{F,H_t}(x_t - \eta_t m_t)`,

    .. math:: R(T) \le \tfrac12\sum_i D_i^2 \mathrm{PV}_i
        + \frac{1+\beta}{2(1-\beta)}\sum_{t,i}\eta_{t,i} m_{t,i}^2
        + \frac{\beta}{1-\beta}\sum_i D_i|m_{T,i}|, \quad
        \mathrm{PV}_i = \sum_t (H_{t,i} - H_{t-1,i})_+.

    No step need shrink: the bound holds for Adam as well, and blows up where Adam does. A rule
    without :math:`\beta_1` has :math:`\beta = 0`.

    Notes
    -----
    From :math:`g_t = (m_t - \beta m_{t-1})/(1-\beta)` follows, with :math:`b = \beta/(1-\beta)`,

    .. math:: \langle g_t, x_t - x\rangle = \langle m_t, x_t - x\rangle
        + b\,[\langle m_t, x_t - x\rangle - \langle m_{t-1}, x_{t-1} - x\rangle]
        + b\,\langle m_{t-1}, x_{t-1} - x_t\rangle.

    The bracket telescopes to :math:`b\langle m_T, x_T - x\rangle`. The first and the last product
    are those at the top of this file, which add up to :math:`\tfrac12 + b = (1+\beta)/(2(1-\beta))`
    times the second sum, and to

    .. math:: \tfrac12\sum_t \|x_t - x\|^2_{H_t - H_{t-1}} - \tfrac12\|x_{T+1} - x\|^2_{H_T},
        \quad H_0 = 0.

    That is at most the first term; with a known x it is, multiplied out, :math:`\tfrac12[\sum_i
    H_{T,i}x_i^2 - 2\langle B, x\rangle + C] - \tfrac12\|x_{T+1} - x\|^2_{H_T}` with the sums
    :math:`B = \sum\Delta H_t x_t` and :math:`C = \sum\langle\Delta H_t, x_t^2\rangle`, and
    :math:`D_i|m_{T,i}|` is :math:`m_{T,i}(x_{T,i} - x_i)`. With ``comparator`` these are the terms:
    for a point, the bound is on the regret against it; for "best", on R(T), against the comparator
    that `Regret` found, plus its gap (an adversary is bounded against the best point of the
    linearized losses). In the median of random runs it is several times tighter.

    A coordinate with :math:`\eta = 0` and :math:`m \ne 0` costs at most :math:`D_i|m_{t,i}|` in
    that round: the term "idle", if there is one.

    References
    ----------
    numbelief. The telescoping follows A. Alacaoglu, Y. Malitsky, P. Mertikopoulos and V. Cevher, "A
    new regret analysis for Adam-type algorithms", ICML 2020; the variation and the known comparator
    are ours.
    """
    beta = run.beta1
    b = beta / (1 - beta)
    steps = (0.5 + b) * run.figure(game.QUADRATIC)
    D = run.extent(comparator is not None)
    m = run.row(game.DIRECTION)
    if comparator is None:
        statement = (
            "R(T) <= sum D^2 PV / 2 + (1 + beta) / (2 (1 - beta)) sum eta m^2 "
            "+ beta / (1 - beta) sum D |m_T|"
        )
        terms = {
            "variation": 0.5 * _product(D**2, run.row(game.VARIATION)).sum(1),
            "steps": steps,
            "momentum": b * (D * abs(m)).sum(1),
        }
    else:
        x, gap = _points(run, comparator)
        H = run.row(game.WEIGHT)
        passed = (H * x**2 - 2 * run.row(game.DRIFT) * x).sum(1) + run.figure(game.CURVATURE)
        left = (H * (run.row(game.POINT) - x) ** 2).sum(1)
        statement = (
            "R(T) <= sum_t |x_t - x|^2_(H_t - H_(t-1)) / 2 - |x_(T+1) - x|^2_(H_T) / 2 "
            "+ (1 + beta) / (2 (1 - beta)) sum eta m^2 + beta / (1 - beta) <m_T, x_T - x>"
        )
        terms = {
            "variation": 0.5 * (passed - left),
            "steps": steps,
            "momentum": b * (m * (run.row(game.BEFORE) - x)).sum(1),
        }
        if gap.any():
            terms["gap"] = gap
    idle = run.row(game.IDLE)
    if idle.any():
        terms["idle"] = _product(D, idle).sum(1)
    return statement, terms, [_constant_beta1(run), _average(run), _metric(run), _moving(run)]


def _points(run: Audit, comparator: Any) -> tuple[Vector, Vector]:
    """The points to compare with, one for each checkpoint or for all, and their gaps."""
    none = np.zeros(len(run.t))
    if not isinstance(comparator, str):
        x = as_array(comparator, "comparator").astype(np.float64)
        if x.shape != (run.n,):
            raise ValueError(f"comparator must have shape ({run.n},), got {x.shape}")
        if not np.isfinite(x).all() or not run.place.contains(x):
            raise ValueError(f"comparator must be a point of the feasible set, got {comparator!r}")
        return x[None], none
    if comparator != "best":
        raise ValueError(f"comparator must be 'best' or a point, got {comparator!r}")
    found = run.result.regret.comparators
    if found:
        return np.array([each.x for each in found]), np.array([each.gap for each in found])
    _, _, gradients = run.result.linearized
    try:
        points = [run.place.linear_minimum(g) for g in gradients]
    except NotImplementedError as error:
        raise ValueError(f"comparator must be a point here, not 'best': {error}") from None
    gaps = [reach(run.place, g, x) for g, x in zip(gradients, points, strict=True)]
    return np.array(points), np.array(gaps)


# ---- gradient descent and Adagrad --------------------------------------------------------------


@_theorem("ogd", OGD, SGD)
def ogd(run: Audit, printed: bool) -> Findings:
    r"""Online gradient descent.

    Printed, for :math:`\eta_t = D/(G\sqrt t)`: with :math:`\|g_t\| \le G` and the Euclidean
    diameter D,

    .. math:: R(T) \le \tfrac32 G D \sqrt T.

    That is true for the G and D of the step; a G read off the run afterwards, beside another step,
    proves nothing.

    Corrected: all steps that never grow have

    .. math:: R(T) \le \frac{D^2}{2\eta_T} + \tfrac12\sum_t \eta_t\|g_t\|^2.

    With the step's own numbers D', G' and :math:`\sum_{t\le T} 1/\sqrt t \le 2\sqrt T` that is
    :math:`(D^2 G'/(2D') + D' G^2/G')\sqrt T` with :math:`G \ge G'` at least the largest gradient
    seen: 3/2 G D √T where the step knew both, and true where it did not. Without G, for
    :math:`\eta_t = D'/\sqrt{2 S_t}`, :math:`S_t = \sum_{s\le t}\|g_s\|^2`, the sum is at most
    :math:`D'\sqrt{S_T/2}` by :math:`\sum_t a_t/\sqrt{S_t} \le 2\sqrt{S_T}`, in total
    :math:`\sqrt2 D\sqrt{S_T}` for D' = D. Other schedules have the two sums as they are.

    References
    ----------
    M. Zinkevich, "Online convex programming and generalized infinitesimal gradient ascent", ICML
    2003, theorem 1; with D and G, E. Hazan, "Introduction to online convex optimization", 2016,
    theorem 3.1; without G, F. Orabona, arXiv 1912.13213, theorem 4.14.
    """
    D = run.length()
    seen, root = run.figure(game.LONGEST), np.sqrt(run.t)
    own = OGD()
    if isinstance(run.method, OGD) and run.method.learning_rate is None:
        own = run.method
    known = own.G is not None
    step = D if own.D is None else own.D
    common = [_average(run), _metric(run)]
    top = float(seen[-1])
    if printed:
        G = own.G if own.G is not None else top
        given = f"G = {G:.6g} was {'given' if known else 'seen, not given'}"
        return (
            "R(T) <= 3/2 G D sqrt(T)",
            {"distance": 0.5 * G * D * root, "gradients": G * D * root},
            [
                Assumption("step D / (G sqrt(t)), G known beforehand", known, given),
                Assumption("|g_t| <= G", top <= G * (1 + 1e-12), f"the largest was {top:.6g}"),
                Assumption("D is the diameter", step == D, f"D = {step:.6g}, and {D:.6g} of F"),
                *common,
            ],
        )
    if own.G is not None:
        most = np.maximum(own.G, seen)
        statement = "R(T) <= 3/2 G D sqrt(T), or with the largest gradient for G if that is larger"
        terms = {
            "distance": _product(D**2 * own.G / 2, _inverse(step), root),
            "gradients": step * most**2 / own.G * root,
        }
    elif isinstance(run.method, OGD) and run.method.learning_rate is None:
        S = run.row(game.G2).sum(1)
        statement = "R(T) <= sqrt(2) D sqrt(sum |g_t|^2)"
        terms = {
            "distance": _product(D**2, np.sqrt(S / 2), _inverse(step)),
            "gradients": step * np.sqrt(S / 2),
        }
    else:
        statement = "R(T) <= D^2 / (2 eta_T) + sum eta_t |g_t|^2 / 2"
        terms = {
            "distance": _product(D**2 / 2, _inverse(run.figure(game.RATE))),
            "gradients": 0.5 * run.figure(game.QUADRATIC),
        }
    return statement, terms, [_shrinking(run), *common]


@_theorem("adagrad", Adagrad)
def adagrad(run: Audit, printed: bool) -> Findings:
    r"""Adagrad with a diagonal matrix.

    Printed, for :math:`\eta_{t,i} = \alpha/s_{t,i}`, :math:`s_{t,i} = \|g_{1:t,i}\|_2`:

    .. math:: R(T) \le \frac{D_\infty^2}{2\alpha}\sum_i s_{T,i} + \alpha\sum_i s_{T,i},

    which is :math:`\sqrt2 D_\infty\sum_i s_{T,i}` for :math:`\alpha = D_\infty/\sqrt2`.

    Corrected, for :math:`\eta_{t,i} = \alpha_t/(\sqrt{s_{t,i}^2 + \epsilon_{root}} + \epsilon)`:
    the first term has the whole denominator, as large epsilons make steps so small that the regret
    exceeds the printed bound; it has the :math:`D_i` of each coordinate, and :math:`\alpha_T`; the
    second has the largest :math:`\alpha_t`, by :math:`\sum_t g_t^2/s_t \le 2 s_T`.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", JMLR 12, 2011, theorem 5 and corollary 6 (composite mirror descent).
    """
    D, s = run.extent(), np.sqrt(run.row(game.G2))
    rates = run.rates()
    rate = run.at(rates)[:, None]
    rule = run.rule
    common = [_shrinking(run), _average(run), _metric(run), _moving(run)]
    if printed:
        alpha = float(rates[0])
        constant = bool((rates == alpha).all())
        return (
            "R(T) <= D^2 / (2 alpha) sum s_T + alpha sum s_T",
            {
                "distance": _product(D.max() ** 2 / 2, s.sum(1), _inverse(alpha)),
                "gradients": alpha * s.sum(1),
            },
            [
                Assumption("constant alpha", constant, f"from {alpha:.6g} to {rates[-1]:.6g}"),
                _steps(run, "alpha / s_t", s / alpha, _NEGLIGIBLE),
                *common,
            ],
        )
    root = np.sqrt(s**2 + rule.eps_root) + rule.eps
    largest = run.at(np.maximum.accumulate(rates))
    return (
        "R(T) <= sum D_i^2 (s_T,i + eps) / (2 alpha_T) + max alpha_t sum s_T,i",
        {
            "distance": _product(D**2 / 2, root, _inverse(rate)).sum(1),
            "gradients": largest * s.sum(1),
        },
        [_steps(run, "alpha_t / (sqrt(s_t^2 + eps_root) + eps)", root / rate), *common],
    )


# ---- AdaBelief ---------------------------------------------------------------------------------


@_theorem("adabelief-2.1", AdaBelief)
def adabelief(run: Audit, printed: bool) -> Findings:
    r"""AdaBelief, theorem 2.1.

    Printed, for :math:`\alpha_t = \alpha/\sqrt t`, :math:`\beta_{1t} \le \beta_1`,
    :math:`s_t \le s_{t+1}`, :math:`s_{t,i} \ge c`:

    .. math:: R(T) \le \frac{D_\infty^2\sqrt T}{2\alpha(1-\beta_1)}\sum_i s_{T,i}^{1/2}
        + \frac{(1+\beta_1)\alpha\sqrt{1+\log T}}{2\sqrt c(1-\beta_1)^3}\sum_i\|g^2_{1:T,i}\|_2
        + \frac{D_\infty^2}{2(1-\beta_1)}\sum_{t,i}\frac{\beta_{1t}s_{t,i}^{1/2}}{\alpha_t},

    where :math:`\|g^2_{1:T,i}\|_2` is :math:`(\sum_t g_{t,i}^4)^{1/2}`: with
    :math:`(\sum_t g_{t,i}^2)^{1/2}` the two sides have different units, and runs violate it.

    Corrected, for AdaBelief with the AMSGrad maximum :math:`\hat s`, no bias correction and steps
    :math:`\alpha_t/(\sqrt{\hat s_t} + \epsilon)`:

    .. math:: R(T) \le \frac{\sqrt T}{2\alpha}\sum_i D_i^2(\sqrt{\hat s_{T,i}} + \epsilon)
        + \frac{(1+\beta_1)\alpha}{2(1-\beta_1)}
          \sum_i\frac1{\sqrt{\hat s_{1,i}} + \epsilon}\sum_t\frac{g_{t,i}^2}{\sqrt t}
        + \frac{\beta_1}{1-\beta_1}\sum_i D_i|m_{T,i}|,

    which is :math:`O(\sqrt T)` for bounded gradients and constant :math:`\beta_1`.

    Notes
    -----
    What was corrected. :math:`s_t \le s_{t+1}` is no property of AdaBelief: only the maximum has
    it, and without it a run may exceed the printed bound by any factor. :math:`c` is the smallest
    :math:`s`, which can be as small as :math:`\epsilon_{root}`: 1e-16 multiplies the second term by
    1e8. For constant :math:`\beta_1` the third term grows like :math:`T^{3/2}`, so that the theorem
    says nothing; where :math:`\beta_{1t}` decays, :math:`g - m` does too and
    :math:`s \to \epsilon_{root}/(1-\beta_2)`: the belief vanishes. The step of the algorithm has an
    :math:`\epsilon` and a bias correction, the theorem has not.

    How. The certificate with :math:`H_t = \sqrt t(\sqrt{\hat s_t} + \epsilon)/\alpha`, which never
    falls. In its second term, :math:`m_t^2 \le (1-\beta_1)\sum_s\beta_1^{t-s}g_s^2` by convexity,
    so that :math:`\sum_t m_t^2/\sqrt t \le \sum_s g_s^2/\sqrt s` without a factor
    :math:`(1-\beta_1)^{-2}` or :math:`\sqrt{1+\log T}`.

    Where :math:`\beta_{1t}` decays, :math:`g_t = (m_t - \beta_{1t}m_{t-1})/(1-\beta_{1t})` and
    :math:`-\langle m_{t-1}, x_t - x\rangle \le \tfrac12\|m_{t-1}\|^2_{H_t^{-1}} +
    \tfrac12\|x_t - x\|^2_{H_t}`. The first term is then divided by :math:`1-\beta_1`, as
    :math:`H_t/(1-\beta_{1t})` rises by at most :math:`(H_t - H_{t-1})/(1-\beta_{1t})`; the second
    stays; the third is the printed one, with :math:`D_i` and :math:`\epsilon`.

    References
    ----------
    J. Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients",
    NeurIPS 2020, arXiv 2010.07468, theorem 2.1.
    """
    if printed:
        statement = "R(T) <= D^2 sqrt(T) / (2 alpha (1 - beta1)) sum s_T^(1/2) + ..."
        return statement, _printed_adabelief(run), _assumptions_of_adabelief(run, printed)
    statement = "R(T) <= sqrt(T) / (2 alpha) sum D_i^2 (s_T,i^(1/2) + eps) + ..."
    terms = _belief(run)
    if run.decay < 1:
        terms["momentum"] = _sum_of_weights(run, 0.0, run.rule.eps)
    return statement, terms, _assumptions_of_adabelief(run, printed)


@_theorem("adabelief-2.1.1", AdaBelief)
def adabelief_corollary(run: Audit, printed: bool) -> Findings:
    r"""AdaBelief, corollary 2.1.1: theorem 2.1 with :math:`\beta_{1t} = \beta_1\lambda^{t-1}`.

    Printed, with :math:`\|g_t\|_\infty \le G_\infty/2`, the third term of the theorem is

    .. math:: \frac{D_\infty^2\beta_1 G_\infty}{2(1-\beta_1)(1-\lambda)^2\alpha}.

    Corrected,

    .. math:: \frac{\beta_1}{2(1-\beta_1)(1-\lambda)^2\alpha}
        \sum_i D_i^2(\sqrt{\hat s_{T,i}} + \epsilon)

    beside the corrected terms of the theorem.

    Notes
    -----
    By :math:`\sum_t\lambda^{t-1}\sqrt t \le \sum_t t\lambda^{t-1} = (1-\lambda)^{-2}`. The printed
    one forgets the sum over coordinates, so that it is up to n times too small to follow from the
    theorem; it sets :math:`\beta_{1t} = \beta_1\lambda^t`, which contradicts the theorem's
    :math:`\beta_{11} = \beta_1`; and its :math:`G_\infty` must bound :math:`\sqrt s`, which
    :math:`\epsilon_{root}/(1-\beta_2)` may exceed where gradients are small. Constant
    :math:`\beta_1` is :math:`\lambda = 1`, and the bound infinite.

    References
    ----------
    J. Zhuang et al., arXiv 2010.07468, corollary 2.1.1.
    """
    statement = "theorem 2.1 with beta1_t = beta1 lambda^(t-1): third term O(1)"
    beta, root = run.beta1, np.sqrt(run.second)
    factor = _product(beta / (2 * (1 - beta)), _inverse(run.alpha), _inverse((1 - run.decay) ** 2))
    assumptions = [*_assumptions_of_adabelief(run, printed), _decaying_beta1(run)]
    if not printed:
        terms = _belief(run)
        terms["momentum"] = _product(factor, run.extent() ** 2, root + run.rule.eps).sum(1)
        return statement, terms, assumptions
    G = 2 * run.row(game.LARGEST).max(1)
    top = float(root.max())
    assumptions += [
        Assumption("n = 1, or the third term a sum over i", run.n == 1, f"n = {run.n}"),
        Assumption("G bounds sqrt(s)", top <= G[-1], f"{G[-1]:.6g}, and sqrt(s) up to {top:.6g}"),
    ]
    terms = _printed_adabelief(run)
    terms["momentum"] = _product(factor, run.extent().max() ** 2, G)
    return statement, terms, assumptions


def _belief(run: Audit) -> Terms:
    """The corrected terms of theorem 2.1."""
    D, beta, eps = run.extent(), run.beta1, run.rule.eps
    first = np.sqrt(run.second[0]) + eps
    gradients = _product(run.row(game.G2_FADING), _inverse(first)).sum(1)
    return _adaptive_terms(
        run, D**2 * (np.sqrt(run.second) + eps), (1 + beta) / (2 * (1 - beta)) * gradients
    )


def _adaptive_terms(run: Audit, distance: Vector, gradients: Vector) -> Terms:
    """What AdaBelief and AMSGrad share, with the momentum of a constant beta1."""
    alpha, beta = run.alpha, run.beta1
    widened = 1 / (1 - beta) if run.decay < 1 else 1.0
    ends = (run.extent() * abs(run.row(game.DIRECTION))).sum(1)
    return {
        "distance": _product(widened * np.sqrt(run.t) / 2, distance.sum(1), _inverse(alpha)),
        "gradients": _product(alpha, gradients),
        "momentum": beta / (1 - beta) * ends,
    }


def _sum_of_weights(run: Audit, eps_root: float, eps: float) -> Vector:
    """The third term for a beta1 that decays, sum beta1_t D_i^2 H_{t,i} / (2 (1 - beta1))."""
    squares, beta = run.extent() ** 2, run.beta1
    fading = beta * run.decay ** np.arange(run.result.rounds)
    weights = run.at(np.cumsum(_product(fading, _inverse(run.rates()))))
    constant = _product(sqrt(eps_root) + eps, weights)
    sums = _product(squares, run.row(game.BELIEF) + constant[:, None])
    return np.asarray(sums.sum(1) / (2 * (1 - beta)))


def _printed_adabelief(run: Audit) -> Terms:
    D, alpha, beta = run.extent().max(), run.alpha, run.beta1
    c = run.figure(game.LEAST_SLOT)
    fourth = np.sqrt(run.row(game.G4)).sum(1)
    logarithm = np.sqrt(1 + np.log(run.t))
    return {
        "distance": _product(
            D**2 * np.sqrt(run.t) / (2 * (1 - beta)), np.sqrt(run.second).sum(1), _inverse(alpha)
        ),
        "gradients": _product(
            (1 + beta) * alpha * logarithm / (2 * (1 - beta) ** 3), fourth, _inverse(np.sqrt(c))
        ),
        "momentum": D**2 / (2 * (1 - beta)) * run.row(game.BELIEF).sum(1),
    }


def _assumptions_of_adabelief(run: Audit, printed: bool) -> list[Assumption]:
    eps = 0.0 if printed else run.rule.eps
    name = "alpha_t / sqrt(s_t)" if printed else "alpha_t / (sqrt(s_t) + eps), uncorrected"
    weights = (np.sqrt(run.second) + eps) * np.sqrt(run.t)[:, None] / run.alpha
    checked = [
        _fading_rate(run),
        _steps(run, name, weights, _NEGLIGIBLE if printed else _ROUNDING),
        _second_grows(run, "s"),
        _average(run),
        _metric(run),
        _moving(run),
    ]
    if printed:
        c, sure = float(run.figure(game.LEAST_SLOT)[-1]), run.rule.eps_root
        seen = f"the least s of this run is {c:.3g}; beforehand only eps_root = {sure:.3g} is known"
        checked += [Assumption("s >= c > 0", c > 0, seen), _bounded(run)]
    return checked


# ---- Adam and AMSGrad --------------------------------------------------------------------------


@_theorem("amsgrad-4", Adam)
def amsgrad(run: Audit, printed: bool) -> Findings:
    r"""AMSGrad, theorem 4.

    Printed, for :math:`\alpha_t = \alpha/\sqrt t`, :math:`\beta_{1t} \le \beta_1` and
    :math:`\gamma = \beta_1/\sqrt{\beta_2} < 1`:

    .. math:: R(T) \le \frac{D_\infty^2\sqrt T}{1-\beta_1}\sum_i\hat v_{T,i}^{1/2}
        + \frac{D_\infty^2}{2(1-\beta_1)}\sum_{t,i}\frac{\beta_{1t}\hat v_{t,i}^{1/2}}{\alpha_t}
        + \frac{\alpha\sqrt{1+\log T}}{(1-\beta_1)^2(1-\gamma)\sqrt{1-\beta_2}}
          \sum_i\|g_{1:T,i}\|_2.

    Corrected, for steps :math:`\alpha_t/(\sqrt{\hat v_t + \epsilon_{root}} + \epsilon)`:

    .. math:: R(T) \le \frac{\sqrt T}{2\alpha}
        \sum_i D_i^2(\sqrt{\hat v_{T,i} + \epsilon_{root}} + \epsilon)
        + \frac{(1+\beta_1)\alpha}{2\sqrt{1-\beta_2}(1-\gamma)}\sum_{t,i}\frac{|g_{t,i}|}{\sqrt t}
        + \frac{\beta_1}{1-\beta_1}\sum_i D_i|m_{T,i}|.

    Notes
    -----
    The printed first term lacks :math:`1/\alpha`, and a run with a small :math:`\alpha` exceeds the
    bound; from :math:`\alpha \ge 1/2` on the rest makes up for it. The proof takes
    :math:`\beta_{1t}` for :math:`\beta_1` in a telescoping sum (Phuong and Phong); nonincreasing
    :math:`\beta_{1t}` repair it, see `adabelief`.

    The second term: :math:`m_t^2 \le (1-\beta_1)\sum_s\beta_1^{t-s}g_s^2` and
    :math:`\hat v_t \ge v_t \ge (1-\beta_2)\beta_2^{t-s}g_s^2` for each s give
    :math:`m_t^2/\sqrt{\hat v_t} \le \frac{1-\beta_1}{\sqrt{1-\beta_2}}\sum_s\gamma^{t-s}|g_s|`, and
    :math:`\sum_{t\ge s}\gamma^{t-s}/\sqrt t \le 1/((1-\gamma)\sqrt s)`. A decaying
    :math:`\beta_{1t}` has the same bound, as :math:`(1-b)/(1-b/\sqrt{\beta_2})` rises with b.

    References
    ----------
    S. J. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond", ICLR 2018, theorem
    4. T. T. Phuong and L. T. Phong, "On the convergence proof of AMSGrad and a new version", IEEE
    Access 7, 2019.
    """
    rule, D, beta, alpha = run.rule, run.extent(), run.beta1, run.alpha
    gamma = beta / sqrt(rule.beta2) if rule.beta2 > 0 else inf
    left = max(1 - gamma, 0.0)
    v, t = run.second, run.t
    eps_root, eps = (0.0, 0.0) if printed else (rule.eps_root, rule.eps)
    root = np.sqrt(v + eps_root) + eps
    name = "alpha_t / sqrt(v_t)" if printed else "alpha_t / (sqrt(v_t + eps_root) + eps)"
    slack = _NEGLIGIBLE if printed else _ROUNDING
    assumptions = [
        _fading_rate(run),
        _steps(run, name + ", uncorrected", root * np.sqrt(t)[:, None] / alpha, slack),
        _second_grows(run, "v"),
        Assumption("beta1 / sqrt(beta2) < 1", gamma < 1, f"{gamma:.6g}"),
        _average(run),
        _metric(run),
        _moving(run),
    ]
    scale = _inverse(sqrt(1 - rule.beta2) * left)
    if printed:
        sums = np.sqrt(run.row(game.G2)).sum(1)
        assumptions += [
            Assumption("alpha >= 1/2: the first term lacks it", alpha >= 0.5, f"{alpha:.6g}"),
            _bounded(run),
        ]
        return (
            "R(T) <= D^2 sqrt(T) / (1 - beta1) sum v_T^(1/2) + ...",
            {
                "distance": D.max() ** 2 * np.sqrt(t) / (1 - beta) * root.sum(1),
                "momentum": D.max() ** 2 / (2 * (1 - beta)) * run.row(game.BELIEF).sum(1),
                "gradients": _product(
                    alpha * np.sqrt(1 + np.log(t)) / (1 - beta) ** 2, sums, scale
                ),
            },
            assumptions,
        )
    sums = (1 + beta) / 2 * run.row(game.G1_FADING).sum(1)
    terms = _adaptive_terms(run, D**2 * root, _product(sums, scale))
    if run.decay < 1:
        terms["momentum"] = _sum_of_weights(run, rule.eps_root, rule.eps)
    return "R(T) <= sqrt(T) / (2 alpha) sum D_i^2 v_T,i^(1/2) + ...", terms, assumptions


@_theorem("adam-4.1", Adam, variants=("printed",))
def adam(run: Audit, printed: bool) -> Findings:
    r"""Adam, theorem 4.1: false, and shown as printed only.

    For :math:`\alpha_t = \alpha/\sqrt t`, :math:`\beta_{1t} = \beta_1\lambda^{t-1}`,
    :math:`\gamma = \beta_1^2/\sqrt{\beta_2} < 1`, bounded gradients and distances:

    .. math:: R(T) \le \frac{D^2}{2\alpha(1-\beta_1)}\sum_i\sqrt{T\hat v_{T,i}}
        + \frac{\alpha(1+\beta_1)G_\infty}{(1-\beta_1)\sqrt{1-\beta_2}(1-\gamma)^2}
          \sum_i\|g_{1:T,i}\|_2
        + \sum_i\frac{D_\infty^2 G_\infty\sqrt{1-\beta_2}}{2\alpha(1-\beta_1)(1-\lambda)^2}.

    Notes
    -----
    The proof telescopes :math:`\sqrt{\hat v_t}/\alpha_t` as if it never fell; where it falls, the
    regret may grow like T. It is not among the printed assumptions, but it is checked here. Not
    even with it is there a proof for :math:`\hat v` as the algorithm has it.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", arXiv 1412.6980, theorem
    4.1. Refuted by S. J. Reddi, S. Kale and S. Kumar, ICLR 2018, theorem 1.
    """
    rule, beta, alpha, t = run.rule, run.beta1, run.alpha, run.t
    D, widest = run.length(), run.extent().max()
    gamma = beta**2 / sqrt(rule.beta2) if rule.beta2 > 0 else inf
    corrected = 1 - rule.beta2 ** t[:, None] if rule.bias_correction else 1.0
    v = run.second / corrected
    G = run.row(game.LARGEST).max(1)
    later = sqrt(1 - rule.beta2)
    last = 1 - run.decay
    sums = np.sqrt(run.row(game.G2)).sum(1)
    terms = {
        "distance": _product(
            D**2 / (2 * (1 - beta)), np.sqrt(t[:, None] * v).sum(1), _inverse(alpha)
        ),
        "gradients": _product(
            alpha * (1 + beta) / (1 - beta) * G * sums, _inverse(later * max(1 - gamma, 0.0) ** 2)
        ),
        "momentum": _product(
            run.n * widest**2 * later / (2 * (1 - beta)) * G, _inverse(alpha * last**2)
        ),
    }
    grows = _shrinking(run)
    return (
        "R(T) <= D^2 / (2 alpha (1 - beta1)) sum (T v_T)^(1/2) + ...",
        terms,
        [
            Assumption("the theorem is true", False, "Reddi, Kale and Kumar refute it"),
            Assumption("sqrt(v_t) / alpha_t never falls (unstated)", grows.holds, grows.evidence),
            _fading_rate(run),
            _decaying_beta1(run),
            Assumption("beta1^2 / sqrt(beta2) < 1", gamma < 1, f"{gamma:.6g}"),
            _average(run),
            _metric(run),
            _moving(run),
            _bounded(run),
        ],
    )


# ---- exponential weights -----------------------------------------------------------------------


@_theorem("hedge", Hedge)
def hedge(run: Audit, printed: bool) -> Findings:
    r"""Exponential weights.

    Printed, for n experts with losses in [0, 1], equal weights at first, a constant rate
    :math:`\eta`:

    .. math:: R(T) \le \frac{\ln n}\eta + \frac{\eta T}8,

    which is :math:`\sqrt{T\ln n/2}` for :math:`\eta = \sqrt{8\ln n/T}`.

    Corrected, on the simplex of sum r, from :math:`x_1 = r p`, with rates that never grow and
    gradients whose coordinates lie within L of each other:

    .. math:: R(T) \le r\Big(\frac{\max_i\ln(1/p_i)}{\eta_T} + \frac{L^2}8\sum_t\eta_t\Big).

    L is the ``loss_range`` of the method, or what was seen where that is more: so it holds whatever
    was promised.

    Notes
    -----
    Hoeffding's lemma, :math:`\langle g_t, p_t\rangle \le -\frac1{\eta_t}\ln\sum_i p_{t,i}
    e^{-\eta_t g_{t,i}} + \eta_t L^2/8`. The first term on the right is :math:`\Phi_{t-1}(\eta_t) -
    \Phi_t(\eta_t)` with :math:`\Phi_t(\eta) = \frac1\eta\ln\sum_i p_i e^{-\eta G_{t,i}}`,
    :math:`G_t = g_1 + \dots + g_t`, which does not fall as :math:`\eta` grows (it is the logarithm
    of a power mean); so the sum is at most :math:`-\Phi_T(\eta_T) \le G_{T,i} + \ln(1/p_i)/\eta_T`.
    The first round is played at :math:`p` whatever its rate, and takes that of the second.

    References
    ----------
    N. Cesa-Bianchi and G. Lugosi, "Prediction, learning, and games", 2006, theorem 2.2; rates that
    fall, theorem 2.3.
    """
    T, r = run.result.rounds, float(run.place.total)
    later = kernels.tabulate(run.player.schedule, 2, max(T - 1, 1))
    rates = np.concatenate([later[:1], later])[:T]
    constant = bool((rates == rates[0]).all())
    falls = bool((np.diff(rates) <= 0).all())
    seen = run.figure(game.RANGE)
    prior = run.result.x0 / r
    alike = Assumption(
        "equal weights at first",
        bool(np.ptp(prior) <= _ROUNDING * prior.max()),
        f"from {prior.min():.4g} to {prior.max():.4g}",
    )
    if printed:
        eta = float(rates[0])
        return (
            "R(T) <= ln(n) / eta + eta T / 8",
            {
                "start": np.full(len(run.t), _product(np.log(run.n), _inverse(eta))),
                "losses": eta * run.t / 8,
            },
            [
                alike,
                Assumption("weights of sum 1", r == 1, f"{r:g}"),
                Assumption("constant rate", constant, f"from {rates[0]:.4g} to {rates[-1]:.4g}"),
                Assumption(
                    "losses within 1 of each other",
                    bool(seen[-1] <= 1),
                    f"at most {seen[-1]:.6g} apart",
                ),
            ],
        )
    L = np.maximum(run.method.loss_range, seen)
    return (
        "R(T) <= r (max ln(1 / p_i) / eta_T + L^2 sum eta_t / 8)",
        {
            "start": _product(r * np.log(_inverse(prior.min())), _inverse(run.at(rates))),
            "losses": r * L**2 / 8 * run.at(np.cumsum(rates)),
        },
        [
            Assumption("rates never grow", falls, f"from {rates[0]:.4g} to {rates[-1]:.4g}"),
            Assumption(
                "losses within L of each other",
                True,
                f"at most {seen[-1]:.6g} apart, {run.method.loss_range:g} was promised",
            ),
        ],
    )
