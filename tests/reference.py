r"""A slow, readable oracle for every update rule, written from the papers.

It shares nothing with numbelief: plain NumPy over whole arrays, one class per algorithm, each
stating the paper's formula in the paper's own order. All arithmetic over coordinates runs in the
dtype of ``x`` (float32 or float64, or ``numpy.longdouble``); what does not depend on the coordinate
is computed exactly, with `fractions`, and rounded once to float64. So :math:`1-\beta_2^t`, which
loses three digits when it is computed in floating point, is right to the last one here.

>>> import numpy as np
>>> oracle = make("Adam", np.array([1.0]), learning_rate=0.5, eps=0.0)
>>> oracle.step(np.array([100.0]))
>>> oracle.x
array([0.5])
"""

import itertools
import math
from fractions import Fraction

import numpy as np


def bias(beta, t):
    """One minus beta to the power t, exactly, then rounded to float64."""
    return float(1 - Fraction(beta) ** t)


def quotient(a, b):
    """``a / b``, and 0 where ``b`` is 0: a coordinate that has seen no gradient stays put."""
    return np.where(b > 0, a / np.where(b > 0, b, 1), np.zeros_like(a))


def norm(a):
    """Euclidean norm, accumulated in at least double precision and rounded to the array's dtype."""
    wide = a.astype(np.result_type(a.dtype, np.float64))
    return a.dtype.type(np.sqrt(np.sum(wide * wide)))


ORACLES = {}  # by the name of the rule


class Oracle:
    """What every rule shares: clipping, weight decay, bounds, and where the moments are flushed.

    One step is: clip the gradient by its norm, then by value; add the decay to it (coupled) or
    shrink x (decoupled, Loshchilov & Hutter 2017, arXiv 1711.05101); subtract the rule's ``delta``;
    clip x to the bounds; flush moments below the smallest normal number to zero.
    """

    state_names = ()
    decay_in_direction = False

    def __init_subclass__(cls):
        ORACLES[cls.__name__] = cls

    def __init__(
        self,
        x,
        *,
        learning_rate,
        weight_decay=0.0,
        decoupled=False,
        max_norm=None,
        max_value=None,
        bounds=None,
        **hyperparameters,
    ):
        self.x = np.array(x)
        self.t = 0
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decoupled = decoupled
        self.max_norm = max_norm
        self.max_value = max_value
        self.bounds = bounds
        self.defaults(**hyperparameters)
        self.state = {name: np.zeros_like(self.x) for name in self.state_names}

    def defaults(self, **hyperparameters):
        """Take the rule's own hyperparameters."""
        for name, value in hyperparameters.items():
            setattr(self, name, value)

    def delta(self, g, rate):
        """What is subtracted from x."""
        raise NotImplementedError

    def step(self, grad):
        """One iteration with the gradient at the present x."""
        self.t += 1
        rate = self.learning_rate
        rate = float(rate(self.t)) if callable(rate) else rate
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="raise"):
            g = self.clipped(np.array(grad, dtype=self.x.dtype))
            if not self.decay_in_direction:
                if self.decoupled:
                    self.x = (1 - rate * self.weight_decay) * self.x
                elif self.weight_decay:
                    g = g + self.weight_decay * self.x
            self.x = self.x - self.delta(g, rate)
            if self.bounds is not None:
                self.x = np.clip(self.x, *self.bounds).astype(self.x.dtype)
        tiny = np.finfo(self.x.dtype).tiny
        for moment in self.state.values():
            moment[np.abs(moment) < tiny] = 0

    def clipped(self, g):
        """The gradient after clipping by global norm, then by value."""
        if self.max_norm is not None:
            length = float(norm(g.astype(np.result_type(g.dtype, np.float64))))
            if length > self.max_norm:
                g = (self.max_norm / length) * g
        if self.max_value is not None:
            g = np.clip(g, -self.max_value, self.max_value)
        return g

    def average(self, name, beta, value):
        """Exponential average: state <- beta state + (1 - beta) value."""
        self.state[name] = beta * self.state[name] + (1 - beta) * value
        return self.state[name]

    def largest(self, name, value):
        """Running maximum: state <- max(state, value)."""
        self.state[name] = np.maximum(self.state[name], value)
        return self.state[name]


class SGD(Oracle):
    """Gradient descent, Robbins & Monro 1951."""

    def delta(self, g, rate):
        return rate * g


class Momentum(Oracle):
    """Heavy ball, Polyak 1964: the rate is inside the velocity."""

    state_names = ("v",)

    def defaults(self, momentum=0.9):
        self.momentum = momentum

    def delta(self, g, rate):
        v = self.momentum * self.state["v"] + rate * g
        self.state["v"] = v
        return v


class Nesterov(Oracle):
    """Nesterov momentum, Bengio et al. 2012, arXiv 1212.0901, section 3.5.

    Sutskever et al. 2013, equations 3 and 4, iterate v <- mu v - rate grad(theta + mu v),
    theta <- theta + v. In x = theta + mu v, the point where the gradient is taken, that reads
    x <- x + mu^2 v - (1 + mu) rate g. The state here is -v.
    """

    state_names = ("v",)

    def defaults(self, momentum=0.9):
        self.momentum = momentum

    def delta(self, g, rate):
        mu, v = self.momentum, self.state["v"]
        self.state["v"] = mu * v + rate * g
        return mu**2 * v + (1 + mu) * rate * g


class Adagrad(Oracle):
    """Diagonal Adagrad, Duchi, Hazan & Singer 2011, algorithm 1 (their delta is ``eps``)."""

    state_names = ("G",)

    def defaults(self, eps=0.0, eps_root=1e-8):
        self.eps, self.eps_root = eps, eps_root

    def delta(self, g, rate):
        G = self.state["G"] = self.state["G"] + g * g
        return rate * quotient(g, np.sqrt(G + self.eps_root) + self.eps)


class RMSProp(Oracle):
    """RMSProp, Tieleman & Hinton 2012, lecture 6.5; momentum as PyTorch's RMSprop has it."""

    state_names = ("G",)

    def defaults(self, beta2=0.9, momentum=0.0, eps=0.0, eps_root=1e-8):
        self.beta2, self.momentum, self.eps, self.eps_root = beta2, momentum, eps, eps_root
        if momentum:
            self.state_names = ("G", "v")

    def delta(self, g, rate):
        G = self.average("G", self.beta2, g * g)
        scaled = quotient(g, np.sqrt(G + self.eps_root) + self.eps)
        if not self.momentum:
            return rate * scaled
        self.state["v"] = self.momentum * self.state["v"] + scaled
        return rate * self.state["v"]


class Adam(Oracle):
    """Adam, Kingma & Ba 2014, arXiv 1412.6980, algorithm 1.

    ``eps_hat``: the reordered form at the end of the paper's section 2, which scales the rate by
    sqrt(1 - beta2^t)/(1 - beta1^t) and leaves the moments as they are. ``amsgrad``: Reddi et al.
    2018, algorithm 2, the maximum taken of the uncorrected v.
    """

    state_names = ("m", "v")

    def defaults(
        self,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        eps_root=0.0,
        bias_correction=True,
        amsgrad=False,
        eps_hat=False,
    ):
        self.beta1, self.beta2, self.eps, self.eps_root = beta1, beta2, eps, eps_root
        self.bias_correction, self.amsgrad, self.eps_hat = bias_correction, amsgrad, eps_hat
        if amsgrad:
            self.state_names = ("m", "v", "v_max")
        if eps_hat and eps_root:
            raise NotImplementedError("the paper's eps-hat form has no eps inside the root")

    def delta(self, g, rate):
        b1 = bias(self.beta1, self.t) if self.bias_correction else 1.0
        b2 = bias(self.beta2, self.t) if self.bias_correction else 1.0
        m = self.average("m", self.beta1, g)
        v = self.average("v", self.beta2, g * g)
        if self.amsgrad:
            v = self.largest("v_max", v)
        if self.eps_hat:
            return rate * math.sqrt(b2) / b1 * quotient(m, np.sqrt(v) + self.eps)
        return rate * quotient(m / b1, np.sqrt(v / b2 + self.eps_root) + self.eps)


class AMSGrad(Adam):
    """AMSGrad, Reddi, Kale & Kumar 2018, algorithm 2: no bias correction."""

    def defaults(self, bias_correction=False, amsgrad=True, **others):
        super().defaults(bias_correction=bias_correction, amsgrad=amsgrad, **others)


class AdamW(Adam):
    """AdamW, Loshchilov & Hutter 2017, algorithm 2, the decay multiplied by the rate."""


class AdaMax(Oracle):
    """AdaMax, Kingma & Ba 2014, algorithm 2; ``eps`` is added to u, and u = 0 does not move."""

    state_names = ("m", "u")

    def defaults(self, beta1=0.9, beta2=0.999, eps=0.0, bias_correction=True):
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.bias_correction = bias_correction

    def delta(self, g, rate):
        m = self.average("m", self.beta1, g)
        u = self.state["u"] = np.maximum(self.beta2 * self.state["u"], np.abs(g))
        b1 = bias(self.beta1, self.t) if self.bias_correction else 1.0
        return rate / b1 * quotient(m, u + self.eps)


class AdaBelief(Oracle):
    """AdaBelief, Zhuang et al. 2020, arXiv 2010.07468, algorithm 2.

    ``eps_root`` is stored in s at every step. ``rectify``: Liu et al. 2020 (RAdam), with the
    official AdaBelief code's threshold of 5. ``amsgrad``: the maximum of the uncorrected s.
    """

    state_names = ("m", "s")

    def defaults(
        self,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        eps_root=1e-8,
        bias_correction=True,
        amsgrad=False,
        rectify=False,
        degenerated_to_sgd=True,
    ):
        self.beta1, self.beta2, self.eps, self.eps_root = beta1, beta2, eps, eps_root
        self.bias_correction, self.amsgrad = bias_correction, amsgrad
        self.rectify, self.degenerated_to_sgd = rectify, degenerated_to_sgd
        if amsgrad:
            self.state_names = ("m", "s", "s_max")

    def delta(self, g, rate):
        m = self.average("m", self.beta1, g)
        residual = g - m
        s = self.average("s", self.beta2, residual * residual) + self.eps_root
        self.state["s"] = s
        if self.amsgrad:
            s = self.largest("s_max", s)
        b1 = bias(self.beta1, self.t) if self.bias_correction else 1.0
        b2 = bias(self.beta2, self.t) if self.bias_correction else 1.0
        if self.rectify:
            return self.rectified(m, s, rate, b1)
        return rate * quotient(m / b1, np.sqrt(s / b2) + self.eps)

    def rectified(self, m, s, rate, b1):
        """RAdam's step: the variance of the adaptive rate is known from rho = 5 on."""
        power = Fraction(self.beta2) ** self.t
        rho_inf = 2 / (1 - Fraction(self.beta2)) - 1
        rho = rho_inf - 2 * self.t * power / (1 - power)
        if rho >= 5:
            variance = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            factor = rate * math.sqrt((1 - power) * variance) / b1
            return factor * quotient(m, np.sqrt(s) + self.eps)
        return rate * (m / b1) if self.degenerated_to_sgd else np.zeros_like(m)


class AdaBound(Oracle):
    """AdaBound and AMSBound, Luo et al. 2019, algorithms 2 and 3, corrected as their code is."""

    state_names = ("m", "v")

    def defaults(
        self,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        final_lr=0.1,
        gamma=1e-3,
        bias_correction=True,
        amsgrad=False,
    ):
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.final_lr, self.gamma = final_lr, gamma
        self.bias_correction, self.amsgrad = bias_correction, amsgrad
        if amsgrad:
            self.state_names = ("m", "v", "v_max")

    def delta(self, g, rate):
        m = self.average("m", self.beta1, g)
        v = self.average("v", self.beta2, g * g)
        if self.amsgrad:
            v = self.largest("v_max", v)
        b1 = bias(self.beta1, self.t) if self.bias_correction else 1.0
        b2 = bias(self.beta2, self.t) if self.bias_correction else 1.0
        gamma_t = Fraction(self.gamma) * self.t
        lower = float(Fraction(self.final_lr) * (1 - 1 / (gamma_t + 1)))
        upper = float(Fraction(self.final_lr) * (1 + 1 / gamma_t))
        adaptive = rate * math.sqrt(b2) / b1 / (np.sqrt(v) + self.eps)
        return np.clip(adaptive, lower, upper).astype(m.dtype) * m


class LAMB(Oracle):
    """LAMB, You et al. 2020, algorithm 2, with phi the identity; decay is part of the direction."""

    state_names = ("m", "v")
    decay_in_direction = True

    def defaults(self, beta1=0.9, beta2=0.999, eps=1e-6, bias_correction=True, segments=None):
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.bias_correction, self.segments = bias_correction, segments

    def delta(self, g, rate):
        b1 = bias(self.beta1, self.t) if self.bias_correction else 1.0
        b2 = bias(self.beta2, self.t) if self.bias_correction else 1.0
        m = self.average("m", self.beta1, g)
        v = self.average("v", self.beta2, g * g)
        u = quotient(m / b1, np.sqrt(v / b2) + self.eps) + self.weight_decay * self.x
        offsets = [*(self.segments or [0]), self.x.size]
        for start, stop in itertools.pairwise(offsets):
            x_norm, u_norm = norm(self.x[start:stop]), norm(u[start:stop])
            ratio = x_norm / u_norm if x_norm > 0 and u_norm > 0 else u.dtype.type(1)
            u[start:stop] = rate * ratio * u[start:stop]
        return u


def make(name, x, **options):
    """The oracle of the rule class called ``name``, bound to a copy of ``x``."""
    return ORACLES[name](x, **options)


class Lookahead:
    """Lookahead, Zhang et al. 2019, arXiv 1907.08610, algorithm 1, around another oracle.

    For t = 1, 2, ...: theta_{t,0} <- phi_{t-1}; for i = 1, ..., k: theta_{t,i} <- theta_{t,i-1} +
    A(theta_{t,i-1}); phi_t <- phi_{t-1} + alpha (theta_{t,k} - phi_{t-1}). The state of A goes on.
    """

    def __init__(self, inner, k, alpha):
        self.inner, self.k, self.alpha = inner, k, alpha
        self.phi = inner.x if inner.bounds is None else np.clip(inner.x, *inner.bounds)
        self.i = 0

    @property
    def x(self):
        return self.inner.x

    def step(self, grad):
        self.inner.step(grad)
        self.i += 1
        if self.i == self.k:
            self.phi = self.phi + self.alpha * (self.inner.x - self.phi)
            self.inner.x = self.phi
            self.i = 0


def automatic(name, fun, x0, iterations, *, bounds=None, memory=8, **options):
    """The points of ``learning_rate="auto"``: limited-memory BFGS with a rule as its matrix.

    Two-loop recursion (Nocedal & Wright, Numerical Optimization, algorithm 7.4) whose product with
    :math:`H_0` is the rule's displacement, Armijo backtracking by cubic interpolation (equation
    3.59), the approximate Wolfe condition of Hager & Zhang 2005 where fun is level to rounding.
    Returns the accepted points, the values and the number of evaluations. ``fun`` gives (f, g).
    """
    lower, upper = (-np.inf, np.inf) if bounds is None else bounds
    x = np.array(x0)
    f, g = fun(x)
    evaluations = 1
    scale, reference = 1 / np.abs(g).max(), np.abs(g).max()

    def fresh():
        return make(name, x, learning_rate=1.0, bounds=bounds, **options)

    def displacement(oracle, rate, gradient):
        oracle.x, oracle.learning_rate = x.copy(), rate
        oracle.step(gradient)
        return oracle.x - x

    reach = np.abs(x).max() or 10 * abs(f) / np.abs(g).max() / x.size
    rate = 0.1 * reach / np.abs(displacement(fresh(), 1.0, g * scale)).max()
    oracle, pairs, points, values = fresh(), [], [x], [f]
    while len(values) <= iterations:
        held = ((x <= lower) & (g > 0)) | ((x >= upper) & (g < 0))
        q = np.where(held, 0, g)
        alphas = []
        for s, y in reversed(pairs):
            alphas.append(s @ q / (s @ y))
            q = q - alphas[-1] * y
        p = displacement(oracle, rate, q * scale)
        for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
            p = p - (alpha + y @ p / (s @ y)) * s
        p = np.clip(x + np.where(held, 0, p), lower, upper) - x
        slope, length, trials = g @ p, 1.0, 0
        while slope < 0:
            new_f, new_g = fun(np.clip(x + length * p, lower, upper))
            evaluations += 1
            new_slope = new_g @ p
            falls = new_f <= f + 1e-4 * length * slope
            noise = 20 * np.finfo(x.dtype).eps * abs(f)
            if falls or (new_f <= f + noise and abs(new_slope) <= 0.8 * abs(slope)):
                break
            trials += 1
            assert trials < 20, "no test problem gets here"
            share = 0.1
            if np.isfinite(new_f) and np.isfinite(new_slope):
                a, b = slope * length, new_slope * length
                d1 = a + b - 3 * (new_f - f)
                d2 = np.sqrt(max(d1 * d1 - a * b, 0))
                share = np.clip(1 - (b + d2 - d1) / (b - a + 2 * d2), 0.1, 0.9)
            length *= share
        else:
            assert pairs or oracle.t > 1, "no test problem gets here"
            pairs, oracle = [], fresh()
            continue
        bend = new_slope - slope
        rate *= np.clip(-length * slope / bend if bend > 0 else np.inf, 0.1, 10)
        new_x = np.clip(x + length * p, lower, upper)
        s, y = new_x - x, new_g - g
        if s @ y > 0:
            pairs = [*pairs, (s, y)][-memory:]
        x, f, g = new_x, new_f, new_g
        points.append(x)
        values.append(f)
        if np.abs(g).max() <= 0.1 * reference:
            reference, oracle = np.abs(g).max(), fresh()
    return points, values, evaluations
