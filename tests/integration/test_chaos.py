"""A short chaos run finds nothing, and each sabotage is found: by the command, on servers of its own."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from fraudstream.core.settings import Settings
from fraudstream.stack.locks import is_held
from verify.chaos.points import TELLING
from verify.chaos.report import Report
from verify.chaos.run import Order, run_on


def chaos(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the command; return its exit status, its report, and what it said."""
    report = tmp_path / "report.json"
    words = ["--set", f"state_dir={tmp_path / 'state'}", "chaos", "--json", str(report), *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "fraudstream.cli", *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert report.exists(), done.stderr[-3_000:]
    return done.returncode, json.loads(report.read_text()), done.stderr


def test_after_eight_kills_every_score_and_every_byte_of_state_is_as_it_should_be(
    tmp_path: Path,
) -> None:
    status, found, said = chaos(tmp_path, "--kills", "8", "--seed", "5", "--untimed")
    assert status == 0, said[-3_000:]
    assert found["kills"] >= 8
    assert found["redelivered_records"] > 0
    assert found["scores_compared"] == found["transactions"] > 10_000
    assert found["entities_compared"] > 1_000
    assert set(found["scores_by_version"]) >= {"1", "2", "3"}
    assert found["alerts_compared"] > 100
    assert found["sent_per_s"] > 0.9 * found["rate_ordered"]


def differences(found: Report) -> set[str]:
    """Return the kinds of difference that a run found."""
    kinds = (
        "lost",
        "duplicates",
        "score_differences",
        "alert_differences",
        "state_differences",
    )
    return {kind for kind in kinds if getattr(found, kind)}


FOUND_AS = {
    "commit-first": "lost",
    "no-mark": "score_differences",
    "no-reply": "score_differences",
    "tie-by-arrival": "state_differences",
}


@pytest.mark.proof
@pytest.mark.parametrize("partitions", [8])
@pytest.mark.parametrize("sabotage", TELLING)
def test_a_sabotaged_worker_is_found_out(sabotage: str, topics: Settings) -> None:
    order = Order(kills=8, seed=2, rate=2_000, sabotage=sabotage, break_servers=False)
    found = run_on(topics, order, print)
    assert found.shortcomings
    assert FOUND_AS[sabotage] in differences(found), found


@pytest.mark.proof
def test_a_run_that_is_interrupted_leaves_nothing_running(tmp_path: Path) -> None:
    state = tmp_path / "state"
    words = ["--set", f"state_dir={state}", "chaos", "--kills", "30"]
    with subprocess.Popen(
        [sys.executable, "-m", "fraudstream.cli", *words], stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        said = next(line for line in running.stderr if "kill 2:" in line)
        mine = psutil.Process(running.pid).children(recursive=True)
        assert any("verify.chaos.worker" in each.cmdline() for each in mine), said
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
        assert running.wait(60) == 130, rest
    assert "Traceback" not in rest
    _, alive = psutil.wait_procs(mine, timeout=10)
    assert not alive
    assert not is_held(state / "chaos" / "stack.lock"), "nothing of the stack lives"
