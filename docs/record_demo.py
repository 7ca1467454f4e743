"""Records the demo on a terminal of its own: docs/demo.cast (asciinema) and docs/demo.svg (its last picture).

Usage: .venv/bin/python docs/record_demo.py (three minutes; better on a machine that does nothing else)
"""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import click

DOCS = Path(__file__).parent
COLUMNS, LINES = 110, 36
HOME = "\x1b[H"
PICTURE_S = 2.0
STEP_S = 0.25
"""What comes within so many seconds is one event of the recording."""


def main() -> None:
    """Run `fraudstream demo --exit` on a pseudo-terminal and write both files."""
    picture = DOCS / "demo.svg"
    with tempfile.TemporaryDirectory() as state:
        overrides = ("--set", f"state_dir={state}")
        options = ("demo", "--exit", "--picture", str(picture))
        events, status = recorded((sys.executable, "-m", "fraudstream.cli", *overrides, *options))
    said = "".join(text for _, text in events)
    if status:
        raise click.ClickException(f"the demo ended with {status}: {said[-2_000:]}")
    if state in said or str(DOCS.parent) in said + picture.read_text():
        raise click.ClickException("the recording names folders of this machine: not written")
    header = {"version": 2, "width": COLUMNS, "height": LINES, "title": "fraudstream demo"}
    lines = [json.dumps(header)]
    lines += [json.dumps([round(at_s, 2), "o", text]) for at_s, text in thinned(events)]
    (DOCS / "demo.cast").write_text("\n".join(lines) + "\n")


def thinned(events: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the events with one picture in `PICTURE_S` seconds: each is drawn whole, from the top."""
    kept: list[tuple[float, str]] = []
    for at_s, text in events:
        is_picture = text.startswith(HOME) and text.endswith(HOME)
        follows = kept and kept[-1][1].startswith(HOME) and at_s - kept[-1][0] < PICTURE_S
        if not (is_picture and follows):
            kept.append((at_s, text))
    return kept


def recorded(command: tuple[str, ...]) -> tuple[list[tuple[float, str]], int]:
    """Run a command on a terminal; return what it showed, by seconds since its start, and its status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    kind = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(  # noqa: S603 - our own command line
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, **kind},  # noqa: TID251 - passed on, nothing is read from it
    )
    os.close(theirs)
    began = time.monotonic()  # noqa: TID251 - a script, not the product
    events: list[tuple[float, bytes]] = []
    while chunk := _read(ours):
        at_s = time.monotonic() - began  # noqa: TID251
        if events and at_s - events[-1][0] < STEP_S:
            events[-1] = (events[-1][0], events[-1][1] + chunk)
        else:
            events.append((at_s, chunk))
    os.close(ours)
    return [(at_s, text.decode(errors="replace")) for at_s, text in events], process.wait()


def _read(fd: int) -> bytes:
    """Return what comes next, nothing when the last process has closed the terminal."""
    try:
        return os.read(fd, 65_536)
    except OSError:
        return b""


if __name__ == "__main__":
    try:
        main()
    except click.ClickException as exc:
        sys.exit(exc.message)
