"""Several live feature sets: filled while others serve, live without a gap, exact whatever is killed."""

import re
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fraudstream.clients.feature_state import FeatureState, open_state
from fraudstream.clients.inference import load_model
from fraudstream.core.feature_set import NINE, packaged
from producer.generator import source
from producer.pace import Unpaced
from producer.replay import ReplayPlan, replay_table
from tests.feature_set_samples import EVERYTHING, EVERYTHING_TOML
from tests.integration.live_sets_run import (
    OTHER,
    check_set,
    fill_other,
    other_file,
    said_of,
    scores_of,
    some_model,
)
from tests.integration.recovery_run import STREAM, TOTAL, Run, score_under
from tests.integration.test_exactly_once import make_champion
from tests.processes import Worker, command, faster, wait_until
from tests.processes import run as run_command

RATE = 1_000
"""Slow enough that much of the stream is still to come when a set has been filled."""


def send(run: Run, limit: int) -> None:
    """Send the stream up to so many transactions and wait until they are scored."""
    plan = ReplayPlan(pace=Unpaced(), client="confluent", limit=limit)
    replay_table(run.settings, source(STREAM), plan)
    wait_until(run.is_done, timeout_s=90, what="scored")


def send_until_served(run: Run, worker: Worker) -> None:
    """Send on in small steps until a worker scores with version 1."""
    limits = iter(range(4_000, 12_000, 100))

    def served() -> bool:
        plan = ReplayPlan(pace=Unpaced(), client="confluent", limit=next(limits))
        replay_table(run.settings, source(STREAM), plan)
        return "serving version 1" in worker.said()

    wait_until(served, timeout_s=60, what="version 1 serves")


def state_of_other(run: Run) -> FeatureState:
    return open_state(run.settings, OTHER)


def filled(state: FeatureState, run: Run) -> int:
    """Return how many transactions the set has."""
    if state.look() is None:
        return 0
    return sum(mark + 1 for mark in state.marks(run.topic_id, [0, 1]).values())


@pytest.mark.proof
def test_a_set_filled_under_traffic_has_the_features_of_the_whole_log(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "everything.toml"
    file.write_text(EVERYTHING_TOML)

    def fill(run: Run) -> None:
        done = run_command(run.settings, "features", "fill", str(file), timeout_s=90)
        assert done.returncode == 0, done.stderr
        assert "is live" in done.stdout

    score_under(run, fill, workers=1, rate=RATE)
    assert 100 < check_set(run, EVERYTHING) < TOTAL
    assert check_set(run, NINE) == TOTAL


@pytest.mark.proof
def test_two_workers_take_up_a_set_without_a_gap(run: Run) -> None:
    score_under(run, fill_other, rate=RATE)
    assert 100 < check_set(run, OTHER) < TOTAL
    assert check_set(run, NINE) == TOTAL
    waited_for = sum(map(int, re.findall(r"rebuilt (\d+) records", run.said())))
    assert waited_for < TOTAL // 4, "the scorers fold the end only"
    nine = open_state(run.settings, NINE)
    assert nine.look() is not None
    told = nine.meta.revision
    again = fill_other(run)
    assert again["already_live"]
    assert again["records"] == 0
    meta = nine.look()
    assert meta is not None
    assert meta.revision > told, "workers are told: who made the set live may have died before"


def kill_the_fill(run: Run) -> None:
    """Kill the fill in the middle, then fill again."""
    state = state_of_other(run)
    filling = subprocess.Popen(command(run.settings, "features", "fill", other_file(run)))
    wait_until(lambda: filled(state, run) > 1_000, timeout_s=30, what="some of it filled")
    filling.kill()
    filling.wait()
    before = filled(state, run)
    assert before < run.committed(), "it was done before: the test proves nothing"
    told = run_command(run.settings, "features", "sets")
    assert f"other  {OTHER.hash}  filling" in told.stdout, told.stderr
    begun = state.meta.incarnation
    fill_other(run)
    assert filled(state, run) > before
    assert state.meta.incarnation == begun, "it went on in what was filled before"


@pytest.mark.proof
def test_a_fill_that_was_killed_goes_on_from_where_it_was(run: Run) -> None:
    score_under(run, kill_the_fill, rate=RATE)
    assert 100 < check_set(run, OTHER) < TOTAL


def flush_while_filling(run: Run) -> None:
    state = state_of_other(run)
    filling = subprocess.Popen(
        command(run.settings, "features", "fill", other_file(run)), stderr=subprocess.PIPE
    )
    wait_until(lambda: filled(state, run) > 1_000, timeout_s=30, what="some of it filled")
    run.server.client.flushall()
    _, said = filling.communicate(timeout=60)
    assert filling.returncode == 0, said
    assert b"filling begins again" in said, "it was done before: the test proves nothing"


@pytest.mark.proof
def test_a_server_flushed_during_a_fill_gets_the_live_set_and_the_new_one(run: Run) -> None:
    score_under(run, flush_while_filling, rate=RATE)
    assert 100 < check_set(run, OTHER) < TOTAL
    assert check_set(run, NINE) == TOTAL


@pytest.mark.proof
@pytest.mark.parametrize(
    "moment",
    [
        "feature set other",
        "this worker rebuilds the features of other",
        "the features of other are whole",
    ],
)
def test_a_worker_killed_as_a_set_goes_live_leaves_no_gap(run: Run, moment: str) -> None:
    def kill(run: Run) -> None:
        """Kill the first worker that says so, and start another one."""
        filling = subprocess.Popen(command(run.settings, "features", "fill", other_file(run)))
        said: list[Worker] = []

        def has_said() -> bool:
            said.extend(each for each in run.workers if moment in each.said())
            return bool(said)

        wait_until(has_said, timeout_s=60, what=moment)
        said[0].kill()
        run.start()
        assert filling.wait(30) == 0

    score_under(run, kill, rate=RATE)
    assert 100 < check_set(run, OTHER) < TOTAL
    assert check_set(run, NINE) == TOTAL


def fill_then_flush(run: Run) -> None:
    fill_other(run)
    before = run.committed()
    wait_until(lambda: run.committed() > before + 500, timeout_s=30, what="scoring goes on")
    run.server.client.flushall()


@pytest.mark.proof
def test_a_flushed_server_gets_both_live_sets_back(run: Run) -> None:
    score_under(run, fill_then_flush, rate=RATE)
    said = run.said()
    for name in ("nine", "other"):
        assert f"the features of {name} lack records" in said
    assert 100 < check_set(run, OTHER) < TOTAL
    assert check_set(run, NINE) == TOTAL


def test_a_champion_of_another_live_set_is_swapped_to_without_a_restart(run: Run) -> None:
    first = run.start()
    send(run, 3_000)
    fill_other(run)
    exported = some_model(OTHER)
    make_champion(run.settings, exported)
    send_until_served(run, first)
    send(run, 12_000)
    assert first.stop() == 0
    assert check_set(run, OTHER) > 0
    served = [score for score in scores_of(run) if score.model_version == "1"]
    assert served
    assert {score.feature_set for score in served} == {OTHER.hash}
    model = load_model(exported.onnx_bytes, version="1", sha256=exported.sha256, feature_set=OTHER)
    features = np.array([score.features for score in served], np.float32)
    assert [score.score for score in served] == [float(x) for x in model.score(features)]
    assert all(said_of(score, NINE) for score in served), "the former set goes on"


@pytest.mark.proof
def test_a_champion_of_a_set_that_is_not_live_is_refused_until_the_set_is_filled(run: Run) -> None:
    first = run.start()
    send(run, 2_000)
    windows = packaged()["windows"]
    make_champion(run.settings, some_model(windows))
    wait_until(lambda: "version 1 is refused" in first.said(), timeout_s=30, what="refused")
    said = first.said().replace('\\"', '"')
    assert 'feature customer_count_1d: { entity = "customer", window = "1d"' in said
    assert "`fraudstream features fill windows`" in said
    refused = run_command(run.settings, "scorer")
    assert refused.returncode == 3
    assert "`fraudstream features fill windows`" in refused.stderr
    send(run, 4_000)
    assert {score.model_version for score in scores_of(run)} == {None}
    done = run_command(run.settings, "features", "fill", "windows")
    assert done.returncode == 0, done.stderr
    send_until_served(run, first)
    send(run, 12_000)
    assert first.stop() == 0
    assert check_set(run, windows) > 0
    assert scores_of(run)[-1].feature_set == windows.hash


@pytest.mark.proof
def test_a_set_is_retired_under_traffic_unless_the_champion_reads_it(run: Run) -> None:
    score_under(run, retire_after_all, rate=RATE)
    assert not run.server.state(run.settings.environment, "", OTHER.hash)
    assert check_set(run, NINE) == TOTAL
    assert run.said().count("feature set other") >= 4
    again = fill_other(run)
    assert again["records"] == TOTAL


def retire_after_all(run: Run) -> None:
    fill_other(run)
    make_champion(run.settings, some_model(OTHER))
    refused = run_command(run.settings, "features", "retire", "other")
    assert refused.returncode == 3
    assert "needs feature set other" in refused.stderr
    make_champion(run.settings, some_model(NINE))
    done = run_command(run.settings, "features", "retire", "other", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert msgspec.json.decode(done.stdout)["keys"] > 1_000
    last = run_command(run.settings, "features", "retire", "nine")
    assert last.returncode == 3
    assert "only live feature set" in last.stderr
    told = run_command(run.settings, "features", "sets", "--json", "-")
    assert [each["name"] for each in msgspec.json.decode(told.stdout)] == ["nine"]


def test_a_new_environment_begins_with_the_set_of_the_setting(run: Run) -> None:
    run.settings = faster(run.settings, feature_set="windows")
    run.start()
    send(run, 2_000)
    run.settings = faster(run.settings, feature_set="nine")
    run.workers[0].stop()
    run.workers.clear()
    run.start()
    send(run, 4_000)
    assert {score.feature_set for score in scores_of(run)} == {packaged()["windows"].hash}
