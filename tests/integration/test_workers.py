"""Workers side by side: they share the partitions, take over from the dead, and swap models under way."""

import json
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fraudstream.clients.kafka_producers import open_producer
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.scores import AuditEvent, Score
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Entities, Transaction, encode
from producer.generator import make_parameters, source
from producer.pace import AtRate, Unpaced
from producer.replay import ReplayPlan, replay_table
from tests.integration.test_exactly_once import make_champion, trained
from tests.ports import free_port
from tests.processes import (
    FAUST_LEFT,
    GUARDED,
    Worker,
    faster,
    signal_until_gone,
    wait_until,
    worker,
)
from verify.ledger import Log, count

STREAM = make_parameters({"seed": 3, "customers": 400, "terminals": 300, "days": 12})


def decoded(log: Log) -> list[Score]:
    decoder = msgspec.json.Decoder(Score)
    return [decoder.decode(record.value or b"") for record in log.records("scores")]


def caught_up(settings: Settings, log: Log) -> bool:
    done, total = log.lag(f"{settings.environment}.scorer")
    return done == total


def joined(each: Worker) -> bool:
    return "owns partitions" in each.said()


def view(port: int, path: str) -> "tuple[int, str]":
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()
    except OSError as exc:
        return 0, str(exc)


@pytest.mark.parametrize("partitions", [4])
def test_two_workers_share_the_partitions_and_one_takes_over_from_the_dead(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    stream = source(STREAM)
    half = stream.table.num_rows // 2
    with (
        worker(topics, tmp_path / "one.log") as one,
        worker(topics, tmp_path / "two.log") as two,
    ):
        for each in (one, two):
            wait_until(partial(joined, each), timeout_s=30, what="joined")
        wait_until(
            lambda: "[0, 1]" in one.said() + two.said() and "[2, 3]" in one.said() + two.said(),
            timeout_s=30,
            what="both own two partitions",
        )
        replay_table(topics, stream, ReplayPlan(pace=Unpaced(), client="confluent", limit=half))
        one.kill()
        replay_table(topics, stream, ReplayPlan(pace=Unpaced(), client="confluent"))
        wait_until(lambda: caught_up(topics, log), timeout_s=60, what="the other took over")
        assert two.stop() == 0
    ledger = count(log, f"{topics.environment}.scorer")
    scores = decoded(log)
    assert ledger.balanced
    assert ledger.scored == stream.table.num_rows
    sequence = sorted(score.apply_seq for score in scores)
    assert sequence == list(range(sequence[0], sequence[0] + len(scores))), "one place each"


@pytest.mark.parametrize("partitions", [2])
def test_a_promoted_model_is_swapped_in_between_two_batches_under_traffic(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    settings = faster(topics, model_poll_ms=100, web_port=free_port())
    random = np.random.default_rng(1)
    features = random.random((3_000, 9)).astype(np.float32)
    exported = trained(features, features[:, 0] > 0.97)
    with worker(settings, tmp_path / "scorer.log") as running:
        stream = source(STREAM)
        replay_table(settings, stream, ReplayPlan(pace=Unpaced(), limit=500, client="confluent"))
        wait_until(lambda: caught_up(settings, log), timeout_s=30, what="scored without a model")
        wait_until(lambda: view(settings.web_port, "/model")[0] == 200, timeout_s=30, what="shown")
        assert json.loads(view(settings.web_port, "/model")[1])["version"] is None
        make_champion(settings, exported)
        replay_table(
            settings, stream, ReplayPlan(pace=AtRate(500), limit=4_000, client="confluent")
        )
        wait_until(lambda: caught_up(settings, log), timeout_s=30, what="scored with the model")
        assert json.loads(view(settings.web_port, "/model")[1]) == {"version": "1", "swaps": 1}
        assert view(settings.web_port, "/healthz")[0] == 200
        wait_until(
            lambda: "_scorer_scored_total 4000" in view(settings.web_port, "/metrics")[1],
            timeout_s=10,
            what="counted",
        )
        assert running.stop() == 0
        said = running.said()
        assert GUARDED not in said
    scores = decoded(log)
    swaps = [msgspec.json.decode(r.value or b"", type=AuditEvent) for r in log.records("audit")]
    assert said.count("no champion") == 1
    assert [event.event for event in swaps] == ["feature_set", "swap"]
    for partition in (0, 1):
        versions = [s.model_version for s in scores if s.source_partition == partition]
        first = versions.index("1")
        assert set(versions[:first]) == {None}
        assert set(versions[first:]) == {"1"}, "after the swap every score is by the new version"


@pytest.mark.parametrize("partitions", [2])
def test_a_swap_whose_commit_is_carried_out_but_not_answered_is_told_once(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    settings = faster(topics, model_poll_ms=100, web_port=free_port())
    features = np.random.default_rng(1).random((3_000, 9)).astype(np.float32)
    exported = trained(features, features[:, 0] > 0.97)
    lost = ["the answer to the commit of a swap is lost"]
    with worker(settings, tmp_path / "scorer.log", changes=lost) as running:
        stream = source(STREAM)
        replay_table(settings, stream, ReplayPlan(pace=Unpaced(), limit=500, client="confluent"))
        wait_until(lambda: caught_up(settings, log), timeout_s=30, what="scored without a model")
        make_champion(settings, exported)
        for limit in (2_000, 3_000):
            plan = ReplayPlan(pace=AtRate(400), limit=limit, client="confluent")
            replay_table(settings, stream, plan)
            wait_until(lambda: caught_up(settings, log), timeout_s=30, what="scored")
        assert json.loads(view(settings.web_port, "/model")[1]) == {"version": "1", "swaps": 1}
        assert running.stop() == 0
        assert "the answer is lost; the batch is read again" in running.said()
    events = [msgspec.json.decode(r.value or b"", type=AuditEvent) for r in log.records("audit")]
    assert [event.event for event in events] == ["feature_set", "swap"]
    assert count(log, f"{settings.environment}.scorer").balanced


def test_a_slot_belongs_to_one_worker_and_is_free_again_after_its_death(
    topics: Settings, tmp_path: Path
) -> None:
    with worker(topics, tmp_path / "one.log", "--slot", "0") as one:
        wait_until(lambda: "owns partitions" in one.said(), timeout_s=30, what="joined")
        second = Worker(topics, tmp_path / "two.log", "--slot", "0")
        assert second.process.wait(20) == 3
        assert "slot 0" in second.said()
        one.kill()
        with worker(topics, tmp_path / "three.log", "--slot", "0") as three:
            wait_until(
                lambda: "owns partitions" in three.said(), timeout_s=30, what="took the slot"
            )
            assert three.stop() == 0


def test_a_new_worker_takes_the_place_of_the_dead_before_a_lower_one_that_nobody_has(
    topics: Settings, tmp_path: Path
) -> None:
    settings = faster(topics, session_timeout_ms=30_000)
    with worker(settings, tmp_path / "one.log", "--slot", "0", "--leave") as one:
        wait_until(partial(joined, one), timeout_s=30, what="joined")
        with worker(settings, tmp_path / "two.log") as two:
            wait_until(partial(joined, two), timeout_s=30, what="joined")
            assert one.stop() == 0, "slot 0 is free, and the group keeps no place for it"
            two.kill()
    with worker(settings, tmp_path / "three.log") as three:
        wait_until(partial(joined, three), timeout_s=30, what="joined")
        assert f"takes place {topics.environment}.scorer.1" in three.said()
        assert three.stop() == 0


def test_the_earlier_of_two_workers_with_one_slot_on_two_machines_is_fenced_and_says_so(
    topics: Settings, tmp_path: Path
) -> None:
    elsewhere = faster(topics, state_dir=str(tmp_path / "elsewhere"))
    with worker(topics, tmp_path / "one.log", "--slot", "0") as one:
        wait_until(partial(joined, one), timeout_s=30, what="joined")
        with worker(elsewhere, tmp_path / "two.log", "--slot", "0") as two:
            wait_until(partial(joined, two), timeout_s=30, what="took the slot")
            assert one.process.wait(20) == 4
            assert "another process has its slot now" in one.said()
            assert "Traceback" not in one.said(), one.said()[-3_000:]
            assert two.stop() == 0


def test_a_worker_whose_kafka_goes_away_while_it_starts_says_so(
    topics: Settings, tmp_path: Path
) -> None:
    change = "the worker's own client finds no broker"
    with worker(topics, tmp_path / "one.log", changes=[change]) as one:
        assert one.process.wait(60) == 1
        last = one.said().strip().splitlines()[-1]
        assert last.startswith("error: Kafka at"), one.said()[-2_000:]
        assert last.endswith("start it again")


@pytest.mark.parametrize("partitions", [2])
def test_a_worker_scores_with_a_champion_without_ever_importing_the_trainer_s_libraries(
    topics: Settings, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    features = random.random((3_000, 9)).astype(np.float32)
    make_champion(topics, trained(features, features[:, 0] > 0.97))
    stream = source(STREAM)
    replay_table(topics, stream, ReplayPlan(pace=Unpaced(), limit=500, client="confluent"))
    monkeypatch.setenv(
        "PYTHONPROFILEIMPORTTIME", "1"
    )  # Python tells each module as it is imported.
    with worker(topics, tmp_path / "scorer.log") as running:
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
        wait_until(partial(starts, running), timeout_s=30, what="Faust is loaded, after that")
        assert running.stop() == 0
        imported = re.findall(r"^import time: .*\| +([\w.]+)$", running.said(), re.MULTILINE)
    assert {score.model_version for score in decoded(log)} == {"1"}
    roots = {name.partition(".")[0] for name in imported}
    assert {"faust", "onnxruntime", "redis"} <= roots
    assert not roots & {"sklearn", "mlflow", "skl2onnx", "scipy", "pandas", "pyarrow"}


@pytest.mark.parametrize("partitions", [2])
def test_late_transactions_are_told_apart_in_the_metrics(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    settings = faster(topics, web_port=free_port())
    start_ms = 1_700_000_000_000
    days = [60, 60.1, 58, 52, 46, 46.5, 30]  # of one customer: 2 late, 3 beyond 7 days, 1 beyond 21
    paid = [
        Transaction(
            1,
            f"late-{i}",
            start_ms + round(day * DAY_MS),
            "purchase",
            100,
            "EUR",
            Entities("c", "t"),
        )
        for i, day in enumerate(days)
    ]
    producer = open_producer(settings, "confluent", threading.Event())
    producer.send_and_wait(
        topic_name(settings.environment, "transactions"),
        [(b"c", encode(each), 0, []) for each in paid],
    )
    producer.close()
    with worker(settings, tmp_path / "scorer.log"):
        wait_until(lambda: caught_up(settings, log), timeout_s=30, what="scored")
        wait_until(
            lambda: view(settings.web_port, "/metrics")[0] == 200, timeout_s=30, what="shown"
        )
        shown = view(settings.web_port, "/metrics")[1]
    assert "fraudstream_scorer_truncated_total 4" in shown
    assert "fraudstream_scorer_beyond_retention_total 1" in shown


def starts(each: Worker) -> bool:
    return "HotPathService]: Starting" in each.said()


@pytest.mark.parametrize("partitions", [2])
@pytest.mark.parametrize(
    ("begun", "changes"),
    [
        pytest.param(joined, [], id="before Faust is loaded"),
        pytest.param(lambda _: True, ["it is asked to end before Faust hears"], id="between"),
        pytest.param(starts, [], id="while Faust starts"),
    ],
)
def test_a_worker_that_is_stopped_as_it_begins_commits_what_it_has_and_ends(
    topics: Settings,
    log: Log,
    tmp_path: Path,
    begun: Callable[[Worker], bool],
    changes: Sequence[str],
) -> None:
    plan = ReplayPlan(pace=Unpaced(), limit=3_000, client="confluent")
    replay_table(topics, source(STREAM), plan)
    with worker(topics, tmp_path / "one.log", changes=changes) as one:
        wait_until(partial(begun, one), timeout_s=30, what="the moment")
        assert (one.process.wait(30) if changes else one.stop()) == 0
    assert GUARDED not in one.said()
    assert FAUST_LEFT not in one.said() or starts(one)
    assert "gave up partitions" in one.said()
    assert starts(one) is (begun is not joined)
    committed = sum(log.committed(f"{topics.environment}.scorer").values())
    assert len(decoded(log)) == committed
    with worker(topics, tmp_path / "two.log") as two:
        wait_until(partial(joined, two), timeout_s=30, what="another goes on")
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="the rest is scored")
        assert two.stop() == 0
    assert count(log, f"{topics.environment}.scorer").balanced


def test_a_worker_that_is_asked_to_end_until_it_has_ends_as_one_that_is_asked_once(
    topics: Settings, tmp_path: Path
) -> None:
    with worker(topics, tmp_path / "one.log") as one:
        wait_until(partial(starts, one), timeout_s=30, what="Faust starts")
        signal_until_gone(one.process, signal.SIGTERM, signal.SIGINT)
    assert one.process.returncode == 0, one.said()[-2_000:]
    assert "Traceback" not in one.said()
    assert GUARDED not in one.said()


def test_a_worker_whose_web_views_cannot_begin_says_so_and_fails(
    topics: Settings, tmp_path: Path
) -> None:
    with socket.create_server((topics.web_host, 0)) as taken:
        port = str(taken.getsockname()[1])
        slow = ["Faust takes a second to stop"]
        with worker(topics, tmp_path / "one.log", "--metrics-port", port, changes=slow) as one:
            assert one.process.wait(60) == 1
    assert "address already in use" in one.said()
