"""`fraudstream trainer`: the trainer as a service."""

import getpass
from functools import partial

import click

from fraudstream.clients.packages import TRAINING, check_installed
from fraudstream.clients.service_web import metrics_port_option, serving
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
    "--days",
    type=click.IntRange(1),
    help="Newest days of mature history; they bound the memory [default: all, without a bound].",
)
@click.option("--feature-set", metavar="NAME", help="As of `fraudstream train`.")
@metrics_port_option
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
    labels it is left out. Servers that are away are waited for. SIGTERM and Ctrl-C end it within five
    seconds: a version that is not promoted yet stays what it is.

    \b
    Examples:
      fraudstream trainer
      fraudstream trainer --every 3600 --days 30
      fraudstream trainer --every 30 --metrics-port 9102
    """
    check_installed(*TRAINING)
    settings = with_addresses(settings)
    rhythm = Rhythm(every_s=every_s, days=days, feature_set=feature_set, actor=getpass.getuser())
    service = TrainerService(settings, rhythm, click.echo)
    say = partial(click.echo, err=True)
    with until_signal(), serving(service, metrics_port, settings.web_host, say):
        service.run()
