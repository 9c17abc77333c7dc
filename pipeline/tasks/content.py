"""The identity of data, whatever their file: hashes of column names, types and values."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage import content_key

TRAINED = ("train", "selection")
"""Splits that a trial learns from: it trains on the first and picks its epoch by the second."""


def data_identity(splits: Mapping[str, pa.Table | Mapping[str, np.ndarray]]) -> str:
    """A hash of the data that a trial learns from: the splits in TRAINED, without row ids.

    Args:
        splits: split to its table (tokens and labels) or its arrays (pixels and labels); others are ignored.

    Returns:
        16 hex digits.
    """
    hashes = {}
    for name in TRAINED:
        split = splits[name]
        if isinstance(split, pa.Table):
            hashes[name] = table_content_hash(split.select([c for c in split.column_names if c != "row_id"]))
        else:
            hashes[name] = array_content_hash({part: array for part, array in split.items() if part != "rows"})
    return content_key(hashes)


def table_content_hash(table: pa.Table) -> str:
    """A hash of column names, logical types, values and their order.

    The hash does not depend on chunks, offsets into larger buffers, padding, values under a null, the width of offsets,
    dictionary encoding, metadata or the version of Arrow.

    Raises:
        TypeError: a column of a type other than booleans, numbers, texts, bytes, and lists and structs of them.
    """
    return content_key({name: _column(table[name]) for name in table.column_names})


def array_content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of names, types, shapes and values; it does not depend on memory order, byte order or alignment."""
    return content_key({name: _digest(_array(array)) for name, array in arrays.items()})


def _column(column: pa.ChunkedArray) -> str:
    return _digest(_arrow(column.combine_chunks()))


def _digest(parts: Iterator[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _array(array: np.ndarray) -> Iterator[bytes | memoryview]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    if array.dtype.hasobject:
        raise TypeError(f"an array of {array.dtype} has no content to hash; give numbers")
    yield f"{little.dtype.str}{little.shape};".encode()
    yield little.reshape(-1).view(np.uint8).data


def _arrow(array: Any) -> Iterator[bytes | memoryview]:
    """Type name, positions of nulls, and values of an Arrow array."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        yield from _arrow(array.dictionary_decode())
        return
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    yield b"nulls" if not nulls.any() else np.packbits(nulls).tobytes()
    if pa.types.is_null(kind):
        yield f"null{len(array)};".encode()
    elif pa.types.is_boolean(kind):
        yield b"bool;"
        yield from _array(array.fill_null(False).to_numpy(zero_copy_only=False).view(np.uint8))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = array.fill_null(0).to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)  # one bit pattern for every NaN
        yield from _array(values)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield b"string;"
        yield from _bytes(array.fill_null("").cast(pa.large_binary()))
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield b"binary;"
        yield from _bytes(array.fill_null(b"").cast(pa.large_binary()))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield b"list;"
        yield from _array(pc.list_value_length(array).fill_null(0).cast(pa.int64()).to_numpy())
        yield from _arrow(array.flatten())
    elif pa.types.is_struct(kind):
        yield f"struct{sorted(field.name for field in kind)};".encode()
        for name in sorted(field.name for field in kind):
            yield from _arrow(pc.struct_field(array, name))
    else:
        raise TypeError(f"a column of {kind} has no content to hash; convert it to numbers, texts or lists")


def _bytes(array: Any) -> Iterator[bytes | memoryview]:
    """Lengths and bytes of a large_binary array without nulls."""
    yield from _array(pc.binary_length(array).to_numpy())
    if len(array):
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
        yield memoryview(array.buffers()[2])[offsets[0] : offsets[-1]]
