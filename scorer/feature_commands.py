"""`fraudstream features fill|sets|retire`: the feature sets of an environment."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_set_files import load_feature_set
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from fraudstream.stack.feature_commands import features

if TYPE_CHECKING:
    from scorer.fill import Filled, Tell

__all__ = ["features"]

PLAIN_EVERY_S = 5.0


@features.command()
@click.argument("name")
@json_option
@click.pass_obj
def fill(settings: Settings, name: str, json_file: str | None) -> None:
    """Fill a feature set from the log while others serve, then let it go live.

    NAME is a packaged set, or the path of a TOML file. The scorers go on; as the set goes live they wait for
    the last few records to be folded, and from then on apply every transaction to it. Stopped or killed, it
    goes on where it was when it is run again; on a set that is live it changes nothing.

    \b
    Examples:
      fraudstream features fill windows
      fraudstream features fill my_features.toml --json -
    """
    from scorer.fill import Fill  # noqa: PLC0415 - `features list` need not wait for Kafka's client

    chosen = load_feature_set(name)
    with _progress(chosen.name) as tell:
        filled = Fill(with_addresses(settings), chosen, actor=getpass.getuser(), tell=tell).run()
    if json_file:
        write_json(filled, json_file)
    if json_file != "-":
        click.echo(_told(filled))


@features.command()
@json_option
@click.pass_obj
def sets(settings: Settings, json_file: str | None) -> None:
    """List the feature sets of this environment: hash, live or filling, which one the champion reads.

    \b
    Examples:
      fraudstream features sets
      fraudstream features sets --json - | jq '.[] | select(.champion).name'
    """
    from scorer.set_report import report_sets  # noqa: PLC0415

    found = report_sets(with_addresses(settings))
    if json_file:
        write_json(found, json_file)
    if json_file == "-":
        return
    if not found:
        click.echo(
            "no feature set yet: the first scorer begins with that of the setting feature_set"
        )
    for each in found:
        note = ", read by the champion" if each.champion else ""
        lacking = f", {each.lacking:,} transactions to fill" if each.lacking else ""
        click.echo(
            f"{each.name}  {each.hash}  {each.state}, {len(each.features)} features{note}{lacking}"
        )


@features.command()
@click.argument("name")
@json_option
@click.pass_obj
def retire(settings: Settings, name: str, json_file: str | None) -> None:
    """End a feature set, by name or hash, and delete its keys in Redis.

    Refused while the champion reads it, and for the only live set (exit code 3).

    \b
    Examples:
      fraudstream features retire windows
    """
    from scorer.retire import retire as retire_set  # noqa: PLC0415

    done = retire_set(with_addresses(settings), name, actor=getpass.getuser())
    if json_file:
        write_json(done, json_file)
    if json_file != "-":
        click.echo(f"{done.name} {done.hash} is retired: {done.keys:,} keys deleted")


def _told(filled: "Filled") -> str:
    if filled.already_live:
        return f"{filled.name} {filled.hash} is live already; nothing was changed"
    return (
        f"{filled.name} {filled.hash} is live: {filled.records:,} transactions folded in {filled.seconds} s, "
        f"the last {filled.left:,} by the scorers"
    )


@contextmanager
def _progress(name: str) -> Iterator["Tell"]:
    """Show progress on stderr: a bar on a terminal, else a line every few seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(name)
        return
    columns = (
        TextColumn(f"filling {name}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} transactions"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=0)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_lines(name: str) -> "Tell":
    next_s = monotonic_s() + PLAIN_EVERY_S

    def tell(done: int, total: int) -> None:
        nonlocal next_s
        if monotonic_s() >= next_s:
            next_s = monotonic_s() + PLAIN_EVERY_S
            click.echo(f"filling {name}: {done:,}/{total:,} transactions", err=True)

    return tell
