"""Online portfolio selection: what not knowing the best mix of stocks beforehand costs.

Every morning the player divides all wealth among stocks, every evening the prices are known, and
the wealth is multiplied by <r_t, x_t>, r_t the price relatives of the day. With the convex losses
-log <r_t, x> the sum of losses is minus the logarithm of the wealth, and the regret is the
logarithm of a ratio: the wealth of the best constantly rebalanced portfolio, chosen in hindsight,
over the player's (Cover, "Universal portfolios", 1991). That portfolio is found numerically. Its
duality gap proves how far at most it is from the best, and so puts the regret into an interval.

* By default, the stocks are ten of the S&P 500 on 1257 days from 2013 to 2018, from the package
  river: ``pip install river``.
* With ``--full`` they are the 36 of Cover's paper, 5651 days from 1962 to 1984 at the New York
  Stock Exchange, from a file of the package universal-portfolios, whose many dependencies the file
  does not need: ``pip install --no-deps universal-portfolios``. For these, published values stand
  beside the obtained ones (Li and Hoi, "Online portfolio selection: a survey", 2014).

There are no trading costs in this game, and the stocks of 2013 were chosen by somebody who knew
2018: the table is about regret, not about getting rich. No rate is tuned: that of the adaptive
rules is the diameter of the set along a coordinate, 1, over the root of t.

Needs matplotlib. Writes portfolio.png.
"""

import argparse
import math
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator
from river.datasets import SP500Stocks

from numbelief import AdaBelief, AMSGrad, online, schedules
from numbelief.plotting import COLORS

PUBLISHED = {
    "market": 14.50,
    "best stock": 54.14,
    "best rebalanced": 250.60,
    "exponentiated gradient": 27.09,
}


def sp500():
    """Price relatives of ten stocks, and their names."""
    days = [returns for returns, _ in SP500Stocks()]
    return 1 + np.array([list(day.values()) for day in days]) / 100, list(days[0])


def nyse():
    """Price relatives of Cover's 36 stocks, whose names the file does not have."""
    import universal

    file = pathlib.Path(universal.__file__).parent / "data" / "nyse_o.csv"
    prices = np.loadtxt(file, delimiter=",", skiprows=1)
    prices = np.vstack([np.ones(prices.shape[1]), prices])
    return prices[1:] / prices[:-1], [f"stock {i}" for i in range(1, 37)]


def players():
    """Who plays: the first as in the survey."""
    rate = schedules.inverse_sqrt(1.0)
    return {
        "exponentiated gradient": online.Hedge(learning_rate=0.05),
        "OGD": online.OGD(),
        "AMSGrad": AMSGrad(rate),
        "AdaBelief": AdaBelief(rate),
        "AdaBelief, maximum": AdaBelief(rate, amsgrad=True, bias_correction=False),
    }


def draw(results, relatives, best, path):
    """Wealth over time, and the regrets."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    days = np.arange(1, len(relatives) + 1)
    hindsight = {"color": "0.35", "linestyle": "--", "linewidth": 1.5}
    left.plot(days, np.cumprod(relatives @ best.x), label="best rebalanced", **hindsight)
    market = np.cumprod(relatives, axis=0).mean(axis=1)
    left.plot(days, market, color="0.6", linewidth=1.5, label="market")
    for (name, result), color in zip(results.items(), COLORS, strict=False):
        left.plot(days, np.exp(-np.cumsum(result.loss)), color=color, linewidth=1.5, label=name)
    left.set(xlabel="day", ylabel="wealth", yscale="log")
    left.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    left.grid(True, color="0.9", linewidth=0.8)
    left.spines[["top", "right"]].set_visible(False)
    online.compare(results).plot(right)
    right.get_legend().remove()
    right.set(xlabel="day t", ylabel="regret R(t)")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="DIR")
    parser.add_argument("--full", action="store_true", help="Cover's 36 stocks over 22 years")
    chosen = parser.parse_args()

    relatives, names = nyse() if chosen.full else sp500()
    game = online.environments.portfolio(relatives)
    results = {name: online.play(player, game) for name, player in players().items()}
    best = next(iter(results.values())).regret.comparators[-1]

    final = np.prod(relatives, axis=0)
    wealth = {
        "market": final.mean(),
        "best stock": final.max(),
        "best rebalanced": math.exp(-best.value),
    }
    wealth |= {name: math.exp(-result.loss.sum()) for name, result in results.items()}

    days, n = relatives.shape
    print(f"{n} stocks, {days} days; regret is log(best rebalanced wealth / wealth)\n")
    published = f"{'published':>12s}" if chosen.full else ""
    print(f"{'player':24s}{'wealth':>10s}{published}{'regret at least':>18s}{'at most':>12s}")
    for name, value in wealth.items():
        line = f"{name:24s}{value:10.3f}"
        if chosen.full:
            line += f"{PUBLISHED[name]:12.2f}" if name in PUBLISHED else " " * 12
        if name in results:
            low, high = results[name].regret.final
            line += f"{low:18.7f}{high:12.7f}"
        print(line)

    print(f"\nbest rebalanced portfolio, after {best.passes} passes over the data:")
    for i in np.argsort(-best.x):
        if best.x[i] > 1e-6:
            print(f"  {names[i]:10s}{best.x[i]:8.4f}")
    print(
        f"duality gap {best.gap:.2g}: no constantly rebalanced portfolio "
        f"ends with more than {math.exp(-best.lower):.6f}"
    )

    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "portfolio.png"
    draw(results, relatives, best, file)
    print(f"\nfigure: {file}")


if __name__ == "__main__":
    main()
