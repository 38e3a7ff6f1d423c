"""Threads, processes and environments that break parallel kernels elsewhere, each in a process."""

import math
import os
import subprocess
import sys
import textwrap

import pytest

from numbelief._compile import threads

PREAMBLE = """
import threading, multiprocessing, os, sys
import numpy as np
import numbelief
from numbelief import AdaBelief, Optimizer

def run(target, seed=0, n=200_003, steps=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n).astype(np.float32)
    opt = Optimizer(AdaBelief(0.01), x, target=target, max_norm=10.0)
    for _ in range(steps):
        opt.step(rng.normal(size=n).astype(np.float32))
    return x.tobytes()
"""


def check(script, **environment):
    """Run a script that prints "ok" last."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[-1] == "ok"


THREADS = """
    expected = [run("serial", seed) for seed in range(4)]
    got = [None] * 4
    def work(seed):
        for _ in range(3):
            got[seed] = run("parallel", seed)
    if warm:
        run("parallel")
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert got == expected
    print("ok")
"""


@pytest.mark.parametrize(
    ("layer", "warm"),
    [("default", False), ("workqueue", False), ("workqueue", True), ("omp", True)],
)
def test_several_python_threads(layer, warm):
    check(f"    warm = {warm}\n" + THREADS, NUMBA_THREADING_LAYER=layer)


def test_workqueue_in_one_thread():
    check(
        """
        assert run("parallel") == run("serial")
        print("ok")
        """,
        NUMBA_THREADING_LAYER="workqueue",
    )


@pytest.mark.parametrize(
    ("method", "layer", "warm"),
    [
        ("fork", "default", False), ("fork", "default", True), ("fork", "workqueue", False),
        ("fork", "workqueue", True), ("spawn", "default", True), ("forkserver", "workqueue", True),
    ],
)  # fmt: skip
def test_child_processes(method, layer, warm, tmp_path):
    script = tmp_path / "script.py"
    body = f"""
        if __name__ == "__main__":
            expected = run("serial")
            if {warm}:
                assert run("parallel") == expected
            context = multiprocessing.get_context({method!r})
            with context.Pool(2) as pool:
                assert pool.map(run, ["parallel", "auto", "serial"]) == [expected] * 3
            print("ok")
    """
    script.write_text(PREAMBLE + textwrap.dedent(body))
    process = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "NUMBA_THREADING_LAYER": layer,
             "NUMBELIEF_PARALLEL_FROM": "1000"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[-1] == "ok"


def test_one_numba_thread():
    check(
        """
        assert run("parallel") == run("serial") == run("auto")
        print("ok")
        """,
        NUMBA_NUM_THREADS="1",
    )


def test_no_place_for_the_cache(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    check(
        """
        import numba.core.caching as caching
        # As where neither the package's folder nor the user's can be written.
        for locator in caching.CacheImpl._locator_classes:
            locator.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError("read-only"))
        assert run("parallel", n=1000) == run("serial", n=1000)
        res = numbelief.minimize(
            lambda x: float(x @ x), [1.0, 2.0], jac=lambda x: 2 * x, method=AdaBelief(0.01)
        )
        assert res.fun < 5
        print("ok")
        """,
        NUMBA_CACHE_DIR=str(blocker / "below"),
    )


def test_different_rules_from_several_threads_while_they_compile():
    check(
        """
        kinds = [numbelief.SGD, numbelief.Momentum, numbelief.Adam, numbelief.AdaMax]
        ends = {}
        def work(kind):
            x = np.ones(1000)
            opt = Optimizer(kind(0.1), x)
            for _ in range(100):
                opt.step(2 * x)
            ends[kind] = x
        threads = [threading.Thread(target=work, args=(k,)) for k in kinds for _ in range(2)]
        for t in threads: t.start()
        for t in threads: t.join()
        for kind, x in ends.items():
            work(kind)
            assert (x == ends[kind]).all()
        print("ok")
        """
    )


class Clock:
    """Time that passes only while one of two functions is called."""

    def __init__(self, monkeypatch, serial, parallel, *, safe=True):
        self.now, self.costs, self.calls = 0.0, [serial, parallel], []
        monkeypatch.setattr(threads, "perf_counter", lambda: self.now)
        monkeypatch.setattr(threads, "are_safe", lambda: safe)

    def functions(self, parallel):
        def begin(value):
            self.calls.append(parallel)
            self.now += self.costs[parallel] / 2
            return value

        def end(value):
            assert self.calls[-1] == parallel
            self.now += self.costs[parallel] / 2
            return value

        return {"begin": begin, "end": end}

    def play(self, count, functions):
        for k in range(count):
            assert functions["begin"](k) == k
            assert functions["end"](k) == k
            self.now += 3.0 if k % 50 else 1_000.0  # what is done between


@pytest.mark.parametrize(("serial", "parallel"), [(1.0, 2.0), (2.0, 1.0), (10.0, 1.0)])
def test_the_faster_kind_is_used(monkeypatch, serial, parallel):
    clock = Clock(monkeypatch, serial, parallel)
    clock.play(5_000, threads.paced(clock.functions, ("begin", "end"), True))
    slower = serial < parallel
    assert clock.calls[:16] == [True] * 16
    assert clock.calls[100:].count(slower) <= 30
    if not slower:
        assert clock.calls.count(False) <= 5 * 4  # a trial ends as soon as it is decided


def test_what_is_faster_may_change(monkeypatch):
    clock = Clock(monkeypatch, 1.0, 2.0)
    functions = threads.paced(clock.functions, ("begin", "end"), True)
    clock.play(1_000, functions)
    clock.costs.reverse()
    clock.calls.clear()
    clock.play(10_000, functions)
    assert clock.calls.index(True) < 3_000
    assert clock.calls[5_000:].count(False) <= 30


def test_compiling_is_not_held_against_either(monkeypatch):
    clock = Clock(monkeypatch, 1.0, 2.0)
    functions = threads.paced(clock.functions, ("begin", "end"), True)
    clock.play(16 + 5, functions)
    clock.costs[0] = 1e6
    clock.play(1, functions)
    assert clock.calls[-1] is False
    clock.costs[0] = 1.0
    clock.play(100, functions)
    assert clock.calls[-100:].count(False) > 80


@pytest.mark.parametrize("safe", [False, True])
def test_threads_that_are_asked_for_are_used_where_they_are_safe(monkeypatch, safe):
    clock = Clock(monkeypatch, 1.0, 2.0, safe=safe)
    clock.play(1_000, threads.paced(clock.functions, ("begin", "end"), True, math.inf))
    assert clock.calls == [safe] * 1_000


def test_the_choice_survives_an_interruption(monkeypatch):
    clock = Clock(monkeypatch, 1.0, 2.0)
    functions = threads.paced(clock.functions, ("begin", "end"), True)
    clock.play(10, functions)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threads, "median", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clock.play(100, functions)
    clock.play(100, functions)
    assert len(clock.calls) > 100
