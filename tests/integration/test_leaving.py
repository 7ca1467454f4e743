"""A worker that is told to end while it is being given partitions: it ends, and asks nothing more."""

from confluent_kafka import Consumer, ConsumerGroupState, TopicPartition
from confluent_kafka.admin import AdminClient

from fraudstream.clients import kafka
from fraudstream.clients.clock import monotonic_s
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.assignment import Assignment, group_name
from scorer.lost_marks import LostMarks
from tests.processes import wait_until


class Watched(Assignment):
    """Notes how many partitions it was told of."""

    told = 0

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.told += len(partitions)
        super()._assigned(consumer, partitions)


def test_partitions_that_come_while_a_worker_closes_its_consumer_are_not_taken_up(
    topics: Settings,
) -> None:
    member, left = left_while_given(topics)
    for _ in range(50):
        if left.told:
            break  # else the client had not yet heard what the broker says it has: once more
        member, left = left_while_given(topics, after=member)
    assert left.told
    assert left.generation == 0, "nothing was taken up"
    assert left.positions == {}


def left_while_given(settings: Settings, after: str = "") -> tuple[str, Watched]:
    """Join as the only member, poll nothing, and leave once the group has given it the partitions.

    Returns the member's id, which is another each time; the place in the group stays.
    """
    group, name = group_name(settings), topic_name(settings.environment, "transactions")
    facts = kafka.topic_facts(settings, [name])[name]
    kafka.require_coordinator(settings, group)
    consumer = kafka.worker_consumer(settings, group=group, slot=0)
    assignment = Watched(consumer, facts, LostMarks(settings, group, 0, facts.partitions))
    assignment.subscribe()
    admin = AdminClient(kafka.common(settings))
    members: list[str] = []

    def given() -> bool:
        described = admin.describe_consumer_groups([group])[group].result()
        members[:] = [each.member_id for each in described.members]
        return described.state == ConsumerGroupState.STABLE and members not in ([], [after])

    wait_until(given, timeout_s=30, what="the group has given the worker its partitions")
    begun = monotonic_s()
    assignment.leave()
    assert monotonic_s() - begun < 30
    return members[0], assignment
