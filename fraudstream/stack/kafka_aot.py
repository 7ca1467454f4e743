"""Kafka's ahead-of-time cache: Java 25 keeps the classes of a trial run loaded and linked in a file.

`python -m fraudstream.stack.kafka_aot` makes it once (15 s); each later start of the broker takes half the
time and processor. Java itself checks that the file fits its version, options and jars, else it starts
without it, so nothing depends on it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack import child
from fraudstream.stack.kafka_jars import checked_folder
from fraudstream.stack.kafka_server import aot_cache, plan_kafka
from fraudstream.stack.locks import exclusive, pause
from fraudstream.stack.ports import choose_ports
from fraudstream.stack.servers import kafka_answers
from fraudstream.stack.state import ServerPlan, StackPaths

ANSWER_WAIT_S = 60.0
WRITE_WAIT_S = 120.0
LOCK_WAIT_S = 180.0
POLL_S = 0.05


def make(folder: Path) -> bool:
    """Make the cache for the jars of `folder` unless it is there; return whether there is one.

    Raises:
        FraudstreamError: the trial run failed.
    """
    cache = aot_cache(folder)
    if cache is None:
        return False
    with exclusive(folder / ".aot.lock", wait_s=LOCK_WAIT_S):
        for killed in folder.glob(".aot-*"):
            shutil.rmtree(killed, ignore_errors=True)
        if not cache.exists():
            trial = Path(tempfile.mkdtemp(prefix=".aot-", dir=folder))
            try:
                _run_trial(StackPaths(trial), trial / "new.aot")
                (trial / "new.aot").replace(cache)
            finally:
                shutil.rmtree(trial, ignore_errors=True)
    return True


def _run_trial(paths: StackPaths, output: Path) -> None:
    """Run a broker until it has made topics; it writes the cache when it ends."""
    paths.make()
    ports = choose_ports(Settings(), paths, ("kafka", "kafka_controller"))
    plan = plan_kafka(paths, ports)
    with paths.log("kafka").open("wb") as log:
        *prepare, serve = plan.steps
        for step in prepare:
            subprocess.run(step, stdout=log, stderr=log, check=True)  # noqa: S603 - kafka_server.py's
        wrapper = (sys.executable, "-I", "-S", child.__file__, str(os.getpid()))
        recording = (serve[0], f"-XX:AOTCacheOutput={output}", *serve[1:])
        with subprocess.Popen((*wrapper, *recording), stdout=log, stderr=log) as broker:  # noqa: S603
            try:
                _use(plan, broker)
                broker.send_signal(signal.SIGTERM)
                broker.wait(WRITE_WAIT_S)
            finally:
                broker.kill()
    if not output.exists():
        raise FraudstreamError("Java wrote no cache")


def _use(plan: ServerPlan, broker: subprocess.Popen[bytes]) -> None:
    deadline = monotonic_s() + ANSWER_WAIT_S
    while not kafka_answers(plan.port):
        if broker.poll() is not None or monotonic_s() > deadline:
            raise FraudstreamError("the broker of the trial run does not answer")
        pause(POLL_S)
    create_topics(plan.address, "trial", 1, timeout_ms=10_000)


def main() -> None:
    """Make the cache; a failure is told but is none, since Kafka starts without it."""
    try:
        made = make(checked_folder())
    except (FraudstreamError, OSError, subprocess.SubprocessError) as exc:
        click.echo(f"Kafka will start without an ahead-of-time cache: {exc}", err=True)
        return
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    said = "Kafka starts from its ahead-of-time cache" if made else "no start cache for this Java"
    click.echo(said, err=True)


if __name__ == "__main__":
    main()
