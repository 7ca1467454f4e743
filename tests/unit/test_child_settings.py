"""What demo, benchmarks and chaos runs start has all the settings of whoever starts it, and no others."""

import io
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from fraudstream.core.settings import Settings, load_settings
from verify.chaos.fleet import Fleet
from verify.chaos.stage import chaos_settings
from verify.demo.children import ChildFailed, Children

SECRET = "secret-of-the-server"  # noqa: S105 - no server has it
USERS = {
    "FRAUDSTREAM_KAFKA_BOOTSTRAP": "users:9092",
    "FRAUDSTREAM_REDIS_URL": "redis://users:6379/0",
    "FRAUDSTREAM_FEATURE_SET": "users",
    "FRAUDSTREAM_BATCH_MAX_RECORDS": "7",
    "FRAUDSTREAM_WEB_PORT": "6066",
}
USERS_FILE = "session_timeout_ms = 30000\nweb_port = 6067\npartitions = 3\n"
OURS = Settings(
    environment="bench",
    kafka_bootstrap="127.0.0.1:1",
    redis_url=f"redis://:{SECRET}@127.0.0.1:2/0",
    connect_timeout_ms=100,
    alerts_per_1000=2.5,
)


class Process:
    """Takes the place of a process: keeps with what it was to be started."""

    all: list["Process"] = []  # noqa: RUF012 - emptied for each test
    returncode = 0

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, **_: object
    ) -> None:
        self.command = command
        self.environment = dict(os.environ) if env is None else env
        self.stdin = io.BytesIO()
        self.all.append(self)

    def poll(self) -> int:
        return 0

    def wait(self, _: float | None = None) -> int:
        return 0

    @property
    def settings(self) -> Settings:
        """Return the settings that the command makes of them where the user's file lies."""
        words = list(self.command)
        overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        return load_settings(USERS_FILE, self.environment, overrides)


@pytest.fixture(autouse=True)
def _users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in USERS.items():
        monkeypatch.setenv(name, value)


def start_of_bench(settings: Settings, logs: Path) -> None:
    with Children(settings, logs, bars=False) as children:
        children.start("scorer", "scorer")


def run_of_demo(settings: Settings, logs: Path) -> None:
    with Children(settings, logs, bars=False) as children:
        children.run("train", "train")


def start_of_chaos(settings: Settings, logs: Path) -> None:
    with Fleet(settings, logs, None) as fleet:
        fleet.start()


@pytest.mark.parametrize("start", [start_of_bench, run_of_demo, start_of_chaos])
def test_a_child_has_every_setting_of_its_parent_and_none_of_the_users(
    start: Callable[[Settings, Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Process, "all", [])
    monkeypatch.setattr(subprocess, "Popen", Process)
    ours = msgspec.structs.replace(OURS, state_dir=str(tmp_path / "state"))
    start(ours, tmp_path / "logs")
    (made,) = Process.all
    assert made.settings == ours
    assert made.environment["PATH"] == os.environ["PATH"]
    assert not any(SECRET in word for word in made.command)


def test_a_command_reaches_for_the_server_of_its_parent_and_not_for_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "fraudstream.toml").write_text('kafka_bootstrap = "users:9093"\n')
    monkeypatch.chdir(tmp_path)
    with (
        Children(OURS, tmp_path / "logs", bars=False) as children,
        pytest.raises(ChildFailed, match=r"Kafka at 127\.0\.0\.1:1 does not answer"),
    ):
        children.run("ledger", "ledger")


def test_a_chaos_run_takes_of_the_users_settings_the_folder_only(tmp_path: Path) -> None:
    users = load_settings(USERS_FILE, USERS, [f"state_dir={tmp_path}"])
    expected = Settings(environment="chaos", state_dir=str(tmp_path / "chaos"))
    assert chaos_settings(users) == expected
