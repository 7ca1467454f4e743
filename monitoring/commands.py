"""`fraudstream alerts tail`: alerts as they are committed."""

import os
import sys
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice

import click
import msgspec

from fraudstream.core.scores import Alert
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from monitoring.alerts import alerts as read_alerts


@click.group()
def alerts() -> None:
    """Alerts: transactions whose score reached the threshold."""


@alerts.command()
@click.option(
    "--from-beginning", is_flag=True, help="Begin with the oldest alert, not with the next."
)
@click.option(
    "--no-follow", is_flag=True, help="End at the newest alert instead of waiting for more."
)
@click.option("--limit", type=click.IntRange(min=1), help="End after so many alerts.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line, the record as it stands."
)
@click.pass_obj
def tail(
    settings: Settings, *, from_beginning: bool, no_follow: bool, limit: int | None, as_json: bool
) -> None:
    """Show alerts as they are committed, until Ctrl-C.

    The code behind it, monitoring/alerts.py, is the example for your own consumer of alerts.

    \b
    Examples:
      fraudstream alerts tail
      fraudstream alerts tail --from-beginning --no-follow --json > alerts.jsonl
      fraudstream alerts tail --limit 10
    """
    found = read_alerts(
        with_addresses(settings, ["kafka"]),
        from_beginning=from_beginning,
        follow=not no_follow,
        on_broken=lambda what: click.echo(what, err=True),
    )
    with closing(found):
        try:
            for alert in islice(found, limit):
                click.echo(msgspec.json.encode(alert).decode() if as_json else line(alert))
        except BrokenPipeError:
            # The reader, as in `| head -1`, has all it wanted; the last flush must find an open file.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def line(alert: Alert) -> str:
    """Return an alert as one line for people."""
    score = "-" if alert.score is None else f"{alert.score:.3f}"
    amount = f"{alert.amount_minor / 100:,.2f} {alert.currency}"
    return (
        f"{_moment(alert.event_time_ms)}  {score}  {amount:>14}  customer {alert.customer}  "
        f"terminal {alert.terminal}  {'; '.join(alert.reasons)}  "
        f"[{alert.transaction_id}, model {alert.model_version}]"
    )


def _moment(event_time_ms: int) -> str:
    """Return UTC milliseconds for people; a number that is no time stays a number."""
    try:
        return datetime.fromtimestamp(event_time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(event_time_ms)
