"""The monitoring service on real servers: its reports, and that kills neither lose nor double one."""

import itertools
import signal
from functools import partial
from pathlib import Path

import msgspec
import pytest
import urllib3
from kafka import KafkaAdminClient, TopicPartition

from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core import metrics as m
from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.model import CHAMPION, model_name
from fraudstream.core.settings import Settings, state_path
from fraudstream.core.topics import topic_name
from monitoring.drift import Levels
from monitoring.monitor import Monitor
from monitoring.reports import DayReport, DriftReport, QualityReport, Report, key_of, name_of
from monitoring.watching import State, Watching
from tests.integration.desk import DAY_ROWS, Desk, days_over, plain_days, reports
from tests.integration.served_scores import (
    SPAN_MS,
    T0,
    fraud_label,
    made_score,
    send,
    transactional,
)
from tests.integration.test_faults import say
from tests.integration.test_services import ask, port_of, shows
from tests.processes import Worker, faster, run, wait_until, worker

MONITOR = ("monitor", "--metrics-port", "0")


def test_days_quality_and_drift_are_reported_and_shown(topics: Settings, tmp_path: Path) -> None:
    desk = Desk(topics)
    with worker(topics, tmp_path / "monitor.log", service=MONITOR) as service:
        port = port_of(service)
        for number in range(12):
            desk.day(number, shift=3.0 if number >= 9 else 0.0)
        wait_until(partial(days_over, topics, 11), timeout_s=60, what="eleven days are over")
        wait_until(
            partial(shows, port, 'fraudstream_monitor_drift{what="amount"} 1.0'),
            timeout_s=10,
            what="drift is shown",
        )
        assert ask(port, "/readyz") == (200, '{"state":"ready"}')
        page = ask(port, "/metrics")[1]
        assert service.stop() == 0, service.said()
    found = reports(topics)
    calm = [each for each in found if isinstance(each, DayReport)][:9]
    assert all(each.compared == each.decided == DAY_ROWS for each in calm)
    assert max(each.features["amount"].psi for each in calm) < 0.1
    assert all(each.score is not None and each.score.psi < 0.1 for each in calm)
    begun = [each for each in found if isinstance(each, DriftReport)]
    assert {each.day for each in begun} == {name_of((T0 + SPAN_MS) // DAY_MS + 10)}
    assert {each.what for each in begun} >= {"amount"}
    quality = [each for each in found if isinstance(each, QualityReport)]
    assert len(quality) == 4
    assert all(each.frauds > 0 for each in quality)
    assert max(each.recall or 0 for each in quality) > 0.3
    assert 'fraudstream_monitor_reference{version="1"} 1.0' in page
    assert [each.name for each in m.MONITOR if f"\n{each.name}" not in page] == []
    assert "fraudstream_monitor_recall 0." in page or "fraudstream_monitor_recall 1.0" in page


def test_kills_at_any_moment_neither_lose_nor_double_a_report(
    topics: Settings, tmp_path: Path
) -> None:
    desk = Desk(topics)
    moments = ("before it tells", "before it saves", "once it has saved")
    for number in range(12):
        desk.day(number, shift=3.0 if number >= 9 else 0.0)
        if number % 2:
            dies(topics, tmp_path / f"{number}.log", f"the monitor dies {moments[number // 2 % 3]}")
    with worker(topics, tmp_path / "last.log", service=MONITOR) as service:
        port_of(service)
        wait_until(partial(days_over, topics, 11), timeout_s=60, what="all days are over")
        assert service.stop() == 0
    disturbed = reports(topics)
    calm = faster(topics, state_dir=str(tmp_path / "calm"))
    expected = undisturbed(calm, tmp_path / "calm.log", len(disturbed))
    assert sorted(map(key_of, disturbed)) == sorted(map(key_of, expected))
    assert {key_of(each): each for each in disturbed} == {key_of(each): each for each in expected}


def dies(settings: Settings, log: Path, change: str) -> None:
    service = Worker(settings, log, changes=[change], service=("monitor",))
    assert service.process.wait(60) == -signal.SIGSEGV, service.said()


def undisturbed(settings: Settings, log: Path, n: int) -> list[Report]:
    """Return what a monitor reports that reads everything in one go, with no report there before."""
    before = reports(settings)
    delete_reports(settings)
    with worker(settings, log, service=MONITOR) as service:
        port_of(service)
        wait_until(lambda: len(reports(settings)) >= n, timeout_s=60, what="as many reports")
        assert service.stop() == 0
    assert len(before) == n
    return reports(settings)


def delete_reports(settings: Settings) -> None:
    """Remove the records of `monitoring`."""
    topic = topic_name(settings.environment, "monitoring")
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    admin.delete_records({TopicPartition(topic, 0): -1})
    admin.close()


def test_a_second_monitor_is_refused_and_so_are_levels_that_contradict_each_other(
    topics: Settings, tmp_path: Path
) -> None:
    with worker(topics, tmp_path / "monitor.log", service=MONITOR) as service:
        port = port_of(service)
        wait_until(lambda: ask(port, "/readyz")[0] == 200, timeout_s=30, what="ready")
        second = run(topics, "monitor")
        assert second.returncode == 1
        assert "another monitor" in second.stderr
        assert service.stop() == 0
    for enter, leave in (("0.1", "0.2"), ("nan", "0.1"), ("0.3", "nan"), ("inf", "0.1")):
        wrong = run(topics, "monitor", "--enter", enter, "--leave", leave)
        assert wrong.returncode == 2
        assert f"--leave {leave} must be below --enter {enter}" in wrong.stderr


def _file(topics: Settings) -> Path:
    return state_path(topics) / "monitor" / f"{topics.environment}.msgpack"


def test_a_log_that_is_not_the_one_that_was_read_is_refused(topics: Settings) -> None:
    file = _file(topics)
    file.parent.mkdir(parents=True)
    file.write_bytes(msgspec.msgpack.encode(State(offsets={"scores": {0: 10}})))
    done = run(topics, "monitor")
    assert done.returncode == 3
    assert "scores was read to 10, but has 0 to 0 now" in done.stderr
    assert str(file) in done.stderr
    file.write_bytes(b"\xc1")
    damaged = run(topics, "monitor")
    assert damaged.returncode == 3
    assert "is no state of this monitor" in damaged.stderr


def ready(service: Worker) -> None:
    port = port_of(service)
    wait_until(lambda: ask(port, "/readyz")[0] == 200, timeout_s=30, what="ready")


def test_a_monitor_with_another_state_folder_takes_over_and_nothing_is_there_twice(
    topics: Settings, tmp_path: Path
) -> None:
    elsewhere = faster(topics, state_dir=str(tmp_path / "elsewhere"))
    with worker(topics, tmp_path / "first.log", service=MONITOR) as first:
        ready(first)
        with worker(elsewhere, tmp_path / "second.log", service=MONITOR) as second:
            ready(second)
            plain_days(topics, 4)
            assert first.process.wait(30) == 4
            assert "another monitor of environment" in first.said()
            wait_until(partial(days_over, topics, 3), timeout_s=30, what="three days are over")
            assert second.stop() == 0
    keys = [key_of(each) for each in reports(topics)]
    assert len(keys) == len(set(keys)) == 3


def test_what_is_read_again_after_a_round_that_broke_off_is_counted_once(
    topics: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [made_score(i, event_time_ms=T0 + i, features=[1.0] * 9) for i in range(50)]
    producer = transactional(topics)
    producer.begin_transaction()
    send(producer, topics, scores, [fraud_label(each) for each in scores[:7]])
    producer.commit_transaction()
    service, due, rounds = Monitor(topics, Levels()), Watching.due, itertools.count(1)

    def breaks_off(self: Watching, until_ms: int) -> list[Report]:
        number = next(rounds)
        if number == 1:
            raise DependencyUnreachable("Kafka does not answer")
        if number == 3:
            raise KeyboardInterrupt
        return due(self, until_ms)

    monkeypatch.setattr(Watching, "due", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        service.run()
    counted = partial(service.registry.get_sample_value, m.MONITOR_READ.name)
    assert counted({"topic": "scores"}) == 50
    assert counted({"topic": "feedback"}) == 7
    assert service.registry.get_sample_value(f"{m.MONITOR_DELAY.name}_count") == 7


def test_a_label_that_is_none_is_left_out_and_said(topics: Settings, tmp_path: Path) -> None:
    producer = transactional(topics)
    producer.begin_transaction()
    producer.produce(topic_name(topics.environment, "feedback"), b"{}", partition=0)
    producer.commit_transaction()
    plain_days(topics, 3)
    with worker(topics, tmp_path / "monitor.log", service=MONITOR) as service:
        wait_until(partial(days_over, topics, 2), timeout_s=30, what="two days are over")
        assert service.stop() == 0
    assert "feedback 0:0" in service.said()


NO_SCORES = {
    "no fields": b"{}",
    "no UTF-8": b'{"transaction_id":"\xff","event_time_ms":1,"features":[]}',
    "nested too deep": b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "a version without a score": (
        b'{"transaction_id":"a","event_time_ms":1,"features":[],"model_version":"1"}'
    ),
}


@pytest.mark.parametrize("value", NO_SCORES.values(), ids=NO_SCORES.keys())
def test_a_score_that_is_none_is_named_with_its_place(topics: Settings, value: bytes) -> None:
    say(topics, "scores", value)
    done = run(topics, "monitor")
    assert done.returncode == 3
    assert "scores 0:0 is none of this product's" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_score_of_another_width_than_its_version_s_is_named(topics: Settings) -> None:
    Desk(topics)
    score = made_score(1, event_time_ms=T0 + SPAN_MS, features=[1.0] * 8)
    wrong = msgspec.structs.replace(score, model_version="1", score=0.1)
    say(topics, "scores", msgspec.json.encode(wrong))
    done = run(topics, "monitor")
    assert done.returncode == 3
    assert "8 features, but version 1 has 9" in done.stderr


def test_a_version_whose_file_is_gone_is_not_compared(topics: Settings, tmp_path: Path) -> None:
    desk = Desk(topics)
    for number in range(3):
        desk.day(number)
    registry = ModelRegistry(topics.mlflow_url, connect_timeout_ms=5_000)
    champion = registry.alias(model_name(topics.environment), CHAMPION)
    assert champion is not None
    assert urllib3.request("DELETE", registry.file_url(champion)).status == 200
    with worker(topics, tmp_path / "monitor.log", service=MONITOR) as service:
        wait_until(partial(days_over, topics, 2), timeout_s=30, what="two days are over")
        assert service.stop() == 0
    assert "version 1 is not compared with its training" in service.said()
    assert all(not each.compared for each in reports(topics) if isinstance(each, DayReport))


def test_a_topic_that_was_made_anew_is_refused_however_long_it_is(
    topics: Settings, tmp_path: Path
) -> None:
    with worker(topics, tmp_path / "monitor.log", service=MONITOR) as service:
        plain_days(topics, 3)
        wait_until(partial(days_over, topics, 2), timeout_s=30, what="two days are over")
        assert service.stop() == 0
    scores = topic_name(topics.environment, "scores")
    admin = KafkaAdminClient(bootstrap_servers=topics.kafka_bootstrap)
    admin.delete_topics([scores])
    wait_until(lambda: scores not in admin.list_topics(), timeout_s=20, what="gone")
    admin.close()
    create_topics(topics.kafka_bootstrap, topics.environment, 2, timeout_ms=20_000)
    plain_days(topics, 6)
    done = run(topics, "monitor")
    assert done.returncode == 3
    assert f"topic {scores} was made anew since it was read" in done.stderr
