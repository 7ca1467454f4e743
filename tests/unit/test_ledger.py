"""The loss ledger finds one lost, one doubled, one unfounded, one exchanged result and names their places."""

import hashlib
import json
from collections.abc import Sequence

import msgspec
import pytest

from fraudstream.core.topics import MAX_TRANSACTION_BYTES
from verify.ledger import Begins, Ledger, Place, Position
from verify.ledger import balance as balance_of
from verify.ledger_text import sentence
from verify.tally import DEAD_LETTER, SCORE, Arrivals, Results

Places = Sequence[tuple[int, int]]


def name(place: tuple[int, int]) -> int:
    return hash(f"{place[0]}-{place[1]}")


def arrivals(places: Places) -> Arrivals:
    made = Arrivals()
    for place in places:
        made.add(*place, name=name(place), content=-name(place))
    return made


def balance(came_in: Places, out: Places, scored: int, committed: dict[int, int]) -> Ledger:
    """The first `scored` of the results are scores, the others dead letters."""
    results = Results()
    for i, place in enumerate(out):
        kind, digest = (SCORE, name(place)) if i < scored else (DEAD_LETTER, -name(place))
        results.add(kind, (0, i), place, digest)
    return balance_of(arrivals(came_in), results, committed)


def everything(partitions: int, length: int) -> list[tuple[int, int]]:
    return [(p, o) for p in range(partitions) for o in range(length)]


def test_one_result_for_each_position_is_balanced() -> None:
    places = everything(3, 50)
    ledger = balance(places, places[::-1], 140, {0: 50, 1: 50, 2: 50})
    assert ledger.balanced
    assert (ledger.transactions, ledger.scored, ledger.dead_letters) == (150, 140, 10)


def test_one_lost_among_many_is_named() -> None:
    places = everything(2, 1_000)
    results = [place for place in places if place != (1, 777)]
    ledger = balance(places, results, len(results), {0: 1_000, 1: 1_000})
    assert not ledger.balanced
    assert (ledger.lost, ledger.duplicates) == (1, 0)
    assert ledger.lost_positions == [Position(1, 777)]


def test_one_doubled_among_many_is_named() -> None:
    places = everything(2, 1_000)
    ledger = balance(places, [*places, (0, 5), (0, 5)], 2_002, {0: 1_000, 1: 1_000})
    assert not ledger.balanced
    assert (ledger.lost, ledger.duplicates) == (0, 2)
    assert ledger.duplicate_positions == [Position(0, 5)]


def test_what_is_not_committed_yet_waits_and_is_not_lost() -> None:
    ledger = balance([(0, 0), (0, 1), (0, 2)], [(0, 0)], 1, {0: 1})
    assert ledger.balanced
    assert ledger.waiting == 2


def test_a_result_of_a_position_that_does_not_exist_is_unfounded() -> None:
    ledger = balance([(0, 0)], [(0, 0), (0, 9), (4, 0)], 3, {0: 1})
    assert not ledger.balanced
    assert ledger.unfounded == 2


def test_offsets_taken_by_transaction_markers_are_no_loss() -> None:
    ledger = balance([(0, 0), (0, 2), (0, 5)], [(0, 0), (0, 2), (0, 5)], 3, {0: 6})
    assert ledger.balanced
    assert ledger.lost == 0


def of_expired(
    came_in: Places, scores: Sequence[tuple[int, tuple[int, int]]], begins: Begins, end: int
) -> Ledger:
    """Scores are (own partition, source); everything below `end` is committed."""
    results = Results()
    for offset, (own, place) in enumerate(scores):
        results.add(SCORE, (own, offset), place, name(place))
    return balance_of(arrivals(came_in), results, {0: end, 1: end}, begins)


def test_results_of_transactions_that_expired_are_counted_apart() -> None:
    results = [(0, (0, offset)) for offset in range(200)] + [(0, (1, 5)), (0, (7, 0))]
    begins = Begins(transactions={0: 100, 1: 50})
    ledger = of_expired([(0, o) for o in range(100, 200)], results, begins, 200)
    assert (ledger.scored, ledger.expired, ledger.unfounded) == (101, 101, 1), "7 is no partition"
    assert (ledger.lost, ledger.unknown) == (0, 0)
    assert not ledger.balanced
    assert of_expired([(0, o) for o in range(100, 200)], results[:-1], begins, 200).balanced


def test_a_result_without_a_readable_source_has_not_expired() -> None:
    ledger = of_expired([(0, 100)], [(0, (0, 100)), (0, (0, -1))], Begins({0: 100}), 101)
    assert (ledger.expired, ledger.unfounded) == (0, 1)


def test_transactions_whose_scores_may_have_expired_are_unknown_and_later_ones_lost() -> None:
    came_in = everything(2, 100)
    results = [(int(p or o == 95), (p, o)) for p, o in came_in if o >= 40 - 40 * p and o != 70]
    for begins in (Begins(scores={0: 7, 1: 0}), Begins(scores={0: 7})):
        ledger = of_expired(came_in, results, begins, 100)
        assert (ledger.unknown, ledger.waiting) == (40, 0)
        assert ledger.lost_positions == [Position(0, 70), Position(1, 70)]
    assert of_expired(came_in, results, Begins(), 100).lost == 42


def test_without_any_score_of_a_partition_left_all_that_was_committed_there_is_unknown() -> None:
    came_in = everything(2, 100)
    ledger = of_expired(came_in, [(1, (1, o)) for o in range(90)], Begins(scores={0: 7}), 95)
    assert (ledger.unknown, ledger.lost, ledger.waiting) == (95, 5, 10)


def test_the_balance_in_words_says_what_has_expired() -> None:
    quiet = of_expired([(0, 0)], [(0, (0, 0))], Begins(), 1)
    assert sentence(quiet) == "1 in = 1 scored + 0 dead letters + 0 waiting; lost 0, duplicates 0"
    begins = Begins(transactions={0: 5, 1: 5}, scores={0: 3})
    told = of_expired([(0, 5), (0, 6)], [(0, (0, 6)), (1, (1, 4))], begins, 7)
    assert sentence(told) == (
        "2 in = 1 scored + 0 dead letters + 0 waiting + 1 unknown; lost 0, duplicates 0; expired: "
        "1 result without its transaction"
    )


class Read(msgspec.Struct):
    """A record as kafka-python gives it."""

    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = None


def transaction(number: int) -> bytes:
    return json.dumps({"v": 1, "transaction_id": f"t{number}", "amount_minor": number}).encode()


def score(number: int, *, partition: int = 0, offset: int | None = None) -> bytes:
    """The score of a transaction, at its place unless told otherwise."""
    place = {"source_partition": partition, "source_offset": number if offset is None else offset}
    return json.dumps({"transaction_id": f"t{number}", "score": 0.5} | place).encode()


def letter(value: bytes | None, offset: bytes | None, *more: tuple[str, bytes | None]) -> Read:
    source = [("source_topic", b"transactions"), ("source_partition", b"0")]
    return Read(value, [*source, ("source_offset", offset), *more])


def of_records(
    came_in: Sequence[bytes | None], scores: Sequence[bytes | None], letters: Sequence[Read] = ()
) -> Ledger:
    arrived, results = Arrivals(), Results()
    for offset, value in enumerate(came_in):
        arrived.add_record(Read(value, offset=offset))
    for offset, value in enumerate(scores):
        results.add_score(Read(value, offset=offset))
    for offset, read in enumerate(letters):
        results.add_dead_letter(msgspec.structs.replace(read, offset=offset))
    return balance_of(arrived, results, {0: len(came_in)})


def test_two_scores_that_changed_places_are_mismatched_and_named() -> None:
    ledger = of_records(
        [transaction(n) for n in range(5)],
        [score(0), score(1, offset=2), score(2, offset=1), score(3), score(4)],
    )
    assert not ledger.balanced
    assert (ledger.lost, ledger.duplicates, ledger.mismatched) == (0, 0, 2)
    assert ledger.mismatched_places == [Place("scores", 0, 1), Place("scores", 0, 2)]


def test_a_dead_letter_with_other_bytes_than_its_transaction_is_mismatched() -> None:
    came_in = [b"broken", None, transaction(2)]
    right = [letter(b"broken", b"0"), letter(None, b"1"), letter(transaction(2), b"2")]
    assert of_records(came_in, [], right).balanced
    wrong = [right[0], letter(b"", b"1"), letter(transaction(1), b"2")]
    ledger = of_records(came_in, [], wrong)
    assert (ledger.mismatched, ledger.balanced) == (2, False)
    assert ledger.mismatched_places == [Place("dead-letters", 0, 1), Place("dead-letters", 0, 2)]


def cut(value: bytes, kept: int, *, of: bytes | None = None) -> Read:
    """The dead letter of a value that did not fit, as the scorer writes it; its digest is that of `of`."""
    digest = hashlib.sha256(value if of is None else of).hexdigest().encode()
    said = ("original_bytes", str(len(value)).encode()), ("original_sha256", digest)
    return letter(value[:kept], b"0", *said)


@pytest.mark.parametrize("size", [200, 2_000_000, MAX_TRANSACTION_BYTES + 1])
def test_a_cut_dead_letter_is_told_by_its_sha256_whatever_the_size_of_its_record(size: int) -> None:
    value = b"0" * size
    assert of_records([value], [], [cut(value, 90)]).balanced
    assert of_records([value], [], [letter(value[:90], b"0")]).mismatched == 1
    assert of_records([value], [], [cut(value, 90, of=b"another")]).mismatched == 1


@pytest.mark.parametrize(
    "theirs",
    [
        [("original_sha256", b"0")],
        [("x", b"1"), ("original_bytes", b"9"), ("original_sha256", b"0")],
        [("original_bytes", b"9000"), ("original_sha256", b"0")],
    ],
)
def test_a_transaction_with_headers_of_the_scorer_s_names_is_told_by_its_bytes(
    theirs: list[tuple[str, bytes | None]],
) -> None:
    came_in = Arrivals()
    came_in.add_record(Read(b"bad", theirs))
    for read in (letter(b"bad", b"0"), letter(b"bad", b"0", *theirs)):
        results = Results()
        results.add_dead_letter(read)
        assert balance_of(came_in, results, {0: 1}).balanced, (
            "a bare letter, and one with its headers"
        )
        results.add_dead_letter(msgspec.structs.replace(read, value=b"worse"))
        assert balance_of(came_in, results, {0: 1}).mismatched == 1


def test_a_score_of_a_record_that_has_no_id_is_mismatched() -> None:
    assert of_records([b"broken"], [score(0)]).mismatched == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"no score",
        b'{"transaction_id":"\xff","source_partition":0,"source_offset":0}',
        b'{"transaction_id":"t1","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        score(1, offset=3_000_000_000),
        score(1, offset=-1),
        score(1, offset=2**63 - 1),
        score(1, offset=2**70),
        score(1, partition=7),
        score(1, partition=-1),
    ],
)
def test_a_score_of_nothing_that_exists_is_unfounded_and_its_own_place_is_named(
    value: bytes | None,
) -> None:
    ledger = of_records([transaction(0)], [score(0), value])
    assert not ledger.balanced
    assert (ledger.unfounded, ledger.lost, ledger.duplicates) == (1, 0, 0)
    assert ledger.unfounded_places == [Place("scores", 0, 1)]


@pytest.mark.parametrize("offset", [None, b"", b"first", b"-1", b"1" * 5_000, b"9" * 18])
def test_a_dead_letter_without_a_readable_source_is_unfounded(offset: bytes | None) -> None:
    ledger = of_records([transaction(0)], [score(0)], [letter(b"x", offset)])
    assert ledger.unfounded_places == [Place("dead-letters", 0, 0)]
    assert not ledger.balanced


def test_headers_of_the_original_do_not_hide_those_of_the_scorer() -> None:
    hostile = ("source_offset", b"0"), ("source_topic", b"elsewhere")
    ledger = of_records([transaction(0), b"bad"], [score(0)], [letter(b"bad", b"1", *hostile)])
    assert ledger.balanced
