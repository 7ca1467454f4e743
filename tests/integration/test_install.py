"""The installation, with a stand-in for Python that only notes its calls: a real one takes minutes."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import wait_until

REPOSITORY = Path(__file__).parents[2]
SITE = ".venv/lib/python3.11/site-packages"
PYTHON = f"""\
#!/bin/sh
echo "$*" >> calls
case "$*" in
    --version) echo Python {{version}} ;;
    *version_info*) exit {{refuses}} ;;
    *disk_usage*) echo ${{{{FREE_MIB:-9999}}}} ;;
    "-m venv .venv") mkdir -p .venv/bin {SITE}; cp "$0" .venv/bin/python ;;
    *--require-hashes*) if [ -e slow ]; then exec sleep 20; fi ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what an installation reads, and a Python that only writes down its arguments."""
    (tmp_path / "deploy").mkdir()
    for name in ("deploy/install.sh", "Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in ("requirements.lock", "requirements-dev.lock"):
        (tmp_path / name).touch()
    write_python(tmp_path / "python", "3.12.1")
    write_python(tmp_path / "old-python", "3.9.2", refuses=1)
    return tmp_path


def write_python(path: Path, version: str, refuses: int = 0) -> None:
    path.write_text(PYTHON.format(version=version, refuses=refuses))
    path.chmod(0o755)


def make(
    folder: Path, *arguments: str, python: str = "./python", **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", f"PYTHON={python}", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def errors(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_an_installation_ends_with_its_stamp_and_is_not_repeated(checkout: Path) -> None:
    assert make(checkout, ".venv/.runtime").returncode == 0
    assert not (checkout / ".venv/.installing").exists()
    assert not (checkout / ".venv/tmp").exists()
    assert "up to date" in make(checkout, ".venv/.runtime").stdout


def test_a_newer_lock_is_installed(checkout: Path) -> None:
    make(checkout, ".venv/.dev")
    newer_s = (checkout / ".venv/.dev").stat().st_mtime + 10
    os.utime(checkout / "requirements-dev.lock", (newer_s, newer_s))
    assert "locked dependencies of requirements-dev.lock" in make(checkout, ".venv/.dev").stderr


def test_a_moved_folder_gets_a_new_environment(checkout: Path) -> None:
    make(checkout, ".venv/.runtime")
    moved = checkout.rename(checkout.with_name("moved"))
    assert "making the virtual environment" in make(moved, ".venv/.runtime").stderr
    assert "up to date" in make(moved, ".venv/.runtime").stdout


def test_a_wrong_python_is_refused_in_one_sentence_and_leaves_nothing(checkout: Path) -> None:
    done = make(checkout, "demo", python="./old-python")
    assert done.returncode != 0
    (error,) = errors(done)
    assert "Python 3.9.2, but Python 3.11 to 3.14 is needed" in error
    assert not (checkout / ".venv").exists()


def test_a_missing_python_is_told_in_one_sentence(checkout: Path) -> None:
    (error,) = errors(make(checkout, "demo", python="no-such-python"))
    assert "no-such-python not found" in error


def test_too_small_a_disk_is_told_before_anything_is_downloaded(checkout: Path) -> None:
    (error,) = errors(make(checkout, "demo", FREE_MIB="300"))
    assert "300 MiB free, the installation needs 2048" in error
    assert make(checkout, ".venv/.runtime").returncode == 0


def test_a_second_installation_in_the_same_folder_is_refused(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.installing").write_text(str(os.getpid()))
    (error,) = errors(make(checkout, "demo"))
    assert f"process {os.getpid()} is installing in this folder" in error


def test_an_interrupted_installation_says_so_and_the_next_one_completes(checkout: Path) -> None:
    (checkout / "slow").touch()
    running = subprocess.Popen(
        ["make", "PYTHON=./python", ".venv/.runtime"],
        cwd=checkout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    calls = checkout / "calls"
    wait_until(
        lambda: calls.exists() and "--require-hashes" in calls.read_text(),
        timeout_s=20,
        what="pip runs",
    )
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=10)
    assert "error: interrupted: run the same command again" in said
    assert not (checkout / ".venv/.runtime").exists()
    (checkout / "slow").unlink()
    assert make(checkout, ".venv/.runtime").returncode == 0


def test_a_package_whose_unpacking_was_killed_is_installed_again(checkout: Path) -> None:
    make(checkout, ".venv/.runtime")
    half, whole = (checkout / SITE / f"{name}-1.dist-info" for name in ("half", "whole"))
    half.mkdir()
    whole.mkdir()
    (whole / "RECORD").touch()
    (checkout / ".venv/.runtime").unlink()
    make(checkout, ".venv/.runtime")
    assert not half.exists()
    assert whole.exists()
