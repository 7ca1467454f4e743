"""Offsets that were committed in a transaction of which the broker has lost the end: the results decide."""

import re
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, TopicPartition
from kafka.protocol.producer.transaction import InitProducerIdRequest, TxnOffsetCommitRequest
from kafka.structs import OffsetAndMetadata

from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import decode_transaction
from tests.integration.served_scores import made_score
from tests.integration.test_faults import caught_up, transaction
from tests.integration.test_odd_input import bare_stack
from tests.processes import Worker, faster, wait_until, worker
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
        pytest.param(
            20, 0, 7, id="of another slot, with its results there", marks=pytest.mark.proof
        ),
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


def write_results(settings: Settings, offsets: dict[int, range]) -> None:
    """Write the scores of transactions, by partition, as `send_everywhere` has sent them."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
    for partition, places in offsets.items():
        for offset in places:
            paid = decode_transaction(transaction(2 * offset + partition))
            score = msgspec.structs.replace(
                made_score(offset, event_time_ms=paid.event_time_ms, features=[0.0] * 9),
                transaction_id=paid.transaction_id,
                customer=paid.entities.customer,
                terminal=paid.entities.terminal,
                amount_minor=paid.amount_minor,
                source_partition=partition,
            )
            value = msgspec.json.encode(score)
            producer.produce(topic_name(settings.environment, "scores"), value, b"c1", partition)
    assert producer.flush(30) == 0


@pytest.mark.proof
def test_two_workers_settle_one_lost_transaction_each_in_its_own_partition(
    bare_stack: Callable[[str], Settings], tmp_path: Path
) -> None:
    ahead, slots = 20, ("0", "1")
    settings = faster(bare_stack(LINE), transaction_timeout_ms=1_000, session_timeout_ms=30_000)
    with ExitStack() as stack, Log(settings) as log:
        for slot in slots:
            stack.enter_context(worker(settings, tmp_path / f"first-{slot}.log", "--slot", slot))
        said = partial(both_say, tmp_path, "first")
        wait_until(lambda: {"[0]", "[1]"} <= owned(said()), timeout_s=60, what="one each")
        send_everywhere(settings, range(SENT))
        wait_until(lambda: caught_up(settings, log), timeout_s=30, what="scored")
        ends = log.committed(f"{settings.environment}.scorer")
    send_everywhere(settings, range(SENT, 2 * SENT))
    write_results(settings, {p: range(end, end + ahead) for p, end in ends.items()})
    with closing(Group(settings)) as group:
        group.commit_without_end({p: end + ahead for p, end in ends.items()}, slot=7)
    with ExitStack() as stack, Log(settings) as log:
        for slot in slots:
            late = worker(settings, tmp_path / f"second-{slot}.log", "--slot", slot)
            asks = partial(cannot_go_on, stack.enter_context(late))
            wait_until(asks, timeout_s=30, what="is not told; the next one begins later")
        wait_until(lambda: caught_up(settings, log), timeout_s=90, what="scored")
        ledger = count(log, f"{settings.environment}.scorer")
    found = both_say(tmp_path, "second")
    assert "the group goes on at {0: 70}" in found
    assert "the group goes on at {1: 70}" in found
    assert "transactions without an end are aborted" in found
    assert ledger.balanced, ledger
    assert ledger.scored == 2 * SENT


def cannot_go_on(each: Worker) -> bool:
    return "does not tell where to go on" in each.said()


def both_say(folder: Path, name: str) -> str:
    """Return the logs of both workers."""
    return "".join((folder / f"{name}-{slot}.log").read_text() for slot in (0, 1))


def owned(said: str) -> set[str]:
    """Return what each assignment in a log was."""
    return set(re.findall(r"owns partitions (\[[^]]*])", said))
