"""`fraudstream trainer`: the trainer as a service."""

import getpass
from contextlib import ExitStack

import click

from fraudstream.clients.service_web import served
from fraudstream.clients.signals import until_signal
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from trainer.service import Rhythm, TrainerService


@click.command()
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="Seconds between the end of a training and the next.",
)
@click.option(
    "--days", type=click.IntRange(1), help="Newest days of mature history [default: all]."
)
@click.option("--feature-set", metavar="NAME", help="As of `fraudstream train`.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Serve /livez, /readyz and /metrics there; 0 takes a free port.",
)
@click.pass_obj
def trainer(
    settings: Settings,
    *,
    every_s: float,
    days: int | None,
    feature_set: str | None,
    metrics_port: int | None,
) -> None:
    """Train every so often and promote what passes the gate, until stopped.

    Each round is a `fraudstream train --promote` on what was served by then; without new scores or
    labels it is left out. Servers that are away are waited for. SIGTERM and Ctrl-C end it at once: a
    version that is not promoted yet stays what it is.

    \b
    Examples:
      fraudstream trainer
      fraudstream trainer --every 3600 --days 30
      fraudstream trainer --every 30 --metrics-port 9102
    """
    settings = with_addresses(settings)
    rhythm = Rhythm(every_s=every_s, days=days, feature_set=feature_set, actor=getpass.getuser())
    service = TrainerService(settings, rhythm, click.echo)
    with until_signal(), ExitStack() as stack:
        if metrics_port is not None:
            port = stack.enter_context(
                served(service.registry, service.health, metrics_port, settings.web_host)
            )
            click.echo(f"metrics at http://{settings.web_host}:{port}/metrics", err=True)
        service.run()
