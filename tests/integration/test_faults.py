"""What tries to stop, fool or silence a worker: hostile records, a topic made anew, a broker that hangs."""

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.errors import Refused
from fraudstream.core.scores import Alert
from fraudstream.core.settings import Settings, make_settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import embedded
from fraudstream.stack.state import StackPaths
from producer.generator import make_parameters, source
from producer.pace import AtRate
from producer.replay import ReplayPlan, replay_table
from tests.integration.test_services import port_of
from tests.integration.test_workers import view
from tests.ports import free_port
from tests.processes import command, faster, run, wait_until, worker
from verify.ledger import Log, count


def transaction(number: int) -> bytes:
    return json.dumps(
        {
            "v": 1,
            "transaction_id": f"t{number}",
            "event_time_ms": 1_532_476_800_000 + number,
            "kind": "purchase",
            "amount_minor": 1234,
            "currency": "EUR",
            "entities": {"customer": f"c{number % 50}", "terminal": f"m{number % 20}"},
        }
    ).encode()


Record = tuple[bytes, list[tuple[str, str | bytes | None]]]


def good(numbers: range) -> list[Record]:
    return [(transaction(number), []) for number in numbers]


def send(settings: Settings, records: list[Record], **producer_settings: object) -> None:
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "message.max.bytes": 100_000_000,
            **producer_settings,
        }
    )
    topic = topic_name(settings.environment, "transactions")
    for value, headers in records:
        producer.produce(topic, value, b"c1", headers=headers)
    assert producer.flush(30) == 0


def caught_up(settings: Settings, log: Log) -> bool:
    done, total = log.lag(f"{settings.environment}.scorer")
    return done == total


HOSTILE: dict[str, Record] = {
    "offset of 5,000 digits": (transaction(0), [("after_feedback", b"1" * 5_000)]),
    "nested beyond the stack": (b'{"v":1,"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", []),
    "compressed 20 MB": (b"0" * 20_000_000, []),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_becomes_a_dead_letter_and_the_stream_goes_on(
    name: str, topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, good(range(1, 11)))
    send(topics, [HOSTILE[name]], **{"compression.type": "gzip"})
    send(topics, good(range(11, 21)))
    with worker(topics, tmp_path / "scorer.log") as running:
        wait_until(
            lambda: caught_up(topics, log) or running.process.poll() is not None,
            timeout_s=30,
            what="past the hostile record",
        )
        assert running.process.poll() is None, running.said()[-2_000:]
        assert running.stop() == 0
    ledger = count(log, f"{topics.environment}.scorer")
    assert ledger.balanced
    assert (ledger.scored, ledger.dead_letters) == (20, 1)


def delete(settings: Settings, name: str) -> None:
    """Delete a topic; the deletion takes effect after its answer."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    topic = topic_name(settings.environment, name)
    for deleted in admin.delete_topics([topic]).values():
        deleted.result()
    wait_until(lambda: topic not in admin.list_topics().topics, timeout_s=20, what="deleted")


def make_anew(settings: Settings, name: str) -> None:
    """Delete a topic and make it again."""
    delete(settings, name)
    create_topics(
        settings.kafka_bootstrap, settings.environment, settings.partitions, timeout_ms=20_000
    )


def test_a_topic_made_anew_over_old_features_is_refused_before_anything_is_scored(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, good(range(20)))
    with worker(topics, tmp_path / "before.log") as before:
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
        assert before.stop() == 0
    make_anew(topics, "transactions")
    send(topics, good(range(20)))
    with worker(topics, tmp_path / "after.log") as after:
        wait_until(
            lambda: after.process.poll() is not None or "owns partitions" in after.said(),
            timeout_s=30,
            what="decided",
        )
        assert after.process.wait(40) == 3
        assert "FRAUDSTREAM_ENVIRONMENT" in after.said()
    with Log(topics) as fresh:
        assert sum(1 for _ in fresh.records("scores")) == 20


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Settings]:
    """Servers of this test alone, so that one may be stopped; topics with two partitions."""
    bare = make_settings({"state_dir": str(tmp_path / "own"), "partitions": 2})
    try:
        found = embedded.up(bare, owner_pid=os.getpid())
        settings = faster(
            bare,
            kafka_bootstrap=found.kafka_bootstrap,
            redis_url=found.redis_url,
            mlflow_url=found.mlflow_url,
        )
        create_topics(settings.kafka_bootstrap, settings.environment, 2, timeout_ms=20_000)
        yield settings
    finally:
        embedded.down(bare, wipe=True)


def kafka_pid(settings: Settings) -> int:
    state = json.loads(StackPaths.of(settings).state.read_text())
    return int(state["servers"]["kafka"]["pid"])


def test_a_worker_whose_broker_hangs_is_not_ready_and_ends_within_five_seconds_when_asked_to(
    own_stack: Settings, tmp_path: Path
) -> None:
    port = free_port()
    with worker(own_stack, tmp_path / "scorer.log", "--metrics-port", str(port)) as running:
        wait_until(lambda: view(port, "/readyz")[0] == 200, timeout_s=30, what="ready")
        send(own_stack, good(range(20_000)))
        with Log(own_stack) as log:
            wait_until(lambda: log.lag("local.scorer")[0] > 500, timeout_s=30, what="under load")
        pid = kafka_pid(own_stack)
        os.kill(pid, signal.SIGSTOP)
        try:
            waiting = (503, '{"state":"waiting","why":"Kafka does not answer"}')
            wait_until(lambda: view(port, "/readyz") == waiting, timeout_s=20, what="says so")
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(30) == 0
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_monitor_whose_broker_is_away_at_its_start_waits_for_it(
    own_stack: Settings, tmp_path: Path
) -> None:
    pid = kafka_pid(own_stack)
    os.kill(pid, signal.SIGSTOP)
    try:
        impatient = faster(own_stack, connect_timeout_ms=3_000)
        service = ("monitor", "--metrics-port", "0")
        with worker(impatient, tmp_path / "monitor.log", service=service) as monitor:
            port = port_of(monitor)
            wait_until(lambda: "asked again" in monitor.said(), timeout_s=30, what="it waits")
            status, body = view(port, "/readyz")
            assert status == 503
            assert '"state":"waiting"' in body
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: view(port, "/readyz")[0] == 200, timeout_s=30, what="ready")
            assert monitor.stop() == 0, monitor.said()
    finally:
        os.kill(pid, signal.SIGCONT)


def send_slowly(settings: Settings, records: list[Record], stop: threading.Event) -> None:
    """Send 50 records each tenth of a second, whether the broker takes them or not."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "enable.idempotence": True})
    topic = topic_name(settings.environment, "transactions")
    for number, (value, _) in enumerate(records):
        producer.produce(topic, value, b"c%d" % (number % 50))
        if number % 50 == 0:
            stop.wait(0.1)
    assert producer.flush(60) == 0


@pytest.mark.proof
def test_a_broker_that_is_away_for_a_minute_under_load_with_bad_records_costs_nothing(
    own_stack: Settings, tmp_path: Path
) -> None:
    records = good(range(50_000))
    records[::40] = [(b"{", [])] * len(records[::40])
    stop = threading.Event()
    pid = kafka_pid(own_stack)
    with (
        worker(own_stack, tmp_path / "scorer.log") as running,
        ThreadPoolExecutor(1) as sender,
        Log(own_stack) as log,
    ):
        sending = sender.submit(send_slowly, own_stack, records, stop)
        wait_until(lambda: log.lag("local.scorer")[0] > 2_000, timeout_s=60, what="under load")
        os.kill(pid, signal.SIGSTOP)
        try:
            stop.wait(60)
        finally:
            os.kill(pid, signal.SIGCONT)
        sending.result(120)
        wait_until(lambda: caught_up(own_stack, log), timeout_s=60, what="all scored")
        assert running.process.poll() is None, running.said()[-2_000:]
        ledger = count(log, "local.scorer")
    assert ledger.balanced, ledger
    assert (ledger.scored, ledger.dead_letters) == (48_750, 1_250)


def say(settings: Settings, name: str, *values: bytes | None) -> None:
    """Write records without headers to a topic, round about its partitions."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
    for number, value in enumerate(values):
        topic = topic_name(settings.environment, name)
        producer.produce(topic, value, partition=number % settings.partitions)
    assert producer.flush(30) == 0


def alert(number: int, **fields: object) -> bytes:
    score = dict.fromkeys(set(Alert.__struct_fields__) - {"other_sets"}, 0)
    texts = dict.fromkeys(("customer", "terminal", "feature_set", "alert_id"), "x")
    more = {
        "v": 1,
        "transaction_id": f"t{number}",
        "currency": "EUR",
        "decision": "alert",
        "model_version": "1",
        "features": [],
        "stale": False,
        "stages": dict.fromkeys(("waiting", "features", "model", "until_produce"), 0.0),
        "reasons": ["new terminal"],
        "suggested_action": "call",
    }
    return json.dumps(score | texts | more | fields).encode()


def test_broken_alerts_are_named_and_left_out(topics: Settings) -> None:
    topics = faster(topics, redis_url="", mlflow_url="")  # a consumer of alerts needs neither
    deep = b'{"v":1,"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    odd = alert(1, score=None, event_time_ms=10**18)
    say(topics, "alerts", b"no alert", None, deep, b'{"v":1,"customer":"\xff"}', odd, alert(2))
    for as_json in ((), ("--json",)):
        done = run(topics, "alerts", "tail", "--from-beginning", "--no-follow", *as_json)
        assert done.returncode == 0, done.stderr[-500:]
        assert "Traceback" not in done.stderr
        assert len(done.stdout.splitlines()) == 2
        assert done.stderr.count("left out") == 4
        assert f"{topic_name(topics.environment, 'alerts')} 1:0 (partition" in done.stderr


def test_a_reader_of_alerts_that_leaves_or_is_interrupted_sees_no_trace(topics: Settings) -> None:
    say(topics, "alerts", *[alert(number) for number in range(5_000)])
    line = shlex.join(command(topics, "alerts", "tail", "--from-beginning", "--no-follow"))
    left = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{line} | head -1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (left.returncode, left.stderr) == (0, "")
    assert len(left.stdout.splitlines()) == 1
    following = subprocess.Popen(
        command(topics, "alerts", "tail", "--from-beginning"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=20)
    assert (following.returncode, said.strip()) == (130, "stopped")


def test_the_ledger_counts_what_is_no_result_of_anything(topics: Settings) -> None:
    far = {"transaction_id": "t1", "source_partition": 0, "source_offset": 3_000_000_000}
    say(topics, "scores", json.dumps(far).encode(), b"no score", None)
    say(topics, "dead-letters", b"no headers")
    done = run(topics, "ledger")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "unfounded 4 (scores 0:0, " in done.stderr
    assert "dead-letters 0:0" in done.stderr


def test_input_in_a_codec_that_the_ledger_has_not_is_said_in_one_sentence(topics: Settings) -> None:
    send(topics, good(range(10)), **{"compression.type": "lz4"})
    done = run(topics, "ledger")
    if done.returncode == 0:
        pytest.skip("a package for lz4 is installed")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "lz4" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("ledger",),
        ("demo",),
        ("replay", "--limit", "10"),
        ("generate", "--out", "never.parquet", "--days", "1"),
        ("train",),
        ("models", "list"),
        ("models", "show", "1"),
        ("models", "promote", "1"),
        ("topics", "create"),
        ("topics", "show"),
        ("stack", "up"),
        ("stack", "status"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    settings: Settings, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    for target in ("/nowhere/report.json", str(tmp_path)):
        done = run(settings, *arguments, "--json", target)
        assert done.returncode == 2, done.stderr[-500:]
        assert done.stderr.startswith(f"error: --json {target}")
        assert len(done.stderr.splitlines()) == 1
    assert not Path("never.parquet").exists()


@pytest.mark.parametrize("rate", ["nan", "inf", "-inf", "1e999", "-1"])
def test_a_rate_that_is_no_pace_is_wrong_usage(settings: Settings, rate: str) -> None:
    done = run(settings, "replay", "--rate", rate, "--limit", "10")
    assert done.returncode == 2
    assert "--rate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [b"environment = '\xff'", None])
def test_a_settings_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "fraudstream.toml"
    file.mkdir() if content is None else file.write_bytes(content)
    done = subprocess.run(
        command(Settings(), "stack", "status"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: fraudstream.toml ")
    assert len(done.stderr.splitlines()) == 1


def test_two_replays_of_one_source_started_together_send_no_row_twice(
    topics: Settings, log: Log
) -> None:
    stream = source(make_parameters({"seed": 5, "customers": 300, "terminals": 200, "days": 3}))
    plan = ReplayPlan(pace=AtRate(600), limit=900)
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(replay_table, topics, stream, plan) for _ in range(2)]
    errors = [each.exception() for each in both]
    refused = [error for error in errors if error is not None]
    assert len(refused) == 1
    assert isinstance(refused[0], Refused)
    assert "another replay of source" in str(refused[0])
    sent = [json.loads(record.value or b"") for record in log.records("transactions")]
    assert len(sent) == len({record["transaction_id"] for record in sent}) > 0
