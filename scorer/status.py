"""What a worker tells of itself; written by the hot path, read by the web views."""

from typing import Literal

import msgspec

from fraudstream.clients.feature_library import Applied
from fraudstream.core.errors import Refused
from scorer.stages import StageTimes

PROBE_RECORDS = 1_000
"""More dead letters than half of so many first records mean a wrong deployment, not bad data."""

State = Literal["starting", "running", "waiting", "rebuilding", "snapshot", "stopped"]


class Status(msgspec.Struct):
    """Counters since the start of this worker, and what it is at."""

    state: State = "starting"
    model_version: str | None = None
    records: int = 0
    scored: int = 0
    alerts: int = 0
    dead_letters: int = 0
    batches: int = 0
    swaps: int = 0
    aborted: int = 0
    redelivered: int = 0
    truncated: int = 0
    """Scored later than the lateness: a window may have lost entries."""
    beyond_retention: int = 0
    """Scored, but too late to be kept with their customer or terminal."""
    waiting_for: str = ""
    """What is the matter with the server that is waited for, "" while none is."""
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

    def count(self, *, scored: int, dead: int, alerts: int) -> None:
        """Add a batch that was committed, in records."""
        self.batches += 1
        self.records += scored + dead
        self.scored += scored
        self.dead_letters += dead
        self.alerts += alerts

    def count_features(self, served: Applied) -> None:
        """Add what the features of a batch say of lateness; redelivered ones were counted before."""
        new = ~served.redelivered
        self.redelivered += int(served.redelivered.sum())
        self.truncated += int((served.truncated & new).sum())
        self.beyond_retention += int((served.beyond_retention & new).sum())

    def check_probe(self) -> None:
        """Look at the share of dead letters since the start.

        Raises:
            Refused: it is above half of the first records.
        """
        if self.records <= PROBE_RECORDS and self.dead_letters * 2 > PROBE_RECORDS:
            raise Refused(
                f"{self.dead_letters} of the first {self.records} records are dead letters: this looks like "
                "a wrong topic or schema, not like bad data; see `fraudstream dead-letters list`"
            )

    def health(self) -> dict[str, object]:
        """Return what /healthz says."""
        if self.waiting_for:
            return {"state": self.state, "for": self.waiting_for}
        if not self.rebuild_total:
            return {"state": self.state}
        return {"state": self.state, "done": self.rebuild_done, "of": self.rebuild_total}
