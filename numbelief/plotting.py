"""Pictures of regret and of learning rates. Matplotlib is imported when the first one is drawn.

One of regret has two panels on logarithmic axes, where a power of t is a straight line: R(t), and
R(t) / sqrt(t), which is level where the regret grows like the theorems' sqrt(T).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from numbelief import schedules
from numbelief.checks import integer

if TYPE_CHECKING:
    from numbelief.online.bounds import Bound
    from numbelief.online.ensemble import Comparison, Ensemble
    from numbelief.online.result import OnlineResult

__all__ = ["comparison", "ensemble", "rates", "regret"]

# Okabe and Ito's colours, which colour-blind readers tell apart, in the order of their contrast.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#999999")
GREY = "0.55"


def regret(result: "OnlineResult", ax: Any = None, bounds: Any = None) -> tuple[Any, ...]:
    """Draw the regret of a game with bounds on it; see `OnlineResult.plot`."""
    panels = _panels(ax)
    curve = result.regret
    _draw_band(panels, curve.t, curve.lower, curve.upper, "regret", COLORS[0])
    shown, note = _read_bounds(result, bounds)
    for color, (label, bound) in zip(COLORS[1:] * len(shown), shown.items(), strict=False):
        # A curve that proves nothing must not look like one that does.
        style = "--" if bound.holds else ":"
        _draw_line(panels, bound.t, bound.value, label, color=color, linestyle=style)
    if shown:
        trivial = next(iter(shown.values()))
        _draw_line(
            panels, trivial.t, trivial.trivial, "trivial bound", color=GREY, linewidth=1.0, zorder=1
        )
    notes = [result.name, _nothing_known(result), note]
    return _finish(panels, "\n".join(filter(None, notes)), new=ax is None)


def comparison(given: "Comparison", ax: Any = None) -> tuple[Any, ...]:
    """Draw the regrets of several games; see `Comparison.plot`."""
    panels = _panels(ax)
    for color, (name, result) in zip(_colors(given.results), given.results.items(), strict=True):
        curve = result.regret
        _draw_band(panels, curve.t, curve.lower, curve.upper, name, color)
    notes = {name: _nothing_known(result) for name, result in given.results.items()}
    title = "\n".join(f"{name}: {note}" for name, note in notes.items() if note)
    return _finish(panels, title, new=ax is None)


def _nothing_known(result: "OnlineResult") -> str:
    """Why nothing can be drawn of a regret, if so."""
    regret = result.regret
    return "" if np.isfinite(regret.upper).any() else f"no best fixed point: {regret.unknown}"


def ensemble(many: "Ensemble", ax: Any = None) -> tuple[Any, ...]:
    """Draw mean regrets with their confidence bands; see `Ensemble.plot`."""
    panels = _panels(ax)
    for color, (name, curves) in zip(_colors(many), many.items(), strict=True):
        lower, upper = curves.band
        _draw_band(panels, curves.t, lower, upper, name, color, middle=curves.mean)
    title = f"mean of {len(many.seeds)} seeds, {100 * many.confidence:g} % confidence"
    return _finish(panels, title, new=ax is None)


def rates(schedule: Any, steps: int, ax: Any = None) -> Any:
    """Draw the learning rates of schedules; see `numbelief.schedules.plot`."""
    steps = integer("steps", steps)
    if steps == 0:
        raise ValueError("steps must be at least 1, got 0")
    named = schedule if isinstance(schedule, Mapping) else {_name(schedule): schedule}
    if not named:
        raise ValueError("give at least one schedule")
    for name, each in named.items():
        if not callable(each):
            raise TypeError(f"a schedule must be callable, got {each!r} as {name!r}")
    t = np.arange(1, steps + 1)
    values = [schedules.table(each, 1, steps) for each in named.values()]
    if ax is None:
        _, ax = pyplot().subplots(figsize=(6, 4), layout="constrained")
    for color, name, value in zip(_colors(named), named, values, strict=True):
        ax.plot(t, value, label=name, color=color, linewidth=2.0)
    ax.set(xlabel="step", ylabel="learning rate")
    ax.set_ylim(bottom=0)
    _tidy(ax)
    ax.legend(frameon=False)
    return ax


def _name(schedule: Any) -> str:
    return str(getattr(schedule, "__name__", schedule))


def pyplot() -> Any:
    """Matplotlib's pyplot, or one clear error."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install numbelief[plot]") from error
    return plt


# ---- panels ------------------------------------------------------------------------------------


def _panels(ax: Any) -> tuple[Any, ...]:
    """One or two axes to draw into, the second one for R(t) / sqrt(t)."""
    if ax is None:
        _, panels = pyplot().subplots(1, 2, figsize=(10, 4.3), layout="constrained")
        return tuple(panels)
    panels = tuple(ax) if isinstance(ax, Iterable) else (ax,)
    if not 1 <= len(panels) <= 2:
        raise ValueError(f"ax must be one or two axes, got {len(panels)}")
    return panels


def _draw_line(panels: Sequence[Any], t: Any, value: Any, label: str, **style: Any) -> None:
    for axes, scale in zip(panels, (1.0, np.sqrt(t)), strict=False):
        axes.plot(t, _positive(value) / scale, label=label, **style)


def _draw_band(
    panels: Sequence[Any],
    t: NDArray[Any],
    lower: NDArray[Any],
    upper: NDArray[Any],
    label: str,
    color: str,
    middle: NDArray[Any] | None = None,
) -> None:
    """An interval, and the line in it, or its upper end where there is none."""
    line = upper if middle is None else middle
    _draw_line(panels, t, line, label, color=color, linewidth=2.0)
    known = np.isfinite(lower) & np.isfinite(upper)
    if not known.any():
        return
    for axes, scale in zip(panels, (1.0, np.sqrt(t)), strict=False):
        ends = lower / scale, upper / scale
        axes.fill_between(t, *ends, where=known, color=color, alpha=0.25, linewidth=0)


def _finish(panels: Sequence[Any], title: str = "", new: bool = False) -> tuple[Any, ...]:
    for axes, label in zip(panels, ("regret R(t)", r"R(t) / $\sqrt{t}$"), strict=False):
        axes.set_xscale("log")
        alike = axes.get_shared_y_axes().get_siblings(axes)
        lines = [line for each in alike for line in each.get_lines()]
        seen = np.concatenate([np.asarray(line.get_ydata(), float) for line in lines])
        seen = seen[np.isfinite(seen)]
        if seen.size:
            # A band may reach below 0, to the bottom of the picture; lines give its limits.
            axes.set_yscale("log", nonpositive="clip")
            low, high = seen.min() / 1.5, seen.max() * 1.5
            axes.set_ylim(low, high)
            if high < 100 * low:  # powers of 10 alone would be too few
                axes.set_yticks(*_plain_ticks(low, high))
                axes.yaxis.set_minor_formatter("")
        axes.set(xlabel="round t", ylabel=label)
        _tidy(axes)
    if new:
        figure = panels[0].figure
        handles, labels = panels[0].get_legend_handles_labels()
        columns = min(len(labels), 4)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        if title:
            figure.suptitle(title, fontsize="medium")
    else:
        panels[0].legend(frameon=False)
        if title:
            panels[0].set_title(title, fontsize="medium")
    return tuple(panels)


def _tidy(axes: Any) -> None:
    axes.grid(True, which="major", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _plain_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Some digits of each power of 10, and how they are written."""
    digits = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside, [f"{tick:g}" for tick in inside]


def _positive(value: Any) -> NDArray[np.float64]:
    """What a logarithmic axis can show."""
    known = np.asarray(value, dtype=np.float64)
    return np.where((known > 0) & np.isfinite(known), known, np.nan)


def _colors(names: Any) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(len(names))]


# ---- bounds ------------------------------------------------------------------------------------


def _read_bounds(result: "OnlineResult", bounds: Any) -> tuple[dict[str, "Bound"], str]:
    """Bounds by their labels, and why there is none."""
    if bounds is None:
        theorem = result.default_theorem
        try:
            return {theorem: result.bound(theorem)}, ""
        except ValueError as error:  # the set has no diameter
            return {}, f"no {theorem}: {error}"
    if isinstance(bounds, Mapping):
        return {label: _read_bound(result, each) for label, each in bounds.items()}, ""
    several = isinstance(bounds, Iterable) and not isinstance(bounds, str)
    read = [_read_bound(result, each) for each in (bounds if several else (bounds,))]
    return {_label(each): each for each in read}, ""


def _read_bound(result: "OnlineResult", bound: Any) -> "Bound":
    return result.bound(bound) if isinstance(bound, str) else bound


def _label(bound: "Bound") -> str:
    printed = ", as printed" if bound.variant == "printed" else ""
    return bound.theorem + printed + ("" if bound.holds else " (assumption violated)")
