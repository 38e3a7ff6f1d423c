"""One step, written once: at a coordinate, at a block of coordinates, and as a whole.

Templates (see `numbelief._compile.template`). A name in capitals that is one of the `StepOptions`
tells whether that option is given: what it switches off is not in the kernel. With all of it
compiled in, a step on 2e7 numbers took 1.2 times the memory limit instead of hardly more than 1.

In all of these, x, g, lower, upper and scale have shape (n,), slots has shape (k, n) and last_step
(2, n), all of one dtype, float32 or float64.
"""

from math import sqrt

import numpy as np
from numba import prange

from numbelief._compile.arrays import BLOCK, clip_to_bounds, fill
from numbelief._compile.internals import (
    address_of,
    array_at,
    call_c_of,
    call_compiled,
    cast,
    flushed,
    larger,
    row,
    smaller,
    stays_apart,
    tiny_of,
    to_fixed_tuple,
    window,
)
from numbelief._compile.pointers import call_c, loaded
from numbelief._step.state import BlockOptions, Scaling

SCALING = len(Scaling._fields)
# Why a step refuses its gradient, before it has changed anything.
STEPPED, SHARES_X, SHARES_SLOTS = range(3)

# ---- at a coordinate ---------------------------------------------------------------------------


def gradient_template(MAX_NORM, MAX_VALUE, DECAYS):
    """The gradient as the rule sees it: clipped, and then with the coupled decay."""

    def as_seen(g, x, scaling):
        if MAX_NORM:
            g = g * scaling.clip
        if MAX_VALUE:
            g = smaller(larger(g, -scaling.max_value), scaling.max_value)
        if DECAYS:
            g = g + scaling.l2 * x
        return g

    return as_seen


def coordinate_template(
    update, as_seen, load, store, DECAYS, EDGES, SCALE, LAST_STEP, LOWER
):  # fmt: skip
    """Step coordinate i, with `Coefficients`, `Scaling` and `BlockOptions`."""

    def step_coordinate(x, g, slots, i, c, scaling, ratio, options):
        old = x[i]  # read before any slot is written: a GPU cannot tell that they do not overlap
        new = update(old, as_seen(g[i], old, scaling), c, *load(slots, i))
        store(slots, i, new, c)
        rate = new[1]
        if EDGES:
            rate = rate * ratio
        if SCALE:
            rate = rate * options.scale[i]
        if LAST_STEP:
            options.last_step[0][i] = rate
            options.last_step[1][i] = new[0]
        if DECAYS:
            keep = scaling.keep
            if SCALE:
                keep = c.one - options.scale[i] * (c.one - keep)
            old = old * keep
        value = old - rate * new[0]
        if LOWER:
            value = clip_to_bounds(value, options.lower[i], options.upper[i])
        x[i] = value

    return step_coordinate


def store_template(COUNT):
    """Put the new slots, which follow direction and rate, in their places."""
    if COUNT == 0:

        def store_none(slots, i, new, c):
            pass

        return store_none
    others, LAST, FIELD = store_template(COUNT - 1), COUNT - 1, COUNT + 1

    def store(slots, i, new, c):
        others(slots, i, new, c)
        # Arithmetic on denormal numbers is up to a hundred times slower on x86.
        slots[LAST][i] = flushed(new[FIELD], c.tiny)

    return store


def load_template(COUNT):
    """The values of the slots at coordinate i, as a tuple."""
    if COUNT == 0:
        return lambda slots, i: ()
    others, LAST = load_template(COUNT - 1), COUNT - 1

    def load(slots, i):
        return others(slots, i) + (slots[LAST][i],)  # noqa: RUF005  Numba knows no star there

    return load


def rows_template(COUNT):
    """The slots between coordinates lo and hi, as a tuple of arrays."""
    if COUNT == 0:
        return lambda slots, lo, hi: ()
    others, LAST = rows_template(COUNT - 1), COUNT - 1

    def rows(slots, lo, hi):
        return others(slots, lo, hi) + (window(row(slots, LAST), lo, hi),)  # noqa: RUF005

    return rows


def anchor_template(LOWER):
    """Let the slow weight of coordinate i start where x does, but within its bounds."""

    def anchor(x, slow, i, lower, upper):
        slow[i] = clip_to_bounds(x[i], lower[i], upper[i]) if LOWER else x[i]

    return anchor


def synchronize_template(LOWER):
    """Move the slow weight of coordinate i towards x, and x to it."""

    def synchronize(x, slow, i, weight, lower, upper):
        value = slow[i] + weight * (x[i] - slow[i])
        if LOWER:
            value = clip_to_bounds(value, lower[i], upper[i])
        slow[i] = x[i] = value

    return synchronize


# ---- at a block --------------------------------------------------------------------------------


def block_template(
    step_coordinate, rows, anchor, synchronize, Coefficients,
    LOWER, SCALE, LAST_STEP, LOOKAHEAD, PROJECTION,
):  # fmt: skip
    """Step the coordinates lo to hi.

    ``values`` are those of Coefficients, ``scaling`` those of `Scaling`, ``given`` those of
    `BlockOptions` and ``lookahead`` those of `Synchronization`.
    """

    def step_block(x, g, slots, t, values, scaling, ratio, given, lookahead, lo, hi):
        c, scaling = Coefficients(*values), Scaling(*scaling)
        options = BlockOptions(*given)
        lower = upper = scale = last_step = None
        # Windows, because a loop over range(lo, hi) does not vectorize.
        if LOWER:
            lower, upper = window(options.lower, lo, hi), window(options.upper, lo, hi)
        if SCALE:
            scale = window(options.scale, lo, hi)
        if LAST_STEP:
            rates, directions = row(options.last_step, 0), row(options.last_step, 1)
            last_step = window(rates, lo, hi), window(directions, lo, hi)
        x, g, mine = window(x, lo, hi), window(g, lo, hi), rows(slots, lo, hi)
        if LOOKAHEAD:
            slow = window(row(slots, len(slots) - 1), lo, hi)
            if t == 1:
                for i in range(x.size):
                    anchor(x, slow, i, lower, upper)
        here = BlockOptions(lower, upper, last_step, scale)
        for i in range(x.size):
            step_coordinate(x, g, mine, i, c, scaling, ratio, here)
        # While the block is in the cache; a projection has to come first.
        if LOOKAHEAD and not PROJECTION and t % lookahead[0] == 0:
            weight = x.dtype.type(lookahead[1])
            for i in range(x.size):
                synchronize(x, slow, i, weight, lower, upper)

    return step_block


def block_options(options):
    """The values of `BlockOptions`."""
    return options.lower, options.upper, options.last_step, options.scale


def lookahead_template(LOOKAHEAD):
    """The values of `Synchronization`."""

    def lookahead_of(options):
        period, share = 0, 0.0
        if LOOKAHEAD:
            period, share = options.lookahead
        return period, share

    return lookahead_of


def norms_template(update, as_seen, load, rows, Coefficients):
    """Sums of squares of x and of the direction that the coming update will take, in any order."""

    def norms_of_block(x, g, slots, values, scaling, lo, hi):
        stays_apart()
        c, scaling = Coefficients(*values), Scaling(*scaling)
        x, g, slots = window(x, lo, hi), window(g, lo, hi), rows(slots, lo, hi)
        of_x = of_direction = 0.0
        for i in range(x.size):
            direction = update(x[i], as_seen(g[i], x[i], scaling), c, *load(slots, i))[0]
            of_x += np.float64(x[i]) ** 2
            of_direction += np.float64(direction) ** 2
        return of_x, of_direction

    return norms_of_block


def trust_ratio(of_x, of_direction):
    """LAMB's ratio of two norms, of their squares; 1 where either is 0."""
    known = of_x > 0 and of_direction > 0
    return sqrt(of_x) / sqrt(of_direction) if known else 1.0


# ---- the whole step ----------------------------------------------------------------------------


def begin_template(coefficients, Hyperparameters, COUNT):
    """Advance the timestep; return the values of the step's Coefficients, in the dtype of x."""

    def begin(x, timestep, numbers, rate):
        now = timestep[0]
        now.t += 1
        # 1 - beta**t without a power (25 ns each) and without cancellation at small t.
        now.bias1 = now.beta1 * now.bias1 + (1 - now.beta1)
        now.bias2 = now.beta2 * now.bias2 + (1 - now.beta2)
        values = to_fixed_tuple(numbers, COUNT)
        h = Hyperparameters(*values)
        scalars = coefficients(h, rate, now.t, now.bias1, now.bias2)
        return cast(values + scalars + (0.0, 1.0, tiny_of(x)), x)

    return begin


def scaling_template(decay, norm, Hyperparameters, COUNT, MAX_NORM, MAX_VALUE, DECAYS):
    """The values of `Scaling`."""

    def scaling_of(x, g, numbers, rate, options):
        clip = max_value = keep = 1.0
        l2 = 0.0
        if MAX_NORM:
            clip = options.max_norm / larger(norm(g), options.max_norm)
        if MAX_VALUE:
            max_value = options.max_value
        if DECAYS:
            keep, l2 = decay(Hyperparameters(*to_fixed_tuple(numbers, COUNT)), rate)
        return cast((clip, max_value, keep, l2), x)

    return scaling_of


def project(x, rates, projection):
    """Move x into its set, in the metric of the step that had these rates."""
    left = call_c(projection.address, x, rates, projection.data)
    projection.left[0] = larger(projection.left[0], left)


def finish_template(synchronize, PROJECTION, LOOKAHEAD):
    """Project x, and only then synchronize: what lies between two points of a set is in it."""

    def finish(x, slots, t, options):
        if PROJECTION:
            project(x, row(options.last_step, 0), options.projection)
            if LOOKAHEAD:
                slow = row(slots, len(slots) - 1)
                if t == 1:
                    ones = row(options.last_step, 1)
                    fill(ones, 1)  # nothing reads the directions of a Lookahead
                    project(slow, ones, options.projection)
                if t % options.lookahead.period == 0:
                    weight = x.dtype.type(options.lookahead.share)
                    for i in range(x.size):
                        synchronize(x, slow, i, weight, None, None)

    return finish


def elementwise_template(begin, scaling_of, lookahead_of, step_block, finish):
    """One step of an elementwise rule, block after block."""

    def advance(x, g, state, rate, options):
        slots, timestep, numbers = state
        values = begin(x, timestep, numbers, rate)
        t = timestep[0].t
        scaling = scaling_of(x, g, numbers, rate, options)
        given, lookahead = block_options(options), lookahead_of(options)
        for b in range((x.size + BLOCK - 1) // BLOCK):
            lo = b * BLOCK
            hi = smaller(x.size, lo + BLOCK)
            step_block(x, g, slots, t, values, scaling, values[0], given, lookahead, lo, hi)
        finish(x, slots, t, options)

    return advance


def layerwise_template(begin, scaling_of, lookahead_of, norms_of_block, step_block, finish):
    """One step of a rule that scales each segment's step to the size of its parameters.

    Two passes over memory instead of a temporary: the first only takes the norms.
    """

    def advance(x, g, state, rate, options):
        slots, timestep, numbers = state
        edges, owner = options.edges, options.owner
        values = begin(x, timestep, numbers, rate)
        t = timestep[0].t
        scaling = scaling_of(x, g, numbers, rate, options)
        given, lookahead = block_options(options), lookahead_of(options)
        sums = np.empty((owner.size, 2))
        for b in range(owner.size):
            of_x, of_direction = norms_of_block(
                x, g, slots, values, scaling, edges[b], edges[b + 1]
            )
            sums[b, 0] = of_x
            sums[b, 1] = of_direction
        ratios = np.zeros(owner[-1] + 1, x.dtype)
        trust_ratios(sums, owner, ratios)
        for b in range(owner.size):
            lo, hi, ratio = edges[b], edges[b + 1], ratios[owner[b]]
            step_block(x, g, slots, t, values, scaling, ratio, given, lookahead, lo, hi)
        finish(x, slots, t, options)

    return advance


def trust_ratios(sums, owner, ratios):
    """The ratio of each segment, of the sums of squares over its blocks."""
    totals = np.zeros((ratios.size, 2))
    for b in range(owner.size):
        totals[owner[b], 0] += sums[b, 0]
        totals[owner[b], 1] += sums[b, 1]
    for s in range(ratios.size):
        ratios[s] = trust_ratio(totals[s, 0], totals[s, 1])


# ---- with threads ------------------------------------------------------------------------------
# The loop over the blocks is compiled once for all rules: it calls blocks by address, and what they
# take lies in memory, with `Work`.


def run_blocks(address, count, x, g, data):
    """Call ``double f(intptr_t b, T *x, T *g, void *data)`` at an address, for each block b."""
    for b in prange(count):
        call_c_of(address, b, x, g, data)


def threaded_template(begin, scaling_of, finish, RUN, LAYOUT, NUMBER, EDGES):
    """One step, with its blocks spread over threads: ``f(n, x, g, data)``.

    At ``data`` lies (state, options, rate, work), with the rate in an array of one.
    """

    def step(n, x, g, data):
        state, options, rate, work = loaded(data, LAYOUT)
        x, g = array_at(x, n, NUMBER), array_at(g, n, NUMBER)
        slots, timestep, numbers = state
        begun = begin(x, timestep, numbers, rate[0])
        for i in range(work.values.size):
            work.values[i] = begun[i]
        scaling = scaling_of(x, g, numbers, rate[0], options)
        for i in range(work.scaling.size):
            work.scaling[i] = scaling[i]
        if EDGES:
            count = options.owner.size
            call_compiled(work.run, RUN, (work.norms, count, x, g, data))
            trust_ratios(work.sums, options.owner, work.ratios)
            call_compiled(work.run, RUN, (work.block, count, x, g, data))
        else:
            count = (n + BLOCK - 1) // BLOCK
            call_compiled(work.run, RUN, (work.block, count, x, g, data))
        finish(x, slots, timestep[0].t, options)
        return 0.0

    return step


def norms_at_address_template(norms_of_block, LAYOUT, NUMBER, COUNT):
    """The sums of squares over block b: ``f(b, x, g, data)``."""

    def norms(b, x, g, data):
        state, options, _, work = loaded(data, LAYOUT)
        x, g = array_at(x, work.size, NUMBER), array_at(g, work.size, NUMBER)
        values = to_fixed_tuple(work.values, COUNT)
        scaling = to_fixed_tuple(work.scaling, SCALING)
        lo, hi = options.edges[b], options.edges[b + 1]
        of_x, of_direction = norms_of_block(x, g, state.slots, values, scaling, lo, hi)
        work.sums[b, 0] = of_x
        work.sums[b, 1] = of_direction
        return 0.0

    return norms


def block_at_address_template(step_block, lookahead_of, LAYOUT, NUMBER, COUNT, EDGES):
    """A step of block b: ``f(b, x, g, data)``."""

    def block(b, x, g, data):
        state, options, _, work = loaded(data, LAYOUT)
        x, g = array_at(x, work.size, NUMBER), array_at(g, work.size, NUMBER)
        values = to_fixed_tuple(work.values, COUNT)
        scaling = to_fixed_tuple(work.scaling, SCALING)
        lo = b * BLOCK
        hi = smaller(work.size, lo + BLOCK)
        ratio = values[0]
        if EDGES:
            lo, hi = options.edges[b], options.edges[b + 1]
            ratio = work.ratios[options.owner[b]]
        t, given, lookahead = state.timestep[0].t, block_options(options), lookahead_of(options)
        step_block(x, g, state.slots, t, values, scaling, ratio, given, lookahead, lo, hi)
        return 0.0

    return block


# ---- at an address -----------------------------------------------------------------------------


def host_template(begin, scaling_of, LAYOUT):
    """Begin a step that another target takes: ``f(rate, 0, data)`` fills what it gets by value.

    At ``data`` lie values and scaling, arrays for the values of Coefficients and of `Scaling`,
    timestep, numbers and options, as in `StepState` and `StepOptions`.
    """

    def begin_on_host(rate, _, data):
        values, scaling, timestep, numbers, options = loaded(data, LAYOUT)
        begun = begin(values, timestep, numbers, rate)
        for i in range(values.size):
            values[i] = begun[i]
        found = scaling_of(values, values, numbers, rate, options)
        for i in range(scaling.size):
            scaling[i] = found[i]
        return 0

    return begin_on_host


def stored_template(advance, LAYOUT, NUMBER):
    """A step with what it takes at an address: ``f(n, x, g, data)``.

    At ``data`` lies (state, options, rate), with the rate in an array of one.
    """

    def step(n, x, g, data):
        state, options, rate = loaded(data, LAYOUT)
        advance(array_at(x, n, NUMBER), array_at(g, n, NUMBER), state, rate[0], options)
        return 0.0

    return step


def call_step(x, g, rate, step):
    """Step x along g at the address in a `numbelief._step.call.StepCall`."""
    step.rate[0] = rate
    call_c(step.address, x, g, step.data)


def _overlap(a, b):
    """Whether two contiguous arrays share memory."""
    first, second = address_of(a), address_of(b)
    return first < second + b.size * b.itemsize and second < first + a.size * a.itemsize


def checked_step(x, g, slots, rates, rate, address, data):
    """Step x along a gradient of the caller's, which may be a part of x or of the slots.

    It returns STEPPED, or why it refuses.
    """
    if _overlap(g, x):
        return SHARES_X
    if slots.size > 0 and _overlap(g, slots):
        return SHARES_SLOTS
    rates[0] = rate
    call_c(address, x, g, data)
    return STEPPED
