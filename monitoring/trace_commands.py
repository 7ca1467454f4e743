"""`fraudstream trace`: everything known of one transaction on one page."""

from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.inference import read_contract
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.model import Contract, model_name
from fraudstream.core.printable import printable
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from monitoring.output import until_reader_leaves
from monitoring.trace import Contracts, join, versions_in
from monitoring.trace_page import page
from monitoring.trace_report import TraceReport
from monitoring.trace_search import Search

BAR_AFTER_S = 1.0
"""A search that is over sooner shows no bar."""


class Unknown(FraudstreamError):
    """A transaction stands nowhere in the topics; says what was searched and what to do next."""


class Identifier(click.ParamType):
    """An id as it may stand in a record: some text that UTF-8 can write."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id as given."""
        if not value:
            self.fail("an id has at least one character", param, ctx)
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{printable(value)} is not UTF-8", param, ctx)
        return value


@click.command()
@click.argument("names", nargs=-1, required=True, type=Identifier(), metavar="TRANSACTION_ID...")
@click.option(
    "--customer",
    type=Identifier(),
    metavar="ID",
    help="Look in the partition of this customer alone: faster.",
)
@click.option(
    "--ids", "ids_only", is_flag=True, help="Take names like 3-5121 for ids, not for positions."
)
@json_option
@click.pass_obj
def trace(
    settings: Settings,
    *,
    names: tuple[str, ...],
    customer: str | None,
    ids_only: bool,
    json_file: str | None,
) -> None:
    """Show everything known of a transaction: input, features, score, alert, labels, latency, audit.

    TRANSACTION_ID may also be an alert_id or a position in topic transactions, both PARTITION-OFFSET or
    PARTITION:OFFSET; that needs no search. An id sent several times shows each of them, the first
    first. Ends with 1 if an id is nowhere.

    \b
    Examples:
      fraudstream trace 1908e380-000041741
      fraudstream trace 1908e380-000041741 --customer C0000304 --json -
      fraudstream trace 3-5121
    """
    settings = with_addresses(settings, ["kafka"])
    report = _report(settings, list(dict.fromkeys(names)), customer=customer, ids_only=ids_only)
    with until_reader_leaves():
        if json_file:
            write_json(report, json_file)
        if json_file != "-" and report.traces:
            _print(report)
    if report.unknown:
        raise Unknown(_where(report, customer))


def _report(
    settings: Settings, names: Sequence[str], *, customer: str | None, ids_only: bool
) -> TraceReport:
    began_s = monotonic_s()
    group = f"{settings.environment}.scorer"
    with TopicReader(settings, group=group) as reader, _Bar(began_s + BAR_AFTER_S) as bar:
        search = Search(reader, settings.environment, bar.show)
        evidence = search.find(names, customer=customer, ids_only=ids_only)
        partitions = search.partitions(customer) if search.searched else []
    contracts = read_contracts(settings, versions_in(evidence))
    traces = [join(each, contracts) for each in evidence]
    return TraceReport(
        environment=settings.environment,
        traces=[each for each in traces if each.occurrences or each.labels],
        unknown=[each.asked for each in evidence if not each.found],
        searched=search.searched,
        partitions=partitions,
        seconds=round(monotonic_s() - began_s, 3),
    )


def read_contracts(settings: Settings, versions: Iterable[str]) -> Contracts:
    """Return by version the contract inside its file in MLflow, or the sentence that says why not."""
    if not settings.mlflow_url:
        why = "no MLflow address; start the stack or set FRAUDSTREAM_MLFLOW_URL"
        return dict.fromkeys(versions, why)
    registry = ModelRegistry(
        settings.mlflow_url,
        connect_timeout_ms=min(settings.connect_timeout_ms, settings.request_timeout_ms),
        request_timeout_ms=settings.request_timeout_ms,
    )
    return {version: _contract(settings, registry, version) for version in versions}


def _contract(settings: Settings, registry: ModelRegistry, version: str) -> Contract | str:
    name = model_name(settings.environment)
    try:
        found = registry.version(name, version)
        if found is None:
            return f"MLflow at {settings.mlflow_url} has no version {version} of {name}"
        return read_contract(registry.fetch(found))
    except FraudstreamError as exc:
        return str(exc)


def _print(report: TraceReport) -> None:
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(page(report))
    text = captured.get().encode(console.encoding, "backslashreplace").decode(console.encoding)
    for line in text.splitlines():
        click.echo(line.rstrip())


def _where(report: TraceReport, customer: str | None) -> str:
    """Say what was searched for what is unknown, and what to do next."""
    names = ", ".join(printable(name) for name in report.unknown)
    topic = f"{report.environment}.transactions"
    partitions = ", ".join(map(str, report.partitions)) or "none"
    sentence = (
        f"no transaction {names} among {report.searched:,} records of topic {topic}, partitions "
        f"{partitions}: is the environment right? `fraudstream --set environment=... trace` looks in another"
    )
    if customer is not None:
        sentence += (
            f"; that is the partition of customer {printable(customer)}: try without --customer"
        )
    return sentence


class _Bar:
    """The progress bar at a terminal, from a moment on."""

    def __init__(self, from_s: float) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._from_s = from_s if console.is_terminal else float("inf")

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.tasks:
            self._progress.stop()

    def show(self, topic: str, done: int, total: int) -> None:
        """Show how far the reading of a topic has come."""
        if monotonic_s() < self._from_s:
            return
        if not self._progress.tasks:
            self._progress.start()
            self._progress.add_task(topic)
        self._progress.update(self._progress.tasks[0].id, completed=done, total=total)
