"""When the demo retrains: recall falls below what the version promised, then labels are waited for."""

import math

from fraudstream.core.evaluation import Share
from fraudstream.core.feature_set import DAY_MS

SIGNIFICANT = 2.6
"""Standard errors between promised and present recall that raise the alarm.

Of independent frauds chance does so once in 200 looks; they come in series, and it looks often: it is more.
"""
FEWEST_FRAUDS = 50
AGAIN_AFTER_MS = 2 * DAY_MS
"""A retraining whose version did not pass its checks is repeated with so much more of the stream."""


class Retraining:
    """Decides from measured figures alone; all times are event times, UTC ms.

    `promised` is the recall of the serving version on its validation rows. After the alarm one label
    delay passes, until the labels of the days that raised it are complete; then a training is due.
    """

    def __init__(self, promised: Share, *, label_delay_ms: int) -> None:
        self._promised = promised
        self._delay_ms = label_delay_ms
        self.alarm_ms: int | None = None
        self.due_ms: int | None = None

    def look(self, recall: Share, now_ms: int) -> bool:
        """Return whether the alarm is raised now, by the recall over the last days' known frauds."""
        if self.alarm_ms is not None or not fallen(self._promised, recall):
            return False
        self.alarm_ms = now_ms
        self.due_ms = now_ms + self._delay_ms
        return True

    def is_due(self, now_ms: int) -> bool:
        """Return whether a training should start now; then none is due until `again`."""
        if self.due_ms is None or now_ms < self.due_ms:
            return False
        self.due_ms = None
        return True

    def again(self, now_ms: int) -> None:
        """The new version did not pass: try later."""
        self.due_ms = now_ms + AGAIN_AFTER_MS


def fallen(promised: Share, recall: Share) -> bool:
    """Return whether `recall` is below `promised` by a two-proportion z-test (pooled variance)."""
    if recall.total < FEWEST_FRAUDS or not promised.total:
        return False
    pooled = (promised.hits + recall.hits) / (promised.total + recall.total)
    error = math.sqrt(pooled * (1 - pooled) * (1 / promised.total + 1 / recall.total))
    difference = promised.hits / promised.total - recall.hits / recall.total
    return error > 0 and difference / error >= SIGNIFICANT
