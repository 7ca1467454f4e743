"""The main job as a user runs it: the whole story in numbers, alone in its folder, gone when interrupted."""

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from fraudstream.core.settings import Settings
from tests.processes import command, run, wait_until
from verify.demo.summary import Summary

HISTORY = 124_428
"""Transactions of the first 35 days of seed 7."""


def own_settings(tmp_path: Path) -> Settings:
    """Return settings without addresses: the demo brings servers of its own."""
    return Settings(state_dir=str(tmp_path / "state"))


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, NotADirectoryError):
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_the_story_recall_falls_and_a_retrained_model_brings_it_back(tmp_path: Path) -> None:
    done = run(own_settings(tmp_path), "demo", "--json", "-", timeout_s=500)
    assert done.returncode == 0, done.stderr
    summary = msgspec.json.decode(done.stdout, type=Summary)
    assert (summary.lost, summary.duplicates, summary.dead_letters) == (0, 0, 0)
    assert summary.transactions == summary.scored >= 200_000
    assert summary.live_transactions == summary.transactions - HISTORY
    assert summary.model_versions >= 2
    assert summary.swaps == summary.model_versions - 1, "the first version takes over from none"
    assert summary.swap_longest_pause_ms is not None
    assert summary.outages == (), "nothing is killed in this scenario"
    calm, before, after = summary.periods
    assert [each.name for each in summary.periods] == ["calm", "before", "after"]
    assert (before.versions, after.versions[0]) == (("1",), "2")
    assert calm.recall.low is not None
    assert before.recall.high is not None
    assert before.recall.high < calm.recall.low, "it falls, and the intervals lie apart"
    assert summary.recall_before is not None
    assert summary.recall_after is not None
    assert summary.recall_after > summary.recall_before
    assert summary.retraining is not None
    assert summary.retraining.gain_low > 0, "on the very same transactions"
    assert summary.frauds == sum(each.frauds for each in summary.periods)
    for step in ("recall has fallen", "retraining", "version 2 serves"):
        assert step in done.stderr
    assert not processes_of(tmp_path), "nothing is left running"


@pytest.mark.proof
def test_killed_workers_and_a_killed_redis_on_stage_lose_nothing(tmp_path: Path) -> None:
    options = ("--scenario", "outage", "--live", "9000", "--rate", "800", "--json", "-")
    done = run(own_settings(tmp_path), "demo", *options, timeout_s=400)
    assert done.returncode == 0, done.stderr
    summary = msgspec.json.decode(done.stdout, type=Summary)
    killed = [outage.killed for outage in summary.outages]
    assert killed == ["worker", "Redis", "worker"][: len(killed)], "in this order, what came due"
    assert len(killed) + done.stderr.count("was to be killed") == 3
    assert all(outage.recovered_s is None or outage.recovered_s > 0 for outage in summary.outages)
    assert summary.outages[0].recovered_s is not None
    assert (summary.lost, summary.duplicates, summary.dead_letters) == (0, 0, 0)
    assert summary.live_transactions == 9_000
    assert summary.recall_before is None
    assert summary.recall_after is None


def test_scenarios_and_data_that_do_not_go_together_are_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "own.parquet"
    file.touch()
    done = run(own_settings(tmp_path), "demo", "--scenario", "drift", "--data", str(file))
    assert done.returncode == 2
    assert "--scenario drift adds fraud to generated data" in done.stderr
    own_redis = Settings(state_dir=str(tmp_path), redis_url="redis://127.0.0.1:1/0")
    done = run(own_redis, "demo", "--scenario", "outage")
    assert done.returncode == 2
    assert "redis_url names a server of yours" in done.stderr


def test_a_picture_that_cannot_be_saved_is_refused_before_anything_runs(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "missing" / "picture.svg")
    done = run(own_settings(tmp_path), "demo", "--picture", nowhere, timeout_s=30)
    assert done.returncode == 2
    assert "--picture" in done.stderr
    assert "make it first" in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("how", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.proof)],
)
def test_an_interrupted_demo_ends_everything_and_a_second_one_is_refused(
    tmp_path: Path, how: signal.Signals, status: int
) -> None:
    settings = own_settings(tmp_path)
    log = tmp_path / "demo.log"
    with log.open("wb") as file:
        first = subprocess.Popen(
            command(settings, "demo"), stdout=file, stderr=file, stdin=subprocess.DEVNULL
        )
    try:
        wait_until(
            lambda: "past transactions" in log.read_text(), timeout_s=120, what="history runs"
        )
        second = run(settings, "demo", timeout_s=30)
        assert second.returncode == 3
        assert "another demo is running" in second.stderr
        os.kill(first.pid, how)
        assert first.wait(60) == status, log.read_text()
    finally:
        first.kill()
        first.wait()
    assert not processes_of(tmp_path)


@pytest.mark.proof
def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as file:
        demo = subprocess.Popen(
            command(own_settings(tmp_path), "demo"),
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_until(
            lambda: "past transactions" in log.read_text(), timeout_s=120, what="history runs"
        )
    finally:
        demo.kill()
        demo.wait()
    wait_until(lambda: not processes_of(tmp_path), timeout_s=15, what="everything is gone")
