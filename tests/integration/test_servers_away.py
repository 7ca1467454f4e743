"""A server that does not answer: each service says at /readyz which, and ends soon when it is asked to."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from fraudstream.core.settings import Settings
from fraudstream.stack.state import StackPaths
from tests.integration.desk import days_over, plain_days
from tests.integration.test_faults import caught_up, good, own_stack, send
from tests.integration.test_services import port_of
from tests.integration.test_workers import view
from tests.ports import free_port
from tests.processes import wait_until, worker
from verify.ledger import Log

__all__ = ["own_stack"]

KAFKA = "Kafka does not answer"
TITLES = {"kafka": "Kafka", "mlflow": "MLflow"}
TRAINER = ("trainer", "--every", "600", "--metrics-port", "0")
OFTEN = {
    "trainer": ("trainer", "--every", "1", "--metrics-port", "0"),
    "monitor": ("monitor", "--metrics-port", "0"),
}


@contextmanager
def frozen(settings: Settings, server: str) -> Iterator[None]:
    """Let a server of the test's own stack stand still for the length of the block."""
    state = json.loads(StackPaths.of(settings).state.read_text())
    pid = int(state["servers"][server]["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ready(port: int) -> bool:
    return view(port, "/readyz") == (200, '{"state":"ready"}')


def waits_for(port: int, what: str) -> bool:
    status, body = view(port, "/readyz")
    return status == 503 and re.search(rf'"state":"waiting","why":"{what}', body) is not None


def test_an_idle_worker_is_not_ready_while_kafka_is_away_and_is_with_its_next_answer(
    own_stack: Settings, tmp_path: Path
) -> None:
    port = free_port()
    with worker(own_stack, tmp_path / "scorer.log", "--metrics-port", str(port)) as running:
        wait_until(partial(ready, port), timeout_s=30, what="ready")
        with frozen(own_stack, "kafka"):
            wait_until(partial(waits_for, port, KAFKA), timeout_s=15, what="says so")
            for _ in range(5):  # whatever else waits for Kafka meanwhile
                assert 'fraudstream_scorer_waiting{for="kafka"} 1' in view(port, "/metrics")[1]
        wait_until(partial(ready, port), timeout_s=20, what="ready again")
        assert 'fraudstream_scorer_waiting{for="kafka"} 0' in view(port, "/metrics")[1]
        send(own_stack, good(range(100)))
        with Log(own_stack) as log:
            wait_until(partial(caught_up, own_stack, log), timeout_s=30, what="scored")
        with frozen(own_stack, "kafka"):
            wait_until(partial(waits_for, port, KAFKA), timeout_s=15, what="says so again")
            assert running.stop(10) == 0
    assert "Kafka has not answered for" in running.said()


def lag(port: int) -> float:
    lags = re.findall(r"^fraudstream_scorer_lag{.*} (.+)$", view(port, "/metrics")[1], re.MULTILINE)
    return sum(float(each) for each in lags)


def test_a_worker_whose_feature_server_is_away_names_that_one_and_tells_how_much_waits(
    own_stack: Settings, tmp_path: Path
) -> None:
    port = free_port()
    with worker(own_stack, tmp_path / "scorer.log", "--metrics-port", str(port)):
        wait_until(partial(ready, port), timeout_s=30, what="ready")
        with frozen(own_stack, "redis"):
            why = "Redis does not answer"
            wait_until(partial(waits_for, port, why), timeout_s=15, what="says so")
            assert 'fraudstream_scorer_waiting{for="redis"} 1' in view(port, "/metrics")[1]
            send(own_stack, good(range(100)))
            wait_until(lambda: lag(port) == 100, timeout_s=10, what="100 wait")
            send(own_stack, good(range(100, 250)))
            wait_until(lambda: lag(port) == 250, timeout_s=10, what="250 wait")
        wait_until(partial(ready, port), timeout_s=20, what="ready again")
        wait_until(lambda: lag(port) == 0, timeout_s=20, what="scored")


@pytest.mark.proof
@pytest.mark.parametrize("server", ["kafka", "mlflow"])
def test_a_trainer_between_two_rounds_is_not_ready_while_a_server_is_away(
    server: str, own_stack: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "trainer.log"
    with worker(own_stack, log, service=TRAINER) as trainer:
        port = port_of(trainer)
        wait_until(partial(ready, port), timeout_s=30, what="its first round is over")
        with frozen(own_stack, server):
            wait_until(
                partial(waits_for, port, f"{TITLES[server]} at"), timeout_s=30, what="says so"
            )
        wait_until(partial(ready, port), timeout_s=30, what="ready again")
        assert trainer.stop() == 0
    assert trainer.said().count("not trained") == 1, "what was away brings no round forward"


@pytest.mark.proof
def test_a_monitor_is_not_ready_while_mlflow_is_away_but_goes_on_reading(
    own_stack: Settings, tmp_path: Path
) -> None:
    with worker(own_stack, tmp_path / "monitor.log", service=OFTEN["monitor"]) as monitor:
        port = port_of(monitor)
        plain_days(own_stack, 2)
        wait_until(partial(days_over, own_stack, 1), timeout_s=30, what="a day is over")
        wait_until(partial(ready, port), timeout_s=30, what="ready")
        with frozen(own_stack, "mlflow"):
            wait_until(partial(waits_for, port, "MLflow at"), timeout_s=20, what="says so")
            threading.Event().wait(6)  # it asks again by now, and gets no answer for ten seconds
            plain_days(own_stack, 2, first=2)
            wait_until(partial(days_over, own_stack, 3), timeout_s=6, what="three days are over")
            assert waits_for(port, "MLflow at")
        wait_until(partial(ready, port), timeout_s=30, what="ready again")
        assert monitor.stop() == 0


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (
            ("replay", "--rate", "50", "--metrics-port", "0"),
            "Kafka has taken nothing",
        ),
        (("ledger", "--watch", "--metrics-port", "0"), "Kafka at"),
    ],
    ids=["replay", "ledger"],
)
def test_a_service_of_kafka_alone_is_not_ready_while_that_is_away(
    service: tuple[str, ...], why: str, own_stack: Settings, tmp_path: Path
) -> None:
    with worker(own_stack, tmp_path / "service.log", service=service) as running:
        port = port_of(running)
        wait_until(partial(ready, port), timeout_s=30, what="ready")
        with frozen(own_stack, "kafka"):
            wait_until(partial(waits_for, port, why), timeout_s=20, what="says so")
        wait_until(partial(ready, port), timeout_s=30, what="ready again")


@pytest.mark.parametrize(
    ("name", "server", "rhythm_s"),
    [("trainer", "kafka", 1), ("monitor", "kafka", 1), ("monitor", "mlflow", 5)],
)
def test_a_service_whose_server_hangs_ends_within_six_seconds_when_asked_to(
    name: str, server: str, rhythm_s: int, own_stack: Settings, tmp_path: Path
) -> None:
    with worker(own_stack, tmp_path / "service.log", service=OFTEN[name]) as service:
        port = port_of(service)
        wait_until(partial(ready, port), timeout_s=30, what="ready")
        with frozen(own_stack, server):
            threading.Event().wait(rhythm_s + 1)  # it asks, and gets no answer
            assert service.stop(10) == 0
