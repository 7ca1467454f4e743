"""What `fraudstream trace` searches for: bytes that stand in every writer's JSON, then the exact id."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.core.printable import printable, printable_bytes, printable_json
from monitoring.trace_search import id_in, is_of, needle_of, position_in
from tests.trace_cases import HOSTILE, ID, example

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)


@given(texts)
def test_the_needle_of_an_id_stands_in_its_json_whoever_writes_it(name: str) -> None:
    record = {"transaction_id": name}
    for value in (
        msgspec.json.encode(record),
        json.dumps(record).encode(),
        json.dumps(record, ensure_ascii=False).encode(),
        json.dumps(record).replace("/", "\\/").encode(),
    ):
        assert needle_of(name) in value
        assert is_of(value, name)
        assert id_in(value) == name


@given(texts, texts)
def test_no_id_is_taken_for_another(name: str, other: str) -> None:
    assert is_of(json.dumps({"transaction_id": other}).encode(), name) is (name == other)


def test_of_an_ordinary_id_every_character_is_searched_for() -> None:
    assert needle_of(ID) == ID.encode()
    assert needle_of("Zürich-0042") == b"rich-0042"
    assert needle_of("a/bc") == b"bc"
    assert needle_of("交易") == b""


def test_an_id_that_begins_or_ends_like_another_is_not_taken_for_it() -> None:
    value = example("transaction")
    assert is_of(value, ID)
    assert not is_of(value, ID[:-1])
    assert not is_of(value, ID + "0")
    assert not is_of(example("transaction", transaction_id="other", kind=ID), ID)


def test_an_id_that_is_a_number_is_found_though_the_record_is_a_dead_letter() -> None:
    assert is_of(b'{"transaction_id": 7}', "7")
    assert id_in(b'{"transaction_id": 7}') is None


def test_in_bytes_that_are_no_json_the_quoted_id_is_found() -> None:
    assert is_of(f'{{"transaction_id": "{ID}", "amount_minor": NaN'.encode(), ID)
    assert not is_of(f'{{"transaction_id": "{ID}9", "amount_minor": NaN'.encode(), ID)
    assert id_in(b"{") is None
    assert id_in(None) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("3-5121", (3, 5121)),
        ("3:5121", (3, 5121)),
        ("0:0", (0, 0)),
        ("1908e380-000041741", None),
        ("19083801-000041741", None),
        ("35121", None),
        ("03-1", None),
        ("3-", None),
        ("3:1\n", None),
        ("\u0663-\u0661", None),
        ("1:" + "9" * 30, None),
    ],
)
def test_a_position_is_told_from_an_id(name: str, place: tuple[int, int] | None) -> None:
    assert position_in(name) == place


@given(st.text())
def test_nothing_printable_moves_a_cursor(text: str) -> None:
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text


@given(st.binary())
def test_any_bytes_can_be_shown(value: bytes) -> None:
    assert printable_bytes(value).isprintable()


def test_printable_text_says_which_character_it_was() -> None:
    assert printable("a\x1b[1m\u202eb\r") == r"a\x1b[1m\u202eb\r"
    assert printable_bytes(b"\xff\x00Z\xc3\xbc") == r"\xff\x00Zü"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_printable_json_is_equal_json_without_control_characters(text: str) -> None:
    shown = printable_json(msgspec.json.format(msgspec.json.encode({text: [text]})).decode())
    assert all(line.isprintable() for line in shown.split("\n"))
    assert json.loads(shown) == {text: [text]}


def test_printable_json_escapes_what_json_itself_leaves() -> None:
    shown = printable_json(msgspec.json.encode([HOSTILE, "\x7f\x9b\U000e0001"]).decode())
    assert json.loads(shown) == [HOSTILE, "\x7f\x9b\U000e0001"]
    assert shown.isprintable()
