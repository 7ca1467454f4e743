"""`fraudstream scorer`: one worker; start several side by side and they share the partitions."""

import gc
import logging

import click

from fraudstream.clients.logs import configure
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses


@click.command()
@click.option(
    "--slot",
    type=click.IntRange(0, 255),
    help="Place in the group; default: that of a worker which died here, else the lowest free one.",
)
@click.option(
    "--leave",
    is_flag=True,
    help="When stopped, give the place in the group up: others take the partitions over at once.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Serve the web views at exactly this port, not at web_port + slot; 0 takes a free one.",
)
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
@click.pass_obj
def scorer(
    settings: Settings, slot: int | None, *, metrics_port: int | None, leave: bool, quiet: bool
) -> None:
    """Score the transactions of an environment until stopped.

    Every transaction gets exactly one committed score, or a dead letter that says why not. Without a
    champion model the features are logged, so that the first training can learn from them.

    \b
    Examples:
      fraudstream scorer                 one worker, on a free slot
      fraudstream scorer & fraudstream scorer
                                         two workers share the partitions
      fraudstream scorer --leave         one more for a while: stopped, it hands its partitions over
      FRAUDSTREAM_WEB_PORT=6066 fraudstream scorer
                                         web views /livez /readyz /model /metrics at 6066 + slot
    """
    gc.disable()  # until all is loaded: a tenth of the time that takes
    from scorer.worker import run  # noqa: PLC0415 - loads 0.3 s that `--help` need not wait for

    configure(logging.WARNING if quiet else logging.INFO)
    run(with_addresses(settings), slot, metrics_port=metrics_port, leave=leave)
