"""A watch whatever the order of reading: it equals the count afterwards, slowness makes up no difference."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.core.errors import DependencyUnreachable
from tests.unit.test_books import Broker, books, score_of, transaction
from verify import watch as watch_module
from verify.books import Output
from verify.ledger import Begins, Ledger, balance
from verify.live_log import Place
from verify.tally import SCORE, Arrivals, Results
from verify.watch import GIVE_UP_S, Backoff, Watch


class Busy(Broker):
    """A broker to which another process does something just after it has answered a question.

    `after`: by question, what is done once: come N, score OFFSET, commit OFFSET.
    """

    def __init__(self) -> None:
        super().__init__()
        self.after: dict[str, list[tuple[str, int]]] = {}

    def committed(self, group: str) -> dict[int, int]:
        answer = super().committed(group)
        self._then("committed")
        return answer

    def written(self, names: Sequence[str]) -> dict[Place, int]:
        answer = super().written(names)
        self._then("written")
        return answer

    def do(self, what: str, number: int) -> None:
        if what == "commit":
            self.done = number
        elif what == "score":
            self.logs["scores"].append(score_of(number))
        else:
            log = self.logs["transactions"]
            log += [transaction(n) for n in range(len(log), len(log) + number)]

    def _then(self, when: str) -> None:
        for what, number in self.after.pop(when, ()):
            self.do(what, number)


def watching(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> tuple[Watch, list[str]]:
    """Start a watch whose rounds follow one another at once."""
    monkeypatch.setattr(watch_module, "ROUND_S", 0.0)
    made, told = books()
    return Watch(broker, "g", made), told


def steps(watch: Watch, count: int = 4) -> None:
    for _ in range(count):
        watch.step()


@pytest.mark.parametrize("when", ["committed", "written"])
def test_what_is_scored_and_committed_between_two_questions_is_no_loss(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Busy()
    watch, told = watching(broker, monkeypatch)
    for number in range(20):
        broker.do("come", 1)
        watch.step()
        broker.stable["scores"] = number  # what is scored now has its marker a step later
        broker.after = {when: [("score", number), ("commit", number + 1)]}
        watch.step()
    del broker.stable["scores"]
    steps(watch)
    assert told == []
    assert watch.books.ledger().scored == 20


def test_a_result_of_a_transaction_that_came_within_the_round_is_not_unfounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Busy()
    watch, told = watching(broker, monkeypatch)
    broker.stable["transactions"] = 0
    broker.after = {"written": [("come", 1), ("score", 0)]}
    steps(watch)
    assert (watch.books.early, watch.has_judged, told) == (1, True, [])
    del broker.stable["transactions"]
    steps(watch)
    assert (watch.books.ledger().scored, told) == (1, [])


def test_a_round_is_not_judged_before_all_that_was_committed_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Busy()
    watch, told = watching(broker, monkeypatch)
    broker.do("come", 3)
    for what, number in (("score", 0), ("score", 2), ("commit", 2)):
        broker.do(what, number)
    broker.stable["transactions"] = 1
    began_s = watch.judged_s
    steps(watch)
    assert (watch.has_judged, watch.judged_s, told) == (False, began_s, [])
    broker.stable["transactions"] = 2
    steps(watch, 1)
    assert (watch.has_judged, len(told)) == (True, 1), "2 is not committed, nor waited for"


def test_a_result_for_the_marker_at_the_end_of_a_topic_is_unfounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Busy()
    watch, told = watching(broker, monkeypatch)
    broker.do("come", 1)
    steps(watch, 2)
    broker.logs["transactions"].append(b"marker")
    broker.at["transactions"] = 2  # passed, though it is no record
    broker.do("score", 1)
    steps(watch)
    assert told == ["unfounded: scores 0:0 is of no transaction"]


def test_what_is_still_to_be_read_is_told_once_a_round_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Busy()
    watch, _ = watching(broker, monkeypatch)
    broker.do("come", 5)
    broker.do("score", 0)
    broker.stable |= {"transactions": 2, "scores": 0}
    steps(watch)
    assert watch.to_read() == 0
    monkeypatch.setattr(watch_module, "SLOW_S", 0.0)
    assert watch.to_read() == 4


def test_a_broker_that_is_away_is_asked_again_ever_later_and_given_up_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter([*([1.0] * 5), GIVE_UP_S + 1])
    monkeypatch.setattr(watch_module, "monotonic_s", lambda: next(now))
    error, backoff = DependencyUnreachable("Kafka does not answer"), Backoff()
    waits = [backoff.failed(0.5, error) for _ in range(6)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.since_s == 0.5
    with pytest.raises(DependencyUnreachable, match="for 120 s: given up"):
        backoff.failed(GIVE_UP_S, error)
    backoff.answered()
    assert backoff.failed(500.0, error) == 0.1


def test_a_result_that_comes_late_takes_the_loss_back_but_it_stays_named_and_is_judged_once() -> (
    None
):
    made, told = books(0)
    for offset in (0, 1):
        made.arrive(0, offset, name=7, content=8)
    made.judge_committed({0: 2})
    made.judge_committed({0: 2})
    made.result((0, 0), Output(SCORE, (0, 0), 7))
    made.result((0, 0), Output(SCORE, (0, 1), 7))
    report = made.ledger()
    assert (report.lost, report.duplicates, made.late, made.named) == (1, 1, 1, 4)
    assert [place.source_offset for place in report.lost_positions] == [1]
    assert [line.partition(":")[0] for line in told] == ["lost", "lost", "late", "duplicate"]


def test_partitions_that_a_hostile_result_invents_are_forgotten() -> None:
    made, _ = books(0)
    for partition in range(1, 1_000):
        made.result((partition, 0), Output(SCORE, (0, 0), 7))
    made.judge_early({0: 0})
    assert (made.held(), made.ledger().unfounded, len(vars(made)["_early"])) == (0, 999, 0)


offsets = st.sets(st.integers(0, 12), max_size=9).map(sorted)


@given(
    came=st.tuples(offsets, offsets),
    out=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 13)), max_size=20),
    order=st.randoms(use_true_random=False),
    committed=st.tuples(st.integers(0, 13), st.integers(0, 13)),
    begins=st.tuples(*[st.integers(0, 9)] * 4),
)
def test_in_whatever_order_it_is_read_the_balance_is_that_of_the_count_afterwards(
    came: tuple[list[int], list[int]],
    out: list[tuple[int, int]],
    order: Random,
    committed: tuple[int, int],
    begins: tuple[int, ...],
) -> None:
    offsets_of = dict(enumerate(committed))
    expired = Begins(dict(enumerate(begins[:2])), dict(enumerate(begins[2:])))
    left = tuple([each for each in lane if each >= begins[p]] for p, lane in enumerate(came))
    live = read_in(order, left, out, offsets_of, expired)
    afterwards = counted(left, out, offsets_of, expired)
    for field in ("transactions", "scored", "waiting", "unknown", "lost", "mismatched", "expired"):
        assert getattr(live, field) == getattr(afterwards, field), field
    # Below what is settled a marker's offset cannot be told from a transaction's.
    assert live.duplicates + live.unfounded == afterwards.duplicates + afterwards.unfounded
    assert live.balanced == afterwards.balanced
    assert live.lost_positions == afterwards.lost_positions


Lanes = tuple[list[int], ...]


def counted(
    came: Lanes, out: list[tuple[int, int]], committed: dict[int, int], begins: Begins
) -> Ledger:
    came_in, results = Arrivals(), Results()
    for partition in (0, 1):
        for offset in came[partition]:
            came_in.add(partition, offset, name=7, content=8)
    for number, source in enumerate(out):
        results.add(SCORE, (number % 2, number), source, 7)
    return balance(came_in, results, committed, begins)


def read_in(
    order: Random,
    came: Lanes,
    out: list[tuple[int, int]],
    committed: dict[int, int],
    begins: Begins,
) -> Ledger:
    """Read partition by partition in a random order, each in its own, then judge."""
    made, _ = books()
    for partition in (0, 1):
        made.open(partition, begins.transactions[partition])
        made.open_scores(partition, begins.scores[partition])
    lanes: list[list[tuple[Any, ...]]] = [
        *([("in", partition, offset) for offset in came[partition]] for partition in (0, 1)),
        [("out", *place) for place in enumerate(out)],
    ]
    while any(lanes):
        what, first, second = order.choice([each for each in lanes if each]).pop(0)
        if what == "in":
            made.arrive(first, second, name=7, content=8)
        else:
            made.result(second, Output(SCORE, (first % 2, first), 7))
    ends = {p: max(came[p], default=begins.transactions[p] - 1) + 1 for p in (0, 1)}
    for partition, end in ends.items():
        made.pass_by(partition, end)
    made.judge_committed(committed)
    made.judge_early(ends)
    return made.ledger()
