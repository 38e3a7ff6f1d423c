"""A recurrent network by PyTorch learns to write like Python's documentation: AdaBelief, Adam, SGD.

A one-layer LSTM reads the help topics of Python's standard library (``pydoc_data.topics``), ten
texts side by side and 40 characters at a time, and predicts each next character. As in
convolutional_network.py, PyTorch and numbelief share the memory of all parameters and gradients.
Gradients longer than 1 are scaled down. Shown is the perplexity, exp(mean cross entropy), on the
last tenth of the text after each epoch. Of three learning rates each rule has the one of the lowest
last perplexity ('*': at an end of the three); in the short setting, the middle one.

Published (AdaBelief, Zhuang et al., NeurIPS 2020, figure 6): of all compared, AdaBelief reaches the
lowest perplexity with LSTMs of one, two and three layers. This run shows it if AdaBelief's mean
over the seeds is lowest after the last epoch, by more than its standard deviation.

The paper trains on the words of the Penn Treebank for 200 epochs, with 1,000 and more units and
dropout. Here the short setting has 20,000 characters and 32 units, for 3 epochs and 2 seeds;
``--full`` has 60,000 characters and 64 units, for 4 epochs and 2 seeds. The topics differ a little
between versions of Python.

    python examples/recurrent_network.py [--full] [--output FOLDER]

Needs PyTorch and matplotlib. Writes recurrent_network.png.
"""

import argparse
import math
import pathlib
import sys
from pydoc_data import topics
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from numbelief import AdaBelief, Adam, Momentum, Optimizer
from numbelief.plotting import COLORS

try:
    import torch
except ImportError:
    sys.exit("this example needs PyTorch: pip install torch")
from torch import nn

TEXTS, LENGTH = 10, 40
RULES = {
    "Adam": (Adam, (0.003, 0.01, 0.03)),
    "AdaBelief": (AdaBelief, (0.003, 0.01, 0.03)),
    "SGD": (Momentum, (0.3, 1.0, 3.0)),
}


class Setting(NamedTuple):
    """How much is done."""

    characters: int
    units: int
    epochs: int
    seeds: int


SHORT = Setting(characters=20_000, units=32, epochs=3, seeds=2)
FULL = Setting(characters=60_000, units=64, epochs=4, seeds=2)


def text(characters):
    """Training and held-out text, as rows of numbers of characters, and how many there are."""
    whole = "\n".join(topics.topics[name] for name in sorted(topics.topics))[:characters]
    alphabet = {letter: i for i, letter in enumerate(sorted(set(whole)))}
    numbers = torch.tensor([alphabet[letter] for letter in whole])
    split = len(numbers) * 9 // 10

    def rows(part):
        return part[: len(part) // TEXTS * TEXTS].view(TEXTS, -1)

    return rows(numbers[:split]), rows(numbers[split:]), len(alphabet)


class Network(nn.Module):
    """Characters in, scores of the next ones out."""

    def __init__(self, letters, units):
        super().__init__()
        self.embedding = nn.Embedding(letters, 32)
        self.lstm = nn.LSTM(32, units, batch_first=True)
        self.scores = nn.Linear(units, letters)

    def forward(self, numbers, memory):
        out, memory = self.lstm(self.embedding(numbers), memory)
        return self.scores(out), memory


def flatten(network):
    """Put all parameters into one vector and all gradients into another; NumPy's views of both."""
    parameters = list(network.parameters())
    x = torch.cat([each.detach().ravel() for each in parameters])
    g = torch.zeros_like(x)
    sizes = [each.numel() for each in parameters]
    for each, values, gradient in zip(parameters, x.split(sizes), g.split(sizes), strict=True):
        each.data, each.grad = values.view_as(each), gradient.view_as(each)
    assert np.shares_memory(x.numpy(), network.lstm.weight_hh_l0.detach().numpy())
    return x.numpy(), g.numpy()


def losses(network, rows):
    """The mean cross entropy of each piece of the text and its length; the memory goes along."""
    memory = None
    for start in range(0, rows.shape[1] - 1, LENGTH):
        piece = rows[:, start : start + LENGTH + 1]
        scores, memory = network(piece[:, :-1], memory)
        memory = tuple(each.detach() for each in memory)
        target = piece[:, 1:]
        yield nn.functional.cross_entropy(scores.transpose(1, 2), target), target.shape[1]


def perplexity(network, rows):
    with torch.no_grad():
        means, lengths = zip(*losses(network, rows), strict=True)
    return math.exp(np.average([mean.item() for mean in means], weights=lengths))


def train(rule, data, setting, seed):
    """The held-out perplexity after each epoch."""
    training, held_out, letters = data
    torch.manual_seed(seed)
    network = Network(letters, setting.units)
    x, g = flatten(network)
    optimizer = Optimizer(rule, x, max_norm=1.0)
    found = []
    for _ in range(setting.epochs):
        for loss, _ in losses(network, training):
            g.fill(0)
            loss.backward()
            optimizer.step(g)
        found.append(perplexity(network, held_out))
    return found


def best_rate(name, data, setting, search):
    """The best rate, whether it is at an end of the three, and the perplexities of each seed."""
    make, rates = RULES[name]
    tried = rates if search else rates[1:2]
    runs = {
        rate: np.array([train(make(rate), data, setting, seed) for seed in range(setting.seeds)])
        for rate in tried
    }
    best = min(runs, key=lambda rate: runs[rate][:, -1].mean())
    return best, best != rates[1], runs[best]


def compete(data, setting, search):
    """Print the table; return the perplexities by rule."""
    print(f"{'perplexity':11s}{'rate':>8s} "
          + "".join(f"{f'epoch {epoch + 1}':>16s}" for epoch in range(setting.epochs)))  # fmt: skip
    found = {}
    for name in RULES:
        rate, at_end, runs = best_rate(name, data, setting, search)
        found[name] = runs
        pairs = zip(runs.mean(axis=0), runs.std(axis=0, ddof=1), strict=True)
        cells = "".join(f"{f'{mean:.3f} ± {spread:.3f}':>16s}" for mean, spread in pairs)
        print(f"{name:11s}{f'{rate:g}':>8s}{'*' if at_end else ' '}{cells}", flush=True)
    return found


def judge(found):
    """Say whether AdaBelief is lowest by more than its spread."""
    last = {name: runs[:, -1].mean() for name, runs in found.items()}
    lead = min(value for name, value in last.items() if name != "AdaBelief") - last["AdaBelief"]
    spread = found["AdaBelief"][:, -1].std(ddof=1)
    print("\npublished: AdaBelief reaches the lowest perplexity of all compared")
    print(f"  here: the best of the others is higher by {lead:.3f}, the spread is {spread:.3f}")
    print(f"  shows it: {'yes' if lead > spread else 'no'}")


def draw(found, path):
    """Perplexity over epochs."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (name, runs), color in zip(found.items(), COLORS, strict=False):
        epochs = np.arange(1, runs.shape[1] + 1)
        axes.plot(epochs, runs.mean(axis=0), "o-", color=color, label=name, linewidth=2)
        axes.fill_between(
            epochs, runs.min(axis=0), runs.max(axis=0), color=color, alpha=0.2, linewidth=0
        )
    axes.set(
        xlabel="epoch",
        ylabel="held-out perplexity of a character",
        title="One-layer LSTM: mean and range of the seeds",
        xticks=epochs,
    )
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="FOLDER")
    parser.add_argument("--full", action="store_true", help="more of everything, three rates")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order, whatever the machine
    setting = FULL if chosen.full else SHORT
    data = text(setting.characters)
    print(f"{data[0].numel()} characters to train with, {data[1].numel()} held out, "
          f"{data[2]} different; mean ± standard deviation of {setting.seeds} seeds\n")  # fmt: skip
    found = compete(data, setting, search=chosen.full)
    judge(found)
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "recurrent_network.png"
    draw(found, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
