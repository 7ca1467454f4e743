"""Commands as people see them: on a terminal, where progress bars are drawn and the demo waits at its end."""

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from fraudstream.core.settings import Settings
from tests.processes import command


def on_a_terminal(
    settings: Settings, *arguments: str, kill_at: str = "", how: signal.Signals = signal.SIGTERM
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; return its exit status and what it showed.

    Once it has shown `kill_at` it gets the signal `how`.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(settings, *arguments), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
            if kill_at and kill_at.encode() in shown:
                process.send_signal(how)
                kill_at = ""
    except OSError:
        pass  # Linux says so when the other end is closed
    finally:
        os.close(ours)
    return process.wait(60), shown.decode(errors="replace")


@pytest.mark.parametrize("partitions", [1])
def test_progress_on_a_terminal_ends_with_the_result(topics: Settings, tmp_path: Path) -> None:
    file = str(tmp_path / "day.parquet")
    small = ("--days", "3", "--customers", "300", "--terminals", "200")
    for arguments, says in (
        (("generate", "--out", file, *small), "transactions"),
        (("replay", file, "--unpaced"), "sent"),
        (("replay", file, "--unpaced", "--restart", "--client", "kafka-python"), "sent"),
        (("ledger",), "waiting"),
        (("ledger", "--watch", "--for", "2"), "\x1b[2K"),
        (("topics", "show"), "transactions"),
        (("stack", "status"), ""),
    ):
        status, shown = on_a_terminal(topics, *arguments)
        assert "Traceback" not in shown, shown
        assert says in shown
        assert status == 0 or arguments[0] == "stack", shown


@pytest.mark.parametrize(
    ("how", "expected"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 0)],
)
@pytest.mark.proof
def test_a_demo_that_waits_at_its_end_says_how_it_was_ended(
    tmp_path: Path, how: signal.Signals, expected: int
) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"))
    short = ("--scenario", "quiet", "--live", "1000", "--rate", "5000")
    status, shown = on_a_terminal(settings, "demo", *short, kill_at="Ctrl-C ends them", how=how)
    assert status == expected, shown
    assert "Traceback" not in shown
    assert "average precision" in shown, "the summary stands before the wait"
