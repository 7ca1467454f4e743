"""The quick start by hand runs as it is written, line by line, in a fresh folder."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fraudstream.core.settings import make_settings
from fraudstream.stack import embedded
from tests.conftest import REPOSITORY
from tests.documents import fences

QUICKSTART = REPOSITORY / "docs" / "quickstart.md"
DEADLINE_S = 240
"""Far above what it takes: the machine may be busy."""


def run_block(text: str, folder: Path) -> str:
    """Run a block of shell commands in `folder`, end at the first that fails; return what all of it said."""
    (folder / ".venv").symlink_to(sys.prefix)
    with (folder / "said.txt").open("w+") as said:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", text],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            status = shell.wait(DEADLINE_S)
        finally:
            end_session(shell.pid)
            embedded.down(make_settings({"state_dir": str(folder / ".fraudstream")}))
        said.seek(0)
        everything = said.read()
    assert status == 0, everything
    return everything


def end_session(leader: int) -> None:
    """Kill what is left of the shell's processes."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_the_quick_start_by_hand_runs_as_written(tmp_path: Path) -> None:
    (block,) = fences(QUICKSTART, "sh")
    said = run_block(block, tmp_path)
    balances = re.findall(r"([\d,]+) in = \1 scored \+ 0 dead letters \+ 0 waiting; (.*)", said)
    assert [rest for _, rest in balances] == ["lost 0, duplicates 0"] * 2, said
    history, everything = (int(count.replace(",", "")) for count, _ in balances)
    assert 10_000 < history < everything
    assert "version 1 of local-fraud; champion" in said
    assert "resumed from row" in said
    assert re.search(r"EUR  customer C\d+  terminal T\d+  .*model 1\]", said), "no alert was shown"
    assert said.rstrip().endswith("the stack is down, data removed")


def test_a_block_with_a_command_that_fails_is_found(tmp_path: Path) -> None:
    block = 'PATH="$PWD/.venv/bin:$PATH"\nfraudstream alerts tail\necho "went on"'
    with pytest.raises(AssertionError, match="no Kafka address") as caught:
        run_block(block, tmp_path)
    assert "went on" not in str(caught.value)
