"""The live ledger: what it names, when it is certain, and how little it keeps of what is settled."""

import math
import time
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.core.metrics import LEDGER, LEDGER_OLDEST
from verify.books import Books, Output
from verify.ledger import Ledger, Place, Position, balance
from verify.ledger_metrics import LedgerMetrics
from verify.live_log import Place as Partition
from verify.tally import DEAD_LETTER, SCORE, Arrivals, Results
from verify.watch import AHEAD, Watch

MANY = 2_000_000
PARTITIONS = 4
LOST, DOUBLED = (2, 123_456), (1, 400_001)


def books(*partitions: int, begin: int = 0) -> tuple[Books, list[str]]:
    said: list[str] = []
    made = Books(said.append)
    for partition in partitions:
        made.open(partition, begin)
    return made, said


def name(offset: int) -> int:
    return offset * 7 + 1


def arrive(made: Books, offsets: Collection[int], partition: int = 0) -> None:
    for offset in offsets:
        made.arrive(partition, offset, name=name(offset), content=-name(offset))


def score(made: Books, offsets: Collection[int], partition: int = 0) -> None:
    for offset in offsets:
        made.result((partition, offset), Output(SCORE, (0, offset), name(offset)))


def figures(ledger: Ledger) -> tuple[int, ...]:
    """Return waiting, lost, duplicates, unfounded, mismatched."""
    return (
        ledger.waiting,
        ledger.lost,
        ledger.duplicates,
        ledger.unfounded,
        ledger.mismatched,
    )


def test_one_lost_and_one_doubled_among_two_million_are_named_while_they_come() -> None:
    began_s = time.monotonic()
    made, said = books(*range(PARTITIONS))
    length, most = MANY // PARTITIONS, 0
    for start in range(0, length, 5_000):
        step = range(start, start + 5_000)
        for partition in range(PARTITIONS):
            arrive(made, step, partition)
            score(made, [o for o in step if (partition, o) != LOST], partition)
            if DOUBLED[0] == partition and DOUBLED[1] in step:
                score(made, [DOUBLED[1]], partition)
        made.judge_committed(dict.fromkeys(range(PARTITIONS), start + 5_000))
        most = max(most, made.held())
    ledger = made.ledger()
    assert ledger.transactions == MANY
    assert figures(ledger) == (0, 1, 1, 0, 0)
    assert ledger.lost_positions == [Position(*LOST)]
    assert ledger.duplicate_positions == [Position(*DOUBLED)]
    assert said == [
        "lost: 2:123456 of transactions is committed, no result",
        "duplicate: 1:400001 of transactions, again at scores 0:400001",
    ]
    assert most < 300_000, "what is settled is not kept"
    assert time.monotonic() - began_s < 120, "not a search in all that came before"


def test_one_lost_and_one_doubled_among_two_million_are_named_after_the_fact() -> None:
    began_s = time.monotonic()
    came_in, results = Arrivals(), Results()
    for partition in range(PARTITIONS):
        for offset in range(MANY // PARTITIONS):
            came_in.add(partition, offset, name=name(offset), content=0)
            if (partition, offset) != LOST:
                results.add(SCORE, (0, offset), (partition, offset), name(offset))
    results.add(SCORE, (0, MANY), DOUBLED, name(DOUBLED[1]))
    ledger = balance(came_in, results, dict.fromkeys(range(PARTITIONS), MANY))
    assert figures(ledger) == (0, 1, 1, 0, 0)
    assert ledger.lost_positions == [Position(*LOST)]
    assert ledger.duplicate_positions == [Position(*DOUBLED)]
    assert time.monotonic() - began_s < 120, "not a search in all that came before"


def test_what_is_not_committed_waits() -> None:
    made, said = books(0)
    arrive(made, range(10))
    score(made, range(4))
    made.judge_committed({0: 4})
    assert figures(made.ledger()) == (6, 0, 0, 0, 0)
    made.judge_committed({})
    assert made.ledger().balanced
    assert not said


def test_a_second_result_is_a_duplicate_whether_its_position_is_settled_or_open() -> None:
    made, said = books(0)
    arrive(made, range(10))
    score(made, [0, 1, 2, 7])
    score(made, [1, 7])
    ledger = made.ledger()
    assert figures(ledger) == (6, 0, 2, 0, 0)
    assert ledger.duplicate_positions == [Position(0, 1), Position(0, 7)]
    assert len(said) == 2


def test_a_result_may_be_read_before_its_transaction() -> None:
    made, said = books(0)
    score(made, [3, 1])
    made.judge_early({0: 4})
    assert (made.early, made.ledger().scored) == (2, 0)
    arrive(made, range(4))
    assert (made.early, made.ledger().scored) == (0, 2)
    assert figures(made.ledger()) == (2, 0, 0, 0, 0)
    assert not said


def test_a_result_beyond_the_end_or_where_no_record_stands_is_unfounded() -> None:
    made, _ = books(0)
    score(made, [5, 900])
    made.result((7, 0), Output(DEAD_LETTER, (2, 11), 0))
    made.result((-1, -1), Output(DEAD_LETTER, (2, 12), 0))
    arrive(made, [*range(5), 6])
    assert made.ledger().unfounded == 2, "offset 5 was passed by, another has no source"
    made.judge_early({0: 7})
    ledger = made.ledger()
    assert ledger.unfounded == 4
    assert Place("scores", 0, 900) in ledger.unfounded_places
    assert Place("dead-letters", 2, 11) in ledger.unfounded_places


def test_the_end_of_what_was_read_may_be_markers() -> None:
    made, _ = books(0)
    arrive(made, range(3))
    score(made, [*range(3), 4])
    made.pass_by(0, 6)
    assert figures(made.ledger()) == (0, 0, 0, 1, 0)


def test_a_result_of_another_transaction_is_mismatched() -> None:
    made, said = books(0)
    arrive(made, range(2))
    made.result((0, 0), Output(SCORE, (3, 9), name(1)))
    made.result((0, 1), Output(DEAD_LETTER, (0, 4), -name(1)))
    ledger = made.ledger()
    assert figures(ledger) == (0, 0, 0, 0, 1)
    assert ledger.mismatched_places == [Place("scores", 3, 9)]
    assert (ledger.scored, ledger.dead_letters) == (1, 1)
    assert said == ["mismatched: scores 3:9 is of another transaction than the one at its place"]


def test_a_dead_letter_is_its_transaction_s_by_its_bytes_or_by_what_it_was_cut_from() -> None:
    made, _ = books(0)
    arrive(made, range(3))
    for offset, digests in enumerate([(-name(0), 5), (5, -name(1)), (5, 6)]):
        made.result((0, offset), Output(DEAD_LETTER, (0, offset), *digests))
    assert made.ledger().mismatched_places == [Place("dead-letters", 0, 2)]


def test_a_lost_position_does_not_hold_up_what_is_settled_and_may_come_late() -> None:
    made, said = books(0)
    arrive(made, range(300_000))
    score(made, range(1, 300_000))
    made.judge_committed({0: 300_000})
    made.pass_by(0, 300_000)
    assert made.held() == 0
    assert made.ledger().lost_positions == [Position(0, 0)]
    score(made, [0])
    assert made.ledger().balanced
    assert made.late == 1
    assert said[-1].startswith("late: 0:0 ")


def test_of_many_differences_the_first_twenty_are_named() -> None:
    made, said = books(0)
    arrive(made, range(1_000))
    made.judge_committed({0: 1_000})
    assert made.ledger().lost == 1_000
    assert len(said) == 21
    assert len(made.ledger().lost_positions) == 20


class Read(msgspec.Struct):
    """A record as kafka-python gives it."""

    partition: int
    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp: int = 0


def transaction(number: int) -> bytes:
    return msgspec.json.encode({"transaction_id": f"t{number}"})


def score_of(number: int) -> bytes:
    place = {"source_partition": 0, "source_offset": number}
    return msgspec.json.encode({"transaction_id": f"t{number}"} | place)


class Broker:
    """One partition each, whose next answers a test sets; `stable` is what committed readers get."""

    def __init__(self) -> None:
        self.logs: dict[str, list[bytes]] = {"transactions": [], "scores": [], "dead-letters": []}
        self.stable: dict[str, int] = {}
        self.at = dict.fromkeys(self.logs, 0)
        self.done = 0
        self.held: Collection[str] = ()
        self.asked: list[str] = []
        self.is_new = True

    def begin_at(self, name: str, offset: int) -> None:
        """Let what stands below an offset have expired."""
        self.at[name] = offset

    def grown(self) -> list[tuple[Partition, int]]:
        new, self.is_new = self.is_new, False
        return [((name, 0), self.at[name]) for name in self.logs] if new else []

    def committed(self, group: str) -> dict[int, int]:
        self.asked.append(f"committed by {group}")
        return {0: self.done}

    def written(self, names: Sequence[str]) -> dict[Partition, int]:
        self.asked.append(f"ends of {' '.join(names)}")
        return {(name, 0): len(self.logs[name]) for name in names}

    def read(self, timeout_ms: int) -> dict[Partition, list[Read]]:
        found = {}
        for name, log in self.logs.items():
            end = min(self.stable.get(name, len(log)), self.at[name] + timeout_ms * 100)
            if name not in self.held and self.at[name] < end:
                new = range(self.at[name], end)
                found[name, 0] = [Read(0, offset, log[offset]) for offset in new]
                self.at[name] = end
        return found

    def position(self, place: Partition) -> int:
        return self.at[place[0]]

    def hold(self, names: Collection[str]) -> None:
        self.held = names


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a round with every step."""
    monkeypatch.setattr("verify.watch.ROUND_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_result_whose_marker_is_on_its_way_is_not_lost() -> None:
    broker, (made, said) = Broker(), books()
    watch = Watch(broker, "g", made)
    broker.logs["transactions"] = [transaction(n) for n in range(4)]
    broker.logs["scores"] = [score_of(n) for n in range(4)]
    broker.stable["scores"] = 2
    broker.done = 4
    for _ in range(5):
        watch.step()
    assert figures(made.ledger()) == (2, 0, 0, 0, 0)
    del broker.stable["scores"]
    watch.step()
    assert figures(made.ledger()) == (0, 0, 0, 0, 0)
    assert not said


def test_a_watch_that_does_not_step_hangs_and_one_that_does_goes_on() -> None:
    watch = Watch(Broker(), "g", books()[0])
    metrics = LedgerMetrics(watch)
    watch.stepped_s -= 1_000
    assert metrics.health().hangs
    watch.step()
    assert not metrics.health().hangs


@pytest.mark.usefixtures("at_once")
def test_ends_are_asked_after_what_is_committed() -> None:
    broker, (made, _) = Broker(), books()
    Watch(broker, "g", made).step()
    assert broker.asked == [
        "committed by g",
        "ends of scores dead-letters transactions",
        "ends of transactions",
    ]


@pytest.mark.usefixtures("at_once")
def test_a_committed_position_without_a_result_is_lost_once_the_results_are_read() -> None:
    broker, (made, said) = Broker(), books()
    watch = Watch(broker, "g", made)
    broker.logs["transactions"] = [transaction(n) for n in range(5)]
    broker.logs["scores"] = [score_of(n) for n in (0, 1, 3, 3, 900)]
    broker.done = 4
    watch.step()
    watch.step()
    assert figures(made.ledger()) == (1, 1, 1, 1, 0)
    assert {each.partition(":")[0] for each in said} == {"lost", "duplicate", "unfounded"}


@pytest.mark.usefixtures("at_once")
def test_a_long_history_is_read_in_step_so_that_little_is_held() -> None:
    broker, (made, _) = Broker(), books()
    watch = Watch(broker, "g", made)
    total, most = 3 * AHEAD, 0
    broker.logs["scores"] = [score_of(n) for n in range(total)]
    broker.logs["transactions"] = [transaction(n) for n in range(total)]
    broker.stable["transactions"] = 0
    for step in range(400):
        if step == 50:
            del broker.stable["transactions"]
        watch.step()
        most = max(most, made.held())
    assert made.ledger().scored == total
    assert most <= AHEAD + 100_000 + 50_000


@pytest.mark.usefixtures("at_once")
def test_what_is_half_read_does_not_look_as_if_it_waited() -> None:
    broker, (made, _) = Broker(), books()
    watch = Watch(broker, "g", made)
    metrics = LedgerMetrics(watch)
    broker.logs["transactions"] = [transaction(n) for n in range(50)]
    broker.logs["scores"] = [score_of(n) for n in range(50)]
    broker.stable["scores"] = 2
    broker.done = 50

    def oldest_s() -> float:
        metrics.show(made.ledger())
        families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
        return next(each.samples[0].value for each in families if each.name == LEDGER_OLDEST.name)

    watch.step()
    assert made.oldest_ms() is not None
    assert not watch.has_judged
    assert math.isnan(oldest_s())
    del broker.stable["scores"]
    for _ in range(5):
        watch.step()
    assert watch.has_judged
    assert oldest_s() == 0


def test_the_gauges_are_the_balance() -> None:
    made, _ = books(0)
    for offset in range(10):
        sent_ms = now_ms() - 10_000 * (12 - offset)
        made.arrive(0, offset, name=name(offset), content=-name(offset), at_ms=sent_ms)
    score(made, [0, 1, 1, 3])
    made.result((-1, -1), Output(DEAD_LETTER, (0, 0), 0))
    made.judge_committed({0: 5})
    watch = cast(
        "Watch",
        SimpleNamespace(
            books=made,
            has_judged=True,
            judged_s=monotonic_s() - 1_000,
            stepped_s=monotonic_s(),
            away="",
        ),
    )
    metrics = LedgerMetrics(watch)
    metrics.show(made.ledger())
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    shown = {family.name: family.samples for family in families}
    health = metrics.health()
    assert (health.state, health.hangs) == ("waiting", False), "1,000 s ago says nothing of now"
    watch.stepped_s -= 121
    assert metrics.health().hangs
    assert {each.name.removesuffix("_total") for each in LEDGER} <= shown.keys()
    plain = {
        name.removeprefix("fraudstream_ledger_"): round(
            samples[0].value, -1 if "seconds" in name else 0
        )
        for name, samples in shown.items()
        if name.startswith("fraudstream_ledger_") and not samples[0].labels
    }
    assert plain == {
        "transactions": 10,
        "scored": 4,
        "dead_letters": 1,
        "waiting": 5,
        "lost": 2,
        "duplicates": 1,
        "unfounded": 1,
        "mismatched": 0,
        "expired": 0,
        "unknown": 0,
        "difference": 4,
        "age_seconds": 1_000,
        "oldest_waiting_seconds": 70,
    }
