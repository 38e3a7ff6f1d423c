"""Optimizer: what a checked step costs from Python, and files."""

import pathlib
import tempfile

import numpy as np

from numbelief import AdaBelief, Optimizer, schedules

from .common import RATE, numbers

# Rule, options, and dtype of the gradient; x is float32.
KINDS = {
    "plain": (AdaBelief(RATE), {}, "float32"),
    "bounds": (AdaBelief(RATE), {"bounds": [(-1e6, 1e6)] * 1000}, "float32"),
    "max_norm": (AdaBelief(RATE), {"max_norm": 1.0}, "float32"),
    "schedule": (AdaBelief(schedules.inverse_sqrt(RATE)), {}, "float32"),
    "float64 gradient": (AdaBelief(RATE), {}, "float64"),
}


class Step:
    """A thousand steps at n = 1000."""

    params = tuple(KINDS)
    param_names = ("kind",)

    def setup(self, kind):
        rule, options, dtype = KINDS[kind]
        self.g = numbers(1000, dtype, seed=1)
        self.optimizer = Optimizer(rule, numbers(1000), **options)
        self.optimizer.step(self.g)

    def time_thousand_steps(self, kind):
        for _ in range(1000):
            self.optimizer.step(self.g)


class Files:
    """Writing and reading a checkpoint, fsync included."""

    params = (1_000, 1_000_000)
    param_names = ("n",)

    def setup(self, n):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name, "run.npz")
        self.x = np.zeros(n)
        self.optimizer = Optimizer(AdaBelief(), numbers(n, "float64"))
        self.optimizer.save(self.path)

    def teardown(self, n):
        self.folder.cleanup()

    def time_save(self, n):
        self.optimizer.save(self.path)

    def time_load(self, n):
        Optimizer.load(self.path, self.x)
