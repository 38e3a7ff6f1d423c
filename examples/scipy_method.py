"""A rule is a ``method`` of SciPy: bounds, tol, callback, options, and the global optimizers.

``scipy.optimize.minimize`` takes any callable as its method, and every rule of numbelief is one. So
code that already calls SciPy changes one argument, and what is built on top of ``minimize``, such
as ``basinhopping`` and ``dual_annealing``, takes a rule for its local searches.

Six calls, and a table of what came back:

1. a rule with its default stopping test (largest gradient component at most 1e-5);
2. with bounds that cut the minimum off: the answer lies on the edge, and the projected gradient
   says when to stop;
3. with ``tol``, which is the rule's ``gtol``, and an ``args`` tuple;
4. with a callback that ends the run: status 99, as in SciPy;
5. ``basinhopping`` and 6. ``dual_annealing`` on the Rastrigin function, which has 11 local minima
   per coordinate in [-5.12, 5.12] and the lowest, 0, at the origin.
"""

import argparse
import pathlib

import numpy as np
from scipy.optimize import basinhopping, dual_annealing, minimize, rosen, rosen_der

from numbelief import AdaBelief, Adam


def rastrigin(x):
    """A bowl with ripples."""
    return 10 * len(x) + (x**2 - 10 * np.cos(2 * np.pi * x)).sum()


def rastrigin_der(x):
    """Its gradient."""
    return 2 * x + 20 * np.pi * np.sin(2 * np.pi * x)


def valley(x, steepness):
    """Rosenbrock's function with another steepness, and its gradient."""
    bend = x[1] - x[0] ** 2
    value = (1 - x[0]) ** 2 + steepness * bend**2
    return value, np.array([-2 * (1 - x[0]) - 4 * steepness * bend * x[0], 2 * steepness * bend])


def below_a_thousandth(intermediate_result):
    """A callback; StopIteration ends the run."""
    if intermediate_result.fun < 1e-3:
        raise StopIteration


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR", help="not used: no figure")
    parser.parse_args()

    rule = AdaBelief(learning_rate=0.03)
    start = [-1.2, 1.0]
    runs = {
        "minimize": minimize(rosen, start, method=rule, jac=rosen_der),
        "  bounds": minimize(
            rosen, start, method=rule, jac=rosen_der, bounds=[(-2, 0.8), (None, None)]
        ),
        "  tol, args": minimize(valley, start, args=(10.0,), method=rule, jac=True, tol=1e-8),
        "  callback": minimize(
            rosen, start, method=rule, jac=rosen_der, callback=below_a_thousandth
        ),
    }

    local = {
        "method": Adam(learning_rate=0.01),
        "jac": rastrigin_der,
        "options": {"maxiter": 500, "gtol": 1e-6},
    }
    runs["basinhopping"] = basinhopping(
        rastrigin, [3.3, -2.2], niter=80, T=5.0, stepsize=1.5, minimizer_kwargs=local, rng=1
    )
    runs["dual_annealing"] = dual_annealing(
        rastrigin, [(-5.12, 5.12)] * 2, maxiter=100, minimizer_kwargs=local, rng=0
    )

    print(f"{'call':16s}{'fun':>10s}  {'x':24s}{'nit':>6s}{'nfev':>7s}{'status':>7s}  message")
    for name, r in runs.items():
        x = "(" + ", ".join(f"{value:.6f}" for value in r.x.round(6) + 0.0) + ")"
        message = " ".join(r.message) if isinstance(r.message, list) else r.message
        status = r.get("status", "")
        print(f"{name:16s}{r.fun:10.2e}  {x:24s}{r.nit:6d}{r.nfev:7d}{status!s:>7s}  {message}")


if __name__ == "__main__":
    main()
