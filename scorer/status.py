"""What a worker tells of itself; written by the hot path, read by the web views."""

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_library import Applied
from fraudstream.core.errors import Refused
from fraudstream.core.health import WAITS, Health, State, Waited, hanging
from scorer.batch import Batch
from scorer.histogram import Histogram
from scorer.results import Emitted
from scorer.stages import EDGES_MS, StageTimes

PROBE_RECORDS = 1_000
"""More dead letters than half of so many first records mean a wrong deployment, not bad data."""

HANGS_S = 300.0
"""Longer than a step of the loop takes by its limits, where partitions go on after a death included."""

EDGES_RECORDS = (1, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
EDGES_SCORE = tuple(step / 20 for step in range(1, 21))


class Status(msgspec.Struct):
    """Counters since the start of this worker, and what it is at."""

    state: State = "starting"
    moved_s: float = msgspec.field(default_factory=monotonic_s)
    """When the loop last went on, by the clock that does not jump."""
    model_version: str | None = None
    records: int = 0
    scored: int = 0
    alerts: int = 0
    dead_by_kind: dict[str, int] = {}
    batches: int = 0
    swaps: int = 0
    aborted: int = 0
    redelivered: int = 0
    truncated: int = 0
    """Scored later than the lateness: a window may have lost entries."""
    beyond_retention: int = 0
    """Scored, but too late to be kept with their customer or terminal."""
    waiting_for: Waited | None = None
    """The server that is waited for, or what is the matter with it; None while none is."""
    poison: int = 0
    """Dead letters for want of a score: the record can be read, but made a hop fail or the worker die."""
    rebuilds: int = 0
    """Rebuilds of the features that this worker has carried to their end."""
    rebuild_done: int = 0
    rebuild_total: int = 0
    """Records of the present rebuild, if this worker carries it out: 0 of 0 otherwise."""
    seconds: dict[str, float] = {}
    """Time spent in each hop since the start."""
    stages: StageTimes = msgspec.field(default_factory=StageTimes)
    batch_records: Histogram = msgspec.field(default_factory=lambda: Histogram(EDGES_RECORDS))
    commit_ms: Histogram = msgspec.field(default_factory=lambda: Histogram(EDGES_MS))
    scores: Histogram = msgspec.field(default_factory=lambda: Histogram(EDGES_SCORE))
    probed: bool = False
    """Whether the share of dead letters among the first records was judged, once for all."""
    slot: str = ""
    """The name of its place in the group, unique in the environment."""
    restarts: int = 0
    """Starts of this slot before this one."""

    @property
    def dead_letters(self) -> int:
        """Return the number of dead letters, of whatever kind."""
        return sum(dict(self.dead_by_kind).values())

    def count(self, *, scored: int, alerts: int, dead: Iterable[str]) -> None:
        """Add a batch that was committed: its records, and the kinds of its dead letters."""
        records = scored
        for kind in dead:
            self.dead_by_kind[kind] = self.dead_by_kind.get(kind, 0) + 1
            records += 1
        self.batches += 1
        self.records += records
        self.scored += scored
        self.alerts += alerts
        self.batch_records.add_one(records)

    def count_batch(
        self, batch: Batch, emitted: Emitted, scores: np.ndarray | None, *, commit_ms: float
    ) -> None:
        """Add a committed batch to counters and histograms; `scores` is float32 [N], None without a model."""
        self.stages.add(emitted.scores)
        if scores is not None:
            self.scores.add(scores.tolist())
        self.commit_ms.add_one(commit_ms)
        self.count(
            scored=batch.scorable,
            alerts=[output.topic for output in emitted.outputs].count("alerts"),
            dead=[letter.kind for letter in batch.dead],
        )

    def count_features(self, served: Applied) -> None:
        """Add what the features of a batch say of lateness; redelivered ones were counted before."""
        self.redelivered += int(np.count_nonzero(served.redelivered))
        self.truncated += _new(served.truncated, served)
        self.beyond_retention += _new(served.beyond_retention, served)

    def swapped(self, version: str) -> None:
        """Take note of the version that serves from now on."""
        self.model_version = version
        self.swaps += 1

    def check_probe(self) -> None:
        """Look at the share of dead letters until the batch with which the first records are complete.

        Raises:
            Refused: it is above half of them.
        """
        if self.probed:
            return
        self.probed = self.records >= PROBE_RECORDS
        if self.dead_letters * 2 > max(self.records, PROBE_RECORDS):
            raise Refused(
                f"{self.dead_letters} of the first {self.records} records are dead letters: this looks like "
                "a wrong topic or schema, not like bad data; see `fraudstream dead-letters list`"
            )

    def move(self) -> None:
        """Take note that the loop goes on."""
        self.moved_s = monotonic_s()

    def become(self, state: State) -> None:
        """Be at this, and wait for no server any more."""
        self.state, self.waiting_for = state, None

    def wait_for(self, what: Waited | None) -> None:
        """Wait for a server until `go_on`."""
        self.state, self.waiting_for = "waiting", what

    def go_on(self, *, owns: bool) -> None:
        """Be ready, the servers answer; without partitions there is nothing to be ready for."""
        self.become("ready" if owns else "starting")

    def health(self) -> Health:
        """Return what /readyz says; may be called from another thread."""
        if (still_s := monotonic_s() - self.moved_s) > HANGS_S:
            return hanging(still_s)
        if self.waiting_for is not None:
            return Health(self.state, WAITS[self.waiting_for])
        return Health(self.state, done=self.rebuild_done, of=self.rebuild_total)


def _new(flagged: NDArray[np.bool_], served: Applied) -> int:
    """Return how many were flagged and not redelivered; nearly always none, which is cheap to see."""
    some = int(np.count_nonzero(flagged))
    return some and int(np.count_nonzero(flagged & ~served.redelivered))
