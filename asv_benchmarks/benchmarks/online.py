"""Online games: rounds a second, and what a regret curve costs beside the game."""

from functools import cache

import numpy as np

from numbelief import AdaBelief, Adam, native, online, sets
from numbelief.native import PerRow
from numbelief.online import environments
from numbelief.online import regret as curves

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
        marked = tuple(map(PerRow, self.losses.data))
        objective = native.Objective(self.losses.fun, None, "inplace", marked, np.dtype(float))
        data, block, _alive = objective.block(100)
        x, grad, losses = np.zeros(100), np.zeros(100), np.zeros(self.losses.rounds)
        only_evaluate(losses, x, grad, objective.address, data, block)

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
    import numba

    from numbelief.online import game

    evaluate = numba.njit(error_model="numpy")(game._evaluate)

    @numba.njit(error_model="numpy")
    def run(losses, x, grad, address, data, block):
        for t in range(losses.size):
            losses[t] = evaluate(t, x, grad, address, data, block)

    return run


def only_evaluate(*arguments):
    _only_evaluate()(*arguments)


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
