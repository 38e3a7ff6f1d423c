"""The templates of a step, completed for a kind of rule and compiled for the CPU."""

import functools
import inspect
from typing import Any

from numba import from_dtype

from numbelief._compile.arrays import compile_norm
from numbelief._compile.jit import key_of, part
from numbelief._compile.pointers import Layout, compile_for_numbers, compile_for_vectors
from numbelief._compile.template import bind
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


def bind_step(kind: Kind, target: Any) -> Any:
    """`advance` of a kind, from what a target makes of its parts.

    Parameters
    ----------
    kind : Kind
    target : object
        ``rule(function)`` takes the rule's plain functions, ``block(function)`` what is done to a
        block, ``sums(function)`` the same where sums may be reordered; ``norm`` is that of arrays,
        and ``layerwise`` the template of a layerwise step.
    """
    hyperparameters, coefficients = fields_of(kind.rule)  # type: ignore[arg-type]
    numbers = {"Hyperparameters": hyperparameters, "COUNT": len(hyperparameters._fields)}
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
    scaling = {"decay": target.rule(kind.rule.decay), "norm": target.norm}
    steps = {
        "begin": bind(
            text.begin_template, coefficients=target.rule(kind.rule.coefficients), **numbers
        ),
        "scaling_of": bind_for(kind, text.scaling_template, **scaling, **numbers),
        "lookahead_of": bind_for(kind, text.lookahead_template),
        "step_block": target.block(block),
        "finish": bind_for(kind, text.finish_template, synchronize=parts["synchronize"]),
    }
    if not kind.rule.layerwise:
        return bind(text.elementwise_template, **steps)
    norms = bind(
        text.norms_template,
        update=update,
        as_seen=parts["as_seen"],
        load=parts["load"],
        rows=rows,
        Coefficients=coefficients,
    )
    return bind(target.layerwise, norms_of_block=target.sums(norms), **steps)


class _Host:
    """How the parts of a step are compiled for the CPU; see `bind_step`."""

    layerwise = staticmethod(text.layerwise_template)

    def __init__(self, parallel: bool) -> None:
        self.norm = compile_norm(parallel=parallel)

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
def compile_advance(kind: Kind, *, parallel: bool = False, inlined: bool = True) -> Any:
    """``advance(x, g, state, rate, options)``, for compiled loops that alone hold the arrays."""
    allocates = parallel or kind.rule.layerwise  # a parallel loop does
    step = bind_step(kind, _Host(parallel))
    return part(step, parallel=parallel, inlined=inlined, allocates=allocates)


@functools.cache
def compile_host_part(kind: Kind, layout: Layout) -> Any:
    """Compile the part of a step that runs on the host when another target takes it.

    See `numbelief._step.template.host_template`; ``layout`` is that of what lies at its ``data``.
    The norm of a gradient is the target's.
    """
    kind = kind._replace(options=tuple(each for each in kind.options if each != "max_norm"))
    hyperparameters, _ = fields_of(kind.rule)  # type: ignore[arg-type]
    numbers = {"Hyperparameters": hyperparameters, "COUNT": len(hyperparameters._fields)}
    rule = kind.rule
    scaling = bind_for(kind, text.scaling_template, decay=rule.decay, norm=None, **numbers)
    begin = bind(text.begin_template, coefficients=rule.coefficients, **numbers)
    key = kind.key and key_of("host", kind.key, layout)
    whole = bind(text.host_template, key, begin=begin, scaling_of=scaling, LAYOUT=layout.pointer)
    return compile_for_numbers(whole, cache=key is not None, allocates=False)


@functools.cache
def compile_step(kind: Kind, layout: Layout, dtype: Any, *, parallel: bool) -> Any:
    """Compile a step as a C function, for `numbelief._step.call`.

    Parameters
    ----------
    kind : Kind
        Hyperparameters are in the state that the step takes; only their class matters.
    layout : Layout
        Of (state, options, rate), which lie in memory.
    dtype : numpy.dtype
        Of x.
    parallel : bool
        Spread the blocks over Numba's threads.
    """
    number = from_dtype(dtype)
    key = key_of(kind.key, layout, parallel) if kind.key is not None else None
    if parallel:
        advance = compile_advance(kind, parallel=True, inlined=False)
    else:  # part of its text, a step on two numbers takes 10 ns less, and is compiled once
        advance = bind_step(kind, _Host(parallel=False))
    step = bind(text.stored_template, key, advance=advance, LAYOUT=layout.pointer, NUMBER=number)
    return compile_for_vectors(step, number, cache=key is not None, allocates=kind.rule.layerwise)
