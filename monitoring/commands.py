"""`fraudstream alerts tail`: alerts as they are committed."""

from contextlib import closing
from itertools import islice

import click
import msgspec

from fraudstream.core.printable import printable, printable_json
from fraudstream.core.scores import Alert
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from monitoring.alerts import alerts as read_alerts
from monitoring.output import moment, money, until_reader_leaves


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
    with closing(found), until_reader_leaves():
        for alert in islice(found, limit):
            click.echo(_json(alert) if as_json else line(alert))


def line(alert: Alert) -> str:
    """Return an alert as one line for people."""
    score = "-" if alert.score is None else f"{alert.score:.3f}"
    amount = money(alert.amount_minor, alert.currency)
    text = (
        f"{moment(alert.event_time_ms)}  {score}  {amount:>14}  customer {alert.customer}  "
        f"terminal {alert.terminal}  {'; '.join(alert.reasons)}  "
        f"[{alert.transaction_id}, model {alert.model_version}]"
    )
    return printable(text)


def _json(alert: Alert) -> str:
    return printable_json(msgspec.json.encode(alert).decode())
