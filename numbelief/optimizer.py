"""Optimizer: one rule bound to one parameter array, for people who own their loop."""

import copy
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief import _checkpoint as checkpoint
from numbelief import _interop as interop
from numbelief import schedules
from numbelief._compile import threads
from numbelief._step.kind import Kind, check_rule, never_decays
from numbelief._step.state import (
    TIMESTEP,
    Projection,
    Region,
    StepOptions,
    StepState,
    Synchronization,
)
from numbelief._step.vectors import HostVectors, Vectors
from numbelief.checks import choice, limit
from numbelief.rules import Lookahead, Rule
from numbelief.sets import Box, FeasibleSet

__all__ = ["Optimizer"]

_KIND = "numbelief.Optimizer"
_TARGETS = ("auto", "serial", "parallel", "cuda")


class Optimizer:
    r"""Step a parameter array in place with a rule.

    Each step computes :math:`x \leftarrow \Pi(x - \eta d)` with the direction :math:`d` and rates
    :math:`\eta` of the rule, in one pass over memory and without temporaries.

    Parameters
    ----------
    rule : Rule or Lookahead
        The update rule and its hyperparameters. It holds no state; two optimizers may share it.
    x : ndarray or device array of shape (n,), float32 or float64
        The parameters: C-contiguous and writable. Every step changes them in place. An array on an
        NVIDIA GPU is one that has ``__cuda_array_interface__`` or DLPack (CuPy, PyTorch, Numba);
        the steps then happen there.
    feasible_set : FeasibleSet, optional
        The set that x stays in, one of `numbelief.sets`. Each step ends with the projection onto it
        in the metric :math:`1/\eta` of that step. x itself is moved into the set by the first
        step, not before. On a GPU only a `Box`, so far.
    bounds : scipy.optimize.Bounds or sequence of (min, max), optional
        The same in SciPy's form; give one of the two.
    max_norm : float, optional
        Scale the gradient down to this Euclidean norm where it is longer; infinity is no limit.
    max_value : float, optional
        Then clip each of its coordinates to [-max_value, max_value].
    target : {"auto", "serial", "parallel", "cuda"}, default "auto"
        Which kernel runs. On the CPU the bits do not depend on it; "cuda" agrees to rounding.
        "auto" is "cuda" for an array on a GPU, and else parallel from 32768 elements on
        (environment variable ``NUMBELIEF_PARALLEL_FROM``), unless a few steps without threads,
        tried now and then, are faster. Where threads would be unsafe, such as in a forked
        child, the serial kernel runs whatever the target.
    stream : stream or int, optional
        For x on a GPU: the CUDA stream, or its handle, that the steps are queued on, without
        waiting for them. Default: the one that is current in PyTorch or CuPy, for their arrays,
        when the optimizer is made; else CUDA's default stream. A CUDA graph that captures a step
        repeats its rate and its bias corrections.

    Attributes
    ----------
    rule : Rule or Lookahead
        The rule as given.
    inner : Rule
        The rule without its `Lookahead`, which is what kernels are compiled for.
    x : ndarray or device array of shape (n,)
        The caller's parameter array.
    t : int
        Number of steps taken.
    state : dict of str to ndarray or device array of shape (n,)
        The rule's slots by name, and the "slow" weights of a `Lookahead`: views, not copies.

    Raises
    ------
    TypeError
        rule is not a Rule; x is not an array, or not of float32 or float64, or not on a GPU for
        target "cuda".
    ValueError
        x is not 1-D, empty, not contiguous or read-only, or on a GPU and the target is another;
        bounds or learning rates of another length; a limit below or equal to 0; an unknown target;
        a set other than a `Box` on a GPU.
    RuntimeError
        The GPU, or a package that it takes to use it, is missing.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0, -2.0])
    >>> opt = numbelief.Optimizer(numbelief.Adam(learning_rate=0.1), x)
    >>> for _ in range(200):
    ...     opt.step(2 * x)
    >>> bool(abs(x).max() < 1e-2), opt.t
    (True, 200)
    """

    def __init__(
        self,
        rule: Rule | Lookahead,
        x: Any,
        *,
        feasible_set: FeasibleSet | None = None,
        bounds: Any = None,
        max_norm: float | None = None,
        max_value: float | None = None,
        target: str = "auto",
        stream: Any = None,
    ) -> None:
        if not isinstance(rule, (Rule, Lookahead)):
            raise TypeError(f"rule must be a numbelief rule such as AdaBelief(), got {rule!r}")
        choice("target", target, _TARGETS)
        self._rule, self._inner, self._x = rule, rule.inner, x
        self._target = target
        self.vectors: Vectors = _vectors_of(x, target, stream)
        n = self.vectors.size
        self._feasible_set = resolve_set(feasible_set, bounds, n, on_card=not self.on_host)
        self._max_norm = limit("max_norm", max_norm)
        self._max_value = limit("max_value", max_value)

        inner = self._inner
        timestep = np.zeros(1, TIMESTEP)
        timestep["beta1"], timestep["beta2"] = inner.betas
        #: What steps change besides x.
        self.step_state = StepState(
            self.vectors.slots(len(self._state_names)),
            timestep,
            np.array(list(inner.numbers.values())),
        )
        rate: Any = inner.default_rate if rule.learning_rate is None else rule.learning_rate
        self._schedule = rate if callable(rate) else None
        self._rate = 0.0 if callable(rate) else float(np.max(rate))
        if not inner.is_built_in():
            check_rule(inner)
        self._bind()

    @property
    def on_host(self) -> bool:
        """Whether x is an array of NumPy's."""
        return isinstance(self.vectors, HostVectors)

    def _bind(self) -> None:
        """Put together what a step takes besides x, the gradient and the state."""
        n, dtype, rule = self.vectors.size, self.vectors.dtype, self.inner
        feasible_set = self.feasible_set
        last_step = projection = None
        self.limits = None if feasible_set is None else feasible_set.limits(n, dtype)
        if feasible_set is not None and self.limits is None:
            self._projector = feasible_set.projector(n, dtype)
            last_step = np.zeros((2, n), dtype)
            projection = Projection(self._projector.address, self._projector.data, np.zeros(1))
        lower, upper = self.limits or (None, None)
        edges = owner = None
        if rule.layerwise:
            edges, owner = _blocks(rule.segments, n, self.vectors.sum_block)
        lookahead = self.rule.synchronization
        #: What a step may do besides the rule's update.
        self.step_options = StepOptions(
            decays=None if never_decays(rule) else True,
            max_norm=self._max_norm,
            max_value=self._max_value,
            lower=lower,
            upper=upper,
            last_step=last_step,
            projection=projection,
            edges=edges,
            owner=owner,
            scale=_scale(rule, n, dtype),
            lookahead=None if lookahead is None else Synchronization(*lookahead),
        )
        #: What its kernels depend on.
        self.kind = Kind.of(rule, self.step_options)
        #: Where x may be, for compiled loops.
        probe = None if last_step is None else np.ones((2, n), dtype)
        self.region = Region(lower, upper, projection, last_step, probe)
        self._step = self.vectors.stepper(self.kind, self.step_options, self.step_state)

    @property
    def t(self) -> int:
        """Number of steps taken."""
        return int(self.step_state.timestep["t"][0])

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """The rule's slots by name, and the slow weights of a `Lookahead`, as views."""
        return dict(zip(self._state_names, self.step_state.slots, strict=True))

    @property
    def _state_names(self) -> tuple[str, ...]:
        return self._rule.state_names

    def step(self, grad: Any) -> None:
        """Move x by one step of the rule along a gradient.

        Parameters
        ----------
        grad : array_like of shape (n,)
            The gradient at x. A writable contiguous array of x's dtype is read where it is;
            anything else is converted first. With x on a GPU, it is a contiguous array of x's
            dtype there, made on the optimizer's stream; for one of JAX's the step is waited for.
            It is never changed. Its values are not checked: a NaN enters x, as it
            does in PyTorch.

        Raises
        ------
        TypeError
            grad is not real or, with x on a GPU, not there or of another dtype.
        ValueError
            grad has another shape than x, or shares memory with x or with the state; with x on a
            GPU, it is not contiguous or on another GPU. Nothing has changed then.
        """
        rate = self._rate if self._schedule is None else float(self.rates(1)[0])
        self._step(grad, rate)
        if self.step_options.projection is not None:
            self.report()

    def report(self, x: NDArray[Any] | None = None) -> None:
        """Warn if a projection since the last report, or now that of x, does not reach the set."""
        projection = self.step_options.projection
        if projection is None:
            return
        left, projection.left[0] = float(projection.left[0]), 0
        if x is not None:
            left = self._projector(x.copy(), np.ones_like(x))
        if left > 0:
            warnings.warn(
                f"a projection left x {left:.3g} away from the {type(self.feasible_set).__name__}",
                RuntimeWarning,
                stacklevel=3,
            )

    @property
    def is_scheduled(self) -> bool:
        """Whether a function gives each step's rate."""
        return self._schedule is not None

    @property
    def wants_parallel(self) -> bool:
        """Whether steps on the host may use threads, where these pay."""
        return isinstance(self.vectors, HostVectors) and self.vectors.wants_parallel

    def runs_parallel(self) -> bool:
        """Whether a compiled loop is to use threads."""
        return self.wants_parallel and threads.are_safe()

    def rates(self, count: int) -> NDArray[np.float64]:
        """The learning rates of the next steps, the largest one where each coordinate has its own.

        Raises
        ------
        ValueError
            The schedule returned something other than a finite number of at least 0.
        """
        if self._schedule is None:
            return np.full(count, self._rate)
        return schedules.table(self._schedule, self.t + 1, count)

    # Kernels hold the arrays and numbers of these, so that to set them would do nothing.
    rule = property(lambda self: self._rule)
    inner = property(lambda self: self._inner)
    x = property(lambda self: self._x)
    feasible_set = property(lambda self: self._feasible_set)
    learning_rate = property(lambda self: self._rule.learning_rate)

    def __copy__(self) -> "Optimizer":
        # Two optimizers that step one array with one state are nobody's wish.
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        if not self.on_host:
            raise TypeError("an optimizer on a GPU cannot be copied or pickled: use save and load")
        addresses = ("vectors", "_step", "_projector", "step_options", "region")
        return {k: v for k, v in vars(self).items() if k not in addresses}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # A copied optimizer steps its own copy of x.
        self.vectors = HostVectors(self.x, self._target)
        self._bind()

    def save(self, path: checkpoint.Path) -> None:
        """Write rule, schedule, t, slots and parameters to one file, atomically.

        Parameters
        ----------
        path : path-like
            The file, an ``.npz`` archive whatever its name. A kill during the call leaves the
            previous file.
        """
        header, arrays = self.snapshot()
        checkpoint.write(path, {"kind": _KIND, **header}, arrays)

    @classmethod
    def load(
        cls,
        path: checkpoint.Path,
        x: Any,
        *,
        rule: Rule | Lookahead | None = None,
        feasible_set: FeasibleSet | None = None,
        target: str = "auto",
        stream: Any = None,
    ) -> "Optimizer":
        """Read a file of `save`: fill x with its parameters, and go on from there bit for bit.

        What was saved on a CPU may go on on a GPU, and the other way round: agreeing to rounding.

        Parameters
        ----------
        path : path-like
            A file written by `save`.
        x : ndarray or device array of shape (n,)
            Receives the parameters; must have the size and dtype of the saved ones. Unchanged if
            anything is wrong.
        rule : Rule or Lookahead, optional
            The rule that the file must hold. Needed only where its learning rate is a function of
            yours or an array, which a file does not hold.
        feasible_set : FeasibleSet, optional
            The set that the steps were taken in. Needed for a set other than a `Box`, which a file
            does not hold.
        target : {"auto", "serial", "parallel", "cuda"}, default "auto"
        stream : stream or int, optional
            As in the constructor.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is damaged, or its rule, dtype, size or format version does not match; the
            message says what differs.
        """
        header, arrays = checkpoint.read(path, _KIND)
        return cls.from_snapshot(
            header, arrays, x, rule=rule, feasible_set=feasible_set, target=target, stream=stream
        )

    def snapshot(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything that `save` writes, as a header and arrays."""
        vectors, slots = self.vectors, self.step_state.slots
        header = {
            "rule": checkpoint.describe(self.rule),
            "dtype": vectors.dtype.name,
            "n": vectors.size,
            "max_norm": self._max_norm,
            "max_value": self._max_value,
            "feasible_set": self.set_fingerprint(),
        }
        arrays = {
            "x": vectors.to_host(vectors.x),
            "state": vectors.to_host(slots).reshape(len(slots), vectors.size),
            "clock": self.step_state.timestep,
        }
        if self.limits is not None:
            arrays |= dict(zip(("lower", "upper"), self.limits, strict=True))
        return header, arrays

    def set_fingerprint(self) -> str | None:
        """What tells the feasible set from others; a box by its limits."""
        return checkpoint.fingerprint(self.limits or self.feasible_set)

    @classmethod
    def from_snapshot(
        cls,
        header: dict[str, Any],
        arrays: dict[str, NDArray[Any]],
        x: Any,
        *,
        rule: Rule | Lookahead | None = None,
        feasible_set: FeasibleSet | None = None,
        target: str = "auto",
        stream: Any = None,
    ) -> "Optimizer":
        """The optimizer that `snapshot` described, bound to x."""
        given = _vectors_of(x, target, stream)
        missing = [k for k in ("rule", "dtype", "n", "max_norm", "max_value") if k not in header]
        missing += [k for k in ("x", "state", "clock") if k not in arrays]
        if missing:
            raise checkpoint.Mismatch(f"it has no {', '.join(missing)}")
        wrong = []
        with checkpoint.refusing_damage(header.get("path", "snapshot")):
            restored = checkpoint.restore(header["rule"]) if rule is None else rule
            if rule is not None:
                wrong += checkpoint.differences(header["rule"], rule)
            limits = {name: limit(name, header[name]) for name in ("max_norm", "max_value")}
            _check_timestep(arrays["clock"])
            box = None
            if "lower" in arrays:
                box = Box(arrays["lower"], arrays["upper"])
                if box.lower.shape != (header["n"],):
                    raise ValueError(f"lower has shape {box.lower.shape}")
        for name, here in (("dtype", given.dtype.name), ("n", given.size)):
            if header[name] != here:
                wrong.append(f"{name} = {header[name]} in the file, {here} given")
        if wrong:
            raise checkpoint.Mismatch("; ".join(wrong))
        feasible_set = box if feasible_set is None else feasible_set
        opt = cls(restored, x, feasible_set=feasible_set, target=target, stream=stream, **limits)
        if header.get("feasible_set") != opt.set_fingerprint():
            raise checkpoint.Mismatch(f"another feasible_set in the file, {feasible_set!r} given")
        mine = {"x": opt.vectors.x, "state": opt.step_state.slots, "clock": opt.step_state.timestep}
        n, dtype = opt.vectors.size, opt.vectors.dtype
        shapes = {"state": (len(opt._state_names), n), "clock": (1,), "x": (n,)}
        for name, shape in shapes.items():
            saved, kind = arrays[name], TIMESTEP if name == "clock" else dtype
            if saved.shape != shape or saved.dtype != kind:
                raise checkpoint.Mismatch(
                    f"{name} is {saved.dtype}{saved.shape} in the file, {kind}{shape} expected"
                )
        opt.vectors.from_host(mine["x"], arrays["x"])
        opt.vectors.from_host(mine["state"], arrays["state"])
        opt.step_state.timestep[...] = arrays["clock"]
        return opt


def _check_timestep(saved: NDArray[Any]) -> None:
    """Refuse what no steps lead to."""
    if saved.dtype != TIMESTEP or saved.shape != (1,):
        raise ValueError(f"clock is {saved.dtype}{saved.shape}, {TIMESTEP}(1,) expected")
    shares = [float(saved[name][0]) for name in ("beta1", "beta2", "bias1", "bias2")]
    if saved["t"][0] < 0 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"clock is {saved[0]}")


def _vectors_of(x: Any, target: str, stream: Any) -> Vectors:
    """The memory that x lies in; it has to be the target's."""
    if target == "cuda" or interop.is_device_array(x):
        if target not in ("auto", "cuda"):
            raise ValueError(f"target must be auto or cuda for x on a GPU, got {target!r}")
        from numbelief._gpu.vectors import CardVectors

        return CardVectors(x, stream)
    if stream is not None:
        raise ValueError("stream is for x on a GPU only")
    return HostVectors(x, target)


def resolve_set(
    feasible_set: Any, bounds: Any, n: int, *, on_card: bool = False
) -> FeasibleSet | None:
    """One feasible set out of the two ways to give it."""
    if feasible_set is not None and bounds is not None:
        raise ValueError("give feasible_set or bounds, not both")
    if bounds is not None:
        return Box.from_bounds(bounds, n)
    if feasible_set is None:
        return None
    if not isinstance(feasible_set, FeasibleSet):
        raise TypeError(
            f"feasible_set must be a set such as numbelief.sets.Ball(), got {feasible_set!r}"
        )
    if feasible_set.size not in (None, n):
        raise ValueError(
            f"feasible_set must have {n} coordinates, as x has, got {feasible_set.size}"
        )
    if on_card and not feasible_set.separable:
        raise ValueError(
            "feasible_set must be a Box on a GPU, where other sets are not yet available, "
            f"got {feasible_set!r}"
        )
    return feasible_set


def _scale(rule: Rule, n: int, dtype: Any) -> NDArray[Any] | None:
    """Each coordinate's rate as a share of the largest, where the rule has an array of them."""
    rates = rule.learning_rate
    if not isinstance(rates, np.ndarray):
        return None
    starts = np.array(rule.segments or (0,)) if rule.layerwise else np.empty(0)
    if rates.size == starts.size:
        rates = np.repeat(rates, np.diff(starts, append=n))
    if rates.size != n:
        segments = f", or as there are segments, {starts.size}," if rule.layerwise else ","
        raise ValueError(
            f"learning_rate must have as many rates as x has coordinates, {n}{segments} "
            f"got {rates.size}"
        )
    largest = rates.max()
    return np.asarray(rates / largest if largest > 0 else rates, dtype)


def _blocks(
    segments: tuple[int, ...] | None, n: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut each segment into blocks; return their edges and the segment that each belongs to."""
    starts = (0,) if segments is None else segments
    if starts[-1] >= n:
        raise ValueError(f"segments must start below n = {n}, got {starts}")
    edges, owner = [], []
    for segment, (lo, hi) in enumerate(zip(starts, (*starts[1:], n), strict=True)):
        cuts = range(lo, hi, size)
        edges += list(cuts)
        owner += [segment] * len(cuts)
    return np.array([*edges, n], dtype=np.int64), np.array(owner, dtype=np.int64)
