"""The join behind `fraudstream trace`: each record in its place, whatever was sent, answered or swapped."""

import msgspec
import pytest

from fraudstream.core.errors import FraudstreamError
from fraudstream.core.feature_set import NINE
from monitoring.trace import SHOWN_BYTES, Found, join, versions_in
from monitoring.trace_report import GivenLabel, Occurrence, Trace
from tests.trace_cases import (
    HOSTILE,
    ID,
    OFFSET,
    PRODUCED_MS,
    SENT_MS,
    alert,
    answer,
    contract,
    event,
    evidence,
    example,
    letter,
    paid,
    score,
    served,
)

CONTRACTS = {"1": contract()}


def only(trace: Trace) -> Occurrence:
    (found,) = trace.occurrences
    return found


def labelled(*records: msgspec.Struct) -> Trace:
    return join(evidence(served(), feedback=list(records)), CONTRACTS)


def test_a_scored_transaction_has_each_of_its_records_with_its_place() -> None:
    found = only(join(evidence(served()), CONTRACTS))
    assert (found.state, found.dead_letter) == ("scored", None)
    assert found.input.transaction is not None
    assert found.input.transaction.amount_minor == 141_815
    assert found.input.original is None
    assert found.score is not None
    assert found.alert is not None
    places = [found.input.position, found.score.position, found.alert.position]
    assert [(each.topic, each.partition, each.offset) for each in places] == [
        ("transactions", 3, OFFSET),
        ("scores", 3, 6_000),
        ("alerts", 3, 7),
    ]
    assert found.alert.alert_id == "3-5121"
    assert len(found.alert.reasons) == 3


def test_features_have_the_names_and_the_distance_of_the_version_that_scored_it() -> None:
    found = only(join(evidence(served()), CONTRACTS)).score
    assert found is not None
    assert [each.name for each in found.features] == list(NINE.features)
    ratio = found.features[1]
    assert (ratio.value, ratio.usual) == (24.4, 2.0)
    assert ratio.off == pytest.approx(22.4 / 4)
    assert found.no_usual is None


def test_a_spread_of_zero_divides_nothing() -> None:
    flat = contract(spread=[0.0] * 9)
    found = only(join(evidence(served()), {"1": flat})).score
    assert found is not None
    assert {each.off for each in found.features} == {None}


@pytest.mark.parametrize(
    ("contracts", "changes", "why"),
    [
        ({}, {}, "was not asked for"),
        ({"1": "MLflow does not answer"}, {}, "MLflow does not answer"),
        ({"2": contract()}, {"model_version": None, "score": None}, "before there was one"),
        ({"1": contract(feature_set="another")}, {}, "is of feature set another"),
    ],
)
def test_without_its_contract_features_keep_their_names_and_the_reason_is_said(
    contracts: dict[str, object], changes: dict[str, object], why: str
) -> None:
    found = only(join(evidence(served(**changes)), contracts)).score  # type: ignore[arg-type]
    assert found is not None
    assert why in (found.no_usual or "")
    assert [each.name for each in found.features] == list(NINE.features)
    assert {each.usual for each in found.features} == {None}


def test_features_of_an_unknown_set_are_numbered() -> None:
    strange = served(feature_set="another", features=[1.0, 2.0])
    found = only(join(evidence(strange), {})).score
    assert found is not None
    assert [each.name for each in found.features] == ["feature 1", "feature 2"]


def test_latency_splits_the_time_from_poll_to_produce() -> None:
    found = only(join(evidence(served()), CONTRACTS)).score
    assert found is not None
    spent = found.latency
    assert spent.features + spent.model + spent.other == pytest.approx(spent.until_produce)
    assert (spent.age, spent.stale, found.produced_at_ms) == (12, False, PRODUCED_MS)


def test_what_is_not_committed_waits_and_what_is_committed_without_a_result_is_lost() -> None:
    def state(committed: int) -> str:
        return only(join(evidence(Found(record=paid(), committed=committed)), {})).state

    assert (state(0), state(OFFSET), state(OFFSET + 1)) == ("waiting", "waiting", "lost")


def test_a_dead_letter_says_why_and_shows_the_bytes_without_their_control_characters() -> None:
    value = b'{"v": "' + HOSTILE.encode() + b'\xff"'
    dead = Found(record=paid(value), committed=6_000, dead_letter=letter(value))
    found = only(join(evidence(dead, transaction_id=None), {}))
    assert found.state == "dead_letter"
    assert (found.input.unreadable or "").startswith("malformed_json: ")
    assert found.dead_letter is not None
    assert (found.dead_letter.kind, found.dead_letter.position.offset) == ("invalid_field", 9)
    original = found.dead_letter.original
    assert (original.size_bytes, original.cut) == (len(value), False)
    assert original.text.isprintable()
    assert r"\x1b[2J" in original.text
    assert original.text.endswith(r'\xff"')


def test_of_a_header_that_comes_twice_the_scorer_s_own_counts() -> None:
    forged = letter(b"{", ("error_kind", b"forged"))
    dead = Found(record=paid(b"{"), committed=6_000, dead_letter=forged)
    found = only(join(evidence(dead), {})).dead_letter
    assert found is not None
    assert found.kind == "invalid_field"


@pytest.mark.parametrize(
    ("value", "headers", "size", "cut"),
    [
        (b"x" * (SHOWN_BYTES + 1), [], SHOWN_BYTES + 1, True),
        (b"x" * 10, [("original_bytes", b"20000000")], 20_000_000, True),
        (b"x" * 10, [("original_bytes", b"-7")], 10, False),
        (b"x" * 10, [("original_bytes", b"9" * 5_000)], 9_999_999_999_999_999_999, True),
        (None, [], None, False),
    ],
)
def test_a_dead_letter_s_size_is_that_of_what_was_received(
    value: bytes | None, headers: list[tuple[str, bytes]], size: int | None, *, cut: bool
) -> None:
    dead = Found(record=paid(b"{"), committed=6_000, dead_letter=letter(value, *headers))
    found = only(join(evidence(dead), {})).dead_letter
    assert found is not None
    assert (found.original.size_bytes, found.original.cut) == (size, cut)


def test_occurrences_are_in_the_order_of_their_sending() -> None:
    later = Found(record=paid(offset=OFFSET + 5), committed=0)
    first = Found(record=paid(offset=OFFSET + 9, sent_at_ms=SENT_MS - 1), committed=0)
    elsewhere = Found(record=paid(partition=2, offset=OFFSET + 9), committed=0)
    trace = join(evidence(later, first, elsewhere, more=3), {})
    places = [(o.input.position.partition, o.input.position.offset) for o in trace.occurrences]
    assert places == [(3, OFFSET + 9), (2, OFFSET + 9), (3, OFFSET + 5)]
    assert trace.more == 3


def test_the_latest_label_is_in_force_wherever_it_stands() -> None:
    trace = labelled(
        answer(4, label="genuine", labelled_at_ms=1_738_920_691_002),
        answer(9, label="fraud", labelled_at_ms=1_738_920_691_001),
    )
    assert trace.label_in_force == "genuine"
    assert [(each.offset, each.in_force) for each in trace.labels] == [(4, True), (9, False)]


def test_of_labels_of_one_moment_the_later_record_is_in_force() -> None:
    trace = labelled(answer(9, label="genuine"), answer(4, label="fraud"))
    assert trace.label_in_force == "genuine"
    assert [(each.offset, each.in_force) for each in trace.labels] == [(4, False), (9, True)]


def test_unsure_as_the_latest_answer_leaves_none_in_force() -> None:
    late_ms = 1_738_920_691_001
    trace = labelled(answer(4), answer(9, label="unsure", labelled_at_ms=late_ms))
    assert trace.label_in_force is None
    assert [(each.label, each.in_force) for each in trace.labels] == [
        ("fraud", False),
        ("unsure", False),
    ]


def test_a_correction_after_unsure_is_in_force() -> None:
    times = (1_738_920_691_000, 1_738_920_691_001, 1_738_920_691_002)
    words = ("fraud", "unsure", "genuine")
    trace = labelled(
        *(answer(i, label=words[i], labelled_at_ms=times[i]) for i in range(len(words)))
    )
    assert trace.label_in_force == "genuine"


def first_label(trace: Trace) -> GivenLabel:
    return trace.labels[0]


def test_a_label_says_whether_it_was_sent_after_the_score() -> None:
    assert first_label(labelled(answer(4, sent_at_ms=PRODUCED_MS + 1))).after_score is True
    assert first_label(labelled(answer(4, sent_at_ms=PRODUCED_MS))).after_score is False
    waiting = Found(record=paid(), committed=0)
    assert first_label(join(evidence(waiting, feedback=[answer(4)]), {})).after_score is None


def test_a_label_says_whether_time_and_entities_are_the_transaction_s() -> None:
    assert first_label(labelled(answer(4))).fits is True
    assert first_label(labelled(answer(4, event_time_ms=1_738_661_491_001))).fits is False
    other = {"customer": "C0000304", "terminal": "T1"}
    assert first_label(labelled(answer(4, entities=other))).fits is False
    assert first_label(join(evidence(feedback=[answer(4)]), {})).fits is None


def test_labels_of_other_transactions_and_unreadable_ones_are_left_out() -> None:
    trace = labelled(
        answer(1, transaction_id=f"{ID}9"), answer(2, label="perhaps"), answer(3), answer(4, v=9)
    )
    assert [each.offset for each in trace.labels] == [3]


def test_audit_has_the_events_of_the_version_and_those_that_name_the_transaction() -> None:
    named = {"answer": [{"transaction": ID}]}
    events = [
        event(0, event="publish"),
        event(1, model_version="2"),
        event(2, model_version="2", why=f"analyst looked at {ID} again"),
        event(3, model_version="2", evidence=named),
        event(4, model_version="2", why=f"{ID}9"),
        event(5, event="unheard of"),
        event(6),
    ]
    trace = join(evidence(served(), audit=events), CONTRACTS)
    assert [each.offset for each in trace.audit] == [0, 2, 3, 6]


def test_a_transaction_scored_before_any_model_has_no_events_of_a_version() -> None:
    early = served(model_version=None, score=None, threshold=None, decision="none")
    trace = join(evidence(early, audit=[event(0)]), {})
    assert trace.audit == []


def test_the_versions_to_ask_for_are_those_that_scored_it() -> None:
    early = served(model_version=None)
    waiting = Found(record=paid(), committed=0)
    assert versions_in([evidence(served(), early), evidence(waiting)]) == {"1"}


@pytest.mark.parametrize("value", [b"{}", b"\xff", b'{"more": ' + b"[" * 100_000, None])
def test_a_score_that_is_none_is_named_with_its_place(value: bytes | None) -> None:
    broken = msgspec.structs.replace(score(), value=value)
    found = Found(record=paid(), committed=6_000, score=broken)
    with pytest.raises(FraudstreamError, match=r"local\.scores 3:6000"):
        join(evidence(found), {})


def test_hostile_text_of_key_and_headers_is_escaped() -> None:
    record = msgspec.structs.replace(
        paid(headers=((HOSTILE, HOSTILE.encode()), ("none", None))), key=HOSTILE.encode() + b"\xff"
    )
    found = only(join(evidence(Found(record=record, committed=0)), {})).input
    assert (found.key or "").isprintable()
    assert (found.headers[0].value or "").isprintable()
    assert found.headers[1].value is None


def test_a_value_that_is_no_transaction_is_shown_though_nothing_became_of_it() -> None:
    found = only(join(evidence(Found(record=paid(b"\x07"), committed=0)), {})).input
    assert found.original is not None
    assert found.original.text == r"\x07"


def test_the_examples_of_the_documents_join() -> None:
    alone = Found(record=paid(example("transaction")), committed=6_000, score=score())
    raised = msgspec.structs.replace(alone, alert=alert())
    assert only(join(evidence(alone), CONTRACTS)).alert is None
    assert only(join(evidence(raised), CONTRACTS)).alert is not None
