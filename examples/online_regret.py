"""Six rules on a stream of real patients: what each loses to the best model in hindsight.

The stream is the Wisconsin breast cancer data that ship with scikit-learn: 569 tumours, 30 numbers
measured on each, standardized, and a constant. They come in random order, pass after pass. In each
round the player commits to the weights x of a logistic regression within a ball of radius 5, sees
one tumour, and loses log(1 + exp(-y <a, x>)). The regret is what it loses in excess of the best
fixed weights, those of all rounds so far. These are found numerically, and their duality gap
turns the regret into an interval; it is narrower than a line is wide.

Beside the regret each picture has what theory can say of it:

* the theorem that was published for the rule, in its corrected form where it has one;
* the certificate, which holds for every rule, and the same at the best weights, when they are known
  (``help(numbelief.online.bounds.certificate)``);
* the trivial bound, the diameter of the set times the gradients: what lies above it says nothing.

A curve is dotted where the run violated an assumption of its theorem: Adam's and plain AdaBelief's
need steps that never grow, which only the maximum of AMSGrad ensures. (Adam's, for constant beta1,
is infinite.)

The adaptive rules all use 0.3, the best of 0.1, 0.3, 1 and 3 for each of them.

Needs matplotlib and scikit-learn. Writes online_regret.png.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer

from numbelief import AdaBelief, Adagrad, Adam, AMSGrad, online, schedules, sets

RATE = 0.3


def patients(passes):
    """The stream, pass after pass in another order."""
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    features = np.column_stack([features, np.ones(len(features))])
    random = np.random.default_rng(0)
    order = np.concatenate([random.permutation(len(labels)) for _ in range(passes)])
    return online.LogisticLosses(features[order], labels[order])


def players():
    """Each rule with its theorem."""
    rate = schedules.inverse_sqrt(RATE)
    theorems_rate = {"amsgrad": True, "bias_correction": False}
    return {
        "AdaBelief": (AdaBelief(rate), "adabelief-2.1"),
        "AdaBelief, maximum": (AdaBelief(rate, **theorems_rate), "adabelief-2.1"),
        "Adam": (Adam(rate), "adam-4.1"),
        "AMSGrad": (AMSGrad(rate), "amsgrad-4"),
        "Adagrad": (Adagrad(RATE), "adagrad"),
        "OGD": (online.OGD(), "ogd"),
    }


def bounds_of(result, theorem):
    """What theory says of a run. Adam's theorem has no corrected form."""
    variant = "printed" if theorem == "adam-4.1" else "corrected"
    return {
        "the rule's theorem": result.bound(theorem, variant=variant),
        "certificate": result.bound("certificate"),
        "certificate at the best weights": result.bound("certificate", comparator="best"),
    }


def draw(results, bounds, path):
    """The regret of each rule with its bounds."""
    figure, grid = plt.subplots(
        2, 3, figsize=(10, 6.2), sharex=True, sharey=True, layout="constrained"
    )
    for axes, (name, result) in zip(grid.flat, results.items(), strict=True):
        result.plot(axes, bounds=bounds[name])
        axes.get_legend().remove()
        axes.set_title(name, fontsize="medium")
        axes.label_outer()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="DIR")
    parser.add_argument("--full", action="store_true", help="200 passes instead of 20")
    chosen = parser.parse_args()

    losses, ball = patients(200 if chosen.full else 20), sets.Ball(5.0)
    players_ = players()
    results = {name: online.play(rule, losses, ball) for name, (rule, _) in players_.items()}
    best = next(iter(results.values())).regret.comparators[-1]
    print(f"{losses.rounds} rounds; the best weights lose {best.value:.6f} in all,")
    print(f"and no others less than {best.lower:.6f} (duality gap {best.gap:.1g})\n")
    print(online.compare(results))

    bounds = {name: bounds_of(results[name], which) for name, (_, which) in players_.items()}
    print(
        f"\n{'':20s}{'regret':>10s}{'at best':>10s}{'certificate':>13s}{'trivial':>11s}"
        f"{'theorem':>15s}{'':>11s}  its assumptions"
    )
    for name, result in results.items():
        theorem, certificate, at_best = bounds[name].values()
        violated = sum(not each.holds for each in theorem.assumptions)
        print(
            f"{name:20s}{result.regret.final.upper:10.1f}{at_best.final:10.1f}"
            f"{certificate.final:13.4g}{theorem.trivial[-1]:11.4g}"
            f"{theorem.theorem:>15s}{theorem.final:11.4g}  "
            + (f"{violated} violated" if violated else "hold")
        )
    print("\nviolated assumptions:")
    for name, each in bounds.items():
        for assumption in each["the rule's theorem"].assumptions:
            if not assumption.holds:
                print(f"  {name}: {assumption.name}; {assumption.evidence}")

    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "online_regret.png"
    draw(results, bounds, file)
    print(f"\nfigure: {file}")


if __name__ == "__main__":
    main()
