"""Offsets that were committed in a transaction of which the broker has lost the end: the results decide."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, TopicPartition
from kafka.protocol.producer.transaction import InitProducerIdRequest, TxnOffsetCommitRequest
from kafka.structs import OffsetAndMetadata

from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from tests.integration.test_faults import caught_up, transaction
from tests.integration.test_odd_input import bare_stack
from tests.processes import faster, wait_until, worker
from verify.ledger import Log, count

__all__ = ["bare_stack"]

SENT = 100
LINE = "transaction.partition.verification.enable=false"
"""A broker that checks would refuse offsets of a transaction that its coordinator does not know."""


class Group:
    """The scorers' group of an environment without members, as an administrator handles it."""

    def __init__(self, settings: Settings) -> None:
        self._admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
        self._group = f"{settings.environment}.scorer"
        self._topic = topic_name(settings.environment, "transactions")

    def close(self) -> None:
        self._admin.close()

    def go_back(self, offsets: dict[int, int]) -> None:
        """Set the group's offsets."""
        places = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }
        self._admin.alter_group_offsets(self._group, places)

    def commit_without_end(self, offsets: dict[int, int], *, slot: int) -> None:
        """Commit offsets as the worker of a slot does, in a transaction that no mark will ever end."""
        own = f"{self._group}.{slot}"
        given = self._send(
            InitProducerIdRequest(transactional_id=own, transaction_timeout_ms=1_000, max_version=4)
        )
        assert given.error_code == 0
        topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        places = [
            topic.TxnOffsetCommitRequestPartition(
                partition_index=partition,
                committed_offset=offset,
                committed_leader_epoch=-1,
                committed_metadata="",
            )
            for partition, offset in offsets.items()
        ]
        taken = self._send(
            TxnOffsetCommitRequest(
                transactional_id=own,
                group_id=self._group,
                producer_id=given.producer_id,
                producer_epoch=given.producer_epoch,
                topics=[topic(name=self._topic, partitions=places)],
                max_version=4,
            )
        )
        assert [each.error_code for each in taken.topics[0].partitions] == [0] * len(offsets)

    def _send(self, request: Any) -> Any:  # noqa: ANN401 - requests have no types
        async def answer() -> Any:  # noqa: ANN401
            return await self._admin._manager.send(request, node_id=1)  # noqa: SLF001

        return self._admin._manager.run(answer)  # noqa: SLF001


def send_everywhere(settings: Settings, numbers: range) -> None:
    """Send transactions to both partitions in turn."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
    topic = topic_name(settings.environment, "transactions")
    for number in numbers:
        producer.produce(topic, transaction(number), b"c1", partition=number % 2)
    assert producer.flush(30) == 0


@pytest.mark.parametrize(
    ("back", "ahead", "slot"),
    [
        pytest.param(20, 0, 7, id="of another slot, with its results there"),
        pytest.param(0, 25, 7, id="of another slot, without", marks=pytest.mark.proof),
        pytest.param(20, 0, 0, id="of its own slot, with", marks=pytest.mark.proof),
        pytest.param(0, 25, 0, id="of its own slot, without", marks=pytest.mark.proof),
    ],
)
def test_a_worker_goes_on_where_the_results_end_when_a_commit_has_lost_its_mark(
    back: int,
    ahead: int,
    slot: int,
    bare_stack: Callable[[str], Settings],
    tmp_path: Path,
) -> None:
    settings = faster(bare_stack(LINE), transaction_timeout_ms=1_000)
    send_everywhere(settings, range(SENT))
    with worker(settings, tmp_path / "first.log", "--leave") as first, Log(settings) as log:
        wait_until(lambda: caught_up(settings, log), timeout_s=30, what="scored")
        assert first.stop() == 0
        ends = log.committed(f"{settings.environment}.scorer")
    send_everywhere(settings, range(SENT, 2 * SENT))
    with closing(Group(settings)) as group:
        group.go_back({partition: end - back for partition, end in ends.items()})
        group.commit_without_end({p: end + ahead for p, end in ends.items()}, slot=slot)
    with worker(settings, tmp_path / "second.log") as second, Log(settings) as log:
        wait_until(lambda: caught_up(settings, log), timeout_s=60, what="scored")
        assert second.stop() == 0
        ledger = count(log, f"{settings.environment}.scorer")
    assert "1 transactions without an end are aborted" in second.said()
    assert ("the group goes on at {0: 50, 1: 50}" in second.said()) == bool(back)
    assert ledger.balanced, ledger
    assert ledger.scored == 2 * SENT
