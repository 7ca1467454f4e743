"""The peers of the pipeline benchmark: other libraries doing its work on the same log, one after the other.

What they are is in benchmarks/peers, outside of the package: they are in a checkout only.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_admin import admin
from fraudstream.core.errors import FraudstreamError, SettingsError
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import child
from trainer.export import Exported
from verify.bench.quix_environment import python_with
from verify.bench.rate import Rate, Watched, committed_anew, timed
from verify.ledger import Log

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "peers"
MEASURED_S = 4.0
START_S = 60.0
TOPICS_MS = 20_000
OUTPUTS = ("scores", "alerts")
STOP_S = 10.0
NAMES = ("faust_agent", "quix_streams", "quix_streams_by_hand")
"""The last is for honesty: a function of one's own in place of Quix Streams' windows is far faster."""
SHARE = 0.8
"""A peer below this share of what such a one reaches is not one to compare with."""


class Rival(msgspec.Struct, frozen=True):
    """One peer: its script, the Python that runs it, what such a one reaches on two cores, options."""

    name: str
    script: str
    python: str
    usual_tx_per_s: int
    needs_redis: bool = False
    by_hand: bool = False


def ready(progress: Callable[[str], None]) -> tuple[Rival, ...]:
    """Return the peers, ready to be started; the first call makes the environment of Quix Streams.

    Raises:
        SettingsError: this is no checkout.
        FraudstreamError: the environment cannot be made.
    """
    lock = SCRIPTS / "requirements.lock"
    if not lock.is_file():
        raise SettingsError(
            f"the peers are in a checkout only, and there is no {lock}: run the benchmark from a "
            "checkout of fraudstream, or leave them out with --no-peers"
        )
    quix = str(python_with(lock, progress))
    return (
        Rival(NAMES[0], NAMES[0], sys.executable, 1_350, needs_redis=True),
        Rival(NAMES[1], NAMES[1], quix, 3_100),
        Rival(NAMES[2], NAMES[1], quix, 3_100, by_hand=True),
    )


def require_fast(peers: Sequence[Rival], measured: Mapping[str, Rate | None]) -> None:
    """Check that no peer is slower than it can be, which would flatter the product.

    Raises:
        FraudstreamError: names the peers, what they reached and what is the least.
    """
    slow = [
        f"{peer.name} {rate.tx_per_s:,} transactions a second, at least "
        f"{peer.usual_tx_per_s * SHARE:,.0f} are due"
        for peer in peers
        if (rate := measured[peer.name]) and rate.tx_per_s < peer.usual_tx_per_s * SHARE
    ]
    if slow:
        raise FraudstreamError(
            f"a peer is too slow for a fair comparison ({'; '.join(slow)}): run it on a machine that "
            "does nothing else; if it stays so, the peer is badly written"
        )


class Rivals:
    """The processes of the peers for the length of a block; each stands still but while it is measured."""

    def __init__(self, settings: Settings, exported: Exported, peers: Sequence[Rival]) -> None:
        self._settings = settings
        self._exported = exported
        self.all = peers
        self._folder = Path(settings.state_dir) / "peers"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Make their topics and start them all: they import, join the broker and begin beside each other."""
        self._folder.mkdir(parents=True)
        (self._folder / "model.onnx").write_bytes(self._exported.onnx_bytes)
        names = [self.topic(peer, what) for peer in self.all for what in OUTPUTS]
        if names:
            wanted = {name: {"num_partitions": self._settings.partitions} for name in names}
            with admin(self._settings.kafka_bootstrap, timeout_ms=TOPICS_MS) as client:
                client.create_topics(wanted, wait_for_metadata=True)
        try:
            for peer in self.all:
                self._running[peer.name] = self._start(peer)
        except BaseException:  # also Ctrl-C: those that were started must not stay
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def hold(self) -> None:
        """Wait until each has committed something, and have it stand still from then on.

        Raises:
            FraudstreamError: one ended, or has not begun after 60 s.
        """
        deadline = monotonic_s() + START_S
        with Log(self._settings) as log:
            for peer in self.all:
                committed_anew(log, self._watched(peer, deadline))
                self._running[peer.name].send_signal(signal.SIGSTOP)

    def measure(self, peer: Rival) -> Rate:
        """Let one go on alone, take its rate over at least 5 s, and end it.

        Raises:
            FraudstreamError: it ended, or did not get so far in 60 s.
        """
        self._running[peer.name].send_signal(signal.SIGCONT)
        who = self._watched(peer, monotonic_s() + START_S)
        rate = timed(self._settings, who, lambda _, seconds: seconds >= MEASURED_S)
        self._kill(peer.name)
        return rate

    def _start(self, peer: Rival) -> "subprocess.Popen[bytes]":
        given = {
            "bootstrap": self._settings.kafka_bootstrap,
            "group": peer.name,
            "source": topic_name(self._settings.environment, "transactions"),
            **{what: self.topic(peer, what) for what in OUTPUTS},
            "model": f"{self._folder}/model.onnx",
            "threshold": f"{self._exported.contract.threshold}",
            "state": f"{self._folder}/{peer.name}",
        }
        if peer.needs_redis:
            given["redis"] = self._settings.redis_url
        if peer.by_hand:
            given["by-hand"] = "yes"
        options = [part for name, value in given.items() for part in (f"--{name}", value)]
        dies_with_us = [sys.executable, child.__file__, str(os.getpid())]
        command = [*dies_with_us, peer.python, f"{SCRIPTS}/{peer.script}.py", *options]
        with self._log(peer).open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603

    def _watched(self, peer: Rival, deadline_s: float) -> Watched:
        return Watched(peer.name, f"--group {peer.name} ", lambda: self._check(peer, deadline_s))

    def _check(self, peer: Rival, deadline_s: float) -> None:
        late = monotonic_s() > deadline_s
        if late or self._running[peer.name].poll() is not None:
            said = self._log(peer).read_text(errors="replace").strip().splitlines()
            raise FraudstreamError(
                f"the peer {peer.name} {'does not get on' if late else 'ended'}: "
                f"{' / '.join(said[-3:]) or 'it said nothing'}"
            )

    def topic(self, peer: Rival, what: str) -> str:
        """Return the full name of a topic that a peer writes: `scores` or `alerts`."""
        return topic_name(self._settings.environment, f"{peer.name}.{what}")

    def _log(self, peer: Rival) -> Path:
        return self._folder / f"{peer.name}.log"

    def _end(self) -> None:
        for name in self._running:
            self._kill(name)

    def _kill(self, name: str) -> None:
        self._running[name].kill()
        self._running[name].wait(STOP_S)
