"""What a worker does while no record waits for it."""

from fraudstream.clients.clock import monotonic_s
from scorer.parts import Parts

CONFIRM_S = 1.0
"""How often a worker without records asks whether the features are still the same."""


class Idle:
    """Keeps labels, features and what others must know up to date."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._confirmed_s = 0.0

    def look_after(self) -> None:
        """Apply labels, and notice within a second that the features are others.

        Raises:
            DependencyUnreachable, StateInDoubt: as the feature store does.
        """
        self._parts.labels.apply_available()
        if monotonic_s() - self._confirmed_s > CONFIRM_S:
            self._parts.live.confirm()
            self._confirmed_s = monotonic_s()

    def tell_ends(self) -> None:
        """Tell the other workers which partitions have ended though their log goes on in markers.

        Raises:
            BatchAborted: that was not seen to be committed.
        """
        p = self._parts
        if notes := p.evenness.untold(p.assignment.committed):
            last_offsets = {partition: p.assignment.committed[partition] - 1 for partition in notes}
            notes = p.deaths.keep(notes)
            offsets = p.assignment.offsets_after(last_offsets, notes)
            p.output.commit([], offsets, p.assignment.group_metadata)
            p.evenness.told(notes)
