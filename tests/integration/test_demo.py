"""The main job as a user runs it: the whole story in numbers, alone in its folder, gone when interrupted."""

import os
import signal
import subprocess
from pathlib import Path

import msgspec

from fraudstream.core.settings import Settings
from tests.processes import command, run, wait_until
from verify.demo.summary import Summary


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


def test_the_demo_replays_trains_scores_and_loses_nothing(tmp_path: Path) -> None:
    done = run(own_settings(tmp_path), "demo", "--live", "16000", "--json", "-", timeout_s=400)
    assert done.returncode == 0, done.stderr
    summary = msgspec.json.decode(done.stdout, type=Summary)
    assert (summary.lost, summary.duplicates, summary.dead_letters) == (0, 0, 0)
    assert summary.transactions == summary.scored >= 150_000
    assert summary.live_transactions == 16_000
    assert summary.frauds >= 50
    assert summary.lift_over_chance is not None
    assert summary.lift_over_chance >= 60
    assert summary.model_versions >= 1
    assert summary.swaps >= 1
    assert summary.alerts > 0
    assert "alert" in done.stderr
    assert not processes_of(tmp_path), "nothing is left running"


def test_an_interrupted_demo_ends_everything_and_a_second_one_is_refused(tmp_path: Path) -> None:
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
        os.kill(first.pid, signal.SIGINT)
        assert first.wait(10) == 130, log.read_text()
    finally:
        first.kill()
        first.wait()
    assert not processes_of(tmp_path)


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
