"""minimize_stochastic against a plain loop, its data in every form, and runs that are killed."""

import gc
import json
import mmap
import multiprocessing
import os
import pathlib
import signal
import sys
import time
import weakref

import numba
import numpy as np
import pytest
import scipy.sparse
from cases import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import OptimizeWarning

import numbelief
from numbelief import (
    SGD,
    AdaBelief,
    Momentum,
    Optimizer,
    minimize_stochastic,
    schedules,
    sets,
)
from numbelief._solve import data as batches
from numbelief._solve import epochs
from numbelief._solve.data import Batches, Order

RANDOM = np.random.default_rng(7)
A = RANDOM.standard_normal((103, 3))
B = A @ [1.0, -2.0, 3.0] + 0.1 * RANDOM.standard_normal(103)
RULE = AdaBelief(learning_rate=0.05)


def both(x, A, b):
    residual = A @ x - b
    return residual @ residual / (2 * len(b)), A.T @ residual / len(b)


def value(x, A, b):
    return both(x, A, b)[0]


def gradient(x, A, b):
    return both(x, A, b)[1]


@numba.njit
def filled(x, grad, A, b):
    grad[:] = 0.0
    loss = 0.0
    for i in range(b.size):
        residual = -b[i]
        for j in range(x.size):
            residual += A[i, j] * x[j]
        loss += residual * residual
        for j in range(x.size):
            grad[j] += residual * A[i, j]
    grad /= b.size
    return loss / (2 * b.size)


@numba.njit
def pair(x, A, b):
    grad = np.empty_like(x)
    return filled(x, grad, A, b), grad


@numba.njit
def apart(x, A, b):
    return filled(x, np.empty_like(x), A, b)


@numba.njit
def slope(x, A, b):
    grad = np.empty_like(x)
    filled(x, grad, A, b)
    return grad


def run(fun=both, data=(A, B), jac=True, **changes):
    given = {"batch_size": 16, "epochs": 3, "method": RULE, "seed": 5, **changes}
    return minimize_stochastic(fun, np.zeros(3), data, jac=jac, **given)


def same_runs(a, b):
    """Whether two results have the same bits in all that does not depend on how they came about."""
    return (
        same_bits(a.x, b.x)
        and same_bits(np.array(a.fun), np.array(b.fun))
        and same_bits(a.history.loss, b.history.loss)
        and same_bits(a.history.validation, b.history.validation)
        and (a.nit, a.epochs, a.status) == (b.nit, b.epochs, b.status)
    )


# ---- the loop


@pytest.mark.parametrize("size", [1, 7, 16, 103, None])
@pytest.mark.parametrize("drop_last", [False, True])
def test_steps_are_those_of_a_plain_loop(size, drop_last):
    orders = []

    def recorded(x, A, b, rows):
        orders.append(rows.copy())
        return both(x, A, b)

    res = run(recorded, (A, B, np.arange(103)), batch_size=size, drop_last=drop_last)
    x = np.zeros(3)
    opt = Optimizer(RULE, x)
    for rows in orders:
        opt.step(gradient(x, A[rows], B[rows]))
    if size not in (103, None):
        assert same_bits(res.x, x)
    whole, rest = divmod(103, size or 103)
    assert res.nit == len(orders) == 3 * (whole + (rest > 0 and not drop_last))
    for epoch in np.split(np.concatenate(orders), 3):
        assert len({*epoch}) == len(epoch)  # no row twice


@pytest.mark.parametrize(
    ("fun", "jac"), [(pair, True), (filled, "inplace"), (apart, slope)], ids=["pair", "in", "apart"]
)
@pytest.mark.parametrize("size", [16, None])
def test_machine_code_has_the_bits_of_python(fun, jac, size):
    both_ways = [
        run(fun, jac=jac, batch_size=size, options={"compiled": compiled})
        for compiled in (True, False)
    ]
    assert same_runs(*both_ways)
    assert same_bits(both_ways[0].jac, both_ways[1].jac)
    assert both_ways[0].nfev == both_ways[1].nfev == both_ways[0].nit


@pytest.mark.parametrize("iterate", ["best", "last", "ema", "average"])
def test_machine_code_with_everything_on(iterate, tmp_path):
    def once(compiled):
        options = {"iterate": iterate, "compiled": compiled, "max_norm": 1.0, "ema_decay": 0.9}
        return run(
            pair,
            epochs=6,
            validation=(A[:20], B[:20]),
            bounds=[(-1, 1)] * 3,
            weights=np.arange(103.0),
            replacement=True,
            method=AdaBelief(learning_rate=schedules.inverse_sqrt(0.1)),
            options=options,
        )

    assert same_runs(once(True), once(False))


def test_float32_stays_float32():
    seen = set()

    def typed(x, A, b):
        seen.add((x.dtype, A.dtype))
        return both(x, A, b)

    data = A.astype(np.float32), B.astype(np.float32)
    res = minimize_stochastic(
        typed, np.zeros(3, np.float32), data, batch_size=8, epochs=1, method=RULE, jac=True
    )
    assert seen == {(np.dtype(np.float32), np.dtype(np.float32))}
    assert res.x.dtype == np.float32


@pytest.mark.parametrize("jac", [gradient, None, "3-point"], ids=["gradient", "2-point", "3-point"])
def test_other_forms_of_gradient(jac):
    assert_allclose(run(value, jac=jac).x, run().x, atol=1e-5)


def test_epoch_loss_is_the_mean_over_rows():
    res = run(epochs=1, method=numbelief.SGD(learning_rate=0.0))
    assert_allclose(res.history.loss, [value(np.zeros(3), A, B)])


def test_full_batches_are_gradient_descent():
    rule = Momentum(learning_rate=0.3)
    res = run(batch_size=None, epochs=20, method=rule)
    x = np.zeros(3)
    opt = Optimizer(rule, x)
    points = []
    for _ in range(20):
        points.append(x.copy())
        opt.step(gradient(x, A, B))
    losses = [value(point, A, B) for point in points]
    assert_allclose(res.history.loss, losses, rtol=1e-12)
    assert same_bits(res.x, points[int(np.argmin(losses))])
    assert same_bits(run(batch_size=None, epochs=20, method=rule, options={"iterate": "last"}).x, x)


# ---- which point


def trajectory(**changes):
    points = []
    options = {"step_callback": lambda x: points.append(x), **changes.pop("options", {})}
    return run(options=options, **changes), np.array(points)


def test_averages():
    decay = 0.8
    res, points = trajectory(options={"iterate": "ema", "ema_decay": decay})
    mean = np.zeros(3)
    for x in points:
        mean = decay * mean + (1 - decay) * x
    assert_allclose(res.x, mean, rtol=1e-12)
    res, points = trajectory(options={"iterate": "average", "average_from": 0.5})
    assert_allclose(res.x, points[len(points) // 2 :].mean(0), rtol=1e-12)


def test_best_point_is_that_of_the_best_epoch():
    rule = numbelief.SGD(learning_rate=lambda t: 0.05 if t < 15 else 4.0)  # then it diverges
    res, points = trajectory(epochs=4, method=rule, validation=(A, B))
    losses = [value(x, A, B) for x in points[6::7]]
    assert_allclose(res.history.validation, losses, rtol=1e-12)
    assert np.argmin(losses) < 3
    assert same_bits(res.x, points[6::7][np.argmin(losses)])
    assert res.fun == min(res.history.validation)


def test_lookahead_stands_for_its_slow_weights():
    rule = numbelief.Lookahead(RULE, k=4)  # 21 steps: one after the last synchronization
    res, points = trajectory(method=rule, options={"iterate": "last"}, validation=(A, B))
    assert same_bits(res.x, points[19])
    assert_allclose(res.history.validation[-1], value(points[19], A, B))


@pytest.mark.usefixtures("_parallel_from_here")
def test_python_loops_load_their_kernels_once(recwarn):
    compiled = epochs._compile_note, epochs._compile_average
    for each in compiled:
        each.cache_clear()
    run(epochs=2, options={"iterate": "average"})
    assert [each.cache_info().misses for each in compiled] == [1, 1]
    assert not recwarn.list


@pytest.mark.usefixtures("_parallel_from_here")
@pytest.mark.parametrize("iterate", ["average", "ema"])
def test_means_with_threads(iterate):
    """The same bits as without, around functions that Python calls and around compiled ones."""

    def fun(x, grad, batch):
        mean = batch.mean()
        grad[:] = 2 * (x - mean)
        return ((x - mean) ** 2).sum()

    data = np.arange(24.0)
    given = {"batch_size": 8, "epochs": 2, "jac": "inplace", "seed": 0, "method": RULE}
    options = {"iterate": iterate, "average_from": 0.2}
    ends = [
        minimize_stochastic(each, np.zeros(50), data, options=options, **given).x
        for each in (fun, numba.njit(fun))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numbelief._compile.threads.PARALLEL_FROM", 1000)
        serial = minimize_stochastic(fun, np.zeros(50), data, options=options, **given).x
    assert serial.all()
    assert same_bits(ends[0], serial) and same_bits(ends[1], serial)


@pytest.fixture
def _parallel_from_here(monkeypatch):
    monkeypatch.setattr("numbelief._compile.threads.PARALLEL_FROM", 1)


def test_the_last_epoch_is_called_back_too():
    seen = []
    res = run(epochs=9, validation=lambda x: 1.0, callback=seen.append, options={"patience": 2})
    assert len(seen) == res.epochs == 3


def test_patience_and_target():
    rule = numbelief.SGD(learning_rate=0.0)
    res = run(epochs=50, method=rule, validation=lambda x: 1.0, options={"patience": 4})
    assert (res.epochs, res.status, res.success) == (5, 0, True)
    assert "patience" in res.message
    res = run(epochs=500, options={"target": 1.0})
    assert res.epochs < 500
    assert res.success
    assert res.fun <= 1.0 < res.history.loss[-2]


# ---- callbacks


def test_callbacks_see_steps_and_epochs():
    steps, epochs = [], []
    res = run(
        callback=lambda intermediate_result: epochs.append(intermediate_result),
        options={"step_callback": lambda intermediate_result: steps.append(intermediate_result)},
        validation=(A, B),
    )
    assert [each.epoch for each in epochs] == [1, 2, 3]
    assert [each.nit for each in epochs] == [7, 14, 21]
    assert [each.fun for each in epochs] == list(res.history.loss)
    assert [each.validation for each in epochs] == list(res.history.validation)
    assert [each.nit for each in steps] == list(range(1, 22))
    assert [each.epoch for each in steps] == [0] * 7 + [1] * 7 + [2] * 7
    assert steps[-1].learning_rate == 0.05
    sizes = [16] * 6 + [7]
    means = [np.average([s.fun for s in steps[i : i + 7]], weights=sizes) for i in (0, 7, 14)]
    assert_allclose(means, res.history.loss, rtol=1e-12)


@pytest.mark.parametrize("fun", [both, pair])
@pytest.mark.parametrize("where", ["epoch", "step"])
def test_stop_iteration(fun, where):
    def stop(x):
        raise StopIteration

    hooks = {"epoch": {"callback": stop}, "step": {"options": {"step_callback": stop}}}
    res = run(fun, **hooks[where])
    assert (res.status, res.success) == (99, False)
    assert res.nit == (7 if where == "epoch" else 1)


def test_progress_shows_loss_and_rate(capsys):
    pytest.importorskip("tqdm")
    run(options={"progress": True, "disp": True})
    out, err = capsys.readouterr()
    assert "21/21" in err
    assert "loss=" in err
    assert "rate=0.05" in err
    assert "Epochs: 3" in out


def test_maxtime():
    res = run(epochs=10**9, options={"maxtime": 0.05})
    assert (res.status, res.success) == (1, False)


# ---- data


class Indexed:
    """Rows on request, as a data set of one's own."""

    def __init__(self, array):
        self._array = array

    def __len__(self):
        return len(self._array)

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray)
        return self._array[rows]


def mapped(path):
    np.save(path, A)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("size", [16, None])
@pytest.mark.parametrize(
    "form",
    [
        lambda path: (np.asfortranarray(A), B),
        lambda path: (np.repeat(A, 2, axis=0)[::2], np.ascontiguousarray(B[::-1])[::-1]),
        lambda path: (mapped(path), B),
        lambda path: (Indexed(A), B),
        lambda path: (scipy.sparse.csr_array(A), B),
        lambda path: (scipy.sparse.csr_matrix(A), B),
        lambda path: (A.tolist(), B.tolist()),
        lambda path: (A.astype(">f8"), B),
    ],
    ids=["fortran", "strided", "mapped", "indexed", "csr_array", "csr_matrix", "list", "endian"],
)
def test_data_in_every_form(form, size, tmp_path):
    expected = run(batch_size=size)
    found = run(data=form(tmp_path / "data.npy"), batch_size=size)
    assert_allclose(found.x, expected.x, rtol=1e-12)
    assert_allclose(found.history.loss, expected.history.loss, rtol=1e-12)


def test_machine_code_reads_strided_rows():
    data = np.repeat(A, 2, axis=0)[::2], np.ascontiguousarray(B[::-1])[::-1]
    assert same_bits(run(pair, data=data, options={"compiled": True}).x, run(pair).x)
    assert same_bits(run(pair, data=(np.asfortranarray(A), B)).x, run(pair).x)
    with pytest.raises(TypeError, match="rows are contiguous"):
        run(pair, data=(np.asfortranarray(A), B), options={"compiled": True})


class Recipes:
    """Rows of an object's own kind."""

    def __init__(self, bad=()):
        self.A = A.copy()
        self.A[list(bad), 1] = np.nan

    def __len__(self):
        return len(self.A)

    def __getitem__(self, rows):
        return {"A": self.A[rows], "b": (B[rows], ["a name"] * len(rows))}


def of_recipe(x, recipe):
    return both(x, recipe["A"], recipe["b"][0])


def test_batches_of_any_kind(tmp_path):
    path = tmp_path / "c"
    res = run(of_recipe, (Recipes(),), options={"checkpoint": path})
    assert same_runs(res, run())
    assert same_runs(run(of_recipe, (Recipes(),), options={"resume": path}), res)
    with pytest.raises(ValueError, match="data = "):
        run(of_recipe, (Recipes(bad=[0]),), options={"resume": path})
    res = run(of_recipe, (Recipes(bad=[17]),))
    assert res.status == 3
    assert "row 17 of data[0] is not finite" in res.message


def test_nan_in_a_structured_row_is_named():
    rows = np.zeros(103, [("A", "f8", 3), ("b", "f4"), ("name", "i4")])
    rows["A"], rows["b"] = A, B
    rows["b"][40] = np.nan
    res = run(lambda x, rows: both(x, rows["A"], rows["b"]), (rows,))
    assert "row 40 of data[0] is not finite" in res.message


@pytest.mark.parametrize("size", [16, None])
def test_sparse_rows_in_any_order_can_be_read(size):
    disordered = scipy.sparse.csr_array(
        (np.ones(4), np.array([2, 0, 1, 1]), np.array([0, 2, 4])), shape=(2, 3)
    )

    def look(x, rows):
        assert rows.max() == 2
        assert rows.shape[0] < (rows > 0).sum() < 2 * rows.shape[0]
        return 0.0, x

    data = scipy.sparse.vstack([disordered] * 20).tocsr()
    data.has_sorted_indices = data.has_canonical_format = False
    before = data.indices.copy()
    run(look, (data,), batch_size=40 if size is None else 20)
    np.testing.assert_array_equal(data.indices, before)


def test_extreme_weights():
    draws = Order(103, 0, True, True, np.full(103, 1e308)).of(0)
    assert len({*draws}) > 30
    weights = np.where(np.arange(103) < 50, 0, 1e-310)
    assert Order(103, 0, True, True, weights).of(0).min() >= 50


def test_other_byte_orders():
    swapped = A.astype(">f8"), B.astype(">f8")
    for size in (16, None):
        assert_allclose(run(data=swapped, batch_size=size).x, run(batch_size=size).x, rtol=1e-9)


def test_one_array_stands_for_a_tuple():
    res = minimize_stochastic(
        lambda x, a: (((x - a) ** 2).mean(), 2 * (x - a.mean(keepdims=True))),
        [0.0],
        np.arange(10.0),
        batch_size=None,
        epochs=200,
        method=numbelief.SGD(learning_rate=0.4),
        jac=True,
    )
    assert_allclose(res.x, [4.5])


@pytest.mark.parametrize("size", [16, None])
@pytest.mark.parametrize("data", [(A, B), (scipy.sparse.csr_array(A), B)], ids=["dense", "csr"])
def test_batches_cannot_be_written_to(data, size):
    def writes(x, A, b):
        (A.data if scipy.sparse.issparse(A) else A)[0] = 1
        return both(x, A, b)

    before = A.copy(), B.copy()
    with pytest.raises(ValueError, match="read-only"):
        run(writes, data=data, batch_size=size)
    assert same_bits(A, before[0])
    data[0][0, 0] *= 1  # the caller's array is not locked


def test_compiled_functions_cannot_write_to_batches():
    @numba.njit
    def writes(x, A, b):
        A[0, 0] = 1.0
        return 0.0, x

    with pytest.raises(TypeError, match="[Rr]ead-?only|readonly"):
        run(writes)


@numba.njit
def accumulated(x, grad, A, b):
    grad[:] = 0
    for i in range(b.size):
        for j in range(A.shape[1]):
            grad[j] += A[i, j] * x[0]
    return x[0] ** 2


@pytest.mark.parametrize("size", [16, None])
def test_compiled_functions_that_write_beyond_the_gradient(size):
    wide = np.ones((103, 50))
    with pytest.raises(ValueError, match="must fill the 2 numbers of grad, and wrote beyond them"):
        minimize_stochastic(
            accumulated, np.ones(2), (wide, B), jac="inplace", batch_size=size, epochs=2
        )
    with pytest.raises(ValueError, match="must fill the 2 numbers of grad, and wrote beyond them"):
        numbelief.minimize(accumulated, np.ones(2), (wide, B), jac="inplace")


@pytest.mark.skipif(not hasattr(mmap, "MAP_PRIVATE"), reason="no private maps here")
def test_private_maps_keep_what_was_written(monkeypatch):
    monkeypatch.setattr(batches, "_KEPT", 1 << 16)
    memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    rows = np.ndarray((1 << 15, 4), buffer=memory)
    rows[:] = 1
    least = []

    def seen(x, rows):
        least.append(rows.min())
        return 0.0, np.zeros(1)

    minimize_stochastic(seen, [0.0], rows, jac=True, batch_size=1 << 12, epochs=2)
    assert {*least} == {1.0}
    assert rows.min() == 1


def mapped_megabytes(path):
    """How much of a mapped file counts as memory of this process."""
    mine = False
    for line in pathlib.Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            mine = line.endswith(str(path))
        elif mine and line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("it is not mapped")


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="nothing tells what is mapped")
@pytest.mark.parametrize("columns", [slice(None), slice(None, None, 2)], ids=["plain", "strided"])
def test_large_mapped_files_are_given_back(columns, tmp_path):
    path = tmp_path / "data"
    rows = np.memmap(path, np.float64, "w+", shape=(1 << 16, 1 << 10))  # 512 MB, hardly on the disk
    numbered = np.random.default_rng(0).permutation(1 << 16)[:10_000]
    rows[numbered[::50], 0] = 1 + numbered[::50]
    data = Batches(rows[:, columns])
    data.begin(100)
    most = 0.0
    for k, picked in enumerate(np.split(numbered, 100)):
        (batch,) = data.take(picked)
        assert batch[0, 0] == 1 + picked[0]
        assert batch[50, 0] == 1 + picked[50]
        assert not batch[1:50].any()
        if k % 10 == 9:
            most = max(most, mapped_megabytes(path))
    assert most < 400


def test_pages_that_were_written_to_are_not_given_back(monkeypatch, tmp_path):
    monkeypatch.setattr(batches, "_KEPT", 1 << 20)
    path = tmp_path / "data.npy"
    np.save(path, np.zeros((1 << 14, 16)))
    private = np.load(path, mmap_mode="c")
    private[:] = -1
    data = Batches(private)
    data.begin(1000)
    for picked in np.split(np.arange(1 << 14)[:16_000], 16):
        assert (data.take(picked)[0] == -1).all()
    assert (private == -1).all()


# ---- the order of the rows


@given(
    rows=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 5),
    replacement=st.booleans(),
    weighted=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_orders(rows, seed, epoch, replacement, weighted):
    weighted = weighted and replacement
    weights = np.arange(rows, 0, -1) % 5 + (rows == 5) if weighted else None
    weights = None if weighted and not weights.any() else weights
    first, second = (Order(rows, seed, True, replacement, weights) for _ in range(2))
    order = first.of(epoch)
    assert same_bits(order, second.of(epoch))
    assert len(order) == first.size
    assert ((order >= 0) & (order < rows)).all()
    if weights is not None:
        assert (np.asarray(weights)[order] > 0).all()
    if not replacement:
        assert len({*order}) == len(order) == rows


def test_weights_are_frequencies():
    weights = np.array([1.0, 0.0, 2.0, 5.0])
    order = Order(4, 0, True, True, weights)
    drawn = np.concatenate([order.of(epoch) for epoch in range(4000)])
    assert_allclose(np.bincount(drawn, minlength=4) / len(drawn), weights / 8, atol=0.01)
    with pytest.raises(ValueError, match="need replacement=True"):
        Order(4, 0, True, False, weights)


def test_epochs_differ_and_seeds_decide():
    order = Order(1000, 3, True, False, None)
    assert (order.of(0) != order.of(1)).any()
    assert same_runs(run(seed=1), run(seed=1))
    assert not same_runs(run(seed=1), run(seed=2))
    assert not same_runs(run(seed=None), run(seed=None))
    assert same_runs(run(seed=np.random.default_rng(4)), run(seed=np.random.default_rng(4)))
    assert (Order(5, None, False, False, None).of(3) == np.arange(5)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads(threads, monkeypatch):
    before = numba.get_num_threads()
    if threads > before:
        pytest.skip("one core")
    monkeypatch.setattr("numbelief._compile.threads.PARALLEL_FROM", 1)
    numba.set_num_threads(threads)
    try:
        found = run(pair, options={"iterate": "ema"})
    finally:
        numba.set_num_threads(before)
    monkeypatch.undo()
    assert same_runs(found, run(pair, options={"iterate": "ema"}))


# ---- sets


def test_every_point_is_in_the_set():
    ball = sets.Ball(radius=0.5)
    res, points = trajectory(feasible_set=ball, fun=pair)
    assert all(map(ball.contains, points))
    assert_allclose(np.linalg.norm(res.x), 0.5)
    with pytest.warns(OptimizeWarning, match="not within"):
        minimize_stochastic(
            both, np.full(3, 9.0), (A, B), batch_size=9, epochs=1, jac=True, bounds=[(0, 1)] * 3
        )


# ---- what is not finite


@pytest.mark.parametrize("fun", [both, pair])
def test_nan_in_the_data_is_named(fun):
    data = A.copy(), B.copy()
    data[0][40, 1] = np.nan
    res = run(fun, data=data)
    assert (res.status, res.success) == (3, False)
    assert "row 40 of data[0]" in res.message
    assert np.isfinite(res.x).all()


def test_divergence_in_the_first_epoch_returns_to_x0():
    with np.errstate(all="ignore"):
        res = run(method=SGD(learning_rate=1e6), batch_size=1)
    assert (res.status, res.success, res.epochs) == (3, False, 0)
    assert_allclose(res.x, 0)
    assert np.isnan(res.fun)


@pytest.mark.parametrize("iterate", ["best", "last", "ema", "average"])
@pytest.mark.parametrize("size", [60, None])
def test_a_last_step_to_infinity(iterate, size):
    def steep(x, A, b):
        return 1.0, np.full(3, 1e300)

    with np.errstate(all="ignore"):
        options = {"iterate": iterate, "average_from": 0.0}
        rule = SGD(learning_rate=1e10)
        res = run(steep, method=rule, batch_size=size, epochs=1, drop_last=True, options=options)
    assert (res.status, res.success) == (3, False)
    assert "After epoch 0, x is not finite" in res.message
    assert_allclose(res.x, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_validation_that_is_not_finite(value, tmp_path):
    given = {"validation": lambda x: value if x @ x > 1 else 1.0, "epochs": 20}
    res = run(options={"checkpoint": tmp_path / "c"}, **given)
    assert res.status == 3
    assert f"the validation loss is {value}" in res.message
    assert res.x @ res.x <= 1 and res.fun == 1
    assert same_runs(run(options={"resume": tmp_path / "c"}, **given), res)


def test_divergence_keeps_the_best_point():
    rule = numbelief.SGD(learning_rate=lambda t: 0.05 if t < 15 else 1e200)
    res = run(pair, epochs=10, method=rule)
    assert res.status == 3
    assert "data are finite" in res.message
    assert res.epochs >= 2
    assert res.fun == min(res.history.loss)
    assert np.isfinite(res.x).all()


# ---- files


@pytest.mark.parametrize("fun", [both, pair])
@pytest.mark.parametrize("iterate", ["best", "ema", "average"])
def test_resumed_runs_have_the_same_bits(fun, iterate, tmp_path):
    def go(**options):
        common = {"iterate": iterate, "checkpoint": tmp_path / "c", "checkpoint_every": 3}
        rule = AdaBelief(learning_rate=schedules.cosine(0.1, steps=30))
        return run(fun, epochs=5, method=rule, validation=(A, B), options={**common, **options})

    def interrupt(intermediate_result):
        if intermediate_result.nit == stop:
            raise KeyboardInterrupt

    whole = go()
    for stop in (1, 6, 7, 8, 14, 20):
        (tmp_path / "c").unlink()
        with pytest.raises(KeyboardInterrupt) as caught:
            go(step_callback=interrupt)
        assert caught.value.intermediate_result.nit == stop
        assert same_runs(go(resume=True), whole)
    assert same_runs(go(resume=True), whole)  # of a run that had ended


def test_more_epochs_than_before(tmp_path):
    path = tmp_path / "c"
    run(epochs=2, options={"checkpoint": path})
    assert same_runs(run(epochs=4, options={"resume": path}), run(epochs=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": (A[:-1], B[:-1])}, "rows = 103 in the file, 102 given"),
        ({"data": (A + 1, B)}, "data = "),
        ({"batch_size": 15}, "batch_size = 16 in the file, 15 given"),
        ({"shuffle": False}, "shuffle"),
        ({"replacement": True}, "replacement"),
        ({"weights": np.ones(103), "replacement": True}, "weights"),
        ({"drop_last": True}, "rows of an epoch"),
        ({"method": AdaBelief(learning_rate=0.1)}, "learning_rate"),
        ({"bounds": [(-1, 1)] * 3}, "bounds"),
        ({"validation": (A, B)}, "validation = None in the file"),
        ({"options": {"iterate": "ema"}}, "iterate"),
    ],
)
def test_checkpoint_of_something_else(change, message, tmp_path):
    path = tmp_path / "c"
    run(options={"checkpoint": path})
    options = (
        {"resume": path, **change.pop("options", {})} if "options" in change else {"resume": path}
    )
    with pytest.raises(ValueError, match=message):
        run(options=options, **change)


@pytest.mark.parametrize(
    "ending", [{"patience": 3}, {"target": 5.0}, {"patience": 3, "iterate": "average"}], ids=str
)
@pytest.mark.parametrize("size", [16, None])
def test_a_run_that_had_ended_has_ended(ending, size, tmp_path):
    given = {"batch_size": size, "epochs": 40, "validation": lambda x: max(6 - x @ x, 0.0)}
    ended = run(options={"checkpoint": tmp_path / "c", **ending}, **given)
    assert ended.success and ended.epochs < 40
    again = run(options={"resume": tmp_path / "c", **ending}, **given)
    assert same_runs(again, ended)
    assert again.message == ended.message


def test_an_average_begins_where_it_was_planned(tmp_path):
    def of(epochs, **options):
        return run(epochs=epochs, options={"iterate": "average", **options})

    def stop(x):
        raise StopIteration

    run(epochs=6, callback=stop, options={"iterate": "average", "checkpoint": tmp_path / "c"})
    assert same_runs(of(4, resume=tmp_path / "c"), of(4))  # it had not begun
    of(3, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="its average begins at step 11, .* now put at 22"):
        of(6, resume=tmp_path / "c")


def test_other_validation_data_than_before(tmp_path):
    run(validation=(A, B), options={"checkpoint": tmp_path / "c"})
    with pytest.raises(ValueError, match="validation = "):
        run(validation=(A[:50], B[:50]), options={"resume": tmp_path / "c"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("losses", np.zeros(2)), ("losses", np.zeros(1)), ("history", np.zeros((7, 3))),
        ("best", np.zeros(1)), ("g", np.zeros(3, np.float32)), ("batch", 999), ("epoch", "x"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(name, value, tmp_path):
    path = tmp_path / "c.npz"
    run(options={"checkpoint": path})
    with np.load(path) as file:
        arrays = {each: file[each] for each in file.files}
    if name in arrays:
        arrays[name] = value
    else:
        header = json.loads(str(arrays["numbelief"]))
        arrays["numbelief"] = np.array(json.dumps({**header, name: value}))
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="is not a readable numbelief checkpoint"):
        run(options={"resume": path})


def _train(checkpoint, name, output, ready):
    """A run in a process of its own, which may be killed at any moment after ``ready``."""
    options = {"checkpoint": checkpoint, "resume": True, "checkpoint_every": 5, "iterate": "ema"}
    if name == "both":
        options["step_callback"] = lambda x: sum(range(2000))  # slow
    ready.set()
    res = minimize_stochastic(
        {"pair": pair, "both": both}[name], np.zeros(3), (A, B), batch_size=8, epochs=60, jac=True,
        seed=11, method=AdaBelief(learning_rate=numbelief.schedules.inverse_sqrt(0.1)),
        validation=(A, B), options=options,
    )  # fmt: skip
    history = res.history
    np.savez(output, x=res.x, fun=res.fun, loss=history.loss, best=history.validation)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("fun", ["both", "pair"])
def test_killed_at_random_and_resumed(fun, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    # Processes that have imported all of this already; the server does not learn sys.path.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def begin(name):
        files = [str(tmp_path / part) for part in (f"{name}.checkpoint", f"{name}.npz")]
        ready = context.Event()
        process = context.Process(target=_train, args=(files[0], fun, files[1], ready))
        process.start()
        assert ready.wait(60)
        return process

    def end(process):
        process.join(300)
        assert process.exitcode == 0

    end(begin("whole"))
    for _ in range(10):
        victim = begin("killed")
        time.sleep(random.uniform(0, 0.25))
        victim.kill()
        victim.join()
        if victim.exitcode == 0:  # it was quicker: begin anew
            (tmp_path / "killed.checkpoint").unlink(missing_ok=True)
    end(begin("killed"))
    with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "killed.npz") as other:
        assert all(same_bits(one[name], other[name]) for name in one.files)


# ---- bad input


def test_a_compiled_fun_takes_arrays():
    message = r"data\[0\] must be a NumPy array for a fun that is compiled .* batches of csr_array"
    with pytest.raises(TypeError, match=message):
        run(numba.njit(both), data=(scipy.sparse.csr_array(A), B))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": (A, B[:-1])}, ValueError, r"one leading length, got \[103, 102\]"),
        ({"data": ()}, ValueError, "at least one array"),
        ({"data": (A[:0], B[:0])}, ValueError, "data must not be empty"),
        ({"data": (A, 3.0)}, TypeError, r"data\[1\] must be an array"),
        ({"data": (A, np.float64(3.0))}, TypeError, r"data\[1\]"),
        ({"data": (scipy.sparse.csc_array(A), B)}, TypeError, "CSR"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 104}, ValueError, "batch_size must be at most the 103 rows"),
        ({"data": (np.ma.masked_invalid(A), B)}, TypeError, "must not be a masked array"),
        ({"data": [A, B]}, TypeError, "several arrays are given as a tuple"),
        ({"batch_size": 1.5}, ValueError, "batch_size"),
        ({"batch_size": "8"}, TypeError, "batch_size"),
        ({"epochs": -1}, ValueError, "epochs"),
        ({"epochs": None}, TypeError, "epochs"),
        ({"seed": "x"}, TypeError, "seed"),
        ({"seed": -1}, ValueError, "seed"),
        ({"shuffle": 1}, TypeError, "shuffle"),
        ({"replacement": "no"}, TypeError, "replacement"),
        ({"drop_last": 2}, TypeError, "drop_last"),
        ({"shuffle": False, "replacement": True}, ValueError, "shuffle=False"),
        ({"shuffle": False, "weights": np.ones(103)}, ValueError, "shuffle=False"),
        ({"weights": np.ones(3), "replacement": True}, ValueError, "one number for each of 103"),
        ({"weights": -np.ones(103), "replacement": True}, ValueError, "finite and at least 0"),
        ({"weights": np.zeros(103), "replacement": True}, ValueError, "not all be 0"),
        ({"weights": ["a"] * 103, "replacement": True}, TypeError, "weights"),
        ({"validation": (A[:0], B[:0])}, ValueError, "validation must not be empty"),
        ({"validation": (A, B[:-1])}, ValueError, "validation must have one leading length"),
        ({"callback": 3}, TypeError, "callback"),
        ({"method": "adem"}, ValueError, "did you mean 'adam"),
        ({"options": {"patience": 0}}, ValueError, "patience"),
        ({"options": {"iterate": "first"}}, ValueError, "iterate must be 'best', 'last', 'ema' or"),
        ({"options": {"ema_decay": 1.0}}, ValueError, "ema_decay"),
        ({"options": {"step_callback": 1}}, TypeError, "step_callback"),
        ({"options": {"resume": True}}, ValueError, "resume"),
    ],
)
def test_bad_input(change, error, message):
    calls = []

    def counted(x, *batch):
        calls.append(1)
        return both(x, *batch)

    with pytest.raises(error, match=message):
        run(counted, **change)
    assert not calls


def test_unknown_options_warn():
    with pytest.warns(OptimizeWarning, match="Unknown solver options: gtol"):
        run(options={"gtol": 1e-3})


@pytest.mark.parametrize("fun", [both, pair])
def test_exceptions_keep_the_result_so_far(fun):
    data = A.copy(), B, np.arange(103.0)

    def fails(x, A, b, rows):
        if (rows == 50).any() and x[0] != 0:
            raise ZeroDivisionError("row 50")
        return fun.py_func(x, A, b) if hasattr(fun, "py_func") else fun(x, A, b)

    if fun is pair:

        @numba.njit
        def fails(x, A, b, rows):
            if (rows == 50).any() and x[0] != 0:
                raise ZeroDivisionError("row 50")
            return pair(x, A, b)

    with pytest.raises(ZeroDivisionError, match="row 50") as caught:
        run(fails, data=data)
    first = int(np.argmax(Order(103, 5, True, False, None).of(0) == 50)) // 16
    assert caught.value.intermediate_result.nit == first


def test_the_data_do_not_outlive_the_run():
    data = A.copy()
    alive = weakref.ref(data)
    gc.disable()
    try:
        run(data=(data, B), epochs=1)
        del data
        assert alive() is None
    finally:
        gc.enable()
