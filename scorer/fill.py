"""Fills a new feature set from the log in keys of its own while others serve, then lets it go live."""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.feature_state import LEASE_MS, FeatureState, Lease, open_state
from fraudstream.clients.feature_store import FeatureStore, StateInDoubt, StateReplaced
from fraudstream.clients.kafka import TopicFacts, topic_facts
from fraudstream.clients.set_log import SetLog
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.environment_sets import EnvironmentSets, Phase
from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.assignment import group_name
from scorer.rebuild import Rebuild
from scorer.recovery import LeaseLost
from scorer.status import Status

logger = logging.getLogger(__name__)

ENOUGH = 2_000
"""So few records may be left to the workers when the set goes live: one call, some 0.1 s of waiting."""
MOST_LEFT = 20_000
"""With more of them, the workers would have to wait for too long."""
FOLD_RECORDS = 250
"""Of one call, so that those who score do not wait for long; a rebuild, when nobody scores, takes more."""
_PAUSE_S = 0.05

Tell = Callable[[int, int], None]
"""Called with the records that were folded, and those wanted, since the start."""


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """A set that was filled and is live: `records` were folded, `left` to the workers as it went live."""

    name: str
    hash: str
    already_live: bool = False
    records: int = 0
    left: int = 0
    seconds: float = 0.0


class Fill:
    """One run of the command. Goes on from the marks that another run left, however that ended."""

    def __init__(
        self, settings: Settings, feature_set: FeatureSet, *, actor: str, tell: Tell
    ) -> None:
        """Connect to the servers; `settings` has all addresses.

        Raises:
            DependencyUnreachable: a server does not answer.
            Refused: a topic is missing, or the server of the features would lose data.
        """
        self._settings = settings
        self._set = feature_set
        self._actor = actor
        self._tell = tell
        names = [topic_name(settings.environment, each) for each in ("transactions", "feedback")]
        facts = topic_facts(settings, names)
        self._topics = (facts[names[0]], facts[names[1]])
        self._log = SetLog(settings)
        self._state = open_state(settings, feature_set)
        self._store = FeatureStore(self._state)
        self._status = Status()

    def run(self) -> Filled:
        """Fill the set and let it go live; nothing is changed if it is live and whole.

        Raises:
            Refused: the log begins too late, or somebody else works on the set.
            FraudstreamError: the scorers are faster than this.
            DependencyUnreachable: a server does not answer.
        """
        begun_s = monotonic_s()
        sets = self._log.begin(self._actor)
        live = self._set.hash in sets.live
        if live and self._is_whole():
            # Who made it live may have died before it was told.
            announce(self._state, self._settings, self._log.sets)
            return Filled(name=self._set.name, hash=self._set.hash, already_live=True)
        if not live and self._set.hash not in sets.filling:
            self._append("filling")
        left = self._fill()
        if not live:
            self._append("live")
        announce(self._state, self._settings, self._log.sets)
        return Filled(
            name=self._set.name,
            hash=self._set.hash,
            records=self._status.rebuild_done,
            left=left,
            seconds=round(monotonic_s() - begun_s, 2),
        )

    def _append(self, phase: Phase) -> None:
        self._log.append(phase, self._set, actor=self._actor, why="features fill")

    def _is_whole(self) -> bool:
        """Tell whether the workers keep the set up: they apply each record to it before they commit it."""
        meta = self._state.look()
        if meta is None or meta.state != "ready":
            return False
        with TopicReader(self._settings, group=group_name(self._settings)) as reader:
            return not self._lacking(_committed(reader, self._topics[0]))

    def _fill(self) -> int:
        """Fold as the holder of the set's lease; return how many records are left to the workers."""
        while True:
            with lease_of(self._state) as lease:
                try:
                    process = self._state.server.run_id()
                    self._take_turn(lease)
                    left = self._catch_up(lease)
                    if self._state.finish(now_ms(), process) is not None:
                        return left
                except StateInDoubt as exc:
                    logger.warning("filling begins again: %s", exc)
                except Refused as exc:
                    raise Refused(f"feature set {self._set.name} cannot be filled: {exc}") from exc

    def _take_turn(self, lease: Lease) -> None:
        state = self._state
        if state.look() is None:
            begun = state.put(state.fresh("rebuilding", holder=lease.token), proven=True)
        else:
            begun = state.move("rebuilding", holder=lease.token, proven=True)
        if not begun:
            raise StateReplaced("somebody else has worked on the set just now")
        transactions, feedback = self._topics
        state.bind({"transactions": transactions.topic_id, "feedback": feedback.topic_id})

    def _catch_up(self, lease: Lease) -> int:
        """Fold up to what is committed, again and again while that brings the end nearer.

        Raises:
            FraudstreamError: it does not, and too much is left.
        """
        rebuild = Rebuild(
            self._settings, self._store, self._topics, self._status, most=FOLD_RECORDS
        )
        left: int | None = None
        with TopicReader(self._settings, group=group_name(self._settings)) as reader:
            while True:
                committed = _committed(reader, self._topics[0])
                rebuild.run(partial(dict, committed), self._beat(lease))
                before, left = left, self._lacking(_committed(reader, self._topics[0]))
                if left <= ENOUGH or (before is not None and left > before // 2):
                    break
        if left > MOST_LEFT:
            raise FraudstreamError(
                f"the scorers are as fast as the fill: {left} records are left, at most {MOST_LEFT} may be. "
                "What was filled is kept: run it again when there is less traffic"
            )
        return left

    def _lacking(self, committed: Mapping[int, int]) -> int:
        marks = self._store.marks(self._topics[0].topic_id, list(committed))
        return sum(max(0, end - 1 - marks[p]) for p, end in committed.items())

    def _beat(self, lease: Lease) -> Callable[[], None]:
        def beat() -> None:
            self._tell(self._status.rebuild_done, self._status.rebuild_total)
            if not lease.keep():
                raise LeaseLost("the lease ran out")

        return beat


def announce(state: FeatureState, settings: Settings, sets: EnvironmentSets) -> None:
    """Make every worker look anew which sets are live, at its next call: another set's record moves.

    The change must stand in the log already. Whoever adopts a record after this reads it.

    Raises:
        DependencyUnreachable: the server does not answer.
    """
    for other in sets.live.values():
        if other.hash == state.feature_set.hash:
            continue
        record = FeatureState(state.server, settings.environment, other)
        while (meta := record.look()) is not None and meta.state == "ready":
            if record.move("ready"):
                return


def lease_of(state: FeatureState) -> Lease:
    """Take a set's lease; one whose holder was killed runs out meanwhile.

    Raises:
        Refused: somebody works on the set.
        DependencyUnreachable: the server does not answer.
    """
    pause = threading.Event()
    deadline_s = monotonic_s() + 1.5 * LEASE_MS / 1000
    while (lease := Lease.take(state)) is None:
        if monotonic_s() > deadline_s:
            raise Refused(
                f"somebody fills, rebuilds or copies feature set {state.feature_set.name} just now: try "
                "again when that is done"
            )
        pause.wait(_PAUSE_S)
    return lease


def _committed(reader: TopicReader, topic: TopicFacts) -> dict[int, int]:
    return reader.committed(topic.name, range(topic.partitions))
