"""Checkpoint files: a header and arrays in one ``.npz``, without pickle, replaced atomically."""

import contextlib
import glob
import hashlib
import json
import os
import secrets
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from numbelief.rules import Lookahead, Rule
from numbelief.schedules import Schedule

FORMAT = 1
_HEADER = "numbelief"
_ABANDONED_AFTER_S = 600
# How the names of files end that are not yet complete.
_TEMPORARY = ".numbelief.tmp"

Path = str | os.PathLike[str]


def write(path: Path, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write a checkpoint; a kill at any moment leaves the previous file or the new one.

    Through a symbolic link it writes to what that leads to, and it keeps the mode of a file that
    it replaces.
    """
    text = json.dumps({"format": FORMAT, **header})
    path = os.path.realpath(as_path("path", path, writable=True))
    temporary = f"{path}.{secrets.token_hex(4)}{_TEMPORARY}"
    try:
        with open(temporary, "xb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
            np.savez(file, allow_pickle=False, **{_HEADER: np.array(text)}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sweep(path)
    except BaseException:
        with contextlib.suppress(OSError):  # not yet there, or no longer
            os.unlink(temporary)
        raise
    if os.name == "posix":  # the new name is durable only once its folder is written
        directory = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _sweep(path: str) -> None:
    """Delete what kills have left of earlier writes, but not what another process writes now."""
    digits = "[0-9a-f]" * 8
    for left in glob.glob(f"{glob.escape(path)}.{digits}{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            if time.time() - os.path.getmtime(left) > _ABANDONED_AFTER_S:
                os.unlink(left)


class Refused(ValueError):
    """A checkpoint that can be read, but not used like this."""


class Mismatch(Refused):
    """A checkpoint of something else."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the checkpoint does not match: {what}")


@contextlib.contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Raise ValueError where reading a file's contents fails in whatever way."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, Refused):
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, SyntaxError,
            RuntimeError, MemoryError, ArithmeticError, zlib.error,
            zipfile.BadZipFile) as error:  # fmt: skip
        raise ValueError(
            f"{os.fspath(path)!r} is not a readable numbelief checkpoint (truncated or damaged): "
            f"{error}"
        ) from error


def check_like(name: str, saved: Any, mine: Any, rows: int | None = None) -> None:
    """Refuse an array of a file that is not like the one here, or has fewer than ``rows`` rows."""
    shape = tuple(mine.shape) if rows is None else (max(rows, len(saved)), *mine.shape[1:])
    if saved.dtype != mine.dtype or saved.shape != shape:
        raise ValueError(f"{name} is {saved.dtype}{saved.shape}, {mine.dtype}{shape} expected")


def as_path(name: str, path: Any, *, writable: bool = False) -> str:
    """A path as text, after checking that a checkpoint can be written there.

    Raises
    ------
    TypeError
        It is not a path of text.
    OSError
        Its folder does not exist or cannot be written, or it is a folder itself, or a device.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{name} must be a path, got {path!r}")
    text = os.path.abspath(os.fspath(path))
    folder = os.path.dirname(text)
    if writable and os.path.isdir(text):
        raise IsADirectoryError(f"{name} must be a file, got the folder {text!r}")
    if writable and os.path.exists(text) and not os.path.isfile(text):
        raise OSError(f"{name} must be a regular file, got {text!r}")
    folder = os.path.dirname(os.path.realpath(text)) if writable else folder
    if writable and not os.path.isdir(folder):
        raise FileNotFoundError(f"{name}: there is no folder {folder!r}")
    if writable and not os.access(folder, os.W_OK):
        raise PermissionError(f"{name}: the folder {folder!r} cannot be written")
    return text


def read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read the header and the arrays of a checkpoint of one kind.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is truncated, damaged, of another kind or of another format version.
    """
    with refusing_damage(path):
        with open(path, "rb") as stream:
            _check_members(stream)
            with np.load(stream, allow_pickle=False) as file:
                arrays = {name: np.array(file[name], order="C") for name in file.files}
        header = json.loads(str(arrays.pop(_HEADER)))
        version, found = header["format"], header["kind"]
    if version != FORMAT:
        raise ValueError(f"{os.fspath(path)!r} has format version {version}, expected {FORMAT}")
    if found != kind:
        raise ValueError(f"{os.fspath(path)!r} is a checkpoint of {found}, expected {kind}")
    return {**header, "path": os.fspath(path)}, arrays


# The arrays of all kinds of checkpoints.
_KNOWN = set(
    f"{_HEADER} x state clock lower upper g control recent best average previous history allvecs "
    "search base pairs products alphas losses began fading mean start".split()
)


def _check_members(stream: BinaryIO) -> None:
    """Refuse an archive with members that no checkpoint has: they could be of any size."""
    members = zipfile.ZipFile(stream).infolist()
    names = [member.filename.removesuffix(".npy") for member in members]
    if len({*names}) < len(names) or not {*names} <= _KNOWN:
        raise ValueError(f"it has the arrays {', '.join(sorted(names))}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it has compressed arrays")
    stream.seek(0)


def describe(rule: Rule | Lookahead) -> dict[str, Any]:
    """A rule as plain data that `restore` or `differences` understands."""
    inner = rule.inner
    values = {f.name: getattr(inner, f.name) for f in fields(inner) if f.init}
    values["learning_rate"] = _describe_rate(inner.learning_rate)
    described = {"name": type(inner).__name__.lower(), "hyperparameters": values}
    if isinstance(rule, Lookahead):
        described["lookahead"] = {"k": rule.k, "alpha": rule.alpha}
    return described


def restore(description: dict[str, Any]) -> Rule | Lookahead:
    """The rule that `describe` described."""
    name = description["name"]
    if name not in Rule.registry:
        raise Refused(f"the checkpoint's rule {name!r} is not defined here: import it first")
    values = dict(description["hyperparameters"])
    values["learning_rate"] = _restore_rate(values["learning_rate"])
    try:
        rule = Rule.registry[name](**values)
    except TypeError as error:
        raise Refused(f"the checkpoint's rule is not the {name!r} defined here: {error}") from error
    return Lookahead(rule, **description["lookahead"]) if "lookahead" in description else rule


def differences(saved: dict[str, Any], rule: Rule | Lookahead) -> list[str]:
    """What a described rule and a rule do not agree on, for an error message."""
    # Through JSON and back, since the saved one has been there (tuples become lists).
    given = json.loads(json.dumps(describe(rule)))
    if saved["name"] != given["name"]:
        return [f"rule {saved['name']} in the file, {given['name']} given"]
    old, new = (
        {**each["hyperparameters"], "lookahead": each.get("lookahead")} for each in (saved, given)
    )
    return [
        f"{name} = {old.get(name)!r} in the file, {new.get(name)!r} given"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def fingerprint(value: Any) -> str | None:
    """A short hash of arrays, numbers, tuples and dataclasses of them; None of None."""
    if value is None:
        return None
    digest = hashlib.sha256()

    def add(part: Any) -> None:
        if is_dataclass(part):
            digest.update(type(part).__name__.encode())
            add(tuple(getattr(part, f.name) for f in fields(part)))
        elif isinstance(part, tuple):
            for each in part:
                add(each)
        else:
            array = np.asarray(part)
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())

    add(value)
    return digest.hexdigest()[:16]


def _describe_rate(rate: Any) -> Any:
    if isinstance(rate, Schedule):
        values = {f.name: _describe_rate(getattr(rate, f.name)) for f in fields(rate)}
        return {"kind": type(rate).__name__, **values}
    if callable(rate):
        return {"callable": getattr(rate, "__qualname__", type(rate).__qualname__)}
    if isinstance(rate, np.ndarray):
        return {"array": fingerprint(rate)}
    return rate


def _restore_rate(rate: Any) -> Any:
    if not isinstance(rate, dict):
        return rate
    if "callable" in rate:
        raise Refused(
            f"the checkpoint's learning rate is your own function {rate['callable']!r}, which a "
            "file cannot hold: pass rule= with it"
        )
    if "array" in rate:
        raise Refused(
            "the checkpoint's learning rate is an array, of which the file holds a fingerprint "
            "only: pass rule= with it"
        )
    values = {name: _restore_rate(value) for name, value in rate.items() if name != "kind"}
    return Schedule.registry[rate["kind"]](**values)
