"""The command line as it is in the image of scorer and ledger, which lacks what only training needs."""

import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest

from fraudstream.cli import COMMANDS
from fraudstream.clients.packages import PACKAGES, check_installed
from fraudstream.core.errors import NotInstalled
from tests.conftest import REPOSITORY

WITHOUT = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv.pop(1))))
from fraudstream.cli import main
main()
"""
"""Runs the command line where some modules cannot be imported; their names are the first argument."""


def lock_part() -> ModuleType:
    spec = spec_from_file_location("lock_part", REPOSITORY / "deploy/images/lock_part.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def missing() -> list[str]:
    """The modules of the packages that the lock file has and the image of the services has not."""
    parts = lock_part()
    lock = (REPOSITORY / "requirements.lock").read_text()
    wanted = (REPOSITORY / "deploy/images/service.txt").read_text().split()
    left_out = parts.entries(lock).keys() - parts.entries(parts.only(lock, wanted)).keys()
    return [
        module
        for module, packages in packages_distributions().items()
        if {each.lower().replace("_", "-") for each in packages} <= left_out
    ]


def run(missing: list[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(missing), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )


def test_the_packages_that_are_known_to_be_left_out_are(missing: list[str]) -> None:
    assert PACKAGES.keys() <= set(missing)


@pytest.mark.parametrize(
    "command",
    [("train",), ("train", "--promote"), ("trainer", "--every", "60"), ("bench", "pipeline")],
    ids=" ".join,
)
def test_a_command_that_needs_what_is_not_installed_says_where_it_can_run(
    missing: list[str], command: tuple[str, ...]
) -> None:
    done = run(missing, *command)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this command needs ")
    assert "which this installation lacks" in line
    assert "`docker compose exec trainer fraudstream" in line


def test_the_packages_are_named_as_they_are_installed(missing: list[str]) -> None:
    assert "needs scikit-learn, skl2onnx, mlflow, which" in run(missing, "train").stderr
    assert "needs mlflow, which" in run(["mlflow"], "train").stderr


def test_every_command_is_in_the_help_and_those_of_the_services_have_their_own(
    missing: list[str],
) -> None:
    done = run(missing, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert COMMANDS.keys() <= listed
    for command in ("scorer", "ledger", "train"):
        assert run(missing, command, "--help").returncode == 0, command


def test_a_module_of_our_own_that_is_missing_is_no_matter_of_the_installation() -> None:
    done = run(["trainer.service"], "trainer")

    assert "ModuleNotFoundError" in done.stderr
    assert "which this installation lacks" not in done.stderr


def test_what_is_installed_passes() -> None:
    check_installed("sklearn", "mlflow")
    with pytest.raises(NotInstalled, match="needs no_such_module"):
        check_installed("sklearn", "no_such_module")
