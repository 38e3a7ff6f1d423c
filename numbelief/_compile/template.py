"""Templates: functions that are written once and completed for a rule, a set or a target.

A template is a function whose parameters are the names that the function inside it calls::

    def shift_template(at):
        def shift(a, b):
            for i in range(a.size):
                at(i, a, b)

        return shift

`bind` completes it: a name that is missing or unknown is the TypeError of an ordinary call. What
comes out is plain Python, which runs as it is; `adopt` copies it, and every plain function that it
calls, for a compiler.
"""

import types
import uuid
from collections.abc import Callable
from typing import Any

Template = Callable[..., Callable[..., Any]]


def bind(template: Template, key: str | None = None, **names: Any) -> Any:
    """Complete a template.

    Parameters
    ----------
    template : callable
        Returns the function when called with its names.
    key : str, optional
        What tells this binding from others of the template; with it the function can be kept on
        disk (see `numbelief._compile.jit`). Compiled code from the disk brings its inner functions
        along, and of two functions of one name the linker takes the first: so without a key the
        name is like no other.
    **names
        The names of the template.

    Raises
    ------
    TypeError
        A name is missing or unknown.
    """
    function = template(**names)
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{template.__name__} must return a function, got {function!r}")
    return named(function, key)


def named(function: Any, key: str | None = None) -> Any:
    """A copy of a plain function under a name of its own."""
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__},
        function.__name__,
        function.__defaults__,
        tuple(types.CellType(cell.cell_contents) for cell in function.__closure__ or ()),
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = f"{function.__name__}_{key or uuid.uuid4().hex}"
    return copy


def adopt(function: Any, compile: Callable[[Any], Any], **names: Any) -> Any:
    """A plain function for a compiler, with the plain functions that it calls.

    Parameters
    ----------
    function : function
        It itself is not compiled.
    compile : callable
        Makes of a plain function one that compiled code may call.
    **names
        What replaces globals of these names, in all of the functions: how a target
        replaces what it does in another way.
    """
    adopted: dict[Any, Any] = {}

    def copied(value: Any) -> Any:
        mine = named(value)
        used = {name for code in codes(value.__code__) for name in code.co_names}
        for name in used & (mine.__globals__.keys() | names.keys()):
            if name in names:
                mine.__globals__[name] = names[name]
            else:
                mine.__globals__[name] = replaced(mine.__globals__[name])
        for variable, cell in zip(value.__code__.co_freevars, mine.__closure__ or (), strict=True):
            if variable in names:
                cell.cell_contents = names[variable]
            else:
                cell.cell_contents = replaced(cell.cell_contents)
        return mine

    def replaced(value: Any) -> Any:
        # Numba's own functions, such as carray, are its to compile.
        module = getattr(value, "__module__", None) or ""
        if not isinstance(value, types.FunctionType) or module.startswith("numba."):
            return value
        if value not in adopted:
            adopted[value] = value  # a function that calls itself
            adopted[value] = compile(copied(value))
        return adopted[value]

    whole = copied(function)
    whole.__qualname__ = function.__qualname__
    return whole


def codes(code: types.CodeType) -> list[types.CodeType]:
    """The code of a function and of the functions inside it."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [code, *(each for const in inner for each in codes(const))]


def used_by(function: types.FunctionType) -> list[Any]:
    """The constants, globals and closure variables of a function."""
    inside = codes(function.__code__)
    consts = [c for code in inside for c in code.co_consts if not isinstance(c, types.CodeType)]
    names = [name for code in inside for name in code.co_names if name in function.__globals__]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [*consts, *(function.__globals__[name] for name in names), *cells]
