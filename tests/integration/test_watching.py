"""What dashboard and rules ask for is there: a whole system runs, and Prometheus asks it."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from tests.integration.desk import Desk
from tests.integration.served_scores import serve
from tests.integration.test_exactly_once import make_champion, trained
from tests.integration.test_services import ask, port_of, shows
from tests.own_prometheus import Prometheus, prometheus
from tests.ports import free_port
from tests.processes import Worker, faster, wait_until, worker
from tests.promql import OF_PROMETHEUS, Selector, grouping, selectors
from tests.unit.test_dashboard import PANELS, RECORDED, queries
from tests.unit.test_rules import ALERTS, RULES_FILE

QUERIES = [expr for panel in PANELS for _, expr in queries(panel)]
OF_THE_SERVER = {"ALERTS", "up"}
"""Series that Prometheus makes by itself."""
DESK_DAYS = 10
"""A label delay of 7 days and more, so that days are mature."""
GENERATED = "seed=3,customers=400,terminals=300,days=12"


class System(NamedTuple):
    """Ports of the services by job, the scorer among them, and what makes the days of the job `desk`."""

    ports: dict[str, int]
    scorer: Worker
    desk: Desk


@pytest.fixture
def system(topics: Settings, tmp_path: Path) -> Iterator[System]:
    """Run scorer with a champion, replay, ledger, monitor and, in environments with history, the others.

    The trainer learns from one of them. Of the other a `Desk` makes days that are over and labelled; the job
    `desk` is its monitor.
    """
    learning, past = (beside(topics, each) for each in ("l", "p"))
    serve(learning, 12_000)
    desk = Desk(past)
    for day in range(DESK_DAYS):
        desk.day(day)
    features = np.random.default_rng(1).random((3_000, 9)).astype(np.float32)
    make_champion(topics, trained(features, features[:, 0] > 0.97))
    ports = {"scorer": free_port()}
    services = {
        "producer": ("replay", "--generate", GENERATED, "--rate", "100"),
        "ledger": ("ledger", "--watch"),
        "monitor": ("monitor",),
        "trainer": ("trainer", "--every", "1"),
        "desk": ("monitor",),
    }
    of = {"trainer": learning, "desk": past}
    with ExitStack() as stack:
        start = partial(_start, stack, tmp_path)
        scorer = start("scorer", topics, "scorer", "--metrics-port", str(ports["scorer"]))
        started = {
            job: start(job, of.get(job, topics), *line, "--metrics-port", "0")
            for job, line in services.items()
        }
        ports |= {job: port_of(service) for job, service in started.items()}
        _send_a_letter(topics)
        wait_until(partial(_busy, ports), timeout_s=60, what="everything has worked")
        yield System(ports, scorer, desk)


def beside(settings: Settings, name: str) -> Settings:
    """Return another environment on the same servers, with its topics."""
    other = faster(settings, environment=f"{settings.environment}-{name}")
    create_topics(settings.kafka_bootstrap, other.environment, 2, timeout_ms=20_000)
    return other


def _start(stack: ExitStack, folder: Path, job: str, settings: Settings, *line: str) -> Worker:
    return stack.enter_context(worker(settings, folder / f"{job}.log", service=line))


def _send_a_letter(settings: Settings) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
    producer.produce(topic_name(settings.environment, "transactions"), value=b"{", partition=0)
    assert producer.flush(30) == 0


def _busy(ports: dict[str, int]) -> bool:
    scorer, trainer = ports["scorer"], ports["trainer"]
    try:
        dead = shows(scorer, 'fraudstream_scorer_dead_letters_total{kind="malformed_json"} 1.0')
        judged = shows(ports["desk"], 'fraudstream_monitor_drift{what="score"} 0.0')
        return dead and judged and shows(trainer, 'fraudstream_trainer_model{version="1"} 1.0')
    except OSError:
        return False  # the scorer does not listen yet


def exported(ports: dict[str, int]) -> dict[str, set[str]]:
    """Return the labels of every series on the pages of the services, by name."""
    found: dict[str, set[str]] = {}
    for port in ports.values():
        for family in text_string_to_metric_families(ask(port, "/metrics")[1]):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def missing(expr: str, pages: dict[str, set[str]]) -> list[str]:
    """Return what an expression asks for that stands on no page."""
    asked = [each for each in selectors(expr) if not _is_elsewhere(each)]
    lacking = [each.name for each in asked if each.name not in pages]
    labels = {label for each in asked for label, _ in each.matchers} | grouping(expr)
    there = set().union(*(pages.get(each.name, set()) for each in asked)) | OF_PROMETHEUS
    return lacking + (sorted(labels - there) if len(asked) == len(selectors(expr)) else [])


def _is_elsewhere(each: Selector) -> bool:
    return each.name in {*OF_THE_SERVER, *RECORDED}


def now(expr: str) -> str:
    """Return a panel's query as Grafana sends it."""
    return expr.replace("$__rate_interval", "10s")


def test_a_running_system_has_what_dashboard_and_rules_ask_for_and_alerts_only_of_a_death(
    system: System, tmp_path: Path
) -> None:
    pages = exported(system.ports)
    exprs = [*QUERIES, *RECORDED.values(), *(rule["expr"] for rule in ALERTS.values())]
    assert {expr: missing(expr, pages) for expr in exprs if missing(expr, pages)} == {}
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip(
            "the pages have it all; to have the queries answered, put prometheus on PATH (Debian: prometheus)"
        )
    with prometheus(
        program,
        tmp_path / "prometheus",
        port=free_port(),
        rules=RULES_FILE,
        ports=system.ports,
    ) as server:
        system.desk.day(DESK_DAYS)
        wait_until(
            lambda: not [expr for expr in QUERIES if not server.values(now(expr))],
            timeout_s=30,
            what="each query of the dashboard has an answer",
        )
        for expr in exprs:
            server.values(now(expr))
        check_rules(server)
        system.scorer.kill()
        wait_until(
            lambda: alerts_of(server) == {"NoScorerReady", "ServiceDown"},
            timeout_s=30,
            what="the death of the only scorer is told",
        )


def check_rules(server: Prometheus) -> None:
    """Every rule was worked out, and none has anything to tell of a system that is well."""
    wait_until(
        lambda: all(rule["health"] == "ok" for rule in server.rules()),
        timeout_s=30,
        what="each rule is worked out",
    )
    wait_until(lambda: not alerts_of(server), timeout_s=10, what="nothing to tell")


SLOWNESS = {"LatencyHigh", "CommitSlow", "MonitorBehind", "ReplayLate", "LagGrows"}


def alerts_of(server: Prometheus) -> set[str]:
    """Return the alerts that fire, or will if it stays so; without those that a slow machine may bring."""
    found = {rule["name"] for rule in server.rules() if rule.get("alerts")}
    assert ALERTS.keys() >= SLOWNESS
    return found - SLOWNESS


def test_a_page_without_a_metric_or_label_would_be_found() -> None:
    pages = {"fraudstream_scorer_lag": {"partition"}, "fraudstream_scorer_model": set[str]()}
    assert missing("max by (partition) (fraudstream_scorer_lag)", pages) == []
    assert missing("sum(fraudstream_scorer_held)", pages) == ["fraudstream_scorer_held"]
    assert missing("count by (version) (fraudstream_scorer_model)", pages) == ["version"]
