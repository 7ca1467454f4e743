"""`fraudstream demo`: the main job on real servers, shown while it runs, with a summary at the end."""

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote

import click
from rich.console import Console

from fraudstream.clients.report_file import (
    ReportFile,
    json_option,
    write_file,
    write_json,
)
from fraudstream.core.errors import Ended
from fraudstream.core.settings import Settings
from verify.demo import view
from verify.demo.board import Board
from verify.demo.scenarios import SCENARIOS, check_data
from verify.demo.screen import open_screen
from verify.demo.stage import Options, demo_settings
from verify.demo.state import AlertLine
from verify.demo.story import DONE, run
from verify.demo.summary import Summary, table

PICTURE_SIZE = (110, 36)
"""Columns and lines of a saved picture."""


@click.command()
@click.option(
    "--scenario",
    type=click.Choice(list(SCENARIOS)),
    help="What happens [default: drift; with --data quiet].",
)
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Tell the story on this file (Handbook or canonical parquet) instead of generated data.",
)
@click.option("--seed", default=7, show_default=True, help="Seed of the generated data.")
@click.option(
    "--rate",
    type=click.IntRange(10, 5_000),
    help="Live tx/s [default: 1100 in drift, else 700].",
)
@click.option(
    "--live",
    type=click.IntRange(1_000),
    help="At most so many live transactions [default: what the scenario needs; 30000 of a file].",
)
@click.option(
    "--exit", "leave", is_flag=True, help="End after the summary; the default without a terminal."
)
@click.option("--keep", is_flag=True, help="Leave the servers and their data at the end.")
@click.option("--plain", is_flag=True, help="Lines instead of the live view, also at a terminal.")
@click.option(
    "--picture",
    type=ReportFile("--picture", takes_output=False),
    metavar="FILE",
    help="Save the last picture of the live view as SVG.",
)
@json_option
@click.pass_obj
def demo(  # noqa: PLR0913 - one argument an option
    settings: Settings,
    *,
    scenario: str | None,
    data: Path | None,
    seed: int,
    rate: int | None,
    live: int | None,
    leave: bool,
    keep: bool,
    plain: bool,
    picture: str | None,
    json_file: str | None,
) -> None:
    """Replay, score, train, alert, retrain, swap: the whole system on real servers, in three minutes.

    Starts Kafka, a Redis-compatible server and MLflow as child processes, replays history, trains a first
    model from the features that were logged, promotes it, and replays live transactions. Everything
    lives in <state_dir>/demo; the servers and what they hold are removed at the end, logs and the generated
    file stay. The scenarios:

    \b
      drift   a new kind of fraud sets in; recall falls; a retrained model brings it back
      quiet   the usual traffic, one model
      attack  on one day hundreds of cards are emptied at once
      outage  a worker and Redis are killed on stage; nothing is lost, nothing doubled

    \b
    Examples:
      fraudstream demo
      fraudstream demo --seed 3 --exit --json summary.json
      fraudstream demo --scenario outage
      fraudstream demo --data handbook.parquet
      fraudstream demo --keep        then: fraudstream --set environment=demo
                                       --set state_dir=.fraudstream/demo alerts tail
    """
    chosen = SCENARIOS[scenario or ("quiet" if data else "drift")]
    if data is not None:
        check_data(chosen)
    # With --plain rich takes the terminal for none, and lines are what is shown there.
    console = Console(stderr=True, highlight=False, force_terminal=False if plain else None)
    stays = not leave and all(each and each.isatty() for each in (sys.stdin, sys.stderr))
    options = Options(
        scenario=chosen, data=data, seed=seed, rate=rate or chosen.rate, live=live, keep=keep
    )
    board = Board(chosen.name)

    with open_screen(console, board.picture, started_s=board.started_s) as screen:

        def tell(line: str) -> None:
            board.lines.append(f"{board.elapsed_s:6.1f} s  {line}")
            screen.tell(line)

        def hold(summary: Summary) -> None:
            screen.leave()
            report(summary, json_file)
            if picture is not None:
                write_file(view.svg(board.picture(), *PICTURE_SIZE), picture, option="--picture")
            if stays:
                stay(settings, board.picture().last_alerts, keep=keep, tell=tell)

        try:
            run(demo_settings(settings), options, board, tell, hold)
        except Ended:
            raise
        except KeyboardInterrupt:
            if not (stays and board.step == DONE):
                raise
        if keep:
            tell(
                f"the servers and their data stay; end them with {prefix(settings)} stack down --wipe"
            )


def report(summary: Summary, json_file: str | None) -> None:
    """Write the summary into a file, and as a table unless standard output has it already."""
    if json_file:
        write_json(summary, json_file)
    if json_file != "-":
        Console().print(table(summary))


def stay(
    settings: Settings,
    alerts: Sequence[AlertLine],
    *,
    keep: bool,
    tell: Callable[[str], None],
) -> None:
    """Wait with the servers up until Ctrl-C; tell what to look around with."""
    tell("the servers are still up: look around from another terminal, as in")
    for words in worth_a_look(alerts):
        tell(f"  {prefix(settings)} {words}")
    tell("Ctrl-C ends this command; they stay" if keep else "Ctrl-C ends them")
    signal.pause()


def worth_a_look(alerts: Sequence[AlertLine]) -> list[str]:
    """Return commands for looking around; `alerts` in their order: the newest is traced, if there is one."""
    traced = [f"trace {alert.alert_id}" for alert in alerts[-1:]]
    return ["alerts tail --from-beginning", *traced]


def prefix(settings: Settings) -> str:
    """Return the beginning of a command line that speaks to the demo's servers."""
    demo = demo_settings(settings)
    return f".venv/bin/fraudstream --set environment=demo --set state_dir={quote(demo.state_dir)}"
