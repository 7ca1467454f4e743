"""`fraudstream demo`: the main job on real servers, told line by line, with a summary at the end."""

import signal
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.settings import Settings
from verify.demo.story import Options, Summary, demo_settings, run


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Tell the story on this file (Handbook or canonical parquet) instead of generated data.",
)
@click.option("--seed", default=7, show_default=True, help="Seed of the generated data.")
@click.option(
    "--rate", default=700, show_default=True, type=click.IntRange(10, 5_000), help="Live tx/s."
)
@click.option(
    "--live",
    default=30_000,
    show_default=True,
    type=click.IntRange(1_000),
    help="Live transactions.",
)
@click.option(
    "--exit", "leave", is_flag=True, help="End after the summary; the default without a terminal."
)
@click.option("--keep", is_flag=True, help="Leave the servers and their data at the end.")
@json_option
@click.pass_obj
def demo(  # noqa: PLR0913 - one argument an option
    settings: Settings,
    *,
    data: Path | None,
    seed: int,
    rate: int,
    live: int,
    leave: bool,
    keep: bool,
    json_file: str | None,
) -> None:
    """Replay, score, train, alert: the whole system on real servers, in three minutes.

    Starts Kafka, a Redis-compatible server and MLflow as child processes, replays history, trains a first
    model from the features that were logged, promotes it, and replays live transactions. Everything
    lives in <state_dir>/demo and is removed at the end.

    \b
    Examples:
      fraudstream demo
      fraudstream demo --data handbook.parquet --exit --json summary.json
      fraudstream demo --keep        then: fraudstream --set environment=demo
                                       --set state_dir=.fraudstream/demo alerts tail
    """
    console = Console(stderr=True, highlight=False)
    started = monotonic_s()
    stays = not leave and sys.stdin.isatty() and console.is_terminal

    def tell(line: str) -> None:
        console.print(f"[dim]{monotonic_s() - started:6.1f} s[/]  {escape(line)}", soft_wrap=True)

    def hold(summary: Summary) -> None:
        if json_file:
            write_json(summary, json_file)
        if json_file != "-":
            Console().print(table(summary))
        if stays:
            tell("the servers are still up: look around from another terminal, as in")
            tell(f"  {prefix(settings)} alerts tail --from-beginning")
            tell("Ctrl-C ends them")
            signal.pause()

    options = Options(data=data, seed=seed, rate=rate, live=live, keep=keep)
    try:
        run(demo_settings(settings), options, tell, hold)
    except KeyboardInterrupt:
        if not stays:
            raise
    if keep:
        tell(f"the servers and their data stay; end them with {prefix(settings)} stack down --wipe")


def prefix(settings: Settings) -> str:
    """Return the beginning of a command line that speaks to the demo's servers."""
    demo = demo_settings(settings)
    return f".venv/bin/fraudstream --set environment=demo --set state_dir={demo.state_dir}"


def table(summary: Summary) -> Table:
    """Return the summary as a table for people."""
    s = summary
    rows = {
        "transactions": f"{s.transactions:,} in = {s.scored:,} scored + {s.dead_letters:,} dead letters",
        "lost, duplicates": f"{s.lost:,}, {s.duplicates:,} (by position, read with another client)",
        "history": f"{s.history_rate_per_s:,.0f} transactions/s, sent, scored and committed",
        "live": f"{s.live_transactions:,} at {s.rate_per_s:,.0f}/s, {s.frauds:,} frauds, {s.alerts:,} alerts",
        "average precision": f"{s.average_precision:.3f}, {s.lift_over_chance:.0f} times chance",
        "latency": f"p50 {s.p50_ms:.0f} ms, p99 {s.p99_ms:.0f} ms, from sending to a committed score",
        "model versions, swaps": f"{s.model_versions}, {s.swaps}",
        "seconds": f"{s.seconds:.0f}, servers, history and training included",
    }
    grid = Table(title="summary", show_header=False, title_justify="left")
    for name, text in rows.items():
        grid.add_row(name, text)
    return grid
