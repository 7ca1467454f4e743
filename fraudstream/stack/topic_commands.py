"""`fraudstream topics create|show`."""

import sys

import click

from fraudstream.clients.report_file import json_option, write_json
from fraudstream.clients.topic_admin import (
    TopicDescription,
    TopicReport,
    create_topics,
    describe_topics,
)
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses


@click.group()
def topics() -> None:
    """The topics of this environment: create what is missing, say what differs."""


@topics.command()
@json_option
@click.pass_obj
def create(settings: Settings, json_file: str | None) -> None:
    """Create the missing topics and say how those that exist differ; nothing existing is changed.

    Exit code 1 if a difference matters: records would be lost, refused or out of order.

    \b
    Examples:
      fraudstream topics create
      fraudstream --set partitions=16 topics create
      FRAUDSTREAM_KAFKA_BOOTSTRAP=kafka:9092 fraudstream topics create --json -
    """
    settings = with_addresses(settings, ["kafka"])
    report = create_topics(
        settings.kafka_bootstrap,
        settings.environment,
        settings.partitions,
        timeout_ms=settings.connect_timeout_ms,
    )
    if json_file:
        write_json(report, json_file)
    else:
        _tell(report)
    if any(difference.matters for difference in report.differences):
        sys.exit(1)


@topics.command()
@json_option
@click.pass_obj
def show(settings: Settings, json_file: str | None) -> None:
    """List the topics with their partitions and the settings that matter.

    \b
    Examples:
      fraudstream topics show
      fraudstream topics show --json - | jq '.[].partitions'
    """
    settings = with_addresses(settings, ["kafka"])
    found = describe_topics(
        settings.kafka_bootstrap, settings.environment, timeout_ms=settings.connect_timeout_ms
    )
    if json_file:
        write_json(found, json_file)
    else:
        for topic in found:
            click.echo(_line(topic))


def _tell(report: TopicReport) -> None:
    for name in report.created:
        click.echo(f"created {name}")
    for difference in report.differences:
        weight = "differs, matters" if difference.matters else "differs"
        click.echo(
            f"{weight}: {difference.topic} has {difference.setting} = {difference.found or 'unknown'}, "
            f"wanted {difference.wanted}"
        )
    if not report.created and not report.differences:
        click.echo("all topics exist as wanted")


def _line(topic: TopicDescription) -> str:
    if topic.partitions == 0:
        return f"{topic.name}: missing, `fraudstream topics create`"
    config = ", ".join(f"{name}={value}" for name, value in sorted(topic.config.items()))
    return f"{topic.name}: {topic.partitions} partitions, {config}"
