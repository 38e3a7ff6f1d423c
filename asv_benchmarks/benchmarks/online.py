"""Online games: rounds a second, and what a regret curve costs beside the game."""

from functools import cache

import numpy as np

from numbelief import AdaBelief, Adam, online, sets
from numbelief._compile.jit import jit
from numbelief._objective.compiled import Form, Objective, PerRow
from numbelief.online import environments
from numbelief.online import regret as curves
from numbelief.online.game import evaluate

from .common import side_by_side

PLACES = {"box": sets.Box(-1.0, 1.0), "ball": sets.Ball(5.0)}
METHODS = ("ogd", "adam", "amsgrad", "adabelief", "adagrad")
ROUNDS = 100_000


@cache
def one_dimensional_game(rounds: int):
    return environments.reddi_online(rounds)


def one_dimensional(rounds: int):
    return online.play(Adam(0.5), one_dimensional_game(rounds))


def features(rounds: int, n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rounds, n)) / np.sqrt(n)


def labels(rounds: int) -> np.ndarray:
    return np.random.default_rng(1).choice([-1.0, 1.0], rounds)


class logistic:
    """A game of logistic losses in 100 dimensions."""

    def __init__(self, rounds: int) -> None:
        self.losses = online.LogisticLosses(features(rounds, 100), labels(rounds))

    def gradients(self):
        """Every loss and gradient, called by address as the game calls them; nothing else."""
        rows = tuple(map(PerRow, self.losses.data))
        objective = Objective(self.losses.fun, None, Form.INPLACE, rows, np.dtype(float))
        call, _alive = objective.call(100)
        x, grad, losses = np.zeros(100), np.zeros(100), np.zeros(self.losses.rounds)
        _only_evaluate()(losses, x, grad, call)

    def play(self, place: str):
        return online.play(AdaBelief(), self.losses, PLACES[place])

    def steps(self, place: str):
        played = self.play(place)

        def regret():
            played._regret = None
            curves._found.clear()  # what is remembered of these losses
            return played.regret

        return {"gradients": self.gradients, "play": lambda: self.play(place), "regret": regret}


@cache
def _only_evaluate():
    def run(losses, x, grad, objective):
        for t in range(losses.size):
            losses[t] = evaluate(t, x, grad, objective)

    return jit(run, cache=False)


class Rounds:
    """Seconds for a hundred thousand rounds."""

    params = (METHODS, ("linear", "squared", "hinge", "logistic"), tuple(PLACES))
    param_names = ("method", "losses", "set")

    def setup(self, method, losses, place):
        A, y = features(ROUNDS, 10), labels(ROUNDS)
        make = {
            "linear": lambda: online.LinearLosses(A),
            "squared": lambda: online.SquaredLosses(A),
            "hinge": lambda: online.HingeLosses(A, y),
            "logistic": lambda: online.LogisticLosses(A, y),
        }
        self.losses = make[losses]()
        online.play(method, self.losses[:10], PLACES[place])

    def time_rounds(self, method, losses, place):
        online.play(method, self.losses, PLACES[place])


class Regret:
    """The regret curve over the game."""

    unit = "ratio"

    def track_over_play(self):
        seconds = side_by_side(logistic(ROUNDS).steps("box"), calls=1, rounds=3)
        return float(np.median(seconds["regret"] / seconds["play"]))
