"""Transactions that a broker keeps open in the log of the groups' offsets though they have ended."""

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import AbortTransactionSpec

from fraudstream.clients.clock import now_ms
from fraudstream.clients.topic_admin import admin
from fraudstream.core.settings import Settings

_OFFSETS = "__consumer_offsets"


def abort_hanging_offsets(settings: Settings, group: str, *, older_than_s: float) -> int:
    """Abort what workers of any slot of `group` have left there without an end; return how much it was.

    `older_than_s` is to be longer than a transaction may be open. Only what is uncommitted goes.

    Raises:
        DependencyUnreachable: the broker does not answer, or does not allow it.
    """
    with admin(settings.kafka_bootstrap, timeout_ms=settings.request_timeout_ms) as client:
        ours = {
            each.producer_id
            for listed in client.list_transactions().values()
            for each in listed
            if each.transactional_id.rpartition(".")[0] == group
        }
        before_ms = now_ms() - older_than_s * 1000
        hanging = [
            AbortTransactionSpec(place, each.producer_id, each.producer_epoch)
            for place, state in client.describe_producers(_places(client)).items()
            for each in state.active_producers
            if each.producer_id in ours
            and each.current_transaction_start_offset >= 0
            and each.last_timestamp < before_ms
        ]
        for spec in hanging:
            client.abort_transaction(spec)
    return len(hanging)


def _places(client: KafkaAdminClient) -> list[TopicPartition]:
    (described,) = client.describe_topics([_OFFSETS])
    return [TopicPartition(_OFFSETS, each["partition_index"]) for each in described["partitions"]]
