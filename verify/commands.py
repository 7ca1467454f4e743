"""`fraudstream ledger`: the loss ledger as a command."""

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from verify.ledger import Ledger, Log, Place, Position, count


class Unbalanced(FraudstreamError):
    """Something was lost or doubled; the report names the positions."""


@click.command()
@json_option
@click.pass_obj
def ledger(settings: Settings, json_file: str | None) -> None:
    """Count what came in against scores and dead letters, by position, with an independent client.

    Exit code 1 when a committed transaction has no result, more than one, or another transaction's, or
    when a result belongs to no transaction; the places are named.

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
    wrong = f", unfounded {report.unfounded:,}" if report.unfounded else ""
    wrong += f", mismatched {report.mismatched:,}" if report.mismatched else ""
    return (
        f"{report.transactions:,} in = {report.scored:,} scored + {report.dead_letters:,} dead letters"
        f" + {report.waiting:,} waiting; lost {report.lost:,}, duplicates {report.duplicates:,}{wrong}"
    )


def _difference(report: Ledger) -> str:
    def positions(found: list[Position]) -> str:
        return ", ".join(f"{p.source_partition}:{p.source_offset}" for p in found) or "none"

    def places(found: list[Place]) -> str:
        return ", ".join(f"{p.topic} {p.partition}:{p.offset}" for p in found) or "none"

    return (
        f"lost {report.lost} ({positions(report.lost_positions)}), "
        f"duplicates {report.duplicates} ({positions(report.duplicate_positions)}), places are "
        "partition:offset of topic transactions; "
        f"unfounded {report.unfounded} ({places(report.unfounded_places)}), "
        f"mismatched {report.mismatched} ({places(report.mismatched_places)}), places are the results' own"
    )
