"""Your own training loop: step, save, be killed, load, and end with the same bits.

``minimize`` owns the loop; ``Optimizer`` leaves it to you. It binds a rule to an array of yours and
moves that array in place, one ``step(gradient)`` at a time, so batches, logging and stopping are
ordinary Python. ``save`` writes the parameters, the rule's state, its learning-rate schedule and
the number of steps to one file, replaced atomically: a kill leaves the previous file or the new
one. ``Optimizer.load`` fills the array and goes on.

Here a child process trains a logistic regression on random mini-batches, saves every 100 steps, and
dies without a word at step 637. The parent finds the file of step 600, goes on to step 1000, and
compares its parameters with those of a run that nobody disturbed: not close, equal. Two things make
that work: everything the rule remembers is in the file, and the batch of step t is drawn from a
generator seeded with t, so that the loop needs no memory of its own.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from numbelief import AdaBelief, Optimizer, schedules

STEPS, SAVE_EVERY, DIES_AT = 1000, 100, 637


def data():
    """Points in 50 dimensions and their noisy labels, -1 or 1."""
    random = np.random.default_rng(0)
    points = random.standard_normal((5000, 50))
    truth = random.standard_normal(50)
    return points, np.sign(points @ truth + random.standard_normal(5000))


def loss(x, points, labels):
    """The mean logistic loss."""
    return np.logaddexp(0, -labels * (points @ x)).mean()


def gradient(x, points, labels):
    """Its gradient."""
    margins = labels * (points @ x)
    return -(labels / (1 + np.exp(margins))) @ points / len(labels)


def train(optimizer, until, checkpoint=None, dies_at=None):
    """The loop: it goes on from wherever the optimizer stands."""
    points, labels = data()
    while optimizer.t < until:
        batch = np.random.default_rng([1, optimizer.t]).integers(len(labels), size=64)
        optimizer.step(gradient(optimizer.x, points[batch], labels[batch]))
        if checkpoint and optimizer.t % SAVE_EVERY == 0:
            optimizer.save(checkpoint)
        if optimizer.t == dies_at:
            os._exit(1)  # what a kill looks like from inside: nothing is tidied up


def new_optimizer():
    """An optimizer at its first step."""
    rate = schedules.warmup(schedules.cosine(0.03, steps=STEPS), steps=50)
    return Optimizer(AdaBelief(learning_rate=rate), np.zeros(50))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR", help="not used: no figure")
    parser.add_argument("--child", metavar="FILE", help="train, save to this file, and die")
    chosen = parser.parse_args()
    if chosen.child:
        train(new_optimizer(), STEPS, chosen.child, dies_at=DIES_AT)

    undisturbed = new_optimizer()
    train(undisturbed, STEPS)

    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "run.npz")
        child = subprocess.run([sys.executable, __file__, "--child", file])
        size = os.path.getsize(file)
        resumed = Optimizer.load(file, np.empty(50))
    found = resumed.t
    train(resumed, STEPS)

    print(f"The child died at step {DIES_AT} (exit status {child.returncode}).")
    print(f"Its file of {size} bytes is of step {found}.\n")
    print(f"{'run':16s}{'steps':>6s}{'loss':>13s}   bits of x (SHA-256)")
    for name, optimizer in {"undisturbed": undisturbed, "killed, resumed": resumed}.items():
        digest = hashlib.sha256(optimizer.x.tobytes()).hexdigest()[:16]
        print(f"{name:16s}{optimizer.t:6d}{loss(optimizer.x, *data()):13.9f}   {digest}")
    equal = undisturbed.x.tobytes() == resumed.x.tobytes()
    print(f"\nbit-identical: {'yes' if equal else 'no'}")


if __name__ == "__main__":
    main()
