"""Runs the demo in each scenario and puts its real output into README.md and docs/demo.md, between marks.

Usage: .venv/bin/python docs/demo_output.py [SCENARIO ...] (seven minutes for all; on a quiet machine)
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from blocks import put

DOCS = Path(__file__).parent
PAGES = {
    "drift": DOCS.parent / "README.md",
    "quiet": DOCS / "demo.md",
    "attack": DOCS / "demo.md",
    "outage": DOCS / "demo.md",
}
STATUS = re.compile(r" +[\d.]+ s  [\d,]+ in, ")
STATUS_EVERY = 4


def main() -> None:
    """Run `fraudstream demo --exit` for each scenario asked for and write what it said."""
    for scenario in sys.argv[1:] or PAGES:
        busy = os.getloadavg()[0]
        said = run(scenario)
        begin = f"<!-- output of {scenario}: .venv/bin/python docs/demo_output.py {scenario} -->"
        put(PAGES[scenario], begin, block(said, scenario, machine(busy)))


def run(scenario: str) -> str:
    """Return everything that the demo said, on both outputs."""
    with tempfile.TemporaryDirectory() as state:
        command = ("-m", "fraudstream.cli", "--set", f"state_dir={state}", "demo", "--exit")
        done = subprocess.run(  # noqa: S603 - our own command line
            (sys.executable, *command, "--scenario", scenario),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise click.ClickException(f"the demo ended with {done.returncode}:\n{done.stdout}")
    if state in done.stdout or str(DOCS.parent) in done.stdout:
        raise click.ClickException("the output names folders of this machine: not written")
    return done.stdout


def machine(busy: float) -> str:
    """Return in words where the figures come from; `busy` is the load average before the demo."""
    python = ".".join(platform.python_version_tuple()[:2])
    kind = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {python}"
    lines = "of the status lines, one every ten seconds, a quarter stays"
    return f"on {kind}, load average {busy:.1f} before it began ({lines}):"


def block(output: str, scenario: str, where: str) -> str:
    """Return the output as Markdown; of the lines on where things stand a quarter stays."""
    lines = [line.rstrip() for line in output.splitlines()]
    status = [line for line in lines if STATUS.match(line)]
    left_out = set(status) - set(status[1::STATUS_EVERY])
    shown = [line for line in lines if line not in left_out]
    return "\n".join(
        (f"`fraudstream demo --scenario {scenario}` {where}", "", "```text", *shown, "```")
    )


if __name__ == "__main__":
    main()
