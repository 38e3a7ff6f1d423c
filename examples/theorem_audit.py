"""Theorem 2.1 of the AdaBelief paper and its corollary, on a run: as printed, and corrected.

A regret bound has three terms: for the distance to the best point, for the gradients, and for the
momentum. The paper (Zhuang et al., arXiv 2010.07468) prints

    D^2 sqrt(T) / (2 alpha (1 - beta1)) sum_i sqrt(s_T,i)
    + (1 + beta1) alpha sqrt(1 + log T) / (2 sqrt(c) (1 - beta1)^3) sum_i |g^2_1:T,i|
    + D^2 / (2 (1 - beta1)) sum_t sum_i beta1_t sqrt(s_t,i) / alpha_t

in theorem 2.1 and another third term, for beta1_t = beta1 lambda^(t-1), in corollary 2.1.1. Here
AdaBelief plays the online logistic regression of online_regret.py as the theorem has it: with the
maximum of AMSGrad, without which its s_t <= s_(t+1) is wrong, without bias correction, without an
epsilon outside the root, and at alpha / sqrt(t). Once with constant beta1 and once with a decaying
one, there is shown what each term says, which assumptions the run violates, and what else can be
proved: the corrected theorem, the certificate, which sums over the steps really taken, the same at
the best weights, and the trivial bound, above which a bound says nothing.

* The printed gradient term divides by sqrt(c), c below every s, and by (1 - beta1)^3: even where
  all assumptions hold, it alone is ten thousand times the trivial bound. The corrected one divides
  by the first s of each coordinate, and needs neither the cube nor the logarithm. What the steps
  really taken add up to is smaller still, by a factor of several hundred.
* With constant beta1 the printed momentum term grows like T^1.5, faster than the trivial bound. The
  corrected one hardly grows.
* The corollary's third term lacks a sum over i. That it is not too small here is due to its G,
  which stands for the bound of sqrt(s): the gradients' is far above it.

Needs matplotlib and scikit-learn. Writes theorem_audit.png.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer

from numbelief import AdaBelief, online, schedules, sets

RULE = AdaBelief(
    schedules.inverse_sqrt(0.3), eps=0.0, eps_root=1e-8, amsgrad=True, bias_correction=False
)
LAMBDA = 0.99
TERMS = ("distance", "gradients", "momentum")


def patients(passes):
    """The breast cancer data, standardized, with a constant, in random order pass after pass."""
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    features = np.column_stack([features, np.ones(len(features))])
    random = np.random.default_rng(0)
    order = np.concatenate([random.permutation(len(labels)) for _ in range(passes)])
    return online.LogisticLosses(features[order], labels[order])


def bounds_of(result, decays):
    """Everything that there is to say of a run."""
    bounds = {
        "theorem 2.1, printed": result.bound("adabelief-2.1", "printed"),
        "theorem 2.1, corrected": result.bound("adabelief-2.1"),
    }
    if decays:
        bounds["corollary 2.1.1, printed"] = result.bound("adabelief-2.1.1", "printed")
        bounds["corollary 2.1.1, corrected"] = result.bound("adabelief-2.1.1")
    else:  # the certificate is about a constant beta1
        bounds["certificate"] = result.bound("certificate")
        bounds["certificate at the best x"] = result.bound("certificate", comparator="best")
    return bounds


def show(result, bounds):
    """The terms, and the assumptions."""
    low, high = result.regret.final
    trivial = next(iter(bounds.values())).trivial[-1]
    print(f"regret after {result.rounds} rounds: {low:.6g} to {high:.6g}\n")
    print(f"{'':28s}" + "".join(f"{term:>12s}" for term in (*TERMS, "bound")) + "  / trivial")
    for name, bound in bounds.items():
        # The certificate's terms are of the same kinds, under names of their own.
        terms = [term[-1] for term in bound.terms.values()][:3]
        numbers = "".join(f"{number:12.4g}" for number in (*terms, bound.final))
        print(f"{name:28s}{numbers}{bound.final / trivial:11.3g}")
    print(f"{'trivial':28s}{'':36s}{trivial:12.4g}{1:11.3g}\n")
    for name, bound in bounds.items():
        violated = [each for each in bound.assumptions if not each.holds]
        print(f"{name}: {'assumptions violated' if violated else 'all assumptions hold'}")
        for each in violated:
            print(f"    {each.name}: {each.evidence}")


def draw(runs, path):
    """The bounds of both runs."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 5), sharey=True, layout="constrained")
    for axes, (title, (result, bounds)) in zip(panels, runs.items(), strict=True):
        result.plot(axes, bounds=bounds)
        axes.set_title(title, fontsize="medium")
        axes.get_legend().remove()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
        axes.label_outer()
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="DIR")
    parser.add_argument("--full", action="store_true", help="200 passes instead of 20")
    chosen = parser.parse_args()

    losses, ball = patients(200 if chosen.full else 20), sets.Ball(5.0)
    runs = {}
    for decay in (1.0, LAMBDA):
        title = f"beta1 = {RULE.beta1:g}" + (f" · {decay:g}^(t-1)" if decay < 1 else "")
        result = online.play(RULE, losses, ball, beta1_decay=decay)
        runs[title] = result, bounds_of(result, decay < 1)
        print(f"==== {title}: ", end="")
        show(*runs[title])
        print()

    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "theorem_audit.png"
    draw(runs, file)
    print(f"figure: {file}")


if __name__ == "__main__":
    main()
