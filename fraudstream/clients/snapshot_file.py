"""The file of a snapshot: a header, the keys compressed, a digest over all of it.

    "fraudstream features 1\\n"
    4 bytes length (big endian), header as MessagePack: `Header`
    zlib stream of records: length of key and of value (4 bytes each, big endian), key, value
    32 bytes SHA-256 of everything before

Keys stand there without environment, version and incarnation: `c:CUSTOMER`, `m:TOPIC_ID:PARTITION`.
A key may come twice, with the same value.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from fraudstream.core.errors import Refused

_MAGIC = b"fraudstream features 1\n"
_DIGEST_BYTES = 32
_PIECE_BYTES = 1 << 20
_LEVEL = 1
"""Values are digests and times: a higher level takes longer and saves next to nothing."""
_LENGTHS = struct.Struct(">II")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is of: `topics` ids by name, `marks` the last applied offset by name and partition."""

    state_version: int
    feature_set: str
    environment: str
    created_at_ms: int
    topics: dict[str, str]
    marks: dict[str, dict[int, int]]


def packed_record(key: bytes, value: bytes) -> bytes:
    """Return one record as it stands in the file before compression."""
    return _LENGTHS.pack(len(key), len(value)) + key + value


def write_file(path: Path, header: Header, records: IO[bytes]) -> None:
    """Write a snapshot from a file of packed records; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    digest, deflate = hashlib.sha256(), zlib.compressobj(_LEVEL)
    with path.open("wb") as file:

        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        packed = msgspec.msgpack.encode(header)
        write(_MAGIC + len(packed).to_bytes(4, "big") + packed)
        while piece := records.read(_PIECE_BYTES):
            write(deflate.compress(piece))
        write(deflate.flush())
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def check_file(path: Path) -> Header:
    """Read a whole snapshot and return its header.

    Raises:
        Refused: it cannot be read, is no snapshot, or is not as it was written.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = _header(file, path)
            file.seek(0)
            digest = hashlib.sha256()
            left = size - _DIGEST_BYTES
            while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
                digest.update(piece)
                left -= len(piece)
            if left or file.read() != digest.digest():
                raise Refused(
                    f"snapshot {path} is not as it was written (its digest does not fit): take another one"
                )
    except OSError as exc:
        raise Refused(f"snapshot {path} cannot be read: {exc.strerror}") from exc
    return header


def read_records(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a snapshot that `check_file` has found whole.

    Raises:
        Refused: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            _header(file, path)
            left = path.stat().st_size - _DIGEST_BYTES - file.tell()
            yield from _records(file, left)
    except (OSError, zlib.error) as exc:
        raise Refused(f"snapshot {path} cannot be read: {exc}") from exc


def _header(file: BinaryIO, path: Path) -> Header:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise Refused(f"{path} is no snapshot of features that this program knows")
    try:
        length = int.from_bytes(file.read(4), "big")
        return msgspec.msgpack.decode(file.read(min(length, _PIECE_BYTES)), type=Header)
    except msgspec.DecodeError as exc:
        raise Refused(f"{path} is no snapshot of features that this program knows: {exc}") from exc


def _records(file: BinaryIO, left: int) -> Iterator[tuple[bytes, bytes]]:
    inflate = zlib.decompressobj()
    buffer = bytearray()
    while left > 0:
        piece = file.read(min(left, _PIECE_BYTES))
        left -= len(piece)
        buffer += inflate.decompress(piece)
        at = 0
        while at + _LENGTHS.size <= len(buffer):
            key_bytes, value_bytes = _LENGTHS.unpack_from(buffer, at)
            begin = at + _LENGTHS.size
            end = begin + key_bytes + value_bytes
            if end > len(buffer):
                break
            yield bytes(buffer[begin : begin + key_bytes]), bytes(buffer[begin + key_bytes : end])
            at = end
        del buffer[:at]
