"""Compile for the CPU: the only place with Numba's CPU options, and its disk cache.

Whatever is compiled here is plain Python, and so are the functions that it calls, which become
part of its text (``inline="always"``): a function of its own takes some 20 ms to compile, and is
optimized again in each that calls it. Nothing is reordered and no fused multiply-add is allowed,
so that every kernel gives the same bits on any number of threads.
"""

import functools
import hashlib
import pathlib
from typing import Any

import numba

from numbelief._compile.internals import Compiler, c_function, cache_by_name
from numbelief._compile.template import adopt

#: ``error_model="numpy"`` is what lets LLVM vectorize a division.
_OPTIONS = {"error_model": "numpy"}
_COMPILER = {"pipeline_class": Compiler}


def inline(function: Any) -> Any:
    """A plain function as part of the text of those that call it."""
    return numba.njit(inline="always", **_OPTIONS)(function)


def jit(function: Any, *, cache: bool = True, allocates: bool = True, **options: Any) -> Any:
    """Compile a plain function for Python to call, with a disk cache where one can be written.

    Its name must tell all that it depends on, as that of `numbelief._compile.template.bind` with a
    key does. One that neither makes nor returns an array (``allocates=False``) is compiled without
    code that counts references, which takes a third less time.
    """
    options = {**_OPTIONS, **_COMPILER, "_nrt": allocates, **options}
    whole = adopt(function, inline)
    if cache:
        try:
            return cache_by_name(numba.njit(cache=True, **options)(whole))
        except RuntimeError:  # no folder for the cache can be written
            pass
    return numba.njit(**options)(whole)


def part(
    function: Any,
    *,
    parallel: bool = False,
    inlined: bool = False,
    allocates: bool = True,
    **options: Any,
) -> Any:
    """Compile what only compiled code calls, as a function of its own.

    For what several functions call, for loops whose sums may be reordered, and for the blocks of
    parallel loops, into which LLVM takes it on request.
    """
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    forced = {"forceinline": True} if inlined and not parallel else {}
    options = {**_OPTIONS, **_COMPILER, **wrappers, **forced, "_nrt": allocates, **options}
    return numba.njit(parallel=parallel, **options)(adopt(function, inline))


def compile_c(function: Any, signature: Any, *, cache: bool = True, allocates: bool = True) -> Any:
    """Compile a plain function for code that has its address, with a disk cache if possible."""
    options = {**_OPTIONS, "_nrt": allocates}
    whole = adopt(function, inline)
    if cache:
        try:
            return c_function(whole, signature, cache=True, **options)
        except RuntimeError:  # no folder for the cache can be written
            pass
    return c_function(whole, signature, cache=False, **options)


@functools.cache
def package_salt() -> str:
    """A short hash of numbelief's whole text, which is part of all keys."""
    here = pathlib.Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        digest.update(path.relative_to(here).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def key_of(*parts: Any) -> str:
    """A key for `numbelief._compile.template.bind`: of these parts and of the package's text."""
    return hashlib.sha256(repr((*parts, package_salt())).encode()).hexdigest()[:16]
