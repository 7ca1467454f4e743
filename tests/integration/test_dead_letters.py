"""`fraudstream dead-letters`: counted, shown with safe bytes, and sent again exactly once after a fix."""

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from kafka import KafkaProducer

from fraudstream.clients.dead_letter_log import Resender, read_letters, read_replays
from fraudstream.clients.kafka import transactional_producer
from fraudstream.clients.topic_log import TIMED_OUT, TopicReader
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, Refused
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from tests.integration.test_poison import (
    LONG,
    RawName,
    check,
    ids,
    running,
    send,
    set_limit,
    transaction,
)
from tests.processes import command, faster, run, wait_until, worker
from verify.ledger import Log


def letters_of(settings: Settings, *arguments: str) -> dict[str, Any]:
    done = run(settings, "dead-letters", *arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def dead(settings: Settings, log: Log, tmp_path: Path) -> None:
    """Make two dead letters of partition 0: a score that is too large at 3, and no JSON at 5."""
    set_limit(settings, "scores", 1_000)
    send(settings, [transaction(n) for n in range(3)])
    send(
        settings,
        [transaction(3, **LONG), transaction(4), b'{"v": \x1b[31m\xff\x00', transaction(6)],
    )
    with running(settings, log, tmp_path):
        pass


def test_dead_letters_are_counted_filtered_and_shown_with_safe_bytes(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    dead(topics, log, tmp_path)
    everything = letters_of(topics, "list")
    assert everything["by_kind"] == {"score_too_large": 1, "malformed_json": 1}
    for arguments, positions in (
        (("--kind", "malformed_json"), ["0-5"]),
        (("--partition", "1"), []),
        (("--since", "2001-01-01"), ["0-3", "0-5"]),
        (("--until", "2001-01-01"), []),
        (("--limit", "1"), ["0-5"]),
    ):
        found = letters_of(topics, "list", *arguments)
        assert [each["position"] for each in found["letters"]] == positions
    done = run(topics, "dead-letters", "list")
    assert "2 dead letters of" in done.stdout
    shown = run(topics, "dead-letters", "show", "0-5")
    assert shown.returncode == 0
    assert r"\x1b[31m\xff\x00" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "let the producer send it anew" in shown.stdout
    unknown = run(topics, "dead-letters", "show", "0-4")
    assert unknown.returncode == 1
    assert "fraudstream dead-letters list" in unknown.stderr


def test_a_replay_sends_each_once_and_trace_shows_where_it_comes_from(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    dead(topics, log, tmp_path)
    looked = letters_of(topics, "replay", "--kind", "score_too_large", "--dry-run")
    assert looked["sent"] == []
    assert run(topics, "dead-letters", "replay").returncode == 2
    assert run(topics, "dead-letters", "replay", "--all").returncode == 2, "no terminal to ask at"
    assert run(topics, "dead-letters", "replay", "--position", "0-4").returncode == 1
    set_limit(topics, "scores", 1_000_000)
    done = run(topics, "dead-letters", "replay", "--position", "0-3", "--yes", "--why", "larger")
    assert done.returncode == 0, done.stderr
    again = letters_of(topics, "replay", "--kind", "score_too_large", "--yes")
    assert (again["sent"], again["sent_before"]) == ([], ["0-3"])
    with worker(topics, tmp_path / "after.log"):
        wait_until(lambda: len(ids(log)) == 6, timeout_s=30, what="scored after all")
    check(topics, log, scored=6, dead=2)
    (name,) = [each for each in ids(log) if each == LONG["transaction_id"]]
    traced = run(topics, "trace", name, "--json", "-")
    (found,) = json.loads(traced.stdout)["traces"]
    first, second = found["occurrences"]
    assert (first["state"], second["state"]) == ("dead_letter", "scored")
    assert first["dead_letter"]["sent_again"]["actor"]
    assert second["input"]["dead_letter_of"] == "transactions/0/3"
    assert [each["event"]["event"] for each in found["audit"]][-1] == "dead_letter_replay"
    assert "sent again" in run(topics, "trace", name).stdout


def test_a_replay_whose_note_stands_behind_an_open_transaction_is_known_to_the_next(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [b"no json"])
    with running(topics, log, tmp_path):
        pass
    open_one = transactional_producer(topics, transactional_id=f"{topics.environment}.by-hand")
    open_one.init_transactions(10)
    open_one.begin_transaction()  # as of a worker that dies in the batch of a swap; the broker ends it
    open_one.produce(topic_name(topics.environment, "audit"), b"{}", partition=0)
    assert open_one.flush(10) == 0
    for _ in range(2):
        done = run(topics, "dead-letters", "replay", "--all", "--yes")
        assert done.returncode == 0, done.stderr
    assert [each.value for each in log.records("transactions")] == [b"no json"] * 2


@pytest.mark.proof
def test_a_replay_killed_at_any_moment_sends_nothing_twice(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [b"no json %d" % n for n in range(400)] + [transaction(n) for n in range(500)])
    send(topics, [b"no json %d" % n for n in range(400, 3_000)], partition=1)
    with running(topics, log, tmp_path, "no share of dead letters is too large"):
        pass
    line = command(topics, "dead-letters", "replay", "--all", "--yes")
    kills = 0
    for _ in range(12):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        process.stderr.readline()  # a part was sent, or it has ended
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills > 1
    run(topics, "dead-letters", "replay", "--all", "--yes")
    sent = [each.value for each in log.records("transactions")]
    assert len(sent) == 900 + 2_600 + 3_000
    assert all(sent.count(b"no json %d" % n) == 2 for n in range(0, 3_000, 50))
    origins = [dict(each.headers).get("dead_letter_of") for each in log.records("transactions")]
    named = [each for each in origins if each is not None]
    assert len(named) == len(set(named)) == 3_000


def test_a_record_with_a_header_that_nobody_can_read_is_scored_once_it_is_replayed(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    producer = KafkaProducer(bootstrap_servers=topics.kafka_bootstrap)
    topic = topic_name(topics.environment, "transactions")
    producer.send(topic, transaction(1), b"c1", [(RawName("x"), b"1")], 0)
    producer.close()
    with running(topics, log, tmp_path):
        done = run(topics, "dead-letters", "replay", "--kind", "unreadable_header", "--yes")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: ids(log) == ["t1"], timeout_s=30, what="scored")


def test_two_replays_at_once_do_not_send_anything_twice(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [b"no json %d" % n for n in range(300)])
    with running(topics, log, tmp_path):
        pass
    line = command(topics, "dead-letters", "replay", "--all", "--yes")
    both = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate(timeout=60)[1] for each in both]
    ends = sorted(each.returncode for each in both)
    assert ends in ([0, 0], [0, 3]), said
    assert len(list(log.records("transactions"))) == 600


def small_limit(settings: Settings, log: Log, tmp_path: Path) -> None:
    """Make dead letters of four records, then let `transactions` take 100,000 bytes: 0-1 is over it."""
    send(settings, [b"no json", b"0" * 150_000, b"nor this"])
    send(settings, [b"nor that"], partition=1)
    with running(settings, log, tmp_path):
        pass
    set_limit(settings, "transactions", 100_000)


def test_a_letter_that_its_topic_does_not_take_is_told_of_and_the_others_are_sent(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    small_limit(topics, log, tmp_path)
    reason = "its record takes 150,1.. bytes, max.message.bytes of topic .*transactions is 100000"
    for options, sent in ((["--dry-run"], []), (["--yes"], ["0-0", "0-2", "1-0"]), (["--yes"], [])):
        found = letters_of(topics, "replay", "--all", *options)
        assert sorted(found["sent"]) == sent
        assert list(found["impossible"]) == ["0-1"]
        assert re.search(reason, found["impossible"]["0-1"])
    done = run(topics, "dead-letters", "replay", "--position", "0-1", "--yes")
    assert done.returncode == 1
    assert re.search(f"error: 0-1 is not sent: {reason}", done.stderr)
    assert len(list(log.records("transactions"))) == 7
    set_limit(topics, "transactions", 200_000)
    assert letters_of(topics, "replay", "--all", "--yes")["sent"] == ["0-1"]


def test_many_letters_that_a_topic_takes_one_by_one_are_sent_in_batches_that_it_takes(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [b"0" * 40_000 for _ in range(9)])
    with running(topics, log, tmp_path):
        pass
    set_limit(topics, "transactions", 100_000)
    assert len(letters_of(topics, "replay", "--all", "--yes")["sent"]) == 9
    assert len(list(log.records("transactions"))) == 18


def test_a_transaction_that_the_broker_refuses_is_aborted_and_holds_nobody_up(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    small_limit(topics, log, tmp_path)
    resender = Resender(faster(topics, transaction_timeout_ms=60_000))
    sending = resender.send(list(read_letters(topics)), actor="me", why="limit lowered meanwhile")
    with pytest.raises(FraudstreamError, match=r"Message size too large.*nothing of") as told:
        list(sending)
    assert not isinstance(told.value, DependencyUnreachable)
    with TopicReader(topics) as reader:
        for name in ("transactions", "audit"):  # whose patience is over before the minute is
            reader.whole_bounds(topic_name(topics.environment, name))
    assert read_replays(topics) == {}
    assert len(list(log.records("transactions"))) == 4


class Around:
    """The producer of a replay, but for what a test changes."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer

    def __getattr__(self, name: str) -> object:
        return getattr(self.producer, name)


class DropsFirst(Around):
    """The producer of a replay that tells what it drops for the sake of a refusal before the refusal."""

    def produce(
        self, *what: object, on_delivery: Callable[[KafkaError, None], None], **how: object
    ) -> None:
        on_delivery(KafkaError(KafkaError._PURGE_QUEUE), None)  # noqa: SLF001
        self.producer.produce(*what, on_delivery=on_delivery, **how)  # type: ignore[arg-type, misc]


def test_what_is_told_of_a_refusal_is_its_reason_not_what_was_dropped_for_its_sake(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    small_limit(topics, log, tmp_path)
    resender = Resender(topics)
    vars(resender)["_producer"] = DropsFirst(vars(resender)["_producer"])
    with pytest.raises(FraudstreamError, match=r"Message size too large.*nothing of"):
        list(resender.send(list(read_letters(topics)), actor="me", why="limit lowered meanwhile"))
    assert len(list(log.records("transactions"))) == 4


class GoesOn(Around):
    """The producer of a replay that goes on until it can do nothing any more."""

    def produce(self, topic: str, *what: object, **how: object) -> None:
        while True:
            self.producer.produce(topic, b"one more")


def test_a_replay_that_another_has_fenced_says_so_wherever_it_hears_of_it(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [b"no json"])
    with running(topics, log, tmp_path):
        pass
    first = Resender(topics)
    vars(first)["_producer"] = GoesOn(vars(first)["_producer"])
    later = Resender(topics)
    with pytest.raises(Refused, match="another `fraudstream dead-letters replay`"):
        list(first.send(list(read_letters(topics)), actor="me", why="the first"))
    assert list(later.send(list(read_letters(topics)), actor="me", why="the later")) == [1]
    assert len(list(log.records("transactions"))) == 2


class NoAnswer(Around):
    """The producer of a replay whose commit gets no answer, whether it reaches Kafka or not."""

    def __init__(self, producer: Producer, *, reaches: bool) -> None:
        super().__init__(producer)
        self.reaches = reaches

    def commit_transaction(self, timeout_s: float) -> None:
        if self.reaches:
            self.producer.commit_transaction(timeout_s)
        raise KafkaException(KafkaError(TIMED_OUT))


@pytest.mark.parametrize("reaches", [True, False])
def test_after_a_commit_without_an_answer_the_next_replay_knows_what_was_sent(
    reaches: bool, topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [b"no json", b"nor this"])
    with running(topics, log, tmp_path):
        pass
    resender = Resender(topics)
    vars(resender)["_producer"] = NoAnswer(vars(resender)["_producer"], reaches=reaches)
    with pytest.raises(DependencyUnreachable, match=r"whether the last 2 records were sent.*again"):
        list(resender.send(list(read_letters(topics)), actor="me", why="no answer"))
    found = letters_of(topics, "replay", "--all", "--yes")
    both = ["0-0", "0-1"]
    assert (found["sent"], found["sent_before"]) == (([], both) if reaches else (both, []))
    assert len(list(log.records("transactions"))) == 4


@pytest.mark.parametrize("arguments", [("list",), ("show", "0-1"), ("replay", "--all", "--yes")])
def test_without_topics_the_command_that_makes_them_is_named(
    settings: Settings, arguments: tuple[str, ...]
) -> None:
    done = run(settings, "dead-letters", *arguments)
    assert done.returncode == 3
    assert done.stderr.endswith(" does not exist: make it with `fraudstream topics create`\n")
