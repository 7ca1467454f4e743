"""The loss ledger on a real Kafka: what is planted is named, live and after the fact; nothing else is."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Never
from unittest.mock import Mock

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError, NodeNotReadyError, UnknownBrokerIdError

from fraudstream.clients.kafka import transactional_producer
from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from producer.generator import make_parameters, source
from producer.pace import AtRate
from producer.replay import ReplayPlan, replay_table
from tests.integration.test_faults import (
    caught_up,
    kafka_pid,
    make_anew,
    own_stack,
    say,
    transaction,
)
from tests.integration.test_poison import RawName
from tests.ports import free_port
from tests.processes import command, faster, run, wait_until, worker
from verify.ledger import Log, count
from verify.live_log import LiveLog

__all__ = ["own_stack"]
TOTAL = 300
LOST, DOUBLED = 211, 57


class Following:
    """A `fraudstream ledger --watch` that runs, what it said so far, and how it ended."""

    def __init__(self, settings: Settings, folder: Path, *options: str) -> None:
        self.out, self.err = folder / "watch.out", folder / "watch.err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                command(settings, "ledger", "--watch", *options), stdout=out, stderr=err
            )

    def shows(self, text: str) -> bool:
        assert self.process.poll() is None, self.said()
        return text in self.out.read_text()

    def says(self, text: str) -> bool:
        assert self.process.poll() is None, self.said()
        return text in self.err.read_text()

    def said(self) -> str:
        return self.err.read_text()

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@contextmanager
def following(settings: Settings, folder: Path, *options: str) -> Iterator[Following]:
    made = Following(settings, folder, *options)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()


def send(settings: Settings, numbers: Sequence[int]) -> None:
    """Send transactions to partition 0; each stands at the offset of its number."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
    for number in numbers:
        topic = topic_name(settings.environment, "transactions")
        producer.produce(topic, transaction(number), partition=0)
    assert producer.flush(30) == 0


def score(settings: Settings, numbers: Sequence[int], producer: Producer | None = None) -> None:
    """Write scores by hand; one of an open transaction of `producer`'s is in the log, too."""
    producer = producer or Producer({"bootstrap.servers": settings.kafka_bootstrap})
    for number in numbers:
        place = {"source_partition": 0, "source_offset": number}
        value = json.dumps({"transaction_id": f"t{number}"} | place).encode()
        producer.produce(topic_name(settings.environment, "scores"), value)
    assert producer.flush(30) == 0


def commit(settings: Settings, offset: int) -> None:
    """Commit the scorers' offset of partition 0, by itself."""
    group = f"{settings.environment}.scorer"
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": group})
    place = TopicPartition(topic_name(settings.environment, "transactions"), 0, offset)
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()


def test_one_lost_and_one_doubled_are_named_live_and_after_the_fact(
    topics: Settings, tmp_path: Path
) -> None:
    send(topics, range(TOTAL))
    score(topics, [n for n in range(TOTAL) if n != LOST] + [DOUBLED])
    commit(topics, TOTAL)
    after = run(topics, "ledger")
    assert after.returncode == 1
    assert f"lost 1 (0:{LOST}), duplicates 1 (0:{DOUBLED})" in after.stderr
    report = tmp_path / "report.json"
    live = run(topics, "ledger", "--watch", "--for", "2", "--json", str(report))
    assert live.returncode == 1, live.stderr
    assert f"lost: 0:{LOST} of transactions" in live.stderr
    assert f"duplicate: 0:{DOUBLED} of transactions" in live.stderr
    assert f"error: lost 1 (0:{LOST}), duplicates 1 (0:{DOUBLED})" in live.stderr
    assert live.stdout.splitlines()[-1] == after.stdout.strip()
    lost = [{"source_partition": 0, "source_offset": LOST}]
    moments = [json.loads(line) for line in report.read_text().splitlines()]
    assert len(moments) >= 2
    assert moments[-1]["lost_positions"] == lost
    assert 0 <= moments[-1]["age_ms"] < 5_000
    assert moments[-2]["at_ms"] < moments[-1]["at_ms"]


def test_a_loss_and_a_double_are_named_while_the_watch_goes_on(
    topics: Settings, tmp_path: Path
) -> None:
    with following(topics, tmp_path) as watch:
        send(topics, range(TOTAL))
        score(topics, [n for n in range(TOTAL) if n != LOST])
        commit(topics, LOST)
        wait_until(
            lambda: watch.shows(f"{TOTAL} in = {TOTAL - 1} scored"), timeout_s=30, what="all read"
        )
        score(topics, [DOUBLED])
        wait_until(lambda: watch.says(f"duplicate: 0:{DOUBLED} "), timeout_s=20, what="doubled")
        assert not watch.says("lost"), "not committed yet"
        commit(topics, TOTAL)
        wait_until(lambda: watch.says(f"lost: 0:{LOST} "), timeout_s=20, what="lost")
        assert watch.interrupt() == 1
        assert "Traceback" not in watch.said()


def test_results_whose_transaction_is_still_open_are_not_lost(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    settings = faster(topics, transaction_timeout_ms=60_000)
    send(topics, range(TOTAL))
    open_one = transactional_producer(settings, transactional_id=f"{topics.environment}.by-hand")
    open_one.init_transactions()
    open_one.begin_transaction()
    score(topics, range(TOTAL), open_one)
    commit(topics, TOTAL)
    with following(topics, tmp_path) as watch, ThreadPoolExecutor(1) as counter:
        counted = counter.submit(count, log, f"{topics.environment}.scorer")
        waiting = f"{TOTAL} in = 0 scored + 0 dead letters + {TOTAL} waiting"
        wait_until(lambda: watch.shows(waiting), timeout_s=30, what="transactions read")
        threading.Event().wait(2)
        assert not watch.says("lost")
        assert not counted.done()
        open_one.commit_transaction(20)
        balanced = f"{TOTAL} in = {TOTAL} scored + 0 dead letters + 0 waiting; lost 0, duplicates 0"
        wait_until(lambda: watch.shows(balanced), timeout_s=20, what="balanced")
        assert counted.result(20).balanced
        assert watch.interrupt() == 130
    assert watch.said().strip() == "stopped"


def gauges(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name.removeprefix("fraudstream_ledger_"): float(number)
        for name, number in (line.split() for line in lines if not line.startswith("#"))
    }


def test_nothing_is_ever_lost_while_workers_score_under_load_and_one_is_killed(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    stream = source(make_parameters({"seed": 3, "customers": 400, "terminals": 300, "days": 40}))
    total, port = 16_000, free_port()
    plan = ReplayPlan(pace=AtRate(2_000), limit=total, client="confluent")
    with following(topics, tmp_path, "--metrics-port", str(port)) as watch:
        with worker(topics, tmp_path / "one.log") as one, ThreadPoolExecutor(1) as sender:
            sending = sender.submit(replay_table, topics, stream, plan)
            wait_until(
                lambda: log.lag(f"{topics.environment}.scorer")[0] > total // 3,
                timeout_s=60,
                what="under load",
            )
            one.kill()
            with worker(topics, tmp_path / "two.log") as two:
                assert sending.result(60).sent == total
                wait_until(lambda: caught_up(topics, log), timeout_s=60, what="all scored")
                assert two.stop() == 0
        wait_until(
            lambda: watch.shows(f"{total:,} in = {total:,} scored"), timeout_s=20, what="read"
        )
        shown = gauges(port)
        assert (shown["transactions"], shown["scored"], shown["difference"]) == (total, total, 0)
        assert shown["age_seconds"] < 20
        assert watch.interrupt() == 130, watch.said()
    assert not re.search("lost|duplicate|unfounded|mismatched", watch.said())
    for line in watch.out.read_text().splitlines():
        assert "; lost 0, duplicates 0" in line, line
        came, scored, _, waiting = (
            int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", line)[:4]
        )
        assert came == scored + waiting, line


def test_a_header_name_that_is_not_utf_8_is_read_past(topics: Settings) -> None:
    producer = KafkaProducer(bootstrap_servers=topics.kafka_bootstrap)
    topic = topic_name(topics.environment, "transactions")
    for number in range(20):
        headers = [("fine", b"1"), (RawName("x") if number == 7 else "y", b"odd\xff"), ("z", b"2")]
        producer.send(topic, transaction(number), b"odd\xff", headers, 0)
    producer.close()
    score(topics, range(20))
    commit(topics, 20)
    for options in ((), ("--watch", "--for", "1")):
        done = run(topics, "ledger", *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1].startswith("20 in = 20 scored")


def test_a_broker_that_is_away_is_waited_for_and_nothing_is_forgotten(
    own_stack: Settings, tmp_path: Path
) -> None:
    send(own_stack, range(100))
    score(own_stack, range(50))
    with following(own_stack, tmp_path) as watch:
        half = "100 in = 50 scored + 0 dead letters + 50 waiting"
        wait_until(lambda: watch.shows(half), timeout_s=30, what="read")
        pid = kafka_pid(own_stack)
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: watch.says("does not answer"), timeout_s=40, what="noticed")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: watch.says("answers again"), timeout_s=40, what="back")
        os.kill(pid, signal.SIGKILL)  # it is started anew, maybe before it is missed
        wait_until(lambda: kafka_pid(own_stack) != pid, timeout_s=40, what="started anew")
        score(own_stack, range(50, 100))
        commit(own_stack, 100)
        whole = "100 in = 100 scored + 0 dead letters + 0 waiting; lost 0, duplicates 0"
        wait_until(lambda: watch.shows(whole), timeout_s=60, what="went on")
        assert watch.interrupt() == 130
    said = [line for line in watch.said().splitlines() if line]
    away = ["does not answer" in line for line in said[:-1:2]]
    assert all(away), said
    assert said[1:-1:2] == ["Kafka answers again"] * len(away)
    assert said[-1] == "stopped"


@pytest.mark.parametrize("error", [UnknownBrokerIdError(-1), NodeNotReadyError(1)])
def test_a_broker_that_knows_no_controller_yet_is_asked_again(
    error: Exception, topics: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that was frozen says so for a moment; a watch ended with an error about codecs then."""
    with LiveLog(topics) as log:
        whole = KafkaAdminClient.describe_topics

        def refuses(*_: object, **__: object) -> Never:
            monkeypatch.setattr(KafkaAdminClient, "describe_topics", whole)
            raise error

        monkeypatch.setattr(KafkaAdminClient, "describe_topics", refuses)
        with pytest.raises(DependencyUnreachable, match=type(error).__name__):
            log.grown()
        assert len(log.grown()) == 3 * topics.partitions


def test_a_broker_that_goes_away_while_records_are_counted_is_said_to_be_away(
    topics: Settings, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(topics, "transactions", transaction(1))
    monkeypatch.setattr(KafkaConsumer, "poll", Mock(side_effect=KafkaTimeoutError("no answer")))
    with pytest.raises(DependencyUnreachable, match="does not answer any more"):
        list(log.records("transactions"))


def test_a_topic_made_anew_ends_the_watch(topics: Settings, tmp_path: Path) -> None:
    send(topics, range(100))
    with following(topics, tmp_path) as watch:
        wait_until(lambda: watch.shows("100 in"), timeout_s=30, what="read")
        make_anew(topics, "transactions")
        assert watch.process.wait(30) == 3, watch.said()
    assert len(watch.said().splitlines()) == 1, watch.said()
    assert re.search("made anew|does not exist", watch.said())


def test_a_short_watch_of_a_long_history_ends_once_all_of_it_is_judged(topics: Settings) -> None:
    total = 60_000
    send(topics, range(total))
    score(topics, [n for n in range(total) if n != total - 2])
    commit(topics, total)
    done = run(topics, "ledger", "--watch", "--for", "0.1")
    assert done.returncode == 1
    assert f"error: lost 1 (0:{total - 2}), duplicates 0" in done.stderr


@pytest.mark.proof
def test_an_open_transaction_is_told_of_and_what_it_hides_is_not_called_balanced(
    topics: Settings, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = faster(topics, transaction_timeout_ms=60_000)
    send(topics, range(10))
    open_one = transactional_producer(settings, transactional_id=f"{topics.environment}.by-hand")
    open_one.init_transactions()
    open_one.begin_transaction()
    score(topics, range(10), open_one)
    monkeypatch.setattr("verify.ledger.STUCK_S", 2.0)
    with pytest.raises(DependencyUnreachable, match=r"stands at 0 of .* a transaction is open"):
        count(log, f"{topics.environment}.scorer")
    with following(topics, tmp_path, "--for", "1") as watch:
        assert watch.process.wait(60) == 1
    assert re.search("nothing could be read for 10 s: a transaction is open", watch.said())
    assert "s could not be judged" in watch.said().splitlines()[-1]
    open_one.abort_transaction(20)


@pytest.mark.proof
def test_a_broker_that_is_killed_under_a_watch_is_met_again(
    own_stack: Settings, tmp_path: Path
) -> None:
    send(own_stack, range(100))
    score(own_stack, range(99))
    with following(own_stack, tmp_path) as watch:
        wait_until(lambda: watch.shows("100 in = 99 scored"), timeout_s=30, what="read")
        pid = kafka_pid(own_stack)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: kafka_pid(own_stack) != pid, timeout_s=40, what="started anew")
        wait_until(lambda: watch.says("answers again"), timeout_s=40, what="back")
        commit(own_stack, 100)
        score(own_stack, [4])
        wait_until(lambda: watch.says("lost: 0:99 "), timeout_s=40, what="judged")
        wait_until(lambda: watch.says("duplicate: 0:4 "), timeout_s=20, what="read on")
        watch.process.send_signal(signal.SIGTERM)
        assert watch.process.wait(20) == 1
    assert "Traceback" not in watch.said()
    assert "error: lost 1 (0:99), duplicates 1 (0:4)" in watch.said()


def test_a_watch_in_balance_ends_with_the_status_of_its_signal(
    topics: Settings, tmp_path: Path
) -> None:
    with following(topics, tmp_path) as watch:
        wait_until(lambda: watch.shows("0 in"), timeout_s=30, what="runs")
        watch.process.send_signal(signal.SIGTERM)
        assert watch.process.wait(20) == 143
    assert watch.said().strip() == "stopped: ended by SIGTERM"


def test_a_full_disk_and_a_reader_that_leaves_end_a_watch_without_a_trace(topics: Settings) -> None:
    full = run(topics, "ledger", "--watch", "--json", "/dev/full")
    assert full.returncode == 2
    assert full.stderr == "error: --json /dev/full cannot be written (No space left on device)\n"
    for more in ("", " --json -"):
        line = shlex.join(command(topics, "ledger", "--watch")) + more
        left = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{line} | head -1"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (left.returncode, left.stderr) == (0, "")
        assert len(left.stdout.splitlines()) == 1


def test_options_of_a_watch_alone_and_a_port_that_is_taken_are_wrong_usage(
    topics: Settings,
) -> None:
    done = run(topics, "ledger", "--for", "3")
    assert (done.returncode, "give --watch" in done.stderr) == (2, True)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(topics, "ledger", "--watch", "--metrics-port", port)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --metrics-port {port} ")
