"""What another process says is data: JSON with raw buffers beside it, which can name no class and run nothing.

A child that decodes files of strangers may have been taken over by one. A pickle from it would run its code in the process
that reads it; so what it answers is held to a few kinds of values, checked shapes and bounded sizes.
"""

from __future__ import annotations

import builtins
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from dailies.curation import errors
from dailies.curation.addresses import scrub

TEXT = struct.Struct("<Q")  # length of the JSON, which the buffers follow
TEXT_BYTES = 64 << 20  # most of it: JPEGs, pictures and long lists of numbers travel as buffers
DTYPE = re.compile(r"[<>|][biuf][1248]")
MANY, MOST = 32, 1 << 24  # numbers in a list that travels as a buffer
TAG = "$"  # key of an object that stands for a value which JSON has not

Buffer = bytes | memoryview


def pack(value: Any) -> list[Buffer]:
    """Return the parts of a message. Raises ``TypeError`` for what cannot travel.

    It takes plain values, bytes, numpy arrays of numbers, sequences, which arrive as lists, and mappings with names as keys
    and dataclasses, which arrive as dictionaries.
    """
    buffers: list[Buffer] = []
    tree = _plain(value, buffers)
    text = json.dumps([tree, [len(buffer) for buffer in buffers]]).encode()
    if len(text) > TEXT_BYTES:
        raise TypeError(f"{len(text)} bytes of text; at most {TEXT_BYTES} travel")
    return [TEXT.pack(len(text)), text, *buffers]


def unpack(message: bytearray) -> Any:
    """Return the value of a message. Raises ``ValueError`` for bytes that ``pack`` does not make."""
    try:
        (length,) = TEXT.unpack_from(message)
        if length > min(TEXT_BYTES, len(message) - TEXT.size):
            raise ValueError(f"{length} bytes of text in a message of {len(message)}")
        start = TEXT.size + length
        tree, lengths = json.loads(message[TEXT.size : start])
        places: dict[int, tuple[int, int]] = {}
        for number, size in enumerate(lengths):
            if type(size) is not int or not 0 <= size <= len(message) - start:
                raise ValueError(f"a buffer of {size!r} bytes")
            places[number] = (start, size)
            start += size
        if start != len(message):
            raise ValueError(f"{len(message) - start} bytes too many")
        return _value(tree, message, places)
    except (struct.error, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def error_row(error: Exception) -> dict[str, Any]:
    """Return an exception as plain data: its class by name, its arguments where they are plain, words and notes."""
    args = list(error.args) if all(isinstance(arg, str | int | float | None) for arg in error.args) else None
    return {
        "type": type(error).__name__,
        "message": scrub(str(error)),
        "args": args and [scrub(arg) if isinstance(arg, str) else arg for arg in args],
        "notes": [scrub(note) for note in getattr(error, "__notes__", ())],
    }


def error_of(row: Mapping[str, Any]) -> Exception:
    """Make the exception that ``error_row`` wrote, of ours or of Python's own; of any other class, a ``RuntimeError``."""
    name, message = str(row["type"]), str(row["message"])
    args = row.get("args")
    error = _error(name, [message] if args is None else args)
    if error is None or (args is not None and str(error) != message):
        error = RuntimeError(f"{name}: {message}")
    for note in row.get("notes") or ():
        error.add_note(str(note))
    return error


def _error(name: str, args: Any) -> Exception | None:
    cls: Any = getattr(errors, name, None) or getattr(builtins, name, None)
    own = isinstance(cls, type) and issubclass(cls, errors.DailiesError)
    python = isinstance(cls, type) and issubclass(cls, Exception) and cls.__module__ == "builtins"
    if not (own or python):
        return None
    try:
        error: Exception = cls(*args)
    except (TypeError, ValueError):
        return None
    return error


# ---- values ---------------------------------------------------------------------------------------------------------


def _plain(value: Any, buffers: list[Buffer]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _array("array", value, buffers)
    if isinstance(value, bytes | bytearray | memoryview):
        buffers.append(bytes(value) if isinstance(value, bytearray | memoryview) else value)
        return {TAG: "bytes", "buffer": len(buffers) - 1}
    if isinstance(value, list | tuple):
        return _list(value, buffers)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping) and all(type(key) is str and key != TAG for key in value):
        return {key: _plain(part, buffers) for key, part in value.items()}
    raise TypeError(f"{type(value).__name__} is no plain value")


def _list(values: Sequence[Any], buffers: list[Buffer]) -> Any:
    if MANY <= len(values) <= MOST:
        for kind, dtype in ((float, np.float64), (int, np.int64)):
            if all(type(value) is kind for value in values):
                try:
                    return _array("numbers", np.array(values, dtype), buffers)
                except OverflowError:  # Python's whole numbers have no end
                    break
    return [_plain(value, buffers) for value in values]


def _array(tag: str, array: Any, buffers: list[Buffer]) -> dict[str, Any]:
    if DTYPE.fullmatch(array.dtype.str) is None:
        raise TypeError(f"an array of {array.dtype} is no plain value")
    flat = np.ascontiguousarray(array).reshape(-1)
    buffers.append(memoryview(flat.view(np.uint8).data))
    return {TAG: tag, "dtype": array.dtype.str, "shape": list(array.shape), "buffer": len(buffers) - 1}


def _value(tree: Any, message: bytearray, places: dict[int, tuple[int, int]]) -> Any:
    if isinstance(tree, list):
        return [_value(part, message, places) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if TAG not in tree:
        return {key: _value(part, message, places) for key, part in tree.items()}
    start, size = places.pop(tree["buffer"])  # each is used once, so that little text cannot stand for much memory
    if tree[TAG] == "bytes":
        return bytes(memoryview(message)[start : start + size])
    array = _checked(tree, message, start, size)
    if tree[TAG] == "numbers" and array.size <= MOST:
        return array.tolist()
    if tree[TAG] != "array":
        raise ValueError(f"{array.size} values of kind {tree[TAG]!r}")
    return array


def _checked(tree: Mapping[str, Any], message: bytearray, start: int, size: int) -> Any:
    """Return the array that a buffer holds. Raises ``ValueError`` where dtype, shape and size do not fit one another."""
    if DTYPE.fullmatch(tree["dtype"]) is None:
        raise ValueError(f"an array of {tree['dtype']!r}")
    dtype, count = np.dtype(tree["dtype"]), 1
    for side in tree["shape"]:
        if type(side) is not int or side < 0:
            raise ValueError(f"an array of shape {tree['shape']!r}")
        count *= side
    if count * dtype.itemsize != size:
        raise ValueError(f"an array of shape {tree['shape']!r} in {size} bytes")
    flat = np.frombuffer(message, dtype, count, start) if count else np.empty(0, dtype)
    return np.require(flat.reshape(tree["shape"]), requirements="A")
