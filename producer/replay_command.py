"""`fraudstream replay`: the producer as a command, with its progress and closing statistics."""

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fraudstream.clients.kafka_log import SEARCH_BACK
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.clients.service_web import metrics_port_option, serving
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from producer.generator import make_parameters
from producer.generator import source as generated_source
from producer.pace import AtRate, Pace, Unpaced, parse_speed
from producer.replay import Client, Progress, ReplayPlan, ReplayStats, replay_table
from producer.replay_metrics import ReplayMetrics
from producer.sources import Source, cut, parse_time_ms, read_source

DEFAULT_RATE = 500.0
PLAIN_EVERY_S = 5.0
LATE_S = 1.0

OnProgress = Callable[[Progress], None]


class Options(Struct, frozen=True, kw_only=True):
    """The command's options as click hands them over."""

    generate: str | None
    speed: str | None
    rate: float | None
    unpaced: bool
    limit: int | None
    from_time: str | None
    to_time: str | None
    loop: bool
    client: Client
    labels: bool
    all_labels: bool
    restart: bool
    search_back: int
    metrics_port: int | None
    json_file: str | None


@click.command()
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option(
    "--generate",
    metavar="NAME=VALUE,...",
    help="Parameters of the own generator (see generate --help); it is also the source without a file.",
)
@click.option("--speed", metavar="60x", help="Event time runs so many times as fast as the clock.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=10_000_000),
    help="So many transactions a second, whatever their event time (default: 500).",
)
@click.option("--unpaced", is_flag=True, help="As fast as possible.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="End after the first N transactions of the cut, those sent by an earlier run included.",
)
@click.option("--from", "from_time", metavar="TIME", help="First event time, ISO, UTC.")
@click.option("--to", "to_time", metavar="TIME", help="First event time not sent any more.")
@click.option("--loop", is_flag=True, help="Begin again at the end: ids get ~1, ~2; time goes on.")
@click.option(
    "--client",
    type=click.Choice(["auto", "kafka-python", "confluent"]),
    default="auto",
    show_default=True,
    help="auto takes confluent where the rate asks for it.",
)
@click.option("--labels/--no-labels", default=True, help="Send labels when they become known.")
@click.option("--all-labels", is_flag=True, help="At the end, send the labels known only later.")
@click.option(
    "--restart", "--no-resume", "restart", is_flag=True, help="Send again what was sent before."
)
@click.option(
    "--search-back",
    type=click.IntRange(min=1),
    default=SEARCH_BACK,
    show_default=True,
    help="Records of a partition searched for the last one of this source.",
)
@metrics_port_option
@json_option
@click.pass_obj
def replay(settings: Settings, /, source: Path | None, **options: object) -> None:
    """Send transactions in event-time order, and their labels when they become known.

    SOURCE is a .parquet or .jsonl file (canonical, or the Handbook's); without it the own generator
    is the source. A replay that was stopped or killed goes on where it was, without loss or
    repetition, when it is started again with the same source. Ctrl-C stops it cleanly (exit 130).

    \b
    Examples:
      fraudstream replay                                    generated, 500 transactions a second
      fraudstream replay handbook.parquet --speed 600x --from 2018-07-25 --to 2018-08-01
      fraudstream replay --generate seed=7,days=30 --unpaced --json -
      fraudstream replay day.jsonl --rate 50 --loop
    """
    chosen = msgspec.convert(options, Options)
    plan = _plan(chosen)
    found = _source(source, chosen)
    settings = with_addresses(settings, ["kafka"])
    stop = threading.Event()
    with (
        _signals(stop) as received,
        _view() as show,
        _metrics(settings, chosen.metrics_port, show) as on_progress,
    ):
        stats = _run(settings, found, plan, on_progress, (stop, received))
    if chosen.json_file:
        write_json(stats, chosen.json_file)
    if chosen.json_file != "-":
        click.echo(_summary(stats))
    if received and not stats.finished:
        sys.exit(128 + received[0])


def _run(
    settings: Settings,
    source: Source,
    plan: ReplayPlan,
    on_progress: OnProgress,
    stopping: tuple[threading.Event, list[int]],
) -> ReplayStats:
    stop, received = stopping
    try:
        return replay_table(settings, source, plan, on_progress=on_progress, stop=stop)
    except FraudstreamError as exc:
        if not received:
            raise
        click.echo(f"stopped: {exc}", err=True)
        sys.exit(128 + received[0])


@contextmanager
def _metrics(settings: Settings, port: int | None, show: OnProgress) -> Iterator[OnProgress]:
    """Serve metrics for the length of the block if a port is given; yield what is told of progress."""
    if port is None:
        yield show
        return
    metrics = ReplayMetrics()

    def both(progress: Progress) -> None:
        show(progress)
        metrics.show(progress)

    with serving(metrics, port, settings.web_host, partial(click.echo, err=True)):
        yield both


def _plan(options: Options) -> ReplayPlan:
    return ReplayPlan(
        pace=_pace(options),
        client=options.client,
        limit=options.limit,
        loop=options.loop,
        labels=options.labels,
        all_labels=options.all_labels,
        resume=not options.restart,
        search_back=options.search_back,
    )


def _pace(options: Options) -> Pace:
    given = [options.speed is not None, options.rate is not None, options.unpaced]
    if sum(given) > 1:
        raise click.UsageError("choose one of --speed, --rate and --unpaced")
    if options.unpaced:
        return Unpaced()
    if options.speed is not None:
        return parse_speed(options.speed)
    if options.rate is not None and math.isnan(options.rate):
        raise click.UsageError("--rate nan: use a positive number of transactions a second")
    return AtRate(DEFAULT_RATE if options.rate is None else options.rate)


def _source(path: Path | None, options: Options) -> Source:
    if path is not None and options.generate is not None:
        raise click.UsageError("choose a SOURCE file or --generate, not both")
    from_ms = _moment(options.from_time, "--from")
    to_ms = _moment(options.to_time, "--to")
    if path is not None:
        return read_source(path, from_ms, to_ms)
    return cut(generated_source(make_parameters(_values(options.generate or ""))), from_ms, to_ms)


def _moment(text: str | None, field: str) -> int | None:
    return None if text is None else parse_time_ms(text, field)


def _values(text: str) -> dict[str, object]:
    values: dict[str, object] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise click.UsageError(
                f"--generate {text!r}: write NAME=VALUE,... as in seed=7,days=30"
            )
        values[name.strip()] = _number_or_text(value.strip())
    return values


def _number_or_text(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


@contextmanager
def _signals(stop: threading.Event) -> Iterator[list[int]]:
    """Set `stop` at SIGINT or SIGTERM and note which; a second one ends the process at once."""
    received: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        received.append(number)
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _view() -> Iterator[OnProgress]:
    """Show progress on stderr: a bar on a terminal, else a line every few seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines()
        return
    columns = (
        TextColumn("{task.fields[moment]}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} sent, {task.fields[labels]:,} labels"),
        TextColumn("{task.fields[rate]:,.0f}/s{task.fields[late]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=0, moment="", labels=0, rate=0.0, late="")

        def show(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.position,
                total=progress.total,
                moment=_iso(progress.event_time_ms),
                labels=progress.labels,
                rate=progress.sent / max(progress.seconds, 0.001),
                late=_late(progress.lag_s),
            )

        yield show


def _plain_lines() -> OnProgress:
    next_s = PLAIN_EVERY_S

    def show(progress: Progress) -> None:
        nonlocal next_s
        if progress.seconds < next_s:
            return
        next_s = progress.seconds + PLAIN_EVERY_S
        click.echo(
            f"{_iso(progress.event_time_ms)}  {progress.position:,}/{progress.total:,} sent,"
            f" {progress.labels:,} labels, {progress.sent / progress.seconds:,.0f}/s"
            f"{_late(progress.lag_s)}",
            err=True,
        )

    return show


def _summary(stats: ReplayStats) -> str:
    state = "finished" if stats.finished else "stopped"
    counts = f"sent {stats.sent:,} transactions and {stats.labels:,} labels of {stats.source}"
    pace = f"{stats.seconds:.1f} s, {stats.rate_per_s:,.0f}/s, with {stats.client}"
    lines = [f"{state}: {counts} in {pace}"]
    if stats.already_sent:
        lines.append(_resumed(stats))
    if stats.sent:
        lines.append(f"by partition: {' '.join(f'{count:,}' for count in stats.by_partition)}")
    if stats.lag_s > LATE_S:
        asked = f" of {stats.asked_per_s:,.0f}/s" if stats.asked_per_s else ""
        lines.append(f"could not keep the pace{asked}: the last row was {stats.lag_s:.1f} s late")
    if stats.undelivered:
        lines.append(f"{stats.undelivered:,} records were not acknowledged yet; the next run looks")
    return "\n".join(lines)


def _resumed(stats: ReplayStats) -> str:
    if stats.resumed_from_row is None:
        return (
            f"all {stats.already_sent:,} rows were in the topic already: --restart sends them again"
        )
    return f"resumed from row {stats.resumed_from_row:,}: {stats.already_sent:,} were sent before"


def _late(lag_s: float) -> str:
    return f", {lag_s:.1f} s late" if lag_s > LATE_S else ""


def _iso(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
