"""The feature store's Lua function library as text, and the blobs and replies of its calls."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from fraudstream.clients.feature_plan import preamble
from fraudstream.clients.feature_steps import steps
from fraudstream.core.feature_set import FeatureSet, id_digest
from fraudstream.core.transaction import Feedback, Label, Transaction

DUPLICATE, CUSTOMER_BEYOND, TERMINAL_BEYOND, CUSTOMER_TRUNCATED, TERMINAL_TRUNCATED = 1, 2, 4, 8, 16
"""The flags of a reply, as in features.lua."""

_HEAD = (("offset", "<i8"), ("apply_seq", "<i8"), ("duplicate_of", "<i8"), ("flags", "<u4"))
_LABEL_CODES: dict[Label, int] = {"fraud": 1, "genuine": 2, "unsure": 3}
_encode = msgspec.msgpack.Encoder().encode


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's part of a batch: its decodable records, offsets rising.

    `previous_offset` is the position before the batch - 1, `last_offset` the last position that the
    batch covers (undecodable records included), `committed_offset` the last committed one; -1: none.
    """

    partition: int
    previous_offset: int
    last_offset: int
    committed_offset: int
    offsets: list[int]
    transactions: list[Transaction]


@dataclass(frozen=True, slots=True)
class Applied:
    """The replies of one call, N rows in the order of the slices.

    `features` float32 [N, F]; `apply_seq` int64 [N], the place of the application; `duplicate_of` int64
    [N], offset of the first transaction of the same id, -1 none; bool [N] each: `beyond_retention` (too
    late to be stored with its customer or terminal), `truncated` (later than the lateness: a window may
    have lost entries), `redelivered` (applied before, this is the stored reply).
    """

    features: npt.NDArray[np.float32]
    apply_seq: npt.NDArray[np.int64]
    duplicate_of: npt.NDArray[np.int64]
    beyond_retention: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    redelivered: npt.NDArray[np.bool_]


class Library(msgspec.Struct, frozen=True):
    """A function library: `id` names it and its functions, `text` is what FUNCTION LOAD takes.

    `width` features a reply; `other_digests`: whether its calls bring the digests of the entities' names.
    """

    id: str
    text: str
    width: int
    other_digests: bool

    @property
    def name(self) -> str:
        """Return the library's name on the server."""
        return f"fraudstream_{self.id}"

    @property
    def reply(self) -> np.dtype[np.void]:
        """Return the layout of one reply."""
        return np.dtype([*_HEAD, ("features", "<f4", (self.width,))])


BEFORE = ("feature_rows.lua", "feature_parts.lua", "feature_changes.lua", "features.lua")
AFTER = ("feature_events.lua", "feature_calls.lua")
"""What stands before and after the functions that are made for a feature set."""


def library_source(feature_set: FeatureSet) -> str:
    """Return the Lua made for a feature set: parameters and plans, rows, its windows and features, calls."""
    package = resources.files("fraudstream.clients")

    def text(names: Sequence[str]) -> list[str]:
        return [(package / name).read_text(encoding="utf-8") for name in names]

    return "\n".join((preamble(feature_set), *text(BEFORE), steps(feature_set), *text(AFTER)))


def build_library(feature_set: FeatureSet, source: str | None = None) -> Library:
    """Return the library of a feature set; its id covers all of its text (`source` replaces it in tests)."""
    body = library_source(feature_set) if source is None else source
    library_id = hashlib.sha256(body.encode()).hexdigest()[:16]
    header = f"#!lua name=fraudstream_{library_id}\nlocal LIBRARY = '{library_id}'\n"
    other = any(each.kind == "distinct" for each in feature_set.definitions)
    return Library(library_id, header + body, len(feature_set.features), other)


def bunches(slices: Sequence[Slice], most: int) -> Iterator[list[Slice]]:
    """Yield slices in their order, so many at a time that they hold `most` records; a larger one is cut."""
    bunch: list[Slice] = []
    left = most
    for whole in slices:
        part = whole
        while len(part.offsets) > left:
            if left:
                place = part.offsets[left - 1]
                bunch.append(replace(part, last_offset=place, **_cut(part, slice(None, left))))
                part = replace(part, previous_offset=place, **_cut(part, slice(left, None)))
            yield bunch
            bunch, left = [], most
        bunch.append(part)
        left -= len(part.offsets)
    if bunch:
        yield bunch


def _cut(part: Slice, records: slice) -> dict[str, Any]:
    return {"offsets": part.offsets[records], "transactions": part.transactions[records]}


class _Places:
    """Names in the order in which they first come; each has its place from 1."""

    def __init__(self) -> None:
        self._found: dict[str, int] = {}

    def of(self, names: Sequence[str]) -> list[int]:
        """Return the places of names."""
        found = self._found
        return [found.setdefault(name, len(found) + 1) for name in names]

    def names(self) -> list[str]:
        """Return the names in order."""
        return list(self._found)


def apply_blob(library: Library, meta: str, topic_id: str, slices: Sequence[Slice]) -> bytes:
    """Return the one argument of an apply call: MessagePack of columns, a section per partition."""
    named = library.other_digests
    customers, terminals = _Places(), _Places()
    sections = [
        (
            part.partition,
            part.previous_offset,
            part.last_offset,
            part.committed_offset,
            part.offsets,
            customers.of([each.entities.customer for each in part.transactions]),
            terminals.of([each.entities.terminal for each in part.transactions]),
            [transaction.event_time_ms for transaction in part.transactions],
            [transaction.amount_minor for transaction in part.transactions],
            _digests([transaction.transaction_id for transaction in part.transactions]),
            _digests([each.entities.customer for each in part.transactions if named]),
            _digests([each.entities.terminal for each in part.transactions if named]),
        )
        for part in slices
    ]
    return _encode((meta, topic_id, customers.names(), terminals.names(), sections))


def _digests(names: Sequence[str]) -> msgspec.Raw:
    """Return digests as one MessagePack string: the server's decoder knows no binary type."""
    length = (8 * len(names)).to_bytes(4, "big")
    return msgspec.Raw(b"\xdb" + length + b"".join([id_digest(name) for name in names]))


def label_blob(
    meta: str,
    topic_id: str,
    positions: tuple[int, int, Sequence[int]],
    labels: Sequence[Feedback],
) -> bytes:
    """Return the one argument of a label call; `positions` is (previous_offset, last_offset, offsets)."""
    previous_offset, last_offset, offsets = positions
    customers, terminals = _Places(), _Places()
    section = (
        0,
        previous_offset,
        last_offset,
        -1,
        list(offsets),
        customers.of([label.entities.customer for label in labels]),
        terminals.of([label.entities.terminal for label in labels]),
        [label.event_time_ms for label in labels],
        _digests([label.transaction_id for label in labels]),
        [label.labelled_at_ms for label in labels],
        [_LABEL_CODES[label.label] for label in labels],
    )
    return _encode((meta, topic_id, customers.names(), terminals.names(), [section]))


def read_replies(
    library: Library, reply: bytes, repeated: Sequence[int], slices: Sequence[Slice]
) -> Applied:
    """Return the arrays in a reply; the first `repeated[i]` rows of slice i are stored replies."""
    rows = np.frombuffer(reply, library.reply) if reply else np.empty(0, library.reply)
    redelivered = np.concatenate(
        [np.arange(len(part.offsets)) < n for part, n in zip(slices, repeated, strict=True)]
        or [np.empty(0, np.bool_)]
    )
    return Applied(
        features=np.ascontiguousarray(rows["features"]),
        apply_seq=np.ascontiguousarray(rows["apply_seq"]),
        duplicate_of=np.ascontiguousarray(rows["duplicate_of"]),
        beyond_retention=(rows["flags"] & (CUSTOMER_BEYOND | TERMINAL_BEYOND)) != 0,
        truncated=(rows["flags"] & (CUSTOMER_TRUNCATED | TERMINAL_TRUNCATED)) != 0,
        redelivered=redelivered,
    )
