"""What a file claims of itself, checked before anything is decoded and memory is given to it.

A file of a few bytes can claim 10^12 rows, or a page that decompresses to gigabytes. Here the
claims of Parquet's footer and page headers, and of an Arrow message, are read without decoding what
they describe; each is bounded by the size of the file. Arrow's own access to a Parquet file's
footer cannot be used: of damaged ones it ends the process.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from rdmdc.storage.thrift import INT, LIST, LONG, STRUCT, Fields, structure

FREE = 64 << 20  # bytes that any file may decode to
RATIO = 100  # and so many more for each byte that it has
FOOTER = 1 << 22  # bytes of a Parquet file's footer: some ten thousand row groups
HEADER = 1 << 24  # bytes of a page's header, Parquet's own limit


class ClaimError(ValueError):
    """A file claims more than its size allows, or claims that contradict each other."""


def bounded(size: int, decoded: int, what: str) -> None:
    """Raise ClaimError where a file of ``size`` bytes claims to decode to far more."""
    if decoded < 0 or decoded > FREE + RATIO * size:
        raise ClaimError(f"{what} of {decoded} bytes in a file of {size}")


# --- Parquet ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """A column of Parquet that is to be read: its values in a row, and whether they have a length
    each, as texts and encoded images do."""

    values: int
    long: bool


@dataclass(frozen=True)
class Chunk:
    """A row group's part of a column: its rows and where its pages are."""

    rows: int
    start: int
    end: int


@dataclass(frozen=True)
class Page:
    """A page by its header: how long both are; its values, or a dictionary's entries."""

    header: int
    decoded: int
    encoded: int
    values: int
    dictionary: bool


def leaves(schema: pa.Schema, names: Sequence[str]) -> list[Leaf | None]:
    """Parquet's columns in their order, None for those that are not of the named fields."""
    return [
        leaf if field.name in names else None for field in schema for leaf in _leaves(field.type, 1)
    ]


def _leaves(kind: pa.DataType, values: int) -> list[Leaf]:
    if pa.types.is_fixed_size_list(kind):
        return _leaves(kind.value_type, values * kind.list_size)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(field.type, values)]
    if kind.num_fields:
        return [leaf for i in range(kind.num_fields) for leaf in _leaves(kind.field(i).type, 0)]
    return [Leaf(values, not pa.types.is_primitive(kind))]


def check_parquet(path: Path, wanted: Sequence[Leaf | None], at_once: int | None) -> None:
    """Check the columns that are wanted, read so many rows at once or (None) all.

    Raises ClaimError, or OSError.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        rows, chunks = _footer(file, size, len(wanted))
        width = sum(leaf.values for leaf in wanted if leaf) if at_once is None else 1
        bounded(size, 8 * rows * width, f"{rows} rows")
        for leaf, column in zip(wanted, chunks, strict=True):
            for chunk in column:
                if leaf is not None and chunk.rows:  # of no rows no page is read
                    _check_chunk(file, size, chunk, leaf, at_once or chunk.rows)


def _footer(file: IO[bytes], size: int, columns: int) -> tuple[int, list[list[Chunk]]]:
    """The number of rows, and the chunks of each column."""
    file.seek(max(size - 8, 0))
    length, magic = struct.unpack("<I4s", file.read(8))
    if magic != b"PAR1" or length + 8 > size or length > FOOTER:
        raise ClaimError(f"a footer of {length} bytes, more than {FOOTER} or than the file has")
    file.seek(size - 8 - length)
    _, footer = structure(file.read(length), 0)
    groups = footer[4, LIST]
    chunks: list[list[Chunk]] = [[] for _ in range(columns)]
    for group in groups:
        rows = group[3, LONG]
        if rows < 0:
            raise ClaimError(f"a row group of {rows} rows")
        for column, chunk in zip(chunks, group[1, LIST], strict=True):
            column.append(_chunk(rows, chunk[3, STRUCT], size))
    rows = sum(group[3, LONG] for group in groups)
    if rows != footer[3, LONG]:
        raise ClaimError(f"{footer[3, LONG]} rows, but {rows} in its row groups")
    return rows, chunks


def _chunk(rows: int, said: Fields, size: int) -> Chunk:
    start = said[9, LONG]
    if 0 < said.get((11, LONG), 0) < start:
        start = said[11, LONG]
    end = start + said[7, LONG]
    if not 0 <= start <= end <= size:
        raise ClaimError(f"pages at {start} to {end} in a file of {size} bytes")
    return Chunk(rows, start, end)


def _check_chunk(file: IO[bytes], size: int, chunk: Chunk, leaf: Leaf, at_once: int) -> None:
    """Check that the pages hold the values of the rows, and how large they become."""
    found = decoded = entry = 0
    for page in _pages(file, chunk):
        decoded += page.decoded
        bounded(size, decoded, "pages")
        if page.dictionary:
            entry = max(entry, page.decoded)
            bounded(page.decoded, 8 * page.values, "a dictionary")
        else:
            found += page.values
    if found != leaf.values * chunk.rows:
        raise ClaimError(f"{found} values in {chunk.rows} rows, not {leaf.values} in each")
    if leaf.long:  # each value may be the whole dictionary
        bounded(size, min(at_once, chunk.rows) * entry, "a column")


def _pages(file: IO[bytes], chunk: Chunk) -> Iterator[Page]:
    start = chunk.start
    while start < chunk.end:
        page = _page(file, start, min(chunk.end - start, HEADER))
        start += page.header + page.encoded
        if min(page.decoded, page.encoded, page.values) < 0 or start > chunk.end:
            raise ClaimError(f"a page that ends at {start}, its column at {chunk.end}")
        yield page


def _page(file: IO[bytes], start: int, longest: int) -> Page:
    """The page there; only reading the header tells how long it is."""
    for length in (min(1 << 10, longest), longest):
        file.seek(start)
        content = file.read(length)
        try:
            end, said = structure(content, 0)
        except IndexError:
            continue
        kind = said[1, INT]
        own = said[{0: 5, 2: 7, 3: 8}[kind], STRUCT]  # each type's own part of the header
        return Page(end, said[2, INT], said[3, INT], own[1, INT], kind == 2)
    raise ClaimError(f"a page header at {start} that does not end")


# --- Arrow IPC -------------------------------------------------------------------------------


def check_message(message: pa.Message) -> None:
    """Raise ClaimError where a record batch is compressed: mapped data are not, and could grow."""
    content = message.metadata.to_pybytes()
    batch = _flat_field(content, struct.unpack_from("<I", content)[0], 2)
    if message.type != "record batch" or batch is None:
        raise ClaimError(f"a {message.type} where a record batch should be")
    batch += struct.unpack_from("<I", content, batch)[0]
    if _flat_field(content, batch, 3) is not None:
        raise ClaimError("a record batch that is compressed")


def _flat_field(content: bytes, table: int, number: int) -> int | None:
    """Where a flatbuffer's table has a field, None where it has not."""
    lookup = table - struct.unpack_from("<i", content, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", content, lookup)[0]:
        return None
    offset = struct.unpack_from("<H", content, lookup + 4 + 2 * number)[0]
    return table + offset if offset else None
