"""Transactions that the log of the groups' offsets has open though their coordinator has ended them."""

from collections.abc import Collection

import msgspec
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import AbortTransactionSpec, TransactionState

from fraudstream.clients.topic_admin import admin
from fraudstream.core.settings import Settings

_OFFSETS = "__consumer_offsets"
_ENDING = (
    TransactionState.PREPARE_COMMIT,
    TransactionState.PREPARE_ABORT,
    TransactionState.PREPARE_EPOCH_FENCE,
)
"""The coordinator is about to write the marks, however long a broker is away."""


class Open(msgspec.Struct, frozen=True):
    """An open transaction there: producer, first offset, timestamp (UTC ms) of its last record."""

    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    """Of the last mark for this producer; one by an older coordinator would be refused."""
    first_offset: int
    last_ms: int


def open_in_offsets(settings: Settings, group: str) -> frozenset[Open]:
    """Return the transactions of the workers of `group`, of any slot, that the log of its offsets has open.

    Without those that are about to be ended. What is there twice, seconds apart, is no transaction of a
    worker that works: each of its batches has a first offset of its own.

    Raises:
        DependencyUnreachable: the broker does not tell, or does not allow it.
    """
    with admin(settings.kafka_bootstrap, timeout_ms=settings.request_timeout_ms) as client:
        return _open(client, group, _place(client, group))


def abort_in_offsets(settings: Settings, group: str, hanging: Collection[Open]) -> int:
    """Abort those of `hanging` that are still open; return how many.

    Raises:
        DependencyUnreachable: the broker does not do it, or does not allow it.
    """
    with admin(settings.kafka_bootstrap, timeout_ms=settings.request_timeout_ms) as client:
        place = _place(client, group)
        still = _open(client, group, place).intersection(hanging)
        for each in still:
            client.abort_transaction(
                AbortTransactionSpec(
                    place, each.producer_id, each.producer_epoch, each.coordinator_epoch
                )
            )
    return len(still)


def _open(client: KafkaAdminClient, group: str, place: TopicPartition) -> frozenset[Open]:
    ours = {
        each.producer_id
        for listed in client.list_transactions().values()
        for each in listed
        if each.transactional_id.rpartition(".")[0] == group and each.state not in _ENDING
    }
    (state,) = client.describe_producers([place]).values()
    return frozenset(
        Open(
            each.producer_id,
            each.producer_epoch,
            each.coordinator_epoch,
            each.current_transaction_start_offset,
            each.last_timestamp,
        )
        for each in state.active_producers
        if each.producer_id in ours and each.current_transaction_start_offset >= 0
    )


def _place(client: KafkaAdminClient, group: str) -> TopicPartition:
    """Return the partition with the offsets of a group: as Kafka has it, by Java's hash of the name."""
    (described,) = client.describe_topics([_OFFSETS])
    code = 0
    for unit in memoryview(group.encode("utf-16-le")).cast("H"):
        code = (31 * code + unit) & 0xFFFFFFFF
    signed = code - (1 << 32) if code >> 31 else code
    return TopicPartition(_OFFSETS, abs(signed) % len(described["partitions"]))
