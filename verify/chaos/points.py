"""The fault points of a worker by name: before and after every numbered step of the hot path, and inside it.

The product has no hooks for them: the worker under test (`worker.py`) wraps the steps from outside, so that
they cost nothing where they are not used, and no variable of anybody's environment can arm one.
"""

import os
import signal

STEPS = ("poll", "decode", "features", "score", "emit", "commit")
"""The hops that `HotPath.step` times, in their order."""

INSIDE = (
    "features.labelled",
    "transaction.begun",
    "transaction.producing",
    "transaction.produced",
    "transaction.offsets",
    "transaction.committed",
)
"""In order: labels are applied, the batch is not; the Kafka transaction has begun; a record of it is about
to be produced; all are, the offsets are not; offsets are, the commit is not; it is committed, and the worker
has not taken note."""

RESTARTING = ("prove.before", "prove.after")
"""A worker has partitions: before and after it knows that the features hold what is committed."""

REBUILDING = "rebuild.folding"
"""The worker that fills an emptied Redis from the log, before one of its calls."""

POINTS = (
    *(f"{step}.{when}" for step in STEPS for when in ("before", "after")),
    *INSIDE,
    *RESTARTING,
    REBUILDING,
)

AFTER_FEATURES = (
    "features.after",
    "score.after",
    "emit.after",
    "transaction.begun",
    "transaction.produced",
    "transaction.offsets",
)
"""Who dies here leaves a batch that is applied to the features and not committed: it is redelivered."""

TELLING = {
    "commit-first": ("transaction.begun", "transaction.produced", "transaction.committed"),
    "no-mark": AFTER_FEATURES,
    "no-reply": AFTER_FEATURES,
    "tie-by-arrival": AFTER_FEATURES,
}
"""By the name of a defect the points at which a short run with it kills: there it must show."""

ENDED_BY = "chaos: ended by "
"""How a worker tells, in its log, of which class the error is that ends it; its sentence stands before."""
KEPT = "chaos: kept "
"""How a worker tells, in its log, which places the group counted when it looked for one."""


class Faults:
    """Which points are armed in this process; `passed` ends it at the n-th passing of one of them."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def arm(self, point: str, passings: int) -> None:
        """End the process, as SIGKILL does, when a point is passed for the n-th time from now on."""
        self._left[point] = passings

    def disarm(self) -> None:
        """Let everything pass."""
        self._left.clear()

    def passed(self, point: str) -> None:
        """Note that a point is passed."""
        left = self._left.get(point)
        if left is None:
            return
        if left <= 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left[point] = left - 1
