"""Thrift's compact protocol, in which Parquet's footer and page headers are written.

Of a field that appears twice the last one of the right type counts, as in Thrift's own reader:
fields are kept by number and type. Content that ends too early is an IndexError, anything else
that cannot be is a ValueError.
"""

from typing import Any

INT = 5
LONG = 6
LIST = 9
STRUCT = 12
Fields = dict[tuple[int, int], Any]  # integers, lists and structs of a struct by number and type


def structure(content: bytes, at: int, depth: int = 0) -> tuple[int, Fields]:
    """Where a struct ends, and its fields; IndexError where the content ends before it."""
    fields: Fields = {}
    number = 0
    while head := content[at]:
        kind, step = head & 15, head >> 4
        at += 1
        if step == 0:
            at, number = _integer(content, at)
        else:
            number += step
        at, fields[number, kind] = (
            (at, None) if kind in (1, 2) else _value(content, at, kind, depth)
        )
    return at + 1, fields


def _value(content: bytes, at: int, kind: int, depth: int) -> tuple[int, Any]:
    """Where a value ends, and what it is, None of what nothing here needs."""
    if depth > 16:
        raise ValueError("structs nested too deep")
    match kind:
        case 1 | 2 | 3:  # in a list booleans are bytes
            return at + 1, None
        case 4 | 5 | 6:
            return _integer(content, at)
        case 7:
            return at + 8, None
        case 8:
            at, length = _varint(content, at)
            return at + length, None
        case 9 | 10:
            return _list(content, at, depth + 1)
        case 12:
            return structure(content, at, depth + 1)
    raise ValueError(f"a value of type {kind}")


def _list(content: bytes, at: int, depth: int) -> tuple[int, list[Any]]:
    kind, length = content[at] & 15, content[at] >> 4
    at += 1
    if length == 15:
        at, length = _varint(content, at)
    values = []
    for _ in range(length):
        if at >= len(content):
            raise IndexError("a list that does not end")
        at, value = _value(content, at, kind, depth)
        values.append(value)
    return at, values


def _integer(content: bytes, at: int) -> tuple[int, int]:
    at, value = _varint(content, at)
    return at, (value >> 1) ^ -(value & 1)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return at, value
    raise ValueError("a number of more than 64 bits")
