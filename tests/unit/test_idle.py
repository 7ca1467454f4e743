"""What a worker without records tells the others; stand-ins play Kafka."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition
from msgspec.structs import replace

from scorer.batch import Batch
from scorer.deaths import Deaths
from scorer.evenness import EMPTY_POLLS
from scorer.idle import Idle
from scorer.neighbours import Hand, Note, read_note, write_note
from scorer.output import BatchAborted
from tests.unit.test_evenness import LEAD_MS, NOW_MS, Reader

END = 1_000
"""Of both partitions' logs, by the stand-in."""
BEHIND_MS = NOW_MS - 2 * LEAD_MS
DEATH = Note(NOW_MS, hand=Hand(deaths=3, until=END, row=2))


class Output:
    """Keeps the notes of each commit, by partition, but for the first ones, which fail."""

    def __init__(self, fails: int) -> None:
        self.fails = fails
        self.notes: list[dict[int, Note]] = []

    def commit(self, _: object, places: list[TopicPartition], __: object) -> None:
        if self.fails:
            self.fails -= 1
            raise BatchAborted("the broker is away")
        self.notes.append({each.partition: read_note(each.metadata or "") for each in places})


class Resting(Reader):
    """A worker that has read all of two partitions, each of which ends in a marker; one has had deaths."""

    def __init__(self, *, fails: int = 0) -> None:
        super().__init__()
        self.output = Output(fails)
        self.assignment.committed = dict.fromkeys((0, 1), END - 1)
        self.assignment.positions = dict(self.assignment.committed)
        self.assignment.notes = {0: write_note(Note(NOW_MS)), 1: write_note(DEATH)}
        deaths = Deaths(
            self.assignment, lambda _: None, owner="me", topic="topic", most_in_a_row=10
        )
        parts = SimpleNamespace(
            assignment=self.assignment, evenness=self.evenness, output=self.output, deaths=deaths
        )
        self.idle = Idle(cast("Any", parts))

    def rest(self, *, polls: int = EMPTY_POLLS + 1) -> None:
        for _ in range(polls):
            self.evenness.look(Batch([], [], -1, NOW_MS), self.assignment, 1.0)
        self.idle.tell_ends()


def test_ends_are_told_once_and_what_stands_there_of_deaths_stays() -> None:
    worker = Resting()
    worker.rest()
    worker.rest()
    assert worker.output.notes == [{0: Note(NOW_MS, END), 1: replace(DEATH, read_to=END)}]


def test_ends_that_were_not_seen_to_be_committed_are_told_again() -> None:
    worker = Resting(fails=1)
    with pytest.raises(BatchAborted):
        worker.rest()
    worker.rest()
    assert [notes.keys() for notes in worker.output.notes] == [{0, 1}]


def test_what_comes_just_after_the_last_empty_poll_is_not_told_to_be_markers() -> None:
    worker = Resting()
    worker.log.end = END - 1
    worker.rest(polls=EMPTY_POLLS - 1)
    worker.log.end = END + 100
    worker.rest(polls=1)
    assert worker.output.notes == []


def test_an_end_is_told_again_once_a_batch_has_committed_a_note_of_its_own() -> None:
    worker = Resting()
    worker.assignment.committed[0] = worker.assignment.positions[0] = END - 2
    worker.rest()
    worker.read({0: NOW_MS})
    worker.assignment.done({0: END - 2})
    worker.rest()
    assert [notes.keys() for notes in worker.output.notes] == [{0, 1}, {0}]


def test_ends_of_partitions_that_came_in_a_row_of_empty_polls_are_told_as_well() -> None:
    worker = Resting()
    first = worker.assignment.positions.pop(0)
    worker.rest(polls=EMPTY_POLLS - 1)
    worker.assignment.positions[0] = first
    worker.assignment.generation += 1
    worker.rest(polls=EMPTY_POLLS)
    assert [notes.keys() for notes in worker.output.notes] == [{0, 1}]


def test_an_end_is_told_though_it_holds_another_partition_of_this_worker_which_goes_on() -> None:
    worker = Resting()
    worker.assignment.notes = {0: write_note(Note(NOW_MS)), 1: write_note(Note(BEHIND_MS))}
    worker.read({})
    assert worker.log.paused == {0}
    worker.rest(polls=EMPTY_POLLS)
    assert worker.log.paused == set()
    assert [notes.keys() for notes in worker.output.notes] == [{1}]
