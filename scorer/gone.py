"""A record that comes again, at or below the mark, whose reply the features do not keep: what that means.

Replies are kept from the committed offset on. So whoever asks for one that is gone was overtaken: another
worker has committed it. Where the group has not, a worker that died or lost the partition before its commit
had passed the record over, since it could not read it: one of an older release, say, or with a lower limit.
"""

from fraudstream.clients.feature_store import ReplyGone
from scorer.assignment import Assignment
from scorer.live_sets import LiveSets
from scorer.waiting import Abandoned


class GoneReplies:
    """Says why a batch is given up; between two calls the group's place must have been read anew."""

    def __init__(self, assignment: Assignment, live: LiveSets) -> None:
        self._assignment = assignment
        self._live = live
        self._last: tuple[int, int] | None = None

    def judge(self, gone: ReplyGone) -> Abandoned:
        """Return why; at the second time in a row all features are to be made anew from what is committed.

        Raises:
            DependencyUnreachable: Redis does not answer; call again.
        """
        place = (gone.partition, gone.offset)
        if place != self._last:
            self._last = place
            return Abandoned(f"another worker has gone on from here: {gone}")
        for state in (store.state for store in self._live.stores.values()):
            state.put(state.fresh("rebuilding"))  # an empty one: the marks cannot go back
        self._assignment.proven = False
        self._last = None
        return Abandoned(
            f"the features passed over offset {gone.offset} of partition {gone.partition}, which was not "
            "committed and can be read: they are rebuilt"
        )
