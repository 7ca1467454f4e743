"""What a service serves is what its list of metrics says, and so does the page."""

import re
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast
from urllib.error import HTTPError

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from fraudstream.clients.metrics import Condition, ServiceMetrics
from fraudstream.clients.service_web import served
from fraudstream.core import metrics as m
from fraudstream.core.errors import DEAD_LETTER_KINDS, SettingsError
from fraudstream.core.health import MEANINGS, STATES, Health
from producer.replay import Progress
from producer.replay_metrics import ReplayMetrics
from scorer.ends import Ends
from scorer.evenness import Apart
from scorer.metrics import WorkerMetrics
from scorer.parts import Parts
from scorer.status import Status
from tests.conftest import REPOSITORY

APART = {3: Apart(1_700_000_000_000, 60_000, held=True)}
SERVER = SimpleNamespace(calls=12, memory_bytes=4_096)
ENDS = cast("Ends", SimpleNamespace(now=lambda owned: dict.fromkeys(owned, 41)))
STORE = SimpleNamespace(state=SimpleNamespace(server=SERVER, meta=SimpleNamespace(state="ready")))


def parts(*, apart: dict[int, Apart], stores: dict[str, object]) -> Parts:
    found = SimpleNamespace(
        evenness=SimpleNamespace(apart=lambda _: apart),
        assignment=SimpleNamespace(positions=dict.fromkeys(apart, 0), lags=lambda ends: ends),
        live=SimpleNamespace(stores=stores),
    )
    return cast("Parts", found)


def families(text: str) -> dict[str, Family]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def of_worker(status: Status, apart: dict[int, Apart], **stores: object) -> dict[str, Family]:
    """Return the product's metrics on the page of a worker with this status, by name."""
    found = families(WorkerMetrics(status, parts(apart=apart, stores=stores), ENDS).text())
    return {name: family for name, family in found.items() if name.startswith("fraudstream")}


@pytest.fixture
def busy() -> Status:
    """A worker that has scored 7 records and waits for Redis."""
    status = Status(state="waiting", waiting_for="writes_refused", seconds={"poll": 1.5})
    status.slot, status.restarts = "x.scorer.2", 4
    status.model_version = "4"
    status.count(scored=7, alerts=2, dead=["poison"])
    status.scores.add(np.array([0.01, 0.5, 0.51], np.float32))
    status.commit_ms.add_one(6.0)
    return status


def check(family: Family, metric: m.Metric) -> None:
    assert (family.type, family.documentation) == (metric.kind, metric.text)
    assert family.samples
    for sample in family.samples:
        assert tuple(label for label in sample.labels if label != "le") == metric.labels


def test_every_metric_of_the_list_is_served_with_its_kind_meaning_and_labels(busy: Status) -> None:
    found = of_worker(busy, APART, abc=STORE)
    assert found.keys() == {each.name.removesuffix("_total") for each in m.SCORER}
    for metric in m.SCORER:
        check(found[metric.name.removesuffix("_total")], metric)


def test_values_are_those_of_the_worker(busy: Status) -> None:
    found = of_worker(busy, APART, abc=STORE)

    def only(metric: m.Metric) -> tuple[dict[str, str], float]:
        (sample,) = found[metric.name.removesuffix("_total")].samples
        return sample.labels, sample.value

    assert only(m.SCORED) == ({}, 7)
    assert only(m.RECORDS) == ({}, 8)
    assert only(m.BEHIND) == ({"partition": "3"}, 60_000)
    assert only(m.LAG) == ({"partition": "3"}, 41)
    assert only(m.SECONDS) == ({"hop": "poll"}, 1.5)
    assert only(m.STATE) == ({"state": "waiting"}, 1)
    assert {each.labels["for"]: each.value for each in found[m.WAITING.name].samples} == {
        "kafka": 0,
        "redis": 0,
        "writes_refused": 1,
    }
    assert only(m.MODEL) == ({"version": "4"}, 1)
    assert only(m.FEATURE_CALLS) == ({"feature_set": "abc"}, 12)
    assert only(m.FEATURE_MEMORY) == ({}, 4_096)
    assert only(m.FEATURE_STATE) == ({"feature_set": "abc", "phase": "ready"}, 1)
    assert only(m.RESTARTS) == ({"slot": "x.scorer.2"}, 4)


def test_a_kind_is_counted_from_0_so_that_its_first_one_is_an_increase(busy: Status) -> None:
    of_scorer = of_worker(busy, {})[m.DEAD_LETTERS.name.removesuffix("_total")].samples
    assert {each.labels["kind"]: each.value for each in of_scorer} == {
        kind: int(kind == "poison") for kind in DEAD_LETTER_KINDS
    }
    trainer = ServiceMetrics(m.TRAINER)
    trainer.counter(m.TRAININGS).labels("failed").inc()
    page = families(generate_latest(trainer.registry).decode())
    rounds = page[m.TRAININGS.name.removesuffix("_total")].samples
    counted = {each.labels["outcome"]: each.value for each in rounds if "_total" in each.name}
    assert counted == {outcome: int(outcome == "failed") for outcome in m.OUTCOMES}


def buckets(family: Family) -> dict[str, float]:
    return {each.labels["le"]: each.value for each in family.samples if "le" in each.labels}


def test_histograms_count_scores_batches_and_commits(busy: Status) -> None:
    found = of_worker(busy, {})
    scores = buckets(found[m.SCORES.name])
    assert (scores["0.05"], scores["0.5"], scores["0.55"], scores["+Inf"]) == (1, 2, 3, 3)
    sizes = buckets(found[m.BATCH_RECORDS.name])
    assert (sizes["1"], sizes["10"]) == (0, 1)
    commits = buckets(found[m.COMMIT_SECONDS.name])
    assert (commits["0.005"], commits["0.01"]) == (0, 1)


def test_a_metric_without_a_value_is_left_out() -> None:
    found = of_worker(Status(), {})
    for metric in (m.BEHIND, m.MODEL, m.FEATURE_MEMORY):
        assert metric.name not in found


@pytest.mark.parametrize("service", m.SERVICES)
def test_the_page_has_each_list_as_it_is(service: str) -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    table = m.table(m.SERVICES[service])
    assert f"<!-- metrics of {service} -->\n{table}\n<!--" in page, (
        "run .venv/bin/python docs/metrics_table.py"
    )


def test_the_page_has_the_states_as_they_are() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    assert re.findall(r"^\| `([a-z]+)` \| (.*) \|$", page, re.M)[: len(STATES)] == [
        *MEANINGS.items()
    ]


def test_names_are_those_of_the_service_and_none_is_there_twice() -> None:
    every = [metric.name for metrics in m.SERVICES.values() for metric in metrics]
    assert len(every) == len(set(every))
    for name in every:
        assert re.fullmatch(r"fraudstream_[a-z_]+", name)


def test_the_metrics_of_a_service_have_kind_meaning_and_labels() -> None:
    made = ServiceMetrics(m.TRAINER)
    made.counter(m.TRAININGS).labels("failed").inc()
    made.state(m.TRAINER_STATE, lambda: "ready")
    made.show(m.TRAINER_MODEL, {("1",): 1})
    made.show(m.TRAINER_MODEL, {("2",): 1})
    made.gauge(m.TRAINER_METRIC).labels("auc").set(0.5)
    found = families(generate_latest(made.registry).decode())
    for metric in m.TRAINER:
        family = found[metric.name.removesuffix("_total")]
        family.samples = [each for each in family.samples if not each.name.endswith("_created")]
        check(family, metric)
    states = {each.labels["state"]: each.value for each in found[m.TRAINER_STATE.name].samples}
    assert states == {state: float(state == "ready") for state in STATES}
    assert [each.labels for each in found[m.TRAINER_MODEL.name].samples] == [{"version": "2"}]


def test_a_delay_of_weeks_has_a_bucket_of_its_own() -> None:
    made = ServiceMetrics(m.MONITOR)
    made.histogram(m.MONITOR_DELAY).observe(12)
    counts = buckets(families(generate_latest(made.registry).decode())[m.MONITOR_DELAY.name])
    assert (counts["10.0"], counts["14.0"]) == (0, 1)


def replayed(sent: int, silent_s: Callable[[], float] = lambda: 0.0) -> Progress:
    return Progress(
        position=sent + 5,
        total=100,
        sent=sent,
        labels=2,
        event_time_ms=1_700_000_000_000,
        lag_s=0.5,
        seconds=1.0,
        silent_s=silent_s,
    )


def test_a_replay_waits_once_kafka_takes_nothing_and_goes_on_once_it_does() -> None:
    metrics, silence = ReplayMetrics(), SimpleNamespace(seconds=0.0)
    metrics.show(replayed(10, lambda: silence.seconds))
    for silence.seconds, state in ((4.0, "ready"), (5.5, "waiting"), (0.0, "ready")):
        assert metrics.health().state == state
        shown = families(generate_latest(metrics.registry).decode())[m.REPLAY_STATE.name].samples
        assert [each.labels["state"] for each in shown if each.value] == [state], "without a word"


def test_a_replay_shows_how_far_it_is() -> None:
    metrics = ReplayMetrics()
    assert metrics.health() == Health("starting")
    for sent in (10, 25):
        metrics.show(replayed(sent))
    found = families(generate_latest(metrics.registry).decode())
    assert found["fraudstream_producer_sent"].samples[0].value == 25
    assert found["fraudstream_producer_labels"].samples[0].value == 2
    assert found["fraudstream_producer_position"].samples[0].value == 30
    assert metrics.health() == Health("ready")


def asked(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def test_health_is_told_and_only_ready_is_ready() -> None:
    now = Health("waiting", "Kafka does not answer")
    with served(CollectorRegistry(), lambda: now, 0) as port:
        assert asked(port, "/livez")[0] == 200
        waiting = b'{"state":"waiting","why":"Kafka does not answer"}'
        assert asked(port, "/readyz") == asked(port, "/healthz") == (503, waiting)
        now = Health("ready")
        assert asked(port, "/readyz") == (200, b'{"state":"ready"}')
        assert asked(port, "/metrics")[0] == 200
        assert asked(port, "/")[0] == 404
        now = Health("waiting", hangs=True)
        assert asked(port, "/livez")[0] == asked(port, "/readyz")[0] == 503


def test_a_loop_that_stands_still_hangs_until_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr("fraudstream.clients.metrics.monotonic_s", lambda: clock.now_s)
    metrics = ServiceMetrics(m.MONITOR)
    condition = Condition(metrics, m.MONITOR_STATE, 60)
    assert condition.now == Health("starting")
    condition.become(Health("ready"))
    clock.now_s += 50
    condition.move()
    clock.now_s += 50
    assert condition.now == Health("ready")
    clock.now_s += 11
    assert (condition.now.hangs, condition.now.ready) == (True, False)
    assert condition.now.why == "its loop has not moved for 61 s: restart it"
    shown = families(generate_latest(metrics.registry).decode())[m.MONITOR_STATE.name].samples
    assert [each.labels["state"] for each in shown if each.value] == ["waiting"]
    condition.move()
    assert condition.now == Health("ready")


def test_a_port_that_is_taken_is_named() -> None:
    with (
        served(CollectorRegistry(), lambda: Health("ready"), 0) as port,
        pytest.raises(SettingsError, match=f"--metrics-port {port} cannot be listened at"),
        served(CollectorRegistry(), lambda: Health("ready"), port),
    ):
        pass
