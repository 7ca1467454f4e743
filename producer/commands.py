"""The commands of the producer: `generate` and, from its own module, `replay`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.report_file import json_option, write_json
from producer.generator.parameters import Parameters, make_parameters
from producer.generator.simulate import STEPS, identity, simulate
from producer.generator.statistics import Statistics, statistics
from producer.generator.write import check_target, write_table
from producer.replay_command import replay

__all__ = ["generate", "replay"]

DEFAULTS = Parameters()


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write: .parquet or .jsonl.",
)
@click.option("--seed", type=int, default=DEFAULTS.seed, show_default=True)
@click.option("--days", type=int, default=DEFAULTS.days, show_default=True)
@click.option("--start", default=DEFAULTS.start, show_default=True, help="First day (UTC).")
@click.option("--customers", type=int, default=DEFAULTS.customers, show_default=True)
@click.option("--terminals", type=int, default=DEFAULTS.terminals, show_default=True)
@click.option(
    "--per-customer-day",
    type=float,
    default=DEFAULTS.per_customer_day,
    show_default=True,
    help="Mean number of transactions of a customer on a day.",
)
@click.option("--fraud-rate", type=float, default=DEFAULTS.fraud_rate, show_default=True)
@click.option(
    "--shells-from-day",
    type=int,
    help="From this day on thieves open merchants of their own [default: never].",
)
@click.option(
    "--wave-day", type=int, help="On this day many cards are drained at once [default: never]."
)
@click.option("--wave-cards", type=int, default=DEFAULTS.wave_cards, show_default=True)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
def generate(out: Path, force: bool, json_file: str | None, **values: object) -> None:
    """Generate card transactions with fraud and its honest look-alikes.

    The same parameters give the same bytes. See docs/generator.md for what is simulated.

    \b
    Examples:
      fraudstream generate --out history.parquet
      fraudstream generate --out small.jsonl --days 14 --customers 300 --terminals 200 --seed 1
      fraudstream generate --out drift.parquet --shells-from-day 40
      fraudstream generate --out big.parquet --customers 20000 --terminals 15000 --json -
    """
    parameters = make_parameters(values)
    check_target(out, force=force)
    began_s = monotonic_s()
    with _progress() as (step, advance):
        table = simulate(parameters, step).table
        write_table(table, out, force=force, advance=advance)
    numbers = statistics(table, identity(parameters), monotonic_s() - began_s)
    if json_file != "-":
        click.echo(_summary(out, numbers))
    if json_file:
        write_json(numbers, json_file)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Yield what hears of a step and of written rows; they show a bar on a terminal, else nothing."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("simulating", total=len(STEPS) + 1)

        def step(name: str) -> None:
            bar.update(task, advance=1, description=f"simulated {name}")

        def advance(rows: int) -> None:
            bar.update(task, description=f"writing (+{rows:,} rows)")

        yield step, advance
        bar.update(task, advance=1, description="written")


def _summary(out: Path, numbers: Statistics) -> str:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))

    frauds = f"{numbers.frauds:,} ({100 * numbers.fraud_rate:.2f} %)"
    speed = f"{numbers.seconds:.2f} s ({numbers.rate_per_s:,}/s)"
    return (
        f"{out}: {numbers.transactions:,} transactions in {speed}, source {numbers.identity}\n"
        f"frauds      {frauds}, {numbers.never_reported:,} never reported:"
        f" {listed(numbers.frauds_by_behaviour)}\n"
        f"look-alikes {listed(numbers.look_alikes)}"
    )
