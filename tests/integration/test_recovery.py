"""Redis loses what it had, under load: noticed, rebuilt by one worker, and no score differs for it."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fraudstream.clients.feature_state import Lease
from fraudstream.clients.snapshot_file import check_file
from fraudstream.core.settings import snapshot_folder
from tests.integration.recovery_run import (
    TOTAL,
    Run,
    check,
    forget_the_beginning,
    score_under,
    send_some,
    state_of,
    transactions,
)
from tests.integration.test_workers import view as web_view
from tests.ports import free_port
from tests.processes import Worker, command, faster, wait_until
from tests.processes import run as run_command


def flush(run: Run) -> None:
    run.server.client.flushall()


def test_a_flushed_server_is_filled_again_from_the_log_under_load(run: Run) -> None:
    score_under(run, flush)
    assert run.said().count("scoring stops until they are rebuilt") >= 1
    check(run)


def restore_older_copy(run: Run) -> None:
    """Put back the files that the server had a while before."""
    folder = run.server.folder
    run.server.kill()
    shutil.copytree(folder, folder.parent / "copy")
    run.server.start()
    before = sum(run.marks().values())
    wait_until(lambda: sum(run.marks().values()) > before + 5_000, timeout_s=30, what="went on")
    run.server.kill()
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "copy", folder)
    run.server.start()


@pytest.mark.proof
def test_an_older_copy_of_the_server_is_rolled_forward_under_load(run: Run) -> None:
    score_under(run, restore_older_copy)
    assert "scoring stops until they are rebuilt" in run.said()
    check(run)


def cut_tail(run: Run) -> None:
    """Kill the server and cut 3 MB off the end of its append-only file; something must be lost by it."""
    before = run.marks()
    committed = run.committed()
    run.server.kill()
    with run.server.log.open("ab") as file:
        file.truncate(run.server.log.stat().st_size - 3_000_000)
    run.server.start()
    found = run.server.state(run.settings.environment, "m")
    after = {key: int(value) for key, value in found.items()}
    ours = [key for key in before if run.topic_id.encode() in key]
    assert all(after[key] <= before[key] for key in ours)
    assert sum(after[key] + 1 for key in ours) < committed, (
        "nothing was lost: the test proves nothing"
    )


@pytest.mark.proof
def test_a_server_killed_with_the_tail_of_its_file_cut_off_is_rolled_forward(run: Run) -> None:
    score_under(run, cut_tail)
    assert "scoring stops until they are rebuilt" in run.said()
    check(run)


def rebuilder(run: Run) -> Worker:
    """Wait until a rebuild is under way; return the worker that carries it out."""
    state = state_of(run)
    found: list[Worker] = []

    def begun() -> bool:
        meta = state.look()
        if meta is None or meta.state != "rebuilding" or not meta.holder:
            return False
        found.extend(each for each in run.workers if f"turn {meta.holder}" in each.said())
        return bool(found) and sum(state.marks(run.topic_id, [0, 1]).values()) > 1_000

    wait_until(begun, timeout_s=30, what="a rebuild is under way")
    return found[0]


def assert_unfinished(run: Run) -> None:
    meta = state_of(run).look()
    assert meta is not None
    assert meta.state == "rebuilding", "it was done before: the test proves nothing"


def kill_the_rebuilder(run: Run) -> None:
    run.server.client.flushall()
    rebuilder(run).kill()
    assert_unfinished(run)


@pytest.mark.proof
def test_when_the_rebuilder_is_killed_another_worker_goes_on(run: Run) -> None:
    score_under(run, kill_the_rebuilder)
    assert run.said().count("this worker rebuilds the features") >= 2
    check(run)


def freeze_the_rebuilder(run: Run) -> None:
    """Let it wake when another has rebuilt the state and goes on scoring."""
    run.server.client.flushall()
    frozen = rebuilder(run)
    os.kill(frozen.process.pid, signal.SIGSTOP)
    assert_unfinished(run)
    before = run.committed()
    wait_until(lambda: run.committed() > before + 2_000, timeout_s=60, what="another went on")
    os.kill(frozen.process.pid, signal.SIGCONT)


@pytest.mark.proof
def test_a_rebuilder_that_wakes_after_its_lease_does_no_harm(run: Run) -> None:
    score_under(run, freeze_the_rebuilder)
    assert run.said().count("this worker rebuilds the features") >= 2
    check(run)


def test_a_log_that_begins_too_late_is_refused_until_a_snapshot_is_restored(
    run: Run, tmp_path: Path
) -> None:
    first = run.start()
    send_some(run, 4_000)
    taken = run_command(run.settings, "features", "snapshot", str(tmp_path / "copy.features"))
    assert taken.returncode == 0, taken.stderr
    send_some(run, 8_000)
    former = transactions(run)
    forget_the_beginning(run, 1_000)
    run.server.client.flushall()
    assert first.process.wait(30) == 3, first.said()[-2_000:]
    said = first.said()
    assert "after offset -1 of partition 0" in said
    assert "only 1000 to" in said
    assert "fraudstream features restore FILE" in said
    restored = run_command(run.settings, "features", "restore", str(tmp_path / "copy.features"))
    assert restored.returncode == 0, restored.stderr
    run.workers.clear()
    run.start()
    send_some(run, 12_000)
    assert "rebuilt" in run.said()
    check(run, former)


@pytest.mark.proof
def test_a_snapshot_is_taken_under_load_and_the_rebuild_begins_with_it(run: Run) -> None:
    score_under(run, snapshot_then_flush)
    assert "the rebuild begins with snapshot" in run.said()
    check(run)


def snapshot_then_flush(run: Run) -> None:
    taken = run_command(run.settings, "features", "snapshot")
    assert taken.returncode == 0, taken.stderr
    before = run.committed()
    wait_until(lambda: run.committed() > before + 2_000, timeout_s=30, what="scoring goes on")
    run.server.client.flushall()


def kill_the_snapshotter(run: Run) -> None:
    """Kill who copies the features while it does."""
    state = state_of(run)

    def begun() -> bool:
        meta = state.look()
        return meta is not None and meta.state == "snapshot"

    for _ in range(10):  # a copy takes so short a time that one may be missed
        copying = subprocess.Popen(command(run.settings, "features", "snapshot", "--keep", "1"))
        while copying.poll() is None and not begun():
            pass
        copying.kill()
        copying.wait()
        if begun():
            return
    pytest.fail("every copy was done before: the test proves nothing")


@pytest.mark.proof
def test_when_the_snapshotter_is_killed_scoring_goes_on(run: Run) -> None:
    score_under(run, kill_the_snapshotter)
    assert "who copied the features is gone" in run.said()
    for whole in snapshot_folder(run.settings).glob("*.features"):
        assert check_file(whole), "half a snapshot is none"
    check(run)


def test_labels_alone_that_were_lost_are_read_again(run: Run) -> None:
    run.start()
    send_some(run, 16_000)
    state = state_of(run)
    assert state.look() is not None
    assert state.marks(run.feedback_id, [0])[0] > 5
    run.server.client.set(f"{state.prefix}m:{run.feedback_id}:0", 3)
    send_some(run, TOTAL)
    assert "ends at offset 3" in run.said()
    check(run)


def fill_the_server(run: Run) -> None:
    """Take the server's memory away until a worker has noticed; give it back."""
    run.server.client.config_set("maxmemory", 1)
    wait_until(lambda: "refuses to write for now" in run.said(), timeout_s=30, what="noticed")
    full = {"state": "waiting", "why": "Redis takes no writes"}
    wait_until(lambda: view(run, "/healthz") == (503, full), timeout_s=30, what="told")
    waiting = 'fraudstream_scorer_waiting{for="writes_refused"} 1'
    wait_until(lambda: waiting in metrics(run), timeout_s=30, what="told in the metrics")
    run.server.client.config_set("maxmemory", 0)
    over = waiting.replace(" 1", " 0")
    wait_until(lambda: over in metrics(run), timeout_s=30, what="it is waited for no longer")


@pytest.mark.proof
def test_a_full_server_is_waited_for_and_nothing_is_lost(run: Run) -> None:
    run.settings = faster(run.settings, web_port=free_port())
    score_under(run, fill_the_server, workers=1)
    check(run)


def test_a_worker_refuses_a_server_that_comes_back_evicting(run: Run) -> None:
    worker = run.start()
    send_some(run, 2_000)
    run.server.kill()
    run.server.start("--maxmemory-policy", "allkeys-lru")
    assert worker.process.wait(30) == 3, worker.said()[-2_000:]
    assert "maxmemory-policy allkeys-lru" in worker.said()


def test_a_state_of_which_keys_were_evicted_under_load_is_rebuilt(run: Run) -> None:
    worker = run.start()
    send_some(run, 16_000)
    run.server.client.config_set("maxmemory-policy", "allkeys-random")
    run.server.client.config_set("maxmemory", run.server.client.info("memory")["used_memory"] // 2)
    assert worker.process.wait(30) == 3, worker.said()[-2_000:]
    assert "are rebuilt by the next worker" in worker.said()
    run.server.client.config_set("maxmemory-policy", "noeviction")
    run.server.client.config_set("maxmemory", 0)
    run.workers.clear()
    run.start()
    send_some(run, TOTAL)
    check(run)


def test_a_rebuild_shows_its_progress_and_ends_with_the_worker_that_is_stopped(run: Run) -> None:
    run.settings = faster(run.settings, web_port=free_port())
    first = run.start()
    send_some(run, 12_000)
    ready = (200, {"state": "ready"})
    wait_until(lambda: view(run, "/healthz") == ready, timeout_s=30, what="web views, and ready")
    run.server.client.flushall()

    def in_progress() -> bool:
        status, health = view(run, "/healthz")
        return status == 503 and 0 < health.get("done", 0) < health["of"]  # type: ignore[operator]

    wait_until(in_progress, timeout_s=30, what="progress at /healthz")
    assert first.stop() == 0
    assert_unfinished(run)
    lease = Lease.take(state_of(run))
    assert lease is not None, "who stops gives the lease back"
    run.workers.clear()
    run.start()
    wait_until(
        lambda: lease.keep() and view(run, "/healthz") == (503, {"state": "rebuilding"}),
        timeout_s=30,
        what="waiting for who has the lease",
    )
    with lease:
        pass
    send_some(run, TOTAL)
    assert "fraudstream_scorer_rebuilds_total 1" in metrics(run)
    check(run)


def view(run: Run, path: str) -> tuple[int, dict[str, object]]:
    """Return status and JSON of a web view of the worker in slot 0; 0 while it does not answer."""
    status, text = web_view(run.settings.web_port, path)
    return status, json.loads(text) if status else {}


def metrics(run: Run) -> str:
    return web_view(run.settings.web_port, "/metrics")[1]
