"""`fraudstream features`: what can be done with the features beside scoring."""

import click

from fraudstream.stack import snapshot_commands


@click.group()
def features() -> None:
    """The features' state: copies of it, and back."""


features.add_command(snapshot_commands.snapshot)
features.add_command(snapshot_commands.restore)
