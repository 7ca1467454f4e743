"""`fraudstream ledger`: the loss ledger as a command."""

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from verify.ledger import Ledger, Log, count


class Unbalanced(FraudstreamError):
    """Something was lost or doubled; the report names the positions."""


@click.command()
@json_option
@click.pass_obj
def ledger(settings: Settings, json_file: str | None) -> None:
    """Count what came in against scores and dead letters, by position, with an independent client.

    Exit code 1 when a committed transaction has no result or more than one; the positions are named.

    \b
    Examples:
      fraudstream ledger
      fraudstream ledger --json -
    """
    settings = with_addresses(settings, ["kafka"])
    console = Console(stderr=True)
    columns = (TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, int] = {}

        def show(topic: str, done: int, total: int) -> None:
            task = tasks.setdefault(
                topic, bar.add_task(topic, total=total) if topic not in tasks else 0
            )
            bar.update(task, completed=done, total=total)  # type: ignore[arg-type]

        with Log(settings, show) as log:
            report = count(log, f"{settings.environment}.scorer")
    if json_file:
        write_json(report, json_file)
    if json_file != "-":
        click.echo(_sentence(report))
    if not report.balanced:
        raise Unbalanced(_difference(report))


def _sentence(report: Ledger) -> str:
    return (
        f"{report.transactions:,} in = {report.scored:,} scored + {report.dead_letters:,} dead letters"
        f" + {report.waiting:,} waiting; lost {report.lost:,}, duplicates {report.duplicates:,}"
    )


def _difference(report: Ledger) -> str:
    def places(positions: object) -> str:
        return ", ".join(f"{p.source_partition}:{p.source_offset}" for p in positions)  # type: ignore[attr-defined]

    return (
        f"lost {report.lost} ({places(report.lost_positions) or 'none'}), "
        f"duplicates {report.duplicates} ({places(report.duplicate_positions) or 'none'}), "
        f"unfounded {report.unfounded}; places are partition:offset of topic transactions"
    )
