"""First hop of a record: bytes become a frozen struct, or a `BadRecord` that says why not."""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from fraudstream.core.errors import BadRecord

SCHEMA_VERSION = 1
MAX_VALUE_BYTES = 65_536
"""A transaction larger than this is a dead letter of kind `too_large`."""

EARLIEST_MS = 946_684_800_000
"""2000-01-01T00:00:00Z: an event time before it is absurd."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01T00:00:00Z: an event time from it on is absurd."""

Identifier = Annotated[str, Meta(min_length=1, max_length=64)]
EventTimeMs = Annotated[int, Meta(ge=EARLIEST_MS, lt=LATEST_MS)]
Label = Literal["fraud", "genuine", "unsure"]


# gc=False here and for scores: millions of them are made, none is in a cycle, and the collector's looks at
# them were a fifth of the worker's own time.
class Entities(msgspec.Struct, frozen=True, gc=False):
    """Who took part: the first entity (customer) is the Kafka key of the transaction."""

    customer: Identifier
    terminal: Identifier


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """One card transaction as it stands in the topic `transactions` (JSON).

    `event_time_ms` is UTC milliseconds, `amount_minor` an integer in minor units (cents).
    """

    v: Literal[1]
    transaction_id: Identifier
    event_time_ms: EventTimeMs
    kind: Annotated[str, Meta(min_length=1, max_length=32)]
    amount_minor: Annotated[int, Meta(ge=0, le=10**12)]
    currency: Annotated[str, Meta(min_length=3, max_length=3)]
    """Three letters A-Z; a pattern here would take as long as all the rest, so `decode_transaction` looks."""
    entities: Entities
    attributes: dict[str, float] = {}


class Feedback(msgspec.Struct, frozen=True):
    """One answer about one transaction as it stands in the topic `feedback` (JSON)."""

    v: Literal[1]
    transaction_id: Identifier
    event_time_ms: EventTimeMs
    entities: Entities
    label: Label
    labelled_at_ms: EventTimeMs
    source: Annotated[str, Meta(max_length=64)] = ""
    analyst: Annotated[str, Meta(max_length=64)] = ""


class _Version(msgspec.Struct):
    v: object = None


_transactions = msgspec.json.Decoder(Transaction)
_feedback = msgspec.json.Decoder(Feedback)
_versions = msgspec.json.Decoder(_Version)
T = TypeVar("T")

_encoder = msgspec.json.Encoder()


def encode(record: Transaction | Feedback) -> bytes:
    """Return the JSON bytes of a record, the inverse of the two decoders below."""
    return _encoder.encode(record)


def decode_transaction(value: bytes | None) -> Transaction:
    """Return the transaction in `value`.

    Raises:
        BadRecord: with the kind of dead letter and a message that names field and reason.
    """
    transaction = _decode(_transactions, value)
    currency = transaction.currency
    if not (currency.isascii() and currency.isalpha() and currency.isupper()):
        raise BadRecord(
            "invalid_field", f"currency {currency!r}; allowed: three letters A-Z - at `$.currency`"
        )
    return transaction


def decode_feedback(value: bytes | None) -> Feedback:
    """Return the answer in `value`.

    Raises:
        BadRecord: with the kind of dead letter and a message that names field and reason.
    """
    return _decode(_feedback, value)


def _decode(decoder: msgspec.json.Decoder[T], value: bytes | None) -> T:
    if value is None or len(value) > MAX_VALUE_BYTES:
        raise _unreadable(value)
    try:
        return decoder.decode(value)
    except RecursionError as exc:
        raise BadRecord("malformed_json", "not valid JSON: nested too deep") from exc
    except UnicodeDecodeError as exc:
        raise BadRecord("malformed_json", f"not valid JSON: a string is not UTF-8 ({exc})") from exc
    except msgspec.DecodeError as exc:
        raise _explained(value, exc) from exc


def _unreadable(value: bytes | None) -> BadRecord:
    if value is None:
        return BadRecord("null_value", "the record has no value (a tombstone)")
    return BadRecord("too_large", f"value of {len(value)} bytes; at most {MAX_VALUE_BYTES} allowed")


def _explained(value: bytes, exc: msgspec.DecodeError) -> BadRecord:
    """Tell a wrong field from bytes that are no JSON, and an unknown schema version from both."""
    if not isinstance(exc, msgspec.ValidationError):
        return BadRecord("malformed_json", f"not valid JSON: {exc}")
    try:
        version = _versions.decode(value).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return BadRecord("invalid_field", str(exc))
    if isinstance(version, int) and version != SCHEMA_VERSION:
        return BadRecord("unknown_version", f"schema version {version}; known: {SCHEMA_VERSION}")
    return BadRecord("invalid_field", str(exc))
