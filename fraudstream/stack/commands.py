"""`fraudstream stack up|status|down|logs`."""

import sys
from collections.abc import Mapping

import click
from rich.console import Console

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.settings import Settings
from fraudstream.stack import embedded
from fraudstream.stack.state import SERVERS, Server, ServerName


@click.group()
def stack() -> None:
    """The embedded stack: real Kafka, Redis and MLflow servers on this machine.

    A server whose address the settings give (kafka_bootstrap, redis_url, mlflow_url) is yours: it
    is neither started nor stopped.
    """


@stack.command()
@json_option
@click.pass_obj
def up(settings: Settings, json_file: str | None) -> None:
    """Start the servers, or find them running; return when each answers.

    \b
    Examples:
      fraudstream stack up
      fraudstream stack up --json -
      FRAUDSTREAM_KAFKA_PORT=9092 fraudstream stack up
    """
    begin_s = monotonic_s()
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as status:

        def show(name: ServerName, what: str) -> None:
            status.update(f"{name} {what}")
            if what == "ready":
                console.print(f"{name:7} ready after {monotonic_s() - begin_s:.1f} s")

        addresses = embedded.up(settings, on_progress=show)
    if json_file:
        write_json(addresses, json_file)
    else:
        click.echo(f"Kafka   {addresses.kafka_bootstrap}")
        click.echo(f"Redis   {addresses.redis_url}")
        click.echo(f"MLflow  {addresses.mlflow_url}")


@stack.command()
@json_option
@click.pass_obj
def status(settings: Settings, json_file: str | None) -> None:
    """Say what runs and where; exit 1 unless every embedded server answers.

    \b
    Examples:
      fraudstream stack status
      fraudstream stack status --json - | jq .servers.kafka.pid
    """
    state = embedded.status(settings)
    names = embedded.embedded_servers(settings)
    servers = embedded.asked(state) if state else {}
    if json_file:
        write_json({"running": state is not None, "servers": servers}, json_file)
    elif state is None:
        click.echo(f"no embedded stack runs in {settings.state_dir}: `fraudstream stack up`")
    else:
        _show(servers)
    if not all(name in servers and servers[name].ready for name in names):
        sys.exit(1)


@stack.command()
@click.option("--wipe", is_flag=True, help="Remove the data as well: topics, features, models.")
@click.pass_obj
def down(settings: Settings, wipe: bool) -> None:
    """End the servers and wait until they are gone; the data stays unless --wipe.

    \b
    Examples:
      fraudstream stack down
      fraudstream stack down --wipe
    """
    ran = embedded.down(settings, wipe=wipe)
    click.echo(("the stack is down" if ran else "nothing was running") + ", data removed" * wipe)


@stack.command()
@click.argument("server", type=click.Choice([*SERVERS, "supervisor"]), required=False)
@click.option("--lines", default=50, show_default=True, type=click.IntRange(1), help="Last lines.")
@click.pass_obj
def logs(settings: Settings, server: str | None, lines: int) -> None:
    """Show the end of the servers' logs, also of those that died.

    \b
    Examples:
      fraudstream stack logs
      fraudstream stack logs kafka --lines 200
    """
    for name in [server] if server else [*SERVERS, "supervisor"]:
        click.echo(f"{name}:{embedded.logs(settings, name, lines) or ' empty'}")


def _show(servers: Mapping[ServerName, Server]) -> None:
    for name, server in servers.items():
        again = f", restarted {server.restarts} times" if server.restarts else ""
        click.echo(f"{name:7} {server.state:8} {server.address} (pid {server.pid}{again})")
