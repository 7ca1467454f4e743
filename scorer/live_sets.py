"""The live feature sets of a worker: a store each, and every batch and label goes to all of them."""

import logging
from collections.abc import Callable, Sequence

from fraudstream.clients.feature_store import Applied, FeatureStore, Slice
from fraudstream.clients.set_log import SetLog
from fraudstream.core.environment_sets import EnvironmentSets
from fraudstream.core.errors import Refused
from fraudstream.core.feature_set import FeatureSet

logger = logging.getLogger(__name__)

Connect = Callable[[FeatureSet], FeatureStore]
AppliedSets = dict[str, Applied]
"""What each live set says of a batch, by hash."""


class LiveSets:
    """Follows the environment's list of sets; `stores` by hash, the one that went live first in front."""

    def __init__(self, log: SetLog, connect: Connect) -> None:
        """Connect to the live sets as the log has them now.

        Raises:
            DependencyUnreachable: a server does not answer.
            Refused: a state is of another version or topic.
        """
        self._log = log
        self._connect = connect
        self.stores: dict[str, FeatureStore] = {}
        self._follow(log.sets)

    @property
    def sets(self) -> EnvironmentSets:
        """The sets of the environment as this worker knows them; another object after a change."""
        return self._log.sets

    @property
    def first(self) -> str:
        """The hash of the set that serves while there is no model."""
        return next(iter(self.stores))

    @property
    def lead_ms(self) -> int:
        """How far a partition may run ahead of another: a quarter of the shortest label delay."""
        return min(each.label_delay_ms for each in self.sets.live.values()) // 4

    def refresh(self) -> bool:
        """Read what became of the sets; whether other ones are live than before.

        Raises:
            DependencyUnreachable: a server does not answer.
            Refused: a state is of another version or topic, or no set is live.
        """
        return self._follow(self._log.refresh())

    def apply(self, topic_id: str, slices: Sequence[Slice]) -> AppliedSets:
        """Apply a batch to every set; safe to repeat after any error, as each set's own call is."""
        return {each: store.apply(topic_id, slices) for each, store in self.stores.items()}

    def confirm(self) -> None:
        """Ask whether every state is still the one that was adopted."""
        for store in self.stores.values():
            store.confirm()

    def _follow(self, sets: EnvironmentSets) -> bool:
        if not sets.live:
            raise Refused(
                "no feature set of this environment is live: `fraudstream features fill NAME`"
            )
        gone = self.stores.keys() - sets.live.keys()
        new = [each for each in sets.live if each not in self.stores]
        for each in gone:
            self.stores.pop(each).close()
        for each in new:
            self.stores[each] = self._connect(sets.live[each])
        for what, hashes in (("is live", new), ("is live no more", gone)):
            for each in hashes:
                logger.info("feature set %s (%s) %s", sets.known[each].name, each, what)
        return bool(gone or new)
