"""The feature store's Lua function library as text, and the blobs and replies of its calls."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import msgspec
import numpy as np
import numpy.typing as npt

from fraudstream.core.feature_set import DAY_MS, FeatureSet, id_digest
from fraudstream.core.transaction import Feedback, Label, Transaction

DUPLICATE, CUSTOMER_BEYOND, TERMINAL_BEYOND, CUSTOMER_TRUNCATED, TERMINAL_TRUNCATED = 1, 2, 4, 8, 16
"""The flags of a reply, as in features.lua."""

_REPLY = np.dtype(
    [
        ("offset", "<i8"),
        ("apply_seq", "<i8"),
        ("duplicate_of", "<i8"),
        ("flags", "<u4"),
        ("features", "<f4", (9,)),
    ]
)
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

    `features` float32 [N, 9]; `apply_seq` int64 [N], the place of the application; `duplicate_of` int64
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
    """A function library: `id` names it and its two functions, `text` is what FUNCTION LOAD takes."""

    id: str
    text: str

    @property
    def name(self) -> str:
        """Return the library's name on the server."""
        return f"fraudstream_{self.id}"


def build_library(feature_set: FeatureSet, source: str | None = None) -> Library:
    """Return the library of a feature set; its id covers the parameters and the Lua source."""
    if source is None:
        package = resources.files("fraudstream.clients")
        names = ("features.lua", "feature_calls.lua")
        source = "\n".join((package / name).read_text(encoding="utf-8") for name in names)
    body = _constants(feature_set) + source
    library_id = hashlib.sha256(f"{feature_set.hash}\n{body}".encode()).hexdigest()[:16]
    header = f"#!lua name=fraudstream_{library_id}\nlocal LIBRARY = '{library_id}'\n"
    return Library(library_id, header + body)


def _constants(feature_set: FeatureSet) -> str:
    values = {
        "DAY": DAY_MS,
        "MINOR_PER_MAJOR": feature_set.minor_per_major,
        "PRIOR_SUM": feature_set.prior_sum_minor,
        "CLEAN_MAX": feature_set.clean_max_minor,
        "CLEAN_RATIO": feature_set.clean_max_ratio,
        "WARM_UP": feature_set.clean_warm_up,
        "HOT_RATIO": feature_set.hot_ratio,
        "CUSTOMER_WINDOW": feature_set.customer_window_ms,
        "TERMINAL_WINDOW": feature_set.terminal_window_ms,
        "LATENESS": feature_set.lateness_ms,
        "LABEL_DELAY": feature_set.label_delay_ms,
        "NONE_DAYS": feature_set.none_days,
        "UNKNOWN_DAYS": feature_set.unknown_days,
        "NO_RUN_DAYS": feature_set.no_run_days,
    }
    return "".join(f"local {name} = {value!r}\n" for name, value in values.items())


def apply_blob(meta: str, topic_id: str, slices: Sequence[Slice]) -> bytes:
    """Return the one argument of an apply call: MessagePack of columns, a section per partition."""
    sections = [
        (
            part.partition,
            part.previous_offset,
            part.last_offset,
            part.committed_offset,
            part.offsets,
            [transaction.entities.customer for transaction in part.transactions],
            [transaction.entities.terminal for transaction in part.transactions],
            [transaction.event_time_ms for transaction in part.transactions],
            [transaction.amount_minor for transaction in part.transactions],
            _digests(part.transactions),
        )
        for part in slices
    ]
    return _encode((meta, topic_id, sections))


def _digests(records: Sequence[Transaction | Feedback]) -> msgspec.Raw:
    """Return the id digests as one MessagePack string: the server's decoder knows no binary type."""
    return msgspec.Raw(
        b"\xdb"
        + (8 * len(records)).to_bytes(4, "big")
        + b"".join([id_digest(record.transaction_id) for record in records])
    )


def label_blob(
    meta: str,
    topic_id: str,
    positions: tuple[int, int, Sequence[int]],
    labels: Sequence[Feedback],
) -> bytes:
    """Return the one argument of a label call; `positions` is (previous_offset, last_offset, offsets)."""
    previous_offset, last_offset, offsets = positions
    section = (
        0,
        previous_offset,
        last_offset,
        -1,
        list(offsets),
        [label.entities.terminal for label in labels],
        [label.event_time_ms for label in labels],
        _digests(labels),
        [label.labelled_at_ms for label in labels],
        [_LABEL_CODES[label.label] for label in labels],
    )
    return _encode((meta, topic_id, section))


def read_replies(reply: bytes, repeated: Sequence[int], slices: Sequence[Slice]) -> Applied:
    """Return the arrays in a reply; the first `repeated[i]` rows of slice i are stored replies."""
    rows = np.frombuffer(reply, _REPLY) if reply else np.empty(0, _REPLY)
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
