"""`fraudstream chaos`: break the product in every way there is, and prove that nothing came of it."""

import click
import msgspec
from rich.console import Console

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from verify.chaos.points import TELLING
from verify.chaos.report import Report
from verify.chaos.run import Order, run


class Broken(FraudstreamError):
    """Something was lost, doubled or differs, or the run does not prove that nothing was."""


@click.command()
@click.option(
    "--kills",
    type=click.IntRange(1, 5_000),
    default=40,
    show_default=True,
    help="Workers to kill; from 21 on every fault point is hit.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of schedule and data.")
@click.option(
    "--rate",
    type=click.IntRange(100, 20_000),
    default=2_000,
    show_default=True,
    help="Transactions a second.",
)
@click.option(
    "--sabotage",
    type=click.Choice(list(TELLING)),
    help="Give the workers this defect: the run must then end with exit code 1.",
)
@click.option(
    "--untimed", is_flag=True, help="Tell recovery times without judging them: beside other work."
)
@json_option
@click.pass_obj
def chaos(settings: Settings, /, *, untimed: bool, json_file: str | None, **order: object) -> None:
    """Kill, freeze and empty what runs; then recompute every score and count every record.

    Starts servers of its own in <state_dir>/chaos, replays generated transactions on 8 partitions to 1 to 4
    workers, and breaks them by a schedule that follows from --seed: workers die at named points of the hot
    path and at random times, or are frozen beyond their session and woken; Kafka and Redis are killed,
    frozen, emptied; workers join and leave; two models are swapped in. An oracle that shares no code with
    the scorer judges. Exit code 1 if anything is lost, doubled or different, if the run does not prove that
    nothing is (too few kills, workers or transactions, nothing redelivered, a worker that crashed), or,
    without --untimed, if recovery takes longer than is asked. The servers are removed at the end, the
    workers' logs stay.

    \b
    Examples:
      fraudstream chaos --kills 12                       a minute or two
      fraudstream chaos --kills 200 --seed 7 --json -    a quarter of an hour
      fraudstream chaos --kills 12 --sabotage no-mark    must find differences
    """
    console = Console(stderr=True, highlight=False)
    began_s = monotonic_s()

    def tell(line: str) -> None:
        console.print(f"{monotonic_s() - began_s:6.1f} s  {line}")

    report = run(settings, msgspec.convert(order, Order), tell)
    if json_file:
        write_json(report, json_file)
    if json_file != "-":
        _print(report)
    if short := report.wrong if untimed else report.shortcomings:
        raise Broken("; ".join([*short, *report.differences[:1]]))


def _print(report: Report) -> None:
    click.echo(
        f"{report.kills} workers killed and {sum(report.others.values())} other faults in "
        f"{report.seconds:.0f} s at {report.sent_per_s:,.0f} tx/s; "
        f"{report.redelivered_records:,} records redelivered"
    )
    for point, count in report.kills_by_point.items():
        click.echo(f"  {count:4d}  {point}")
    for kind, took in report.recovery_ms.items():
        click.echo(
            f"recovery, {kind.replace('_', ' ')}: median {took.median / 1000:.1f} s, "
            f"max {took.max / 1000:.1f} s of {took.count}"
            + (f", {len(took.late)} late" * bool(took.late))
        )
    click.echo(
        f"{report.scores_compared:,} scores, {report.alerts_compared:,} alerts and "
        f"{report.entities_compared:,} entities compared: lost {report.lost}, duplicates "
        f"{report.duplicates}, score differences {report.score_differences}, alert differences "
        f"{report.alert_differences}, state differences {report.state_differences}"
    )
