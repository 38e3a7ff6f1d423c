"""Sums and maxima on a GPU: over the threads of a block, then over the blocks of a launch.

A kernel that takes them has memory that the threads of a block share, of one float64 each::

    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says

Each block notes what its threads come to; the next launch, or the host, joins the blocks. The order
is always the same, so that the bits are the same each run.
"""

from numba import cuda

from numbelief._compile.template import bind


def higher(a, b):
    """The larger of two numbers, NaN if one is."""
    return b if b > a or b != b else a


def plus(a, b):
    """The sum of two numbers."""
    return a + b


def _over_threads_template(join):
    """What the numbers of the threads of a block come to, for all of them."""

    def over_threads(value, shared):
        cuda.syncthreads()  # the last result has been read
        shared[cuda.threadIdx.x] = value
        width = cuda.blockDim.x // 2
        while width > 0:
            cuda.syncthreads()
            if cuda.threadIdx.x < width:
                shared[cuda.threadIdx.x] = join(
                    shared[cuda.threadIdx.x], shared[cuda.threadIdx.x + width]
                )
            width //= 2
        cuda.syncthreads()
        return shared[0]

    return over_threads


def _over_blocks_template(join, over_threads):
    """What the notes of an earlier launch, one of each block, come to, for all threads."""

    def over_blocks(parts, shared):
        value = 0.0
        for k in range(cuda.threadIdx.x, parts.size, cuda.blockDim.x):
            value = join(value, parts[k])
        return over_threads(value, shared)

    return over_blocks


total = bind(_over_threads_template, join=plus)
total_of = bind(_over_blocks_template, join=plus, over_threads=total)
top = bind(_over_threads_template, join=higher)
top_of = bind(_over_blocks_template, join=higher, over_threads=top)
