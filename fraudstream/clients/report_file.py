"""A file that an option such as `--json FILE` names: looked at before the work, written after it."""

import os
from pathlib import Path

import click
import msgspec

from fraudstream.core.errors import SettingsError
from fraudstream.core.printable import printable_json


class ReportFile(click.ParamType):
    """A path that can be written; looking at it makes no file. `takes_output`: - is standard output."""

    name = "file"

    def __init__(self, option: str = "--json", *, takes_output: bool = True) -> None:
        self.option = option
        self.takes_output = takes_output

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the path as given.

        Raises:
            SettingsError: no file can be written there.
        """
        path = Path(value)
        if value == "-" and self.takes_output:
            return value
        if path.is_dir():
            raise SettingsError(f"{self.option} {value} is a folder: name a file in it")
        if not path.parent.is_dir():
            raise SettingsError(
                f"{self.option} {value}: there is no folder {path.parent}: make it first"
            )
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise SettingsError(f"{self.option} {value} cannot be written: choose another file")
        return value


json_option = click.option(
    "--json",
    "json_file",
    type=ReportFile(),
    metavar="FILE",
    help="Write the report as JSON; - for standard output.",
)
"""`--json FILE` of every command that reports something; gives the parameter `json_file`."""


def write_json(report: object, target: str) -> None:
    """Write a report as indented JSON into the file `target`, or to standard output for `-`.

    Raises:
        SettingsError: the file cannot be written any more.
    """
    text = printable_json(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    if target == "-":
        click.echo(text)
        return
    write_file(text + "\n", target, option="--json")


def write_file(text: str, target: str, *, option: str) -> None:
    """Write text as UTF-8 into the file that an option named.

    Raises:
        SettingsError: the file cannot be written any more.
    """
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise SettingsError(f"{option} {target} cannot be written ({exc.strerror})") from exc
