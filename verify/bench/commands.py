"""`fraudstream bench features|latency|pipeline|soak`."""

from collections.abc import Callable
from typing import TypeVar

import click
import msgspec
from rich.console import Console

from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.errors import FraudstreamError
from verify.bench.aims import Aim
from verify.bench.features import FeatureBench, measure
from verify.bench.latency import LINGER_MS, LatencyBench, Sending
from verify.bench.latency import measure as measure_latency
from verify.bench.peers import Peer
from verify.bench.pipeline import PipelineBench, Progress
from verify.bench.pipeline import measure as measure_pipeline
from verify.bench.rate import Rate
from verify.bench.rivals import ready, require_fast
from verify.bench.soak import Soak
from verify.bench.soak import measure as measure_soak

R = TypeVar("R")

FEWEST = 1_000
"""The 99.9th percentile of so many transactions is one of them."""


def _reported(run: Callable[[Progress], R], tell: Callable[[R], None], json_file: str | None) -> R:
    """Run a benchmark with what it is at on standard error; write its report, tell it, return it."""
    with Console(stderr=True).status("starting servers") as status:
        report = run(status.update)
    if json_file:
        write_json(report, json_file)
    if json_file != "-":
        tell(report)
    return report


@click.group()
def bench() -> None:
    """What the product costs, measured on servers of the benchmark's own."""


@bench.command()
@click.option(
    "--hot-entries",
    type=click.IntRange(60, 1_000_000),
    default=1_000_000,
    show_default=True,
    help="Live entries of the hottest terminal.",
)
@json_option
def features(json_file: str | None, hot_entries: int) -> None:
    """Measure the feature store: CPU a transaction, memory a card, hot terminals, the usual ways.

    Server figures are CPU time from INFO. No other server is touched.

    \b
    Examples:
      fraudstream bench features
      fraudstream bench features --hot-entries 100000 --json -
    """
    _reported(
        lambda say: measure(hot_entries, lambda text: say(f"measuring: {text}")), _tell, json_file
    )


@bench.command()
@click.option(
    "--backlog",
    type=click.IntRange(100_000),
    default=300_000,
    show_default=True,
    help="Transactions that wait: two fifths for one worker, the rest for two.",
)
@click.option(
    "--peers/--no-peers",
    "with_peers",
    default=True,
    show_default=True,
    help="Also run Faust and Quix Streams, as in benchmarks/peers.",
)
@json_option
def pipeline(json_file: str | None, backlog: int, with_peers: bool) -> None:
    """Measure the whole product on a backlog: one worker, two, the bare loop, peers.

    Exactly once, 5,000 cards with 60 live transactions, labels on, a model of 150 trees, 0.5 % alerts.
    Starts servers of its own. The first run with peers makes an environment for Quix Streams (a minute).
    Exit code 1 when a score is lost, doubled, of no transaction or of no model, when there is a dead letter
    or other than 0.25 to 1 % alerts, or when a peer is slower than it can be. What was asked of a calm
    machine with two cores is told beside what was found.

    \b
    Examples:
      fraudstream bench pipeline
      fraudstream bench pipeline --no-peers --json -
    """
    with Console(stderr=True).status("looking for the peers") as status:
        peers = ready(status.update) if with_peers else ()
    report = _reported(lambda say: measure_pipeline(backlog, say, peers), _tell_pipeline, json_file)
    require_whole(report)
    require_fast(peers, report.peers)


def _tell_pipeline(report: PipelineBench) -> None:
    for name in ("product", "two_workers", "floor"):
        _rate(name.replace("_", " "), getattr(report, name))
    for name, rate in report.peers.items():
        if rate:
            _rate(
                f"{name.replace('_', ' ')} (the product: {report.ratio[name]} times as fast)", rate
            )
    counted = report.counted
    click.echo(
        f"lost {report.lost}, doubled {report.duplicates}, dead letters {counted.dead_letters}, without a "
        f"model {counted.without_model}, alerts {report.alerts:,} ({counted.alert_share:.2%}), labels "
        f"{report.labels:,}, trees {report.trees}, feature set {report.feature_set}"
    )
    _aims(report.aims)


@bench.command()
@click.option(
    "--rate",
    type=click.FloatRange(1, 50_000),
    default=1_000,
    show_default=True,
    help="Transactions a second, sent at times laid down before.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 600),
    default=4,
    show_default=True,
    help="Length of each run that counts.",
)
@click.option(
    "--partitions",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Of the topics. Each costs an append and a marker a batch: few are fast, many spread over workers.",
)
@click.option(
    "--linger-ms",
    type=click.FloatRange(0, 1_000),
    default=LINGER_MS,
    show_default=True,
    help="How long the sender gathers a batch; 5 is what Kafka's own clients do.",
)
@json_option
def latency(json_file: str | None, **sending: float) -> None:
    """Measure how long a transaction takes from its intended sending to a reader of committed scores.

    One worker, the load of `bench pipeline`. Open loop: who is late is not waited for, and the wait counts.
    The median of three runs, and one run of the bare loop without features and model. Servers of its own.
    Exit code 1 when a score is lost, doubled, of no transaction or of no model, or there is a dead letter.
    The topics have 2 partitions unless --partitions says otherwise; those of an environment have 8.

    \b
    Examples:
      fraudstream bench latency
      fraudstream bench latency --rate 10000 --json -
      fraudstream bench latency --rate 1000 --partitions 8 --linger-ms 1
    """
    how = msgspec.convert(sending, Sending)
    if how.rate * how.seconds < FEWEST:
        raise click.UsageError(
            f"--rate {how.rate:g} for --seconds {how.seconds:g} are fewer than {FEWEST} transactions, "
            "of which no percentile says anything: give more of either"
        )
    report = _reported(lambda say: measure_latency(how, say), _tell_latency, json_file)
    require_whole(report)


class NotWhole(FraudstreamError):
    """A measure says nothing when part of the work was not done, or done twice."""


def require_whole(report: PipelineBench | LatencyBench) -> None:
    """Raise `NotWhole` if not all of the work was done: each of it once, by the model, with its alerts."""
    found = report.counted.shortcomings
    if report.lost or report.duplicates:
        found.insert(0, f"lost {report.lost:,}, doubled {report.duplicates:,}")
    if isinstance(report, PipelineBench):
        found += report.counted.off_alerts
    if found:
        raise NotWhole(f"{'; '.join(found)}: these figures are worth nothing")


@bench.command()
@click.option("--minutes", type=click.IntRange(2), default=20, show_default=True, help="How long.")
@click.option(
    "--rate",
    type=click.IntRange(100),
    help="Transactions a second; default: 60 % of what one worker does here while they are sent.",
)
@json_option
def soak(json_file: str | None, minutes: int, rate: int | None) -> None:
    """Score at a steady rate for a long time: memory must stay, and the last minute be like the first.

    Exit code 1 when memory of the worker or of Redis has grown by more than 5 % since the second minute,
    when the last minute's p99 is above 1.5 times the first's, or when a score is lost or doubled. Servers
    of its own.

    \b
    Examples:
      fraudstream bench soak
      fraudstream bench soak --minutes 3 --rate 5000 --json -
    """
    report = _reported(lambda say: measure_soak(minutes, rate, say), _tell_soak, json_file)
    if not report.holds:
        raise Unsteady("it did not stay as it was: " + _steadiness(report))


class Unsteady(FraudstreamError):
    """Memory grew, latency rose, or a score is lost or doubled."""


def _tell_soak(report: Soak) -> None:
    first, last = report.minutes[0], report.minutes[-1]
    click.echo(
        f"{report.transactions:,} transactions at {report.rate:,} a second; while transactions are "
        f"sent one worker does at most {report.maximum_per_s:,}"
    )
    for name, minute in (("first", first), ("last", last)):
        click.echo(f"{name} minute: p50 {minute.p50_ms:.1f}, p99 {minute.p99_ms:.1f} ms")
    click.echo(_steadiness(report))


def _steadiness(report: Soak) -> str:
    grew = ", ".join(f"{name} {part:+.1%}" for name, part in report.growth.items())
    return (
        f"memory {grew}; p99 of the last minute {report.p99_last_to_first} times the first's; "
        f"lost {report.lost}, doubled {report.duplicates}"
    )


def _tell_latency(report: LatencyBench) -> None:
    for name, found in (("product", report), ("floor", report.floor)):
        click.echo(
            f"{name} at {report.sending.rate:,.0f} a second on {report.sending.partitions} partitions: "
            f"p50 {found.p50_ms:.1f}, p99 {found.p99_ms:.1f}, p99.9 {found.p999_ms:.1f}, "
            f"most {found.max_ms:.1f} ms"
        )
    for name, stage in report.stages.items():
        words = name.replace("_", " ")
        click.echo(f"  {words}: p50 {stage.p50_ms:.1f}, p99 {stage.p99_ms:.1f} ms")
    counted = report.counted
    click.echo(
        f"lost {report.lost}, doubled {report.duplicates}, dead letters {counted.dead_letters}, without a "
        f"model {counted.without_model}, alerts {counted.alerts:,} ({counted.alert_share:.2%})"
    )
    _aims(report.aims)


def _aims(aims: list[Aim]) -> None:
    for aim in aims:
        click.echo(aim.sentence())


def _rate(name: str, rate: Rate) -> None:
    click.echo(
        f"{name}: {rate.tx_per_s:,} transactions a second, worker {rate.cpu_us_per_tx:.1f} us a transaction, "
        f"Kafka {rate.kafka_core_share:.0%} and Redis {rate.redis_core_share:.0%} of a core, which Redis "
        f"waited for {rate.redis_waits_share:.0%} of the time"
    )


def _tell(report: FeatureBench) -> None:
    click.echo(
        f"{report.customers:,} customers, {report.terminals:,} terminals, {report.live_entries} live "
        f"entries each, labels on, batches of {report.batch}"
    )
    nine, windows = report.nine_features, report.three_windows
    _line("nine features", nine.server_us_per_tx, nine.client_us_per_tx)
    _line("three windows, one entity", windows.server_us_per_tx, windows.client_us_per_tx)
    for name, peer in report.peers.items():
        _peer(name, peer)
    click.echo(f"memory: {report.memory_bytes_per_card:,} bytes a card")
    for point in report.hot_terminal_curve:
        click.echo(
            f"terminal with {point.live:>9,} live entries: {point.server_us_per_tx:6.1f} us in order, "
            f"{point.late_server_us_per_tx:7.1f} us late"
        )
    click.echo(f"the hottest costs {report.hot_terminal_ratio} times the one with 60")
    click.echo(
        f"rebuild: {report.rebuild_per_s:,} transactions a second "
        f"({report.rebuild.transactions:,} in the log)"
    )
    _line("rebuild", report.rebuild.server_us_per_tx, report.rebuild.client_us_per_tx)


def _peer(name: str, peer: Peer) -> None:
    _line(name.replace("_", " "), peer.server_us_per_tx, peer.client_us_per_tx)


def _line(name: str, server_us: float, client_us: float) -> None:
    click.echo(f"{name}: server {server_us:.1f} us, client {client_us:.1f} us a transaction")
