"""What a broker, a clock or a person may do to a running environment: a clear end or a defined reaction."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewPartitions,
)
from kafka import KafkaAdminClient
from kafka.errors import KafkaError as ClientError
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as Place
from redis import Redis

from fraudstream.clients import kafka
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.scores import Score
from fraudstream.core.settings import Settings, make_settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import embedded, kafka_server
from fraudstream.stack.state import StackPaths
from scorer.contact import Contact, Watched, answers_new_client
from tests.integration.test_faults import delete, kafka_pid, make_anew
from tests.integration.test_poison import caught_up, check, forget, ids, running, send, transaction
from tests.integration.test_workers import decoded
from tests.processes import faster, run, wait_until, worker
from verify.ledger import Log


def admin(settings: Settings) -> AdminClient:
    return AdminClient({"bootstrap.servers": settings.kafka_bootstrap})


def test_partitions_that_are_added_end_the_worker_and_the_next_start_takes_them_in(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    topic = topic_name(topics.environment, "transactions")
    send(topics, [transaction(n) for n in range(100)])
    with worker(topics, tmp_path / "before.log") as one:
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
        client = admin(topics)
        for done in client.create_partitions([NewPartitions(topic, 4)]).values():
            done.result()
        assert one.process.wait(40) == 1
        assert "has partitions [" in one.said()
        assert "start it again" in one.said()
    send(topics, [transaction(n) for n in range(100, 200)], partition=3)
    with Log(topics) as fresh:
        with running(topics, fresh, tmp_path):
            pass
        check(topics, fresh, scored=200, dead=0)


def test_a_clock_that_jumps_back_costs_no_score_and_makes_none_negative(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    with worker(topics, tmp_path / "scorer.log", changes=["the clock jumps back an hour"]) as one:
        last = [0]

        def jumped() -> bool:
            send(topics, [transaction(n) for n in range(last[0], last[0] + 10)])
            last[0] += 10
            wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
            return last[0] > 50 and any(score.age_ms == 0 for score in decoded(log))

        wait_until(jumped, timeout_s=60, what="past the jump")
        assert one.stop() == 0
    scores = decoded(log)
    assert sorted(ids(log)) == sorted(f"t{n}" for n in range(last[0]))
    assert all(least(score) >= 0 for score in scores)
    places = [score.apply_seq for score in scores]
    assert len(places) == len(set(places))


def least(score: Score) -> float:
    return min(score.age_ms, score.stages.waiting, score.stages.until_produce)


def forget_offsets(settings: Settings) -> None:
    """Take the group's offsets away, as a broker does after offsets.retention.minutes without members."""
    client = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    group = f"{settings.environment}.scorer"

    def gone() -> bool:
        """Delete the group once its static member's session has run out."""
        client.delete_groups([group])
        return not client.list_group_offsets({group: None})[group]

    wait_until(gone, timeout_s=20, what="the group is forgotten")
    client.close()


@pytest.mark.parametrize("features_too", [False, True])
@pytest.mark.parametrize("count", [300])
def test_offsets_of_the_group_that_expired_are_refused_and_nothing_is_scored_again(
    count: int, features_too: bool, topics: Settings, log: Log, tmp_path: Path, server: Redis
) -> None:
    send(topics, [transaction(n) for n in range(count)])
    with running(topics, log, tmp_path):
        pass
    forget_offsets(topics)
    if features_too:
        forget(server, topics)
    with worker(topics, tmp_path / "after.log") as after:
        assert after.process.wait(30) == 3, after.said()[-2_000:]
        assert "the group's offsets are gone" in after.said()
        assert "FRAUDSTREAM_ENVIRONMENT" in after.said()
    assert len(ids(log)) == count


def set_back(settings: Settings, offset: int) -> None:
    """Move the group's place in partition 0 as Kafka's own tool does, once its member's session is over."""
    client = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    place = Place(topic_name(settings.environment, "transactions"), 0)

    def moved() -> bool:
        group = f"{settings.environment}.scorer"
        with suppress(ClientError):  # a group with members is not moved
            client.alter_group_offsets(group, {place: OffsetAndMetadata(offset)})
        return bool(client.list_group_offsets({group: None})[group][place].offset == offset)

    wait_until(moved, timeout_s=20, what="the group is moved back")
    client.close()


@pytest.mark.parametrize("count", [300])
def test_a_group_that_another_program_moved_back_is_refused_and_nothing_is_scored_again(
    count: int, topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [transaction(n) for n in range(count)])
    with running(topics, log, tmp_path):
        pass
    set_back(topics, 100)
    with worker(topics, tmp_path / "after.log") as after:
        assert after.process.wait(30) == 3, after.said()[-2_000:]
        assert "moved the group's place back to 100, but the features are at 299" in after.said()
    assert len(ids(log)) == count


@pytest.mark.parametrize("name", ["scores", "alerts", "dead-letters", "audit", "feedback"])
def test_any_topic_that_is_missing_is_named_before_anything_is_read(
    name: str, topics: Settings, tmp_path: Path
) -> None:
    delete(topics, name)
    with worker(topics, tmp_path / "scorer.log") as one:
        assert one.process.wait(30) == 3, one.said()[-2_000:]
        assert f"topic {topic_name(topics.environment, name)} does not exist" in one.said()
        assert "fraudstream topics create" in one.said()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (make_anew, "alerts (was recreated|is gone) while this worker ran"),
        (delete, "alerts is gone while this worker ran"),
    ],
)
def test_a_topic_of_results_that_is_made_anew_or_deleted_ends_the_worker(
    change: Callable[[Settings, str], None], told: str, topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [transaction(n) for n in range(100)])
    with worker(topics, tmp_path / "scorer.log") as one:
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
        change(topics, "alerts")
        assert one.process.wait(30) == 3, one.said()[-2_000:]
        assert re.search(told, one.said())


def test_records_that_expired_before_they_were_scored_are_refused(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [transaction(n) for n in range(100)])
    with running(topics, log, tmp_path):
        pass
    send(topics, [transaction(n) for n in range(100, 200)])
    place = TopicPartition(topic_name(topics.environment, "transactions"), 0, 150)
    client = admin(topics)  # kept: without it no answer comes
    for done in client.delete_records([place]).values():
        done.result()
    with worker(topics, tmp_path / "after.log") as after:
        assert after.process.wait(30) == 3
        said = after.said()
        fetched = "an offset to read is gone from the log"  # whichever is noticed first
        assert "group would go on at 100, but the log has 150 to 200" in said or fetched in said


@pytest.mark.parametrize("again", [0, 50, 150])
def test_a_topic_made_anew_under_a_running_worker_ends_it_before_anything_is_scored(
    again: int, topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [transaction(n) for n in range(100)])
    with worker(topics, tmp_path / "scorer.log") as one:
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
        make_anew(topics, "transactions")
        send(topics, [transaction(1_000 + n) for n in range(again)])
        assert one.process.wait(30) == 3, one.said()[-2_000:]
        assert "recreated" in one.said() or "gone" in one.said()
    with Log(topics) as fresh:
        assert len(ids(fresh)) == 100


@pytest.fixture
def bare_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Settings]]:
    """What starts servers of a test's own, the broker with a line more in its properties."""
    bare = make_settings({"state_dir": str(tmp_path / "own"), "partitions": 2})
    original = kafka_server._kafka_properties  # noqa: SLF001

    def start(line: str) -> Settings:
        monkeypatch.setattr(
            kafka_server, "_kafka_properties", lambda *given: original(*given) + line + "\n"
        )
        found = embedded.up(bare, owner_pid=os.getpid())
        settings = faster(
            bare,
            kafka_bootstrap=found.kafka_bootstrap,
            redis_url=found.redis_url,
            mlflow_url=found.mlflow_url,
            connect_timeout_ms=5_000,
        )
        create_topics(settings.kafka_bootstrap, settings.environment, 2, timeout_ms=20_000)
        return settings

    yield start
    embedded.down(bare, wipe=True)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("transaction.state.log.replication.factor=3", "does not let this worker begin"),
        ("offsets.topic.replication.factor=3", "has no coordinator for group"),
    ],
)
def test_a_coordinator_that_is_not_available_is_named_and_waited_for_only_so_long(
    line: str, says: str, bare_stack: Callable[[str], Settings], tmp_path: Path
) -> None:
    settings = bare_stack(line)
    with worker(settings, tmp_path / "scorer.log") as one:
        assert one.process.wait(30) == 1, one.said()[-2_000:]
        assert says in one.said()
        assert "fraudstream stack logs" in one.said()


def test_settings_that_contradict_each_other_end_a_command_with_both_names(
    settings: Settings,
) -> None:
    done = run(faster(settings, transaction_timeout_ms=60_000), "scorer")
    assert done.returncode == 2
    assert "transaction_timeout_ms = 60000 must be below session_timeout_ms" in done.stderr


FLAPPING = "broker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=2500"
"""Every other second this broker says that there is none, as one does that stood still for long."""


@pytest.mark.proof
def test_a_client_that_has_lost_the_broker_for_good_is_found_out(
    bare_stack: Callable[[str], Settings],
) -> None:
    settings = bare_stack(FLAPPING)
    topic = topic_name(settings.environment, "transactions")
    often = {"group.id": "looks", "topic.metadata.refresh.interval.ms": 1_000}
    clients = [Consumer(kafka.common(settings) | often) for _ in range(8)]
    gone: list[Consumer] = []

    def one_is_lost() -> bool:
        gone.extend(client for client in clients if is_lost(client))
        return bool(gone)

    wait_until(one_is_lost, timeout_s=180, what="one is lost: eight seconds of silence")
    consumer = gone[0]
    properties = StackPaths.of(settings).root / "kafka.properties"
    properties.write_text(properties.read_text().replace(FLAPPING, ""))
    # It is started again, and says always that it is there.
    os.kill(kafka_pid(settings), signal.SIGKILL)
    new_client = partial(answers_new_client, settings)
    wait_until(new_client, timeout_s=30, what="it is back")
    lost: list[bool] = []
    contact = Contact(
        [Watched(consumer, TopicPartition(topic, 0))], new_client, partial(lost.append, True)
    )

    def found() -> bool:
        contact.look()
        return bool(lost)

    wait_until(found, timeout_s=60, what="it is found out")
    assert is_lost(consumer), "and that is true"
    for client in clients:
        client.close()


def is_lost(client: Consumer) -> bool:
    """Return whether a client is told of no broker for eight seconds; asking is what makes it forget them."""
    for _ in range(4):
        with suppress(KafkaException):
            client.list_topics(timeout=2)
            return False
    return True


def test_a_worker_whose_client_is_lost_ends_and_the_next_one_goes_on(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [transaction(n) for n in range(100)])
    lost = ["no question of the worker's own clients is answered"]
    with worker(topics, tmp_path / "lost.log", changes=lost) as one:
        assert one.process.wait(40) == 1
        assert "the client of this worker has lost it for good" in one.said()
    send(topics, [transaction(n) for n in range(100, 200)])
    with running(topics, log, tmp_path):
        pass
    check(topics, log, scored=200, dead=0)
