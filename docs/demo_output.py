"""Runs the demo and puts its real output into README.md, between the two marks.

Usage: .venv/bin/python docs/demo_output.py (three minutes; better on a machine that does nothing else)
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- demo output: .venv/bin/python docs/demo_output.py -->"
END = "<!-- end of demo output -->"
ALERTS_SHOWN = 4
ALERT = re.compile(r" +[\d.]+ s  alert \d+:")


def main() -> None:
    """Run `fraudstream demo --exit` in a temporary state folder and write what it said."""
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as state:
        command = ("-m", "fraudstream.cli", "--set", f"state_dir={state}", "demo", "--exit")
        done = subprocess.run(  # noqa: S603 - our own command line
            (sys.executable, *command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise click.ClickException(f"the demo ended with {done.returncode}:\n{done.stdout}")
    if state in done.stdout or str(README.parent) in done.stdout:
        raise click.ClickException("the output names folders of this machine: not written")
    README.write_text(replaced(README.read_text(), block(done.stdout, machine(busy))))


def machine(busy: float) -> str:
    """Return in words where the figures come from; `busy` is the load average before the demo."""
    python = ".".join(platform.python_version_tuple()[:2])
    kind = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {python}"
    return f"`make demo` on {kind}, load average {busy:.1f} before it began:"


def block(output: str, where: str) -> str:
    """Return the output as Markdown; of the alerts only the first few stay."""
    lines = [line.rstrip() for line in output.splitlines()]
    alerts = [line for line in lines if ALERT.match(line)]
    left_out = set(alerts[ALERTS_SHOWN:])
    shown = []
    for line in lines:
        if line not in left_out:
            shown.append(line)
        elif line == alerts[-1]:
            shown.append(f"          ... {len(left_out)} more lines of alerts")
    return "\n".join((where, "", "```text", *shown, "```"))


def replaced(readme: str, text: str) -> str:
    """Return the README with `text` between the marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"README.md lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


if __name__ == "__main__":
    main()
