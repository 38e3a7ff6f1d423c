"""Epochs of mini-batches, the gathering of batches, and the share of the optimizer's step."""

import itertools
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numba
import numpy as np

from numbelief import AdaBelief, Adam, Optimizer, minimize_stochastic
from numbelief._solve.data import Batches, Order

from .common import Step, numbers, ratio, side_by_side

ROWS, PIXELS, CLASSES, BATCH = 5_000, 784, 10, 128
RATE, EPOCHS, PRODUCTS = 1e-3, 5, 100


@numba.njit
def softmax_regression(x, grad, images, labels):
    """The mean negative log likelihood of the labels, and its gradient."""
    w, slopes = x.reshape(PIXELS, CLASSES), grad.reshape(PIXELS, CLASSES)
    scores = np.dot(images, w)
    loss = 0.0
    for i in range(len(labels)):
        row = scores[i]
        row -= row.max()
        k = labels[i]
        loss -= row[k]
        total = 0.0
        for c in range(CLASSES):
            row[c] = np.exp(row[c])
            total += row[c]
        loss += np.log(total)
        for c in range(CLASSES):
            row[c] /= total * len(labels)
        row[k] -= np.float32(1) / len(labels)
    np.dot(images.T, scores, slopes)
    return loss / len(labels)


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Random numbers in the place of 5,000 images of 28 by 28 pixels: their values do not count."""
    random = np.random.default_rng(0)
    images = random.random((ROWS, PIXELS), np.float32)
    return images, random.integers(CLASSES, size=ROWS)


def numbelief_epochs() -> Step:
    """AdaBelief in compiled code."""
    x0 = np.zeros(PIXELS * CLASSES, np.float32)

    def run():
        return minimize_stochastic(
            softmax_regression,
            x0,
            digits(),
            batch_size=BATCH,
            epochs=EPOCHS,
            method=AdaBelief(RATE),
            jac="inplace",
            seed=0,
        )

    return run


def torch_epochs() -> Step:
    """The loop that one writes in PyTorch, with the fused Adam, over tensors on all cores."""
    import torch

    images, labels = map(torch.from_numpy, digits())
    layer = torch.nn.Linear(PIXELS, CLASSES, bias=False)
    optimizer = torch.optim.Adam(layer.parameters(), RATE, fused=True)

    def run():
        for _ in range(EPOCHS):
            order = torch.randperm(ROWS)
            for lo in range(0, ROWS, BATCH):
                rows = order[lo : lo + BATCH]
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(images[rows]), labels[rows]).backward()
                optimizer.step()

    return run


def sklearn_epochs() -> Step:
    """SGDClassifier, one row a step."""
    from sklearn.linear_model import SGDClassifier

    images, labels = digits()
    model = SGDClassifier(loss="log_loss", max_iter=EPOCHS, tol=None, random_state=0)
    return lambda: model.fit(images, labels)


# ---- gathering


def gathering(rows: int = 100_000) -> dict[str, Step]:
    """An epoch of batches at random, against one of batches of a copy shuffled beforehand."""
    data = numbers(rows * PIXELS).reshape(rows, PIXELS)
    order = Order(rows, 0, True, False, None).of(0)
    shuffled = data[order]
    batches = Batches(data)
    batches.begin(BATCH)
    buffer = np.empty((BATCH, PIXELS), np.float32)

    def gathered():
        for lo in range(0, rows, BATCH):
            batches.take(order[lo : lo + BATCH])

    def copied():
        for lo in range(0, rows, BATCH):
            part = shuffled[lo : lo + BATCH]
            buffer[: len(part)] = part

    return {"gathered": gathered, "shuffled copy": copied}


def shuffling(rows: int = 100_000) -> dict[str, Step]:
    """The same two as parts of an epoch of softmax regression."""
    data = numbers(rows * PIXELS).reshape(rows, PIXELS), np.arange(rows) % CLASSES
    order = Order(rows, 0, True, False, None).of(0)
    shuffled = tuple(part[order] for part in data)
    x0 = np.zeros(PIXELS * CLASSES, np.float32)
    return {
        "gathered": lambda: _one_epoch(x0, data, shuffle=True),
        "shuffled copy": lambda: _one_epoch(x0, shuffled, shuffle=False),
    }


def _one_epoch(x0, data, **options):
    return minimize_stochastic(
        softmax_regression,
        x0,
        data,
        batch_size=BATCH,
        epochs=1,
        method=AdaBelief(RATE),
        jac="inplace",
        seed=0,
        **options,
    )


def mapped_peak(gigabytes: float) -> float:
    """Peak memory, in megabytes, of a process that trains on a memory-mapped file for an epoch."""
    rows = int(gigabytes * (1 << 30)) // (4 * PIXELS)
    with tempfile.TemporaryDirectory(dir=os.environ.get("NUMBELIEF_SCRATCH")) as folder:
        path = os.path.join(folder, "images.npy")
        images = np.lib.format.open_memmap(path, "w+", np.float32, (rows, PIXELS))
        for lo in range(0, rows, 1 << 14):
            images[lo : lo + (1 << 14)] = 0.5
        del images
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            return fresh.submit(_peak_of_training, path, rows).result()


def _peak_of_training(path: str, rows: int) -> float:
    x0 = np.zeros(PIXELS * CLASSES, np.float32)
    _one_epoch(x0, (np.load(path, mmap_mode="r"), np.zeros(rows, np.int64)))
    # Not from `getrusage`, which knows the peak of the process that began this one as well.
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


# ---- the share of the step


def network(units: int = 1000) -> dict[str, Step]:
    """A step of a network of two hidden layers in NumPy, and its optimizer's part alone."""
    sizes = (PIXELS, units, units, CLASSES)
    shapes = list(itertools.pairwise(sizes))
    x = numbers(sum(a * b for a, b in shapes)) * np.float32(0.03)
    g = np.empty_like(x)
    edges = np.cumsum([0] + [a * b for a, b in shapes])

    def layers(flat):
        return [
            flat[lo:hi].reshape(shape)
            for lo, hi, shape in zip(edges[:-1], edges[1:], shapes, strict=True)
        ]

    weights, slopes = layers(x), layers(g)
    images, labels = digits()[0][:BATCH], digits()[1][:BATCH]

    def gradient():
        outputs = [images]
        for w in weights[:-1]:
            outputs.append(np.maximum(outputs[-1] @ w, 0))
        scores = outputs[-1] @ weights[-1]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        delta = scores / scores.sum(axis=1, keepdims=True)
        delta[np.arange(BATCH), labels] -= 1
        for w, slope, output in zip(weights[::-1], slopes[::-1], outputs[::-1], strict=True):
            np.matmul(output.T, delta, out=slope)
            delta = (delta @ w.T) * (output > 0)

    optimizer = Optimizer(Adam(1e-6), x)
    gradient()

    def step():
        gradient()
        optimizer.step(g)

    return {"optimizer": lambda: optimizer.step(g), "step": step}


# ---- threads beside those of BLAS


def beside(size: int, n: int = 1_800_000) -> dict[str, Step]:
    """A product of matrices and a step, which both have threads, for each target."""
    matrix, product = np.ones((size, size), np.float32), np.empty((size, size), np.float32)
    g = numbers(n, seed=1)

    def both(optimizer):
        for _ in range(PRODUCTS):
            np.matmul(matrix, matrix, out=product)
            optimizer.step(g)

    targets = ("serial", "parallel", "auto")
    return {each: partial(both, Optimizer(Adam(1e-6), numbers(n), target=each)) for each in targets}


class Epoch:
    """Seconds of five epochs of softmax regression."""

    def setup(self):
        self.run = numbelief_epochs()
        self.run()

    def time_epochs(self):
        self.run()

    def track_times_faster_than_torch(self):
        steps = {"torch": torch_epochs(), "numbelief": self.run}
        return ratio(side_by_side(steps, calls=1, rounds=5), "torch", "numbelief")


class Gathering:
    """Time of an epoch's batches over that of copies of a shuffled array's; at most 1.3."""

    unit = "ratio"

    def track_time_over_shuffled_copy(self):
        seconds = side_by_side(gathering(20_000), calls=1, rounds=5)
        return ratio(seconds, "gathered", "shuffled copy")


class Network:
    """The optimizer's share of a step of the network of the Adam paper's 6.2; at most 0.1."""

    unit = "ratio"

    def track_share(self):
        return ratio(side_by_side(network(), calls=5, rounds=5), "optimizer", "step")


class Beside:
    """Time of a product of matrices and an "auto" step, over the better of the other targets."""

    unit = "ratio"
    params = (400, 1000)
    param_names = ("size",)

    def track_time_over_the_better(self, size):
        seconds = side_by_side(beside(size), calls=1, rounds=5)
        return max(ratio(seconds, "auto", each) for each in ("serial", "parallel"))
