"""Offsets that were committed in a transaction of which the broker has lost the end: the results decide."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.protocol.producer.transaction import InitProducerIdRequest, TxnOffsetCommitRequest
from kafka.structs import OffsetAndMetadata

from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from tests.integration.test_faults import caught_up, good, send
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

    def go_back(self, partition: int, offset: int) -> None:
        """Set the group's offset."""
        place = TopicPartition(self._topic, partition)
        self._admin.alter_group_offsets(self._group, {place: OffsetAndMetadata(offset, "", -1)})

    def commit_without_end(self, partition: int, offset: int, *, slot: int) -> None:
        """Commit an offset as the worker of a slot does, in a transaction that no mark will ever end."""
        own = f"{self._group}.{slot}"
        given = self._send(
            InitProducerIdRequest(transactional_id=own, transaction_timeout_ms=1_000, max_version=4)
        )
        assert given.error_code == 0
        topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        place = topic.TxnOffsetCommitRequestPartition(
            partition_index=partition,
            committed_offset=offset,
            committed_leader_epoch=-1,
            committed_metadata="",
        )
        taken = self._send(
            TxnOffsetCommitRequest(
                transactional_id=own,
                group_id=self._group,
                producer_id=given.producer_id,
                producer_epoch=given.producer_epoch,
                topics=[topic(name=self._topic, partitions=[place])],
                max_version=4,
            )
        )
        assert taken.topics[0].partitions[0].error_code == 0

    def _send(self, request: Any) -> Any:  # noqa: ANN401 - requests have no types
        async def answer() -> Any:  # noqa: ANN401
            return await self._admin._manager.send(request, node_id=1)  # noqa: SLF001

        return self._admin._manager.run(answer)  # noqa: SLF001


@pytest.mark.parametrize(
    ("back", "ahead", "slot"),
    [
        pytest.param(40, 0, 0, id="its results are there"),
        pytest.param(0, 50, 0, id="its results are not there", marks=pytest.mark.proof),
        pytest.param(40, 0, 7, id="of another slot", marks=pytest.mark.proof),
        pytest.param(0, 50, 7, id="of another slot, without results", marks=pytest.mark.proof),
    ],
)
def test_a_worker_goes_on_where_the_results_end_when_a_commit_has_lost_its_mark(
    back: int, ahead: int, slot: int, bare_stack: Callable[[str], Settings], tmp_path: Path
) -> None:
    settings = faster(bare_stack(LINE), transaction_timeout_ms=1_000)
    send(settings, good(range(SENT)))
    with worker(settings, tmp_path / "first.log", "--leave") as first, Log(settings) as log:
        wait_until(lambda: caught_up(settings, log), timeout_s=30, what="scored")
        assert first.stop() == 0
        ends = log.committed(f"{settings.environment}.scorer")
    (partition,) = [p for p, end in ends.items() if end]
    send(settings, good(range(SENT, 2 * SENT)))
    with closing(Group(settings)) as group:
        group.go_back(partition, ends[partition] - back)
        group.commit_without_end(partition, ends[partition] + ahead, slot=slot)
    with worker(settings, tmp_path / "second.log") as second, Log(settings) as log:
        wait_until(lambda: caught_up(settings, log), timeout_s=60, what="scored")
        assert second.stop() == 0
        ledger = count(log, f"{settings.environment}.scorer")
    assert f"the group goes on at {{{partition}: {ends[partition]}}}" in second.said()
    assert ledger.balanced, ledger
    assert ledger.scored == 2 * SENT
