"""Services as they run: health and metrics over HTTP, the trainer's rhythm, and how they end."""

import json
import re
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from fraudstream.clients.score_log import read_feedback
from fraudstream.core.settings import Settings
from tests.integration.served_scores import send, serve, transactional
from tests.integration.test_registry import champion
from tests.integration.test_training import forget, fraudstream
from tests.processes import Worker, faster, wait_until, worker

TRAINER = ("trainer", "--every", "1", "--metrics-port", "0")


def port_of(service: Worker) -> int:
    """Return the port that a service says it serves at, once it does."""
    pattern = re.compile(r"metrics at http://127\.0\.0\.1:(\d+)/metrics")
    wait_until(lambda: bool(pattern.search(service.said())), timeout_s=30, what="serves")
    found = pattern.search(service.said())
    assert found is not None
    return int(found[1])


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def shows(port: int, line: str) -> bool:
    return line in ask(port, "/metrics")[1].splitlines()


def trained(port: int, outcome: str, times: int) -> bool:
    return shows(port, f'fraudstream_trainer_trainings_total{{outcome="{outcome}"}} {times:.1f}')


def say_again(settings: Settings) -> None:
    """Send a label that is there already, so that there is something new to learn from."""
    producer = transactional(settings)
    producer.begin_transaction()
    send(producer, settings, [], [next(iter(read_feedback(settings)))])
    producer.commit_transaction()


def test_the_trainer_waits_for_enough_then_promotes_what_passes_and_keeps_the_champion_else(
    topics: Settings, tmp_path: Path
) -> None:
    with worker(topics, tmp_path / "trainer.log", service=TRAINER) as service:
        port = port_of(service)
        wait_until(partial(trained, port, "too_little", 1), timeout_s=30, what="nothing there yet")
        assert ask(port, "/readyz") == (200, '{"state":"ready"}')
        serve(topics, 12_000)
        wait_until(partial(trained, port, "promoted", 1), timeout_s=60, what="promoted")
        assert shows(port, 'fraudstream_trainer_model{version="1"} 1.0')
        forget(topics)
        wait_until(partial(trained, port, "refused", 1), timeout_s=60, what="refused by the gate")
        assert shows(port, 'fraudstream_trainer_model{version="1"} 1.0')
        assert service.stop() == 0
    said = service.said()
    assert "version 1 is champion" in said
    assert "version 2 is not promoted: it is worse than version 1" in said


@pytest.mark.proof
def test_a_trainer_trains_again_only_when_something_came_be_it_started_again(
    topics: Settings, tmp_path: Path
) -> None:
    serve(topics, 12_000)
    with worker(topics, tmp_path / "first.log", service=TRAINER) as service:
        port = port_of(service)
        wait_until(partial(trained, port, "promoted", 1), timeout_s=60, what="promoted")
        wait_until(partial(trained, port, "nothing_new", 3), timeout_s=30, what="looked again")
        assert trained(port, "promoted", 1)
        assert service.stop() == 0
    assert service.said().count("==> collecting scores and labels") == 1
    with worker(topics, tmp_path / "second.log", service=TRAINER) as service:
        port = port_of(service)
        wait_until(partial(trained, port, "nothing_new", 1), timeout_s=60, what="nothing new")
        assert service.stop() == 0
    assert champion(topics) == "1"
    differently = (*TRAINER, "--days", "3")
    with worker(topics, tmp_path / "third.log", service=differently) as service:
        wait_until(partial(trained, port_of(service), "promoted", 1), timeout_s=60, what="anew")
        assert service.stop() == 0
    assert champion(topics) == "2"


@pytest.mark.proof
def test_a_trainer_promotes_nothing_after_somebody_went_back_until_somebody_promotes(
    topics: Settings, tmp_path: Path
) -> None:
    serve(topics, 12_000)
    for _ in range(2):
        assert fraudstream(topics, "train", "--promote").returncode == 0
    say_again(topics)
    why = ("--why", "too many alerts")
    assert fraudstream(topics, "models", "promote", "previous", *why).returncode == 0
    with worker(topics, tmp_path / "trainer.log", service=TRAINER) as service:
        port = port_of(service)
        wait_until(partial(trained, port, "held", 1), timeout_s=60, what="held")
        assert champion(topics) == "1"
        assert "version 3 is not promoted: version 1 stays champion: " in service.said()
        assert "went back to version 1 from 2 (too many alerts)" in service.said()
        assert fraudstream(topics, "models", "promote", "3").returncode == 0
        say_again(topics)
        wait_until(partial(trained, port, "promoted", 1), timeout_s=60, what="promoted")
        assert service.stop() == 0
    assert champion(topics) == "4"


def test_a_trainer_waits_for_a_broker_that_does_not_answer(
    settings: Settings, tmp_path: Path
) -> None:
    away = faster(settings, kafka_bootstrap="127.0.0.1:1", connect_timeout_ms=500)
    with worker(away, tmp_path / "trainer.log", service=TRAINER) as service:
        port = port_of(service)
        wait_until(lambda: '"waiting"' in ask(port, "/readyz")[1], timeout_s=30, what="waits")
        status, text = ask(port, "/readyz")
        assert (status, json.loads(text)["state"]) == (503, "waiting")
        assert "127.0.0.1:1" in json.loads(text)["why"]
        assert ask(port, "/livez")[0] == 200
        assert shows(port, 'fraudstream_trainer_state{state="waiting"} 1.0')
        assert service.stop() == 0


def test_a_replay_shows_how_far_it_is(topics: Settings, tmp_path: Path) -> None:
    replay = ("replay", "--rate", "50", "--metrics-port", "0")
    with worker(topics, tmp_path / "replay.log", service=replay) as service:
        port = port_of(service)

        def sent() -> bool:
            found = re.search(
                r"^fraudstream_producer_sent_total (.*)$", ask(port, "/metrics")[1], re.M
            )
            return found is not None and float(found[1]) > 20

        wait_until(sent, timeout_s=60, what="some are sent")
        assert ask(port, "/readyz") == (200, '{"state":"ready"}')
        assert shows(port, 'fraudstream_producer_state{state="ready"} 1.0')
        assert service.stop() == 143
