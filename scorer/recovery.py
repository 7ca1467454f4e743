"""Before scoring: do the features hold what is committed? If not, one worker rebuilds, the others wait.

A set that has just gone live is no other case: it lacks what came since it was filled.
"""

import logging
from collections.abc import Callable

from fraudstream.clients.clock import now_ms
from fraudstream.clients.feature_state import Lease
from fraudstream.clients.feature_store import FeatureStore, StateInDoubt
from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.errors import Refused
from fraudstream.core.settings import Settings
from scorer.assignment import WAYS_OUT, Assignment
from scorer.live_sets import LiveSets
from scorer.rebuild import Rebuild
from scorer.status import Status
from scorer.waiting import Waiting

logger = logging.getLogger(__name__)

LEAST_BACK_OFF_S = 0.02
MOST_BACK_OFF_S = 0.25
LACKING = (
    "the features of %s lack records: partition %d is committed to %d, they end at %d; "
    "scoring stops until they are rebuilt"
)
MOVED = "the features were moved, or their server began anew, meanwhile: once more"


class LeaseLost(StateInDoubt):
    """This worker was silent for so long that another may have the lease."""


class Retired(StateInDoubt):
    """The set is live no more; nothing is to be proven."""


class Proof:
    """Proves the states of all live sets, as the environment's list has them at the end of it."""

    def __init__(self, live: LiveSets, recovery: Callable[[FeatureStore], "Recovery"]) -> None:
        self._live = live
        self._make = recovery
        self._recoveries: dict[FeatureStore, Recovery] = {}
        self._waited = False

    def prove(self) -> bool:
        """Return once every live set holds what is committed; whether that took waiting.

        The list is read after the records were adopted. Who changes it moves a record afterwards, which
        every worker then notices at its next call: no batch can miss a set that is live.

        Raises:
            as `Recovery.prove`.
        """
        while True:
            for store in list(self._live.stores.values()):
                self._prove(store)
            if not self._live.refresh():
                break
        waited, self._waited = self._waited, False
        return waited

    def _prove(self, store: FeatureStore) -> None:
        if store not in self._recoveries:
            self._recoveries[store] = self._make(store)
        recovery = self._recoveries[store]
        while True:
            try:
                self._waited |= recovery.prove()
            except Retired:
                self._waited = True
                self._live.refresh()
                if store not in self._live.stores.values():
                    del self._recoveries[store]
                    return
                store.state.move("rebuilding")  # an older copy of a set that was filled once more
            else:
                return


class Recovery:
    """Proves one set's state, or waits until it is rebuilt, by this worker or by another one."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: FeatureStore,
        topics: tuple[TopicFacts, TopicFacts],
        assignment: Assignment,
        waiting: Waiting,
        status: Status,
    ) -> None:
        self._store = store
        self._name = store.state.feature_set.name
        self._transactions = topics[0]
        self._assignment = assignment
        self._waiting = waiting
        self._status = status
        self._rebuild = Rebuild(settings, store, topics, status)
        self._waited = False
        """Whether records were passed over since the last proof, also in a call that a server cut short."""

    def prove(self) -> bool:
        """Return once the state is ready and holds what the group has committed; whether that took waiting.

        Raises:
            Abandoned: the worker stops.
            Retired: the set is live no more.
            Refused: the state cannot be rebuilt, group, features and log do not fit, or the server evicts.
            DependencyUnreachable: a server does not answer; call again.
        """
        self._store.state.check_server()
        self._check_owned()
        back_off_s = LEAST_BACK_OFF_S
        try:
            while not self._is_proven():
                self._waited = True
                if self._take_turn():
                    back_off_s = LEAST_BACK_OFF_S
                else:
                    copied = self._store.state.meta.state == "snapshot"
                    self._status.become("snapshot" if copied else "rebuilding")
                    self._waiting.keep(back_off_s)
                    back_off_s = min(back_off_s * 2, MOST_BACK_OFF_S)
        finally:
            self._status.rebuild_done = self._status.rebuild_total = 0
            if self._waited:
                self._waiting.go_on()
        waited, self._waited = self._waited, False
        return waited

    def _check_owned(self) -> None:
        """Refuse what no rebuild can mend.

        Raises:
            Refused: the group's place does not fit the log, or the topic was made anew.
        """
        try:
            self._store.adopt()
        except Refused as exc:
            raise Refused(f"{exc}; {WAYS_OUT}") from exc
        self._assignment.check(self._marks())

    def _is_proven(self) -> bool:
        """Vouch for a state that is ready and lacks nothing; begin the rebuild of one that does.

        A server that began anew meanwhile may lack what was committed after the broker was asked: then
        there is nothing to vouch for yet.
        """
        process = self._store.state.server.run_id()
        meta = self._store.adopt()
        if meta.state == "retired":
            raise Retired(f"feature set {meta.feature_set} was retired")
        if meta.state != "ready":
            return False
        lacking = self._lacking()
        if not lacking:
            if self._store.state.vouch(now_ms(), process):
                return True
            logger.warning(MOVED)
            self._waiting.keep(LEAST_BACK_OFF_S)
            return False
        partition, (mark, committed) = next(iter(lacking.items()))
        if self._store.state.move("rebuilding"):
            logger.warning(LACKING, self._name, partition, committed - 1, mark)
        return False

    def _take_turn(self) -> bool:
        """Work on a state that is not ready, if nobody else does."""
        state = self._store.state
        meta = state.meta
        if meta.state == "ready" or (lease := Lease.take(state, self._status.slot)) is None:
            return meta.state == "ready"
        with lease:
            if meta.state == "snapshot":
                logger.warning("who copied the features is gone: scoring goes on")
                state.move("ready")  # nothing was changed, so nothing is proven by it either
            elif state.move("rebuilding", holder=lease.token, proven=True):
                self._roll_forward(lease)
        return True

    def _roll_forward(self, lease: Lease) -> None:
        """Rebuild as the holder of the lease; the state stays `rebuilding` if that is cut short."""
        state = self._store.state
        self._status.become("rebuilding")
        logger.info("this worker rebuilds the features of %s (turn %s)", self._name, lease.token)
        process = state.server.run_id()
        try:
            self._rebuild.run(self._assignment.committed_everywhere, self._beat(lease))
        except StateInDoubt as exc:
            logger.warning("the rebuild begins again: %s", exc)
            return
        gone = state.finish(now_ms(), process)
        if gone is None:
            logger.warning(MOVED)
        else:
            self._status.rebuilds += 1
            logger.info(
                "the features of %s are whole again; %d keys of former states deleted",
                *(self._name, gone),
            )

    def _beat(self, lease: Lease) -> Callable[[], None]:
        """Return what the rebuild calls again and again: keeps membership and lease, ends it on SIGTERM."""

        def beat() -> None:
            self._waiting.keep(0.0)
            if not lease.keep():
                raise LeaseLost("the lease ran out")

        return beat

    def _lacking(self) -> dict[int, tuple[int, int]]:
        """Return mark and committed offset of each partition whose features end before what is committed."""
        committed = self._assignment.committed_everywhere()
        marks = self._marks()
        return {p: (marks[p], next_) for p, next_ in committed.items() if marks[p] < next_ - 1}

    def _marks(self) -> dict[int, int]:
        topic = self._transactions
        return self._store.marks(topic.topic_id, range(topic.partitions))
