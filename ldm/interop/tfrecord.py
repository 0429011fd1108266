"""TFRecord files of tf.train.Example, without TensorFlow.

A record is its length (uint64), a masked CRC-32C of that, its bytes, a masked CRC-32C of those, all
little-endian (TensorFlow's core/lib/io/record_writer.h). An Example maps names to lists of bytes,
floats or integers; its protocol buffer is declared here, in the field numbers of
core/example/{example,feature}.proto, and parsed by protobuf's own library.
"""

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ldm.errors import missing
from ldm.interop.reader import EPISODE_BYTES, UNREADABLE, unreadable

EXPECTED = "a TFRecord file of whole records"
LISTS = {"bytes_list": "TYPE_BYTES", "float_list": "TYPE_FLOAT", "int64_list": "TYPE_INT64"}


def examples(path: Path) -> Iterator[dict[str, Any]]:
    """Every record's lists by name: float32 and int64 arrays, lists of bytes.

    Raises LdmError where the file is cut, changed, or holds something else.
    """
    decode = _example()
    for number, record in enumerate(records(path)):
        try:
            parsed = decode.FromString(record)
        except Exception as error:  # protobuf's own, of another class in each implementation
            raise unreadable(
                path, "records of tf.train.Example", f"record {number}: {error}"
            ) from error
        yield {name: _list(feature) for name, feature in parsed.features.feature.items()}


def records(path: Path) -> Iterator[bytes]:
    """The bytes of every record, held against both of its checksums."""
    try:
        from google_crc32c import value as crc32c
    except ImportError:
        raise missing("google_crc32c") from None

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    try:
        size, number = path.stat().st_size, 0
        with open(path, "rb") as file:
            while head := file.read(12):
                length, checked = struct.unpack("<QI", head)
                if masked(head[:8]) != checked:
                    raise ValueError(f"record {number}: its length is damaged")
                if length > min(size - file.tell() - 4, EPISODE_BYTES):
                    raise ValueError(f"record {number} of {length:,} bytes ends after the file")
                data = file.read(length)
                if masked(data) != struct.unpack("<I", file.read(4))[0]:
                    raise ValueError(f"record {number}: its content is damaged")
                yield data
                number += 1
    except UNREADABLE as error:
        raise unreadable(path, EXPECTED, error) from error


def _list(feature) -> np.ndarray | list[bytes]:
    kind = feature.WhichOneof("kind")
    if kind is None:
        return []
    values = getattr(feature, kind).value
    if kind == "bytes_list":
        return list(values)
    return np.array(values, np.float32 if kind == "float_list" else np.int64)


@cache
def _example():
    """The class of tf.train.Example."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="ldm/example.proto", package="ldm", syntax="proto3"
    )

    def message(name: str):
        return file.message_type.add(name=name)

    def field(owner, name: str, number: int, kind: str, of: str = "", repeated: bool = False):
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        type_name = f".ldm.{of}" if of else None
        return owner.field.add(
            name=name, number=number, type=getattr(kinds, kind), label=label, type_name=type_name
        )

    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(LISTS.items(), 1):
        field(message(name), "value", 1, kind, repeated=True)
        field(feature, name, number, "TYPE_MESSAGE", name).oneof_index = 0
    features = message("Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, "TYPE_STRING")
    field(entry, "value", 2, "TYPE_MESSAGE", "Feature")
    field(features, "feature", 1, "TYPE_MESSAGE", "Features.FeatureEntry", repeated=True)
    field(message("Example"), "features", 1, "TYPE_MESSAGE", "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ldm.Example"))
