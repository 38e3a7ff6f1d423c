"""The templates of a step, completed for a kind of rule and compiled for the CPU."""

import functools
import inspect
from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype
from numba import types as nb

from numbelief._compile.arrays import compile_norm
from numbelief._compile.jit import jit, key_of, part
from numbelief._compile.pointers import (
    Addressed,
    Layout,
    addressed,
    compile_for_numbers,
    compile_for_vectors,
)
from numbelief._compile.template import bind, named
from numbelief._step import template as text
from numbelief._step.kind import Kind, fields_of
from numbelief._step.state import StepOptions


def bind_for(kind: Kind, template: Any, **names: Any) -> Any:
    """Complete a template whose parameters in capitals tell which `StepOptions` are given."""
    wanted = inspect.signature(template).parameters
    for option in StepOptions._fields:
        if option.upper() in wanted:
            names[option.upper()] = kind.has(option)
    return bind(template, **names)


def parts_of_step(kind: Kind, update: Any) -> dict[str, Any]:
    """What a step does at a coordinate, for any target, around the rule's update for that target.

    Returns
    -------
    dict of str to function
        By the names that the templates of `numbelief._step.template` call them.
    """
    names: dict[str, Any] = {
        "as_seen": bind_for(kind, text.gradient_template),
        "load": text.load_template(kind.slots),
        "anchor": bind_for(kind, text.anchor_template),
        "synchronize": bind_for(kind, text.synchronize_template),
    }
    names["step_coordinate"] = bind_for(
        kind,
        text.coordinate_template,
        update=update,
        as_seen=names["as_seen"],
        load=names["load"],
        store=text.store_template(kind.slots),
    )
    return names


def _hyperparameters(kind: Kind) -> dict[str, Any]:
    hyperparameters, _ = fields_of(kind.rule)  # type: ignore[arg-type]
    return {"Hyperparameters": hyperparameters, "COUNT": len(hyperparameters._fields)}


def _bind_begin(kind: Kind, coefficients: Any) -> Any:
    return bind(text.begin_template, coefficients=coefficients, **_hyperparameters(kind))


def _bind_scaling(kind: Kind, decay: Any, norm: Any) -> Any:
    numbers = _hyperparameters(kind)
    return bind_for(kind, text.scaling_template, decay=decay, norm=norm, **numbers)


def parts_for(kind: Kind, target: Any) -> dict[str, Any]:
    """The parts of a step on arrays, as a target makes them.

    Parameters
    ----------
    kind : Kind
    target : object
        ``rule(function)`` takes the rule's plain functions, ``block(function)`` what is done to a
        block, ``sums(function)`` the same where sums may be reordered; ``norm`` is that of arrays.

    Returns
    -------
    dict of str to function
        By the names that the templates of a whole step call them.
    """
    _, coefficients = fields_of(kind.rule)  # type: ignore[arg-type]
    update = target.rule(kind.rule.update)
    parts = parts_of_step(kind, update)
    rows = text.rows_template(kind.slots)
    block = bind_for(
        kind,
        text.block_template,
        step_coordinate=parts["step_coordinate"],
        rows=rows,
        anchor=parts["anchor"],
        synchronize=parts["synchronize"],
        Coefficients=coefficients,
    )
    found = {
        "begin": _bind_begin(kind, target.rule(kind.rule.coefficients)),
        "scaling_of": _bind_scaling(kind, target.rule(kind.rule.decay), target.norm),
        "lookahead_of": bind_for(kind, text.lookahead_template),
        "step_block": target.block(block),
        "finish": bind_for(kind, text.finish_template, synchronize=parts["synchronize"]),
    }
    if kind.rule.layerwise:
        norms = bind(
            text.norms_template,
            update=update,
            as_seen=parts["as_seen"],
            load=parts["load"],
            rows=rows,
            Coefficients=coefficients,
        )
        found["norms_of_block"] = target.sums(norms)
    return found


class _Host:
    """How the parts of a step are compiled for the CPU; see `parts_for`."""

    def __init__(self) -> None:
        self.norm = compile_norm(parallel=False)

    @staticmethod
    def rule(function: Any) -> Any:
        # A function of its own, so that the freedom to reorder stays with the sums.
        return part(function, allocates=False)

    @staticmethod
    def block(function: Any) -> Any:
        return part(function, inlined=True, allocates=False)

    @staticmethod
    def sums(function: Any) -> Any:
        return part(function, fastmath={"reassoc"}, allocates=False)


@functools.cache
def _host_parts(kind: Kind) -> dict[str, Any]:
    return parts_for(kind, _Host())


def _bind_step(kind: Kind) -> Any:
    whole = text.layerwise_template if kind.rule.layerwise else text.elementwise_template
    return bind(whole, **_host_parts(kind))


@functools.cache
def compile_advance(kind: Kind) -> Any:
    """``advance(x, g, state, rate, options)``, for compiled loops that alone hold the arrays."""
    return part(_bind_step(kind), inlined=True, allocates=kind.rule.layerwise)


@functools.cache
def compile_step(kind: Kind, layout: Layout, dtype: Any) -> Any:
    """Compile a step as a C function, for `numbelief._step.call`.

    Parameters
    ----------
    kind : Kind
        Hyperparameters are in the state that the step takes; only their class matters.
    layout : Layout
        Of (state, options, rate), which lie in memory.
    dtype : numpy.dtype
        Of x.
    """
    key, number = kind.key and key_of("step", kind.key, layout), from_dtype(dtype)
    # Part of its text, a step on two numbers takes 10 ns less, and is compiled once.
    advance = _bind_step(kind)
    step = bind(text.stored_template, key, advance=advance, LAYOUT=layout.pointer, NUMBER=number)
    return compile_for_vectors(step, number, cache=key is not None, allocates=kind.rule.layerwise)


class ThreadedStep(NamedTuple):
    """The C functions of a step with threads: the whole, and what it calls for each block."""

    step: Any
    block: Any
    norms: Any


@functools.cache
def compile_threaded_step(kind: Kind, layout: Layout, dtype: Any) -> ThreadedStep:
    """The same with threads; ``layout`` is that of (state, options, rate, work)."""
    number, parts = from_dtype(dtype), _host_parts(kind)
    _, coefficients = fields_of(kind.rule)  # type: ignore[arg-type]

    def compiled(name: str, template: Any, allocates: bool = False, **names: Any) -> Any:
        key = kind.key and key_of(name, kind.key, layout)
        memory = {"LAYOUT": layout.pointer, "NUMBER": number}
        function = bind_for(kind, template, key=key, **names, **memory)
        how = {"cache": key is not None, "allocates": allocates}
        return compile_for_vectors(function, number, nb.intp, **how)

    names = {each: parts[each] for each in ("begin", "scaling_of", "finish")}
    if kind.has("max_norm"):
        decay, norm = _Host.rule(kind.rule.decay), compile_norm(parallel=True)
        names["scaling_of"] = _bind_scaling(kind, decay, norm)
    names["RUN"] = compile_run_blocks(dtype).kind
    step = compiled("threaded", text.threaded_template, allocates=True, **names)
    names = {each: parts[each] for each in ("step_block", "lookahead_of")}
    names["COUNT"] = len(coefficients._fields)
    block = compiled("block", text.block_at_address_template, **names)
    norms = None
    if kind.rule.layerwise:
        names = {each: names[each] for each in ("COUNT",)}
        names["norms_of_block"] = parts["norms_of_block"]
        norms = compiled("norms", text.norms_at_address_template, **names)
    return ThreadedStep(step, block, norms)


@functools.cache
def compile_run_blocks(dtype: Any) -> Addressed:
    """Compile the loop over the blocks of a step: once for each dtype, for all rules."""
    x = np.zeros(1, dtype)
    return addressed(jit(named(text.run_blocks, key_of()), parallel=True), 0, 0, x, x, 0)


@functools.cache
def compile_host_part(kind: Kind, layout: Layout) -> Any:
    """Compile the part of a step that runs on the host when another target takes it.

    See `numbelief._step.template.host_template`; ``layout`` is that of what lies at its ``data``.
    The norm of a gradient is the target's.
    """
    kind = kind._replace(options=tuple(each for each in kind.options if each != "max_norm"))
    begin = _bind_begin(kind, kind.rule.coefficients)
    scaling = _bind_scaling(kind, kind.rule.decay, None)
    key = kind.key and key_of("host", kind.key, layout)
    names = {"begin": begin, "scaling_of": scaling, "LAYOUT": layout.pointer}
    whole = bind(text.host_template, key, **names)
    return compile_for_numbers(whole, cache=key is not None, allocates=False)
