"""The cursor file: its bytes, and which of them are written when.

    file     a header (MAGIC, padded to SIZE), then records of SIZE bytes
    record   head      key's hash 16, generation 8, length of epoch + 1 (0: none) 1, epoch 39, CRC-32 of these 4
                       (and padding 4)
             used      8: the generation at which it was last asked for; only says which one is old
             numbers   4 x 8: seq + 1, offset + 1, and both again; 0 is "not known"

Theory. A process may be killed between any two stores, and everything that it stored until then is in the file. A
record's head is written once, before the record counts; afterwards only its numbers change. Each is one 8-byte store,
so it is the old one or the new one, and is written twice: where the two differ, by a kill in between or by damage, the
lower one counts, which repeats events and never skips one. Another epoch makes another record, and the one before is
erased after that; where both are found, the younger one counts. A head that does not fit its CRC is free room. No
locks, no order of two files, nothing to replay; and storing costs four assignments.

Against a power cut there is nothing here: the system writes the pages when it likes, so the numbers may be old ones.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
import zlib
from typing import NamedTuple, TypeAlias

MAGIC = b"chatsdk cursors 1\n"
ANY_VERSION = re.compile(rb"chatsdk cursors [0-9]+\n\0*")

SIZE = 128
"""Bytes of a record: eight share a disk's smallest block, none lies across two."""

EPOCH_LIMIT = 39
"""Bytes of an epoch (Centrifugo's have 4). Of a longer one the offset is not kept, only the seq."""

_HEAD = struct.Struct("=16sQB39s")
_CRC = struct.Struct("=I")
_USED = struct.Struct("=Q")
_NUMBERS = struct.Struct("=QQQQ")
_USED_AT = 72
_NUMBERS_AT = 80

Buffer: TypeAlias = bytearray | mmap.mmap


class Stored(NamedTuple):
    """One record, as it is in the file."""

    at: int
    hash: bytes
    generation: int
    used: int
    epoch: str | None
    seq: int | None
    offset: int | None


def header() -> bytes:
    """The beginning of a cursor file."""
    return MAGIC.ljust(SIZE, b"\0")


def hash_of(key: str) -> bytes:
    """What a key is known by in the file."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def write_record(
    buffer: Buffer, at: int, hash: bytes, generation: int, epoch: str | None, seq: int | None, offset: int | None
) -> None:
    """A new record in free room. It counts once this has returned, and not before its last store."""
    text = b"" if epoch is None else epoch.encode()
    # length + 1: an epoch may be empty, which is not the same as none
    head = _HEAD.pack(hash, generation, 0 if epoch is None else len(text) + 1, text)
    _CRC.pack_into(buffer, at + _HEAD.size, 0)
    buffer[at : at + len(head)] = head
    write_used(buffer, at, generation)
    write_numbers(words_of(buffer), at, seq, offset)
    _CRC.pack_into(buffer, at + _HEAD.size, zlib.crc32(head) or 1)


def words_of(buffer: Buffer) -> memoryview:
    """The buffer as 8-byte words, for `write_numbers`."""
    return memoryview(buffer).cast("Q")


def write_numbers(words: memoryview, at: int, seq: int | None, offset: int | None) -> None:
    """How far the record at `at` goes now. Raises ValueError for a number that does not fit; what was there, or the
    lower of both, counts then. Not by `struct.pack_into`, which fills the room with zeros first."""
    index = (at + _NUMBERS_AT) >> 3
    first = 0 if seq is None else seq + 1
    second = 0 if offset is None else offset + 1
    words[index] = first
    words[index + 1] = second
    words[index + 2] = first
    words[index + 3] = second


def write_used(buffer: Buffer, at: int, generation: int) -> None:
    """The record was asked for."""
    _USED.pack_into(buffer, at + _USED_AT, generation)


def erase(buffer: Buffer, at: int) -> None:
    """The record does not count any more."""
    _CRC.pack_into(buffer, at + _HEAD.size, 0)
    buffer[at : at + SIZE] = bytes(SIZE)


def fits(epoch: str | None) -> bool:
    """There is room for this epoch."""
    if epoch is None:
        return True
    try:
        return len(epoch.encode()) <= EPOCH_LIMIT
    except UnicodeEncodeError:  # JSON may hold half a surrogate pair
        return False


def read_record(buffer: Buffer | bytes, at: int) -> Stored | None:
    """The record at `at`; None: free room, or damaged."""
    head = bytes(buffer[at : at + _HEAD.size])
    hash, generation, length, text = _HEAD.unpack(head)
    if not generation or length > EPOCH_LIMIT + 1:
        return None
    if _CRC.unpack_from(buffer, at + _HEAD.size)[0] != (zlib.crc32(head) or 1):
        return None
    try:
        epoch = text[: length - 1].decode() if length else None
    except UnicodeDecodeError:
        return None
    (used,) = _USED.unpack_from(buffer, at + _USED_AT)
    seq, offset, seq_again, offset_again = _NUMBERS.unpack_from(buffer, at + _NUMBERS_AT)
    return Stored(at, hash, generation, used, epoch, _number(min(seq, seq_again)), _number(min(offset, offset_again)))


def is_free(buffer: Buffer | bytes, at: int) -> bool:
    """Nothing was ever written here, or it was erased."""
    return not any(buffer[at : at + SIZE])


def _number(stored: int) -> int | None:
    return stored - 1 if stored else None
