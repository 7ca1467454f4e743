"""`fraudstream ledger`: the loss ledger as a command."""

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.errors import SettingsError
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from verify.ledger import Log, count
from verify.ledger_text import Unbalanced, difference, sentence
from verify.watch_command import Wanted, watch_ledger


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="Go on as records come, until Ctrl-C.")
@click.option(
    "--for",
    "for_s",
    type=click.FloatRange(min=0, min_open=True, max=31_536_000),
    metavar="SECONDS",
    help="With --watch: end after so long.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="With --watch: serve /livez, /readyz and /metrics there; 0 takes a free port.",
)
@click.pass_obj
def ledger(
    settings: Settings,
    *,
    json_file: str | None,
    watch: bool,
    for_s: float | None,
    metrics_port: int | None,
) -> None:
    """Count what came in against scores and dead letters, by position, with an independent client.

    Exit code 1 when a committed transaction has no result, more than one, or another transaction's, or
    when a result belongs to no transaction; the places are named.

    With --watch the balance is shown each second, and each difference is named on standard error as soon
    as it is certain. Exit code 1 at the end if there was any. --json then writes one object a line, each
    second and at the end.

    \b
    Examples:
      fraudstream ledger
      fraudstream ledger --json -
      fraudstream ledger --watch
      fraudstream ledger --watch --for 60 --metrics-port 9109
    """
    wanted = Wanted(json_file, for_s, metrics_port)
    if not watch and (for_s, metrics_port) != (None, None):
        raise SettingsError("--for and --metrics-port are of a watch: give --watch, too")
    settings = with_addresses(settings, ["kafka"])
    if watch:
        watch_ledger(settings, wanted)
    else:
        count_once(settings, json_file)


def count_once(settings: Settings, json_file: str | None) -> None:
    """Count what is there now; settings have the address of Kafka.

    Raises:
        Unbalanced: something is lost or doubled.
        DependencyUnreachable: no broker answers.
        Refused: a topic does not exist.
    """
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
        click.echo(sentence(report))
    if not report.balanced:
        raise Unbalanced(difference(report))
