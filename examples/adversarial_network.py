"""A Wasserstein GAN with gradient penalty learns eight Gaussians: which rule is most stable?

The data are synthetic: a mixture of eight Gaussians on a circle of radius 2, in two dimensions. A
generator turns noise into points; a critic, trained five steps for each of the generator's, tells
how far they are from the data (Gulrajani et al. 2017). PyTorch computes both gradients, and two
numbelief Optimizers move both networks where they are.

Shown is the energy distance between 1000 generated points and 1000 of the data, which is 0 for
equal distributions: sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|). The adaptive rules have the rate
0.001 and beta1 = 0.5, SGD the rate 0.02: one for all, as in the paper, and not searched.

Published (AdaBelief, Zhuang et al., NeurIPS 2020, figure 5): in training GANs AdaBelief is the best
and the most stable of the adaptive rules, with the lowest FID. This run shows it if AdaBelief has
both the lowest mean and the smallest standard deviation of Adam, RMSProp and itself.

The paper trains convolutional GANs on CIFAR-10 for 100 epochs. Here the networks have two layers of
64 ReLU units. The short setting takes 20 steps of the generator for each of 2 seeds, ``--full`` 250
steps for each of 5.

    python examples/adversarial_network.py [--full] [--output FOLDER]

Needs PyTorch, SciPy and matplotlib. Writes adversarial_network.png.
"""

import argparse
import pathlib
import sys

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist

from numbelief import SGD, AdaBelief, Adam, Optimizer, RMSProp
from numbelief.plotting import COLORS

try:
    import torch
except ImportError:
    sys.exit("this example needs PyTorch: pip install torch")
from torch import nn

BATCH, CRITIC_STEPS, PENALTY, LOOKS = 128, 5, 0.1, 10
RULES = {
    "SGD": SGD(0.02),
    "Adam": Adam(0.001, beta1=0.5),
    "RMSProp": RMSProp(0.001),
    "AdaBelief": AdaBelief(0.001, beta1=0.5),
}


def gaussians(count):
    """Points of the mixture."""
    angles = torch.randint(8, (count,)) * (2 * np.pi / 8)
    centers = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return centers + 0.1 * torch.randn(count, 2)


def new_network(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)
    )


class Player:
    """A network, and the rule that moves it in place."""

    def __init__(self, rule, inputs, outputs):
        self.network = new_network(inputs, outputs)
        parameters = list(self.network.parameters())
        x = torch.cat([each.detach().ravel() for each in parameters])
        g = torch.zeros_like(x)
        sizes = [each.numel() for each in parameters]
        for each, values, gradient in zip(parameters, x.split(sizes), g.split(sizes), strict=True):
            each.data, each.grad = values.view_as(each), gradient.view_as(each)
        self.gradient, self.optimizer = g.numpy(), Optimizer(rule, x.numpy())
        assert np.shares_memory(self.optimizer.x, self.network[0].weight.detach().numpy())

    def __call__(self, points):
        return self.network(points)

    def step(self, loss):
        """Move against the gradient of a loss."""
        self.gradient.fill(0)
        loss.backward(inputs=list(self.network.parameters()))
        self.optimizer.step(self.gradient)


def penalty(critic, real, made):
    """How far the critic's slope between real and made points is from 1."""
    share = torch.rand(len(real), 1)
    between = (share * real + (1 - share) * made).requires_grad_()
    slope = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
    return PENALTY * ((slope.norm(dim=1) - 1) ** 2).mean()


def distance(made, real):
    """The energy distance."""
    squared = 2 * cdist(made, real).mean() - cdist(made, made).mean() - cdist(real, real).mean()
    return np.sqrt(max(squared, 0.0))


def train(rule, seed, steps):
    """The distances at several looks, and the last points."""
    torch.manual_seed(seed)
    test, noise = gaussians(1000).numpy(), torch.randn(1000, 2)
    critic, generator = Player(rule, 2, 1), Player(rule, 2, 2)
    distances = []
    for step in range(1, steps + 1):
        for _ in range(CRITIC_STEPS):
            real = gaussians(BATCH)
            made = generator(torch.randn(BATCH, 2)).detach()
            gap = critic(made).mean() - critic(real).mean()
            critic.step(gap + penalty(critic, real, made))
        generator.step(-critic(generator(torch.randn(BATCH, 2))).mean())
        if step * LOOKS % steps == 0:
            points = generator(noise).detach().numpy()
            distances.append(distance(points, test))
    return distances, points


def compete(seeds, steps):
    """Print the table; return distances of shape (seeds, looks), and the first seed's points."""
    print(f"{'distance':11s}{'mean':>9s}{'std':>9s}{'lowest':>9s}{'highest':>9s}")
    found = {}
    for name, rule in RULES.items():
        runs = [train(rule, seed, steps) for seed in range(seeds)]
        distances = np.array([each for each, _ in runs])
        last = distances[:, -1]
        found[name] = distances, runs[0][1]
        print(f"{name:11s}{last.mean():9.4f}{last.std(ddof=1):9.4f}"
              f"{last.min():9.4f}{last.max():9.4f}", flush=True)  # fmt: skip
    return found


def judge(found):
    """Say whether AdaBelief is best and most stable."""
    adaptive = {name: found[name][0][:, -1] for name in RULES if name != "SGD"}
    best = min(adaptive, key=lambda name: adaptive[name].mean())
    stable = min(adaptive, key=lambda name: adaptive[name].std())
    print("\npublished: AdaBelief is the best and most stable of the adaptive rules")
    print(f"  here: {best} has the lowest mean, {stable} the smallest standard deviation")
    print(f"  shows it: {'yes' if best == stable == 'AdaBelief' else 'no'}")


def draw(found, steps, path):
    """Distances over steps, and what each rule made."""
    figure, grid = plt.subplot_mosaic(
        "dddd;0123", figsize=(10, 7), height_ratios=(1.3, 1), layout="constrained"
    )
    axes, t = grid["d"], steps * np.arange(1, LOOKS + 1) // LOOKS
    torch.manual_seed(0)
    real = gaussians(1000).numpy()
    for i, ((name, (distances, points)), color) in enumerate(
        zip(found.items(), COLORS, strict=False)
    ):
        axes.semilogy(t, distances.mean(axis=0), color=color, label=name, linewidth=2)
        ends = distances.min(axis=0), distances.max(axis=0)
        axes.fill_between(t, *ends, color=color, alpha=0.15, linewidth=0)
        panel = grid[str(i)]
        panel.plot(*real.T, ".", color="0.8", markersize=3)
        panel.plot(*points.T, ".", color=color, markersize=2)
        panel.set(title=name, xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])
    axes.set(
        xlabel="step of the generator",
        ylabel="energy distance",
        title="Mean and range of the seeds; below, the data in grey and what the first seed made",
    )
    axes.grid(True, which="both", color="0.9", linewidth=0.8)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="FOLDER")
    parser.add_argument("--full", action="store_true", help="250 steps and 5 seeds")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order, whatever the machine
    seeds, steps = (5, 250) if chosen.full else (2, 20)
    print(f"synthetic data, {steps} steps of the generator, {seeds} seeds\n")
    found = compete(seeds, steps)
    judge(found)
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "adversarial_network.png"
    draw(found, steps, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
