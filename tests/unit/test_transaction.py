"""Decoding: each kind of bad record is told apart and says field and reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.core.errors import BadRecord
from fraudstream.core.transaction import (
    EARLIEST_MS,
    LATEST_MS,
    Entities,
    Feedback,
    Transaction,
    decode_feedback,
    decode_transaction,
    encode,
)

GOOD: dict[str, object] = {
    "v": 1,
    "transaction_id": "t1",
    "event_time_ms": 1_532_476_800_000,
    "kind": "purchase",
    "amount_minor": 1234,
    "currency": "EUR",
    "entities": {"customer": "c1", "terminal": "m1"},
    "attributes": {"distance_km": 1.5},
}


def changed(**fields: object) -> bytes:
    return json.dumps(GOOD | fields).encode()


def without(field: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name != field}).encode()


identifiers = st.text(min_size=1, max_size=64)
times = st.integers(EARLIEST_MS, LATEST_MS - 1)


@given(identifiers, times, st.integers(0, 10**12), identifiers, identifiers)
def test_a_transaction_survives_the_round_trip(
    name: str, time_ms: int, amount: int, customer: str, terminal: str
) -> None:
    transaction = Transaction(
        v=1,
        transaction_id=name,
        event_time_ms=time_ms,
        kind="purchase",
        amount_minor=amount,
        currency="EUR",
        entities=Entities(customer, terminal),
    )
    assert decode_transaction(encode(transaction)) == transaction


@given(identifiers, times, times, st.sampled_from(["fraud", "genuine", "unsure"]))
def test_feedback_survives_the_round_trip(name: str, t: int, labelled: int, label: str) -> None:
    feedback = Feedback(
        v=1,
        transaction_id=name,
        event_time_ms=t,
        entities=Entities("c", "m"),
        label=label,  # type: ignore[arg-type]
        labelled_at_ms=labelled,
    )
    assert decode_feedback(encode(feedback)) == feedback


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (None, "null_value", "no value"),
        (b"", "malformed_json", "not valid JSON"),
        (b"{", "malformed_json", "not valid JSON"),
        (b"\xff\xfe", "malformed_json", "not valid JSON"),
        (changed().replace(b'"t1"', b'"t\xff"'), "malformed_json", "not UTF-8"),
        (changed(currency="EUR\n"), "invalid_field", "$.currency"),
        (
            b'{"v":1,"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
            "malformed_json",
            "nested too deep",
        ),
        (b"x" * 10_000_000, "too_large", "10000000 bytes"),
        (without("amount_minor"), "invalid_field", "amount_minor"),
        (without("v"), "invalid_field", "`v`"),
        (changed(v=2), "unknown_version", "schema version 2"),
        (changed(v=2, entities=None), "unknown_version", "schema version 2"),
        (changed(v="1"), "invalid_field", "$.v"),
        (changed(amount_minor=12.5), "invalid_field", "$.amount_minor"),
        (changed(amount_minor="12"), "invalid_field", "$.amount_minor"),
        (changed(amount_minor=-1), "invalid_field", "$.amount_minor"),
        (changed(amount_minor=float("nan")), "malformed_json", "not valid JSON"),
        (changed(attributes={"x": float("inf")}), "malformed_json", "not valid JSON"),
        (changed(event_time_ms=0), "invalid_field", "$.event_time_ms"),
        (changed(event_time_ms=10**18), "invalid_field", "$.event_time_ms"),
        (changed(entities={"customer": "c1"}), "invalid_field", "terminal"),
        (changed(entities={"customer": "", "terminal": "m"}), "invalid_field", "customer"),
        (changed(currency="euro"), "invalid_field", "$.currency"),
        (changed(currency="eur"), "invalid_field", "currency 'eur'; allowed: three letters A-Z"),
        (changed(currency="EU1"), "invalid_field", "$.currency"),
        (changed(currency="ÉUR"), "invalid_field", "$.currency"),
        (b"[]", "invalid_field", "array"),
    ],
)
def test_a_bad_record_says_its_kind_and_place(value: bytes | None, kind: str, says: str) -> None:
    with pytest.raises(BadRecord) as caught:
        decode_transaction(value)
    assert caught.value.kind == kind
    assert says in str(caught.value)


def test_infinity_hidden_in_an_exponent_is_refused() -> None:
    value = changed(attributes={"x": 0}).replace(b'{"x": 0}', b'{"x": 1e999}')
    with pytest.raises(BadRecord):
        decode_transaction(value)


def test_a_good_record_passes() -> None:
    assert decode_transaction(changed()).amount_minor == 1234
