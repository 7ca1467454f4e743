"""The replay against a real broker, read back by kafka-python: order, headers, labels, crashes, refusals."""

import gc
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer, TopicPartition
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from fraudstream.clients import kafka_producers
from fraudstream.clients.kafka import worker_consumer
from fraudstream.clients.kafka_producers import (
    DeliveryFailed,
    Outgoing,
    RecordProducer,
    open_producer,
)
from fraudstream.core.errors import DependencyUnreachable, Refused
from fraudstream.core.partitioner import partition_of
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import decode_feedback, decode_transaction
from producer.pace import AtRate, AtSpeed, Pace, Unpaced
from producer.replay import Client, ReplayPlan, replay_table
from producer.sources import Source, event_times
from tests.processes import wait_until
from tests.replay_log import (
    assert_each_row_once_in_order,
    assert_labels_precede,
    read_all,
    rows_by_partition,
)
from tests.small_source import small_source

CLIENTS: tuple[Client, ...] = ("kafka-python", "confluent")
both_clients = pytest.mark.parametrize("client", CLIENTS)
four_partitions = pytest.mark.parametrize("partitions", [4])


@four_partitions
@both_clients
def test_records_stand_in_event_time_order_with_key_partition_and_headers(
    topics: Settings, client: Client
) -> None:
    source = small_source(rows=3_000)
    stats = replay_table(topics, source, ReplayPlan(pace=Unpaced(), client=client))
    records = read_all(topics, "transactions")
    assert (stats.sent, stats.client, stats.finished) == (3_000, client, True)
    assert stats.by_partition == [
        len(rows) for _, rows in sorted(rows_by_partition(records).items())
    ]
    assert_each_row_once_in_order(records, range(3_000))
    table = source.table.to_pylist()
    for record in records:
        transaction, row = decode_transaction(record.value), table[record.row]
        assert transaction.transaction_id == row["transaction_id"]
        assert transaction.event_time_ms == row["event_time_ms"]
        assert transaction.attributes == {"distance_km": row["attr_distance_km"]}
        assert record.key == row["customer"].encode()
        assert record.partition == partition_of(record.key, 4)
        assert record.headers["source"] == "small"


@four_partitions
def test_a_scorer_that_catches_up_reads_the_partitions_by_turns(topics: Settings) -> None:
    name, rows = topic_name(topics.environment, "transactions"), 20_000
    producer = open_producer(topics, "confluent", threading.Event())
    producer.send(name, [(b"key", b"x" * 2_000, row % 4, []) for row in range(rows)])
    producer.flush(math.inf)
    producer.close()
    consumer = worker_consumer(topics, group=f"{topics.environment}.turns", slot=0)
    consumer.assign([TopicPartition(name, partition, 0) for partition in range(4)])
    order: list[int | None] = []
    deadline = time.monotonic() + 30
    while len(order) < rows // 2:
        assert time.monotonic() < deadline, len(order)
        order += [message.partition() for message in consumer.consume(500, 0.5)]
    consumer.close()
    turns = [len(list(turn)) for _, turn in itertools.groupby(order)]
    assert max(turns) < 200, "one fetch brings 64 records of 2 kB of a partition"


@both_clients
@pytest.mark.parametrize("pace", [Unpaced(), AtRate(1_500), AtSpeed(3_600 * 24 * 10)])
def test_a_transaction_names_a_feedback_offset_behind_all_labels_known_by_then(
    topics: Settings, client: Client, pace: Pace
) -> None:
    source = small_source(rows=2_500)
    stats = replay_table(topics, source, ReplayPlan(pace=pace, client=client))
    records = read_all(topics, "transactions")
    assert assert_labels_precede(topics, records) > 2_000
    last_ms = int(event_times(source.table)[-1])
    due = [
        r
        for r in source.table.to_pylist()
        if r["labelled_at_ms"] and r["labelled_at_ms"] <= last_ms
    ]
    labels = read_all(topics, "feedback")
    assert {label.row for label in labels} == {int(r["transaction_id"][1:]) for r in due}
    assert stats.labels == len(labels)
    assert all(
        label.key.decode() == decode_feedback(label.value).transaction_id for label in labels
    )


def test_labels_known_only_later_are_sent_on_demand_alone(topics: Settings) -> None:
    source = small_source(rows=400)
    plan = ReplayPlan(pace=Unpaced())
    first = replay_table(topics, source, plan)
    again = replay_table(topics, source, msgspec.structs.replace(plan, all_labels=True))
    reported = source.table["labelled_at_ms"].drop_null()
    assert 0 < first.labels < len(reported)
    assert (again.sent, again.labels) == (0, len(reported) - first.labels)
    assert_labels_precede(topics, read_all(topics, "transactions"))


def test_an_offset_that_the_broker_did_not_tell_is_read_from_the_log(
    topics: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = kafka_producers._Confluent.send_and_wait  # noqa: SLF001

    def untold(self: kafka_producers._Confluent, topic: str, records: list[Outgoing]) -> int:
        send(self, topic, records)
        return -1

    monkeypatch.setattr(kafka_producers._Confluent, "send_and_wait", untold)  # noqa: SLF001
    replay_table(topics, small_source(rows=400), ReplayPlan(pace=Unpaced()))
    assert assert_labels_precede(topics, read_all(topics, "transactions")) > 300


def test_without_labels_nothing_waits_for_feedback(topics: Settings) -> None:
    replay_table(topics, small_source(rows=400), ReplayPlan(pace=Unpaced(), labels=False))
    assert read_all(topics, "feedback") == []
    assert not any("after_feedback" in r.headers for r in read_all(topics, "transactions"))


def test_two_cuts_one_after_the_other_equal_one_replay(topics: Settings) -> None:
    source = small_source(rows=1_000)
    for start, stop in ((0, 333), (333, 1_000)):
        part = msgspec.structs.replace(source, start=start, stop=stop)
        replay_table(topics, part, ReplayPlan(pace=Unpaced()))
    records = read_all(topics, "transactions")
    assert_each_row_once_in_order(records, range(1_000))
    assert_labels_precede(topics, records)
    last_ms = int(event_times(source.table)[-1])
    times = np.asarray(source.table["labelled_at_ms"].drop_null())
    assert len(read_all(topics, "feedback")) == np.count_nonzero(times <= last_ms)


@four_partitions
def test_both_clients_agree_with_us_on_the_partition_of_thousands_of_keys(
    topics: Settings,
) -> None:
    name = topic_name(topics.environment, "transactions")
    keys = [f"customer-{number * 7919}".encode() for number in range(3_000)]
    by_python = KafkaProducer(bootstrap_servers=topics.kafka_bootstrap)
    for key in keys:
        by_python.send(name, key=key, value=b"python")
    by_python.close()
    by_c = Producer({"bootstrap.servers": topics.kafka_bootstrap, "partitioner": "murmur2_random"})
    for key in keys:
        by_c.produce(name, b"c", key)
    assert by_c.flush(20) == 0
    records = read_all(topics, "transactions")
    assert Counter(r.value for r in records) == {b"python": 3_000, b"c": 3_000}
    assert all(r.partition == partition_of(r.key, 4) for r in records)


def test_a_loop_goes_on_in_time_with_ids_of_its_own(topics: Settings) -> None:
    source = msgspec.structs.replace(small_source(rows=300), start=50)
    stats = replay_table(topics, source, ReplayPlan(pace=Unpaced(), loop=True, limit=700))
    records = read_all(topics, "transactions")
    ids = [decode_transaction(r.value).transaction_id for r in records]
    assert stats.sent == len(set(ids)) == 700
    assert Counter(r.headers.get("pass") for r in records) == {None: 250, "1": 250, "2": 200}
    for rows in rows_by_partition(records).values():
        assert rows == sorted(rows)
    in_order = sorted(records, key=lambda r: r.row)
    times = [decode_transaction(r.value).event_time_ms for r in in_order]
    assert times == sorted(times)
    assert_labels_precede(topics, records)


def test_a_loop_resumes_in_the_pass_where_it_was(topics: Settings) -> None:
    plan = ReplayPlan(pace=Unpaced(), loop=True, limit=130)
    replay_table(topics, small_source(rows=100), plan)
    stats = replay_table(topics, small_source(rows=100), msgspec.structs.replace(plan, limit=250))
    assert (stats.resumed_from_row, stats.sent, stats.already_sent) == (130, 120, 130)
    records = read_all(topics, "transactions")
    assert_each_row_once_in_order(records, range(250))
    assert_labels_precede(topics, records)


def test_the_rate_asked_for_is_the_rate_sent(topics: Settings) -> None:
    stats = replay_table(topics, small_source(rows=2_000), ReplayPlan(pace=AtRate(1_000)))
    assert 1.9 < stats.seconds < 20


def test_event_time_runs_at_the_speed_asked_for(topics: Settings) -> None:
    source = small_source(rows=600)
    span_s = (int(event_times(source.table)[-1]) - int(event_times(source.table)[0])) / 1000
    stats = replay_table(topics, source, ReplayPlan(pace=AtSpeed(span_s / 2)))
    assert 1.9 < stats.seconds < 20


def test_records_of_other_sources_behind_ours_do_not_hide_where_we_were(topics: Settings) -> None:
    plan = ReplayPlan(pace=Unpaced())
    part = msgspec.structs.replace(small_source(rows=500), stop=200)
    replay_table(topics, part, plan)
    replay_table(topics, small_source(rows=4_000, identity="other"), plan)
    stats = replay_table(topics, small_source(rows=500), plan)
    assert (stats.sent, stats.already_sent) == (300, 200)
    mine = [r for r in read_all(topics, "transactions") if r.headers["source"] == "small"]
    assert_each_row_once_in_order(mine, range(500))


def test_a_source_that_may_stand_further_back_is_refused_with_both_ways_out(
    topics: Settings,
) -> None:
    replay_table(topics, small_source(rows=1_000, identity="other"), ReplayPlan(pace=Unpaced()))
    plan = ReplayPlan(pace=Unpaced(), search_back=100)
    with pytest.raises(Refused, match=r"--search-back .* --restart"):
        replay_table(topics, small_source(), plan)


@both_clients
def test_a_restart_sends_again_and_is_itself_resumed(topics: Settings, client: Client) -> None:
    source = small_source(rows=500)
    plan = ReplayPlan(pace=Unpaced(), client=client)
    replay_table(topics, source, plan)
    few = msgspec.structs.replace(source, stop=2)
    replay_table(topics, few, msgspec.structs.replace(plan, resume=False))
    stats = replay_table(topics, source, plan)
    assert (stats.sent, stats.already_sent) == (498, 2)
    records = read_all(topics, "transactions")
    again = [r for r in records if "restarted_ms" in r.headers]
    assert_each_row_once_in_order(again, range(500))
    assert len(records) == 1_000


def set_max_bytes(settings: Settings, size: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    name = topic_name(settings.environment, "transactions")
    try:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": str(size)})]
        )
    finally:
        admin.close()


@both_clients
def test_a_record_that_kafka_refuses_ends_the_replay_and_leaves_no_gap(
    topics: Settings, client: Client
) -> None:
    name = topic_name(topics.environment, "transactions")
    records: list[Outgoing] = [
        (b"k", b"x" * (100_000 if row == 700 else 10), 0, [("row", b"%d" % row)])
        for row in range(1_500)
    ]
    set_max_bytes(topics, 90_000)
    producer = open_producer(topics, client, threading.Event())
    with pytest.raises(DeliveryFailed, match=r"did not take .* nothing was skipped"):
        send_with_pauses(producer, name, records)
    threading.Event().wait(1.0)  # time for what was handed over behind it to go astray
    producer.close()
    rows = [r.row for r in read_all(topics, "transactions")]
    assert rows == list(range(len(rows)))
    assert 0 < len(rows) <= 700


def test_a_record_handed_over_while_the_client_ends_tells_what_ended_it(
    topics: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_max_bytes(topics, 90_000)
    producer = open_producer(topics, "kafka-python", threading.Event())
    send = KafkaProducer.send

    def send_late(self: KafkaProducer, *args: object, **fields: object) -> object:
        """Send the second one only when the first has ended the client: between its check and its sending."""
        if fields["value"] == b"y":
            ended = self._accumulator
            wait_until(lambda: ended._closed, timeout_s=30, what="the client's end")  # noqa: SLF001
        return send(self, *args, **fields)

    monkeypatch.setattr(KafkaProducer, "send", send_late)
    name = topic_name(topics.environment, "transactions")
    reason = r"partition 0: MessageSizeTooLarge.* nothing was skipped"
    with pytest.raises(DeliveryFailed, match=reason):
        producer.send(name, [(b"k", b"x" * 100_000, 0, []), (b"k", b"y", 0, [])])
    producer.close()


def send_with_pauses(producer: RecordProducer, topic: str, records: list[Outgoing]) -> None:
    """Deliver some, then hand over the rest in one go, with a pause behind the one that is refused."""
    producer.send(topic, records[:400])
    producer.flush(10)
    producer.send(topic, pausing(records[400:]))
    producer.flush(10)


def pausing(records: list[Outgoing]) -> Iterator[Outgoing]:
    for number, record in enumerate(records):
        yield record
        if number == 600:
            threading.Event().wait(0.5)


def test_an_unreachable_broker_is_named_within_the_time_set(settings: Settings) -> None:
    away = msgspec.structs.replace(
        settings, kafka_bootstrap="127.0.0.1:1", connect_timeout_ms=1_000
    )
    began_s = time.monotonic()
    with pytest.raises(DependencyUnreachable, match=r"127\.0\.0\.1:1"):
        replay_table(away, small_source(), ReplayPlan())
    assert time.monotonic() - began_s < 15


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@both_clients
def test_a_producer_of_either_client_names_a_broker_that_is_not_there(
    settings: Settings, client: Client
) -> None:
    away = msgspec.structs.replace(
        settings, kafka_bootstrap="127.0.0.1:1", connect_timeout_ms=1_000
    )
    with pytest.raises(DependencyUnreachable, match=r"127\.0\.0\.1:1"):
        send_one(away, client)
    gc.collect()  # kafka-python leaves the sockets of its failed attempts to the collector


def send_one(settings: Settings, client: Client) -> None:
    producer = open_producer(settings, client, threading.Event())
    try:
        producer.send_and_wait("any", [(b"k", b"v", 0, [])])
    finally:
        producer.close()


def test_missing_topics_are_answered_with_the_command_that_makes_them(settings: Settings) -> None:
    with pytest.raises(Refused, match="fraudstream topics create"):
        replay_table(settings, small_source(), ReplayPlan())


def test_a_source_that_is_taken_for_another_is_not_resumed(topics: Settings) -> None:
    first: Source = small_source(rows=100)
    replay_table(topics, first, ReplayPlan(pace=Unpaced()))
    stats = replay_table(topics, small_source(rows=100, identity="b"), ReplayPlan(pace=Unpaced()))
    assert (stats.sent, stats.resumed_from_row) == (100, None)
