"""The file that `--json FILE` names: looked at before the work starts, written when it is done."""

import os
from pathlib import Path

import click
import msgspec

from fraudstream.core.errors import SettingsError
from fraudstream.core.printable import printable_json


class ReportFile(click.ParamType):
    """A path that can be written, or - for standard output; looking at it makes no file."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the path as given.

        Raises:
            SettingsError: no file can be written there.
        """
        path = Path(value)
        if value == "-":
            return value
        if path.is_dir():
            raise SettingsError(f"--json {value} is a folder: name a file in it")
        if not path.parent.is_dir():
            raise SettingsError(f"--json {value}: there is no folder {path.parent}: make it first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise SettingsError(f"--json {value} cannot be written: choose another file")
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
    try:
        Path(target).write_text(text + "\n")
    except OSError as exc:
        raise SettingsError(f"--json {target} cannot be written ({exc.strerror})") from exc
