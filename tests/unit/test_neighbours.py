"""Who of the other workers' partitions is waited for, told by what a broker would answer."""

import pytest

from fraudstream.clients.group_places import GroupPlaces, Place
from fraudstream.core.errors import DependencyUnreachable
from scorer.neighbours import PATIENCE_S, Neighbours, Note, read_note, write_note

NOW_MS, LEAD_MS = 1_000_000, 1_000


class Answers(GroupPlaces):
    """Places that a test lays down, instead of a broker's."""

    def __init__(self) -> None:
        self.next: dict[int, Place] | None = None
        self.away = False

    @property
    def asked(self) -> bool:
        return False

    def ask(self) -> None:
        pass

    def answer(self) -> dict[int, Place] | None:
        if self.away:
            raise DependencyUnreachable("Kafka is away")
        found, self.next = self.next, None
        return found


class Worker:
    """One worker that owns partition 0 of two and looks ten times a second."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.neighbours = Neighbours(self.answers, 2)
        self.now_s = 100.0
        self.look()

    def look(self, answer: Place | None = None, *, seconds: float = 0.1) -> list[int]:
        """Look on for so long, with an answer for partition 1; return what holds this worker."""
        self.answers.next = None if answer is None else {1: answer}
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 0.1
            self.neighbours.look(
                [0], now_s=self.now_s, held=True, furthest_ms=NOW_MS, lead_ms=LEAD_MS
            )
        return self.neighbours.hold_at()


def place(*, committed: int, end: int, event_time_ms: int, read_to: int = 0) -> Place:
    return Place(committed, write_note(Note(event_time_ms, read_to)), end)


def test_before_the_first_answer_a_worker_may_go_on_from_where_it_is() -> None:
    assert Worker().look() == [NOW_MS]


def test_a_partition_with_more_to_read_holds_at_its_event_time() -> None:
    assert Worker().look(place(committed=5, end=9, event_time_ms=7)) == [7]


@pytest.mark.parametrize(
    "ended",
    [
        place(committed=9, end=9, event_time_ms=7),
        place(committed=8, end=9, event_time_ms=7, read_to=9),
        Place(-1001, "", 0),
        Place(5, "", 9),
    ],
    ids=["at_its_end", "only_markers_follow", "empty", "committed_by_an_older_version"],
)
def test_a_partition_that_has_no_more_or_says_nothing_holds_nobody(ended: Place) -> None:
    assert Worker().look(ended) == [NOW_MS]


def test_a_partition_that_was_never_read_holds_at_nothing() -> None:
    assert Worker().look(Place(-1001, "", 9)) == [0]


def test_a_record_that_is_read_at_once_holds_nobody_and_a_second_answer_does() -> None:
    worker = Worker()
    assert worker.look(place(committed=9, end=9, event_time_ms=7)) == [NOW_MS]
    assert worker.look(place(committed=9, end=10, event_time_ms=7)) == [NOW_MS]
    assert worker.look(place(committed=9, end=10, event_time_ms=7)) == [7]


def test_a_partition_that_does_not_move_is_given_up_until_it_moves_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker()
    worker.look(place(committed=5, end=9, event_time_ms=7))
    assert worker.look(seconds=PATIENCE_S - 1) == [7]
    assert worker.look(seconds=2) == []
    assert worker.look(place(committed=5, end=10, event_time_ms=7), seconds=3) == []
    assert caplog.text.count("partition 1") == 1
    assert worker.look(place(committed=6, end=10, event_time_ms=8)) == [8]


def test_time_in_which_this_worker_did_not_look_is_not_held_against_others() -> None:
    worker = Worker()
    worker.look(place(committed=5, end=9, event_time_ms=7))
    worker.now_s += 60
    assert worker.look() == [7]


def test_a_broker_that_does_not_tell_ends_the_wait_like_one_whose_workers_are_dead() -> None:
    worker = Worker()
    worker.look(place(committed=5, end=9, event_time_ms=7))
    worker.answers.away = True
    assert worker.look() == [7]
    assert worker.look(seconds=PATIENCE_S) == []


@pytest.mark.parametrize("text", ["", "another program's", "[]", '{"event_time_ms": "x"}'])
def test_metadata_that_is_no_note_says_nothing(text: str) -> None:
    assert read_note(text) == Note()


def test_a_note_comes_back_as_it_was_written() -> None:
    assert read_note(write_note(Note(12, 34))) == Note(12, 34)
