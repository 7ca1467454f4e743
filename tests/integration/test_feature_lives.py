"""Any order of scoring, crashes, stale workers, rollback, flush, snapshots and rebuilds: the same features.

A model of the scorers without Kafka: a list is the log, each worker is a connection. What is scored is
committed in the same step; a worker that is told that the state is in doubt proves or rebuilds it, and may
die while it does.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fraudstream.clients import feature_state
from fraudstream.clients.feature_library import Applied
from fraudstream.clients.feature_snapshot import fill, take_snapshot
from fraudstream.clients.feature_state import Lease, lease_key
from fraudstream.clients.feature_store import FeatureStore, ReplyGone, Slice, StateInDoubt
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.feature_set import NINE
from fraudstream.core.transaction import Feedback, Transaction
from fraudstream.core.twin import Twin
from tests.feature_streams import TOPIC, Log, Stream, send_labels
from tests.own_server import Server

Told = dict[tuple[int, int], tuple[int, tuple[float, ...]]]
"""What the state, as it is, told about each record (partition, offset): apply_seq and features."""

WORKERS = st.integers(0, 1)
PARTITIONS = st.integers(0, 1)
SOME = st.integers(1, 40)


class Lives(RuleBasedStateMachine):
    server: Server
    now_ms = 1_800_000_000_000
    """The clock of all workers; it goes on from one example to the next."""

    @initialize(seed=st.integers(0, 2**32), n=st.integers(20, 200))
    def begin(self, seed: int, n: int) -> None:
        self.server.client.flushall()
        self.stream, self.log = Stream(seed, customers=6, terminals=3, days=0.3), Log(2)
        self.labels: list[Feedback] = []
        self.committed = [0, 0]
        self.scores: dict[int, tuple[int, int]] = {}
        """Partition and offset of what is committed, by apply_seq."""
        self.copy: dict[bytes, bytes] = {}
        self.snapshot: Path | None = None
        self.told: Told = {}
        self.told_in_copy: Told = {}
        self.told_in_snapshot: Told = {}
        self.twin, self.labels_of_twin = Twin(), 0
        self.lost = False
        """The state is not what it was: what was applied and not committed may be gone."""
        self.workers = [self.connect(), self.connect()]
        self.proven: set[FeatureStore] = set()
        self.stale: list[tuple[FeatureStore, bytes]] = []
        self.send(n)

    def connect(self) -> FeatureStore:
        return FeatureStore.connect(
            self.server.url, "lives", NINE, connect_timeout_ms=5_000, request_timeout_ms=5_000
        )

    def teardown(self) -> None:
        if hasattr(self, "workers"):
            self.score_all()
            self.compare()
            for store in (*self.workers, *(store for store, _ in self.stale)):
                store.close()

    @rule(n=SOME)
    def send(self, n: int) -> None:
        for _ in range(n):
            self.log.append(self.stream.transaction())

    @rule(n=st.integers(1, 5))
    def answer(self, n: int) -> None:
        if self.stream.sent:
            self.labels += [self.stream.label() for _ in range(n)]

    @rule(worker=WORKERS, partition=PARTITIONS, n=SOME, commits=st.booleans())
    def score(self, worker: int, partition: int, n: int, *, commits: bool) -> None:
        """Score a batch; without `commits` the worker dies before it has committed."""
        begin = self.committed[partition]
        end = min(begin + n, len(self.log.partitions[partition]))
        applied = self.apply(self.workers[worker], self.log.slice(partition, begin, end, begin - 1))
        if self.lost:
            self.remember()
        columns = (applied.apply_seq, applied.redelivered, applied.features)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for offset, (seq, redelivered, features) in enumerate(rows, start=begin):
            record = (partition, offset)
            assert seq not in self.scores, "a place was given twice"
            assert redelivered == (record in self.told), "applied twice, or not at all"
            if not redelivered:
                self.told[record] = (seq, self.expected(seq, record))
            assert (seq, tuple(features)) == self.told[record]
            if commits:
                self.scores[seq] = record
        if commits:
            self.committed[partition] = end

    def apply(self, store: FeatureStore, some: Slice) -> Applied:
        """Apply records, as a worker does: it proves the state when it begins and when told to doubt it."""
        if store not in self.proven:
            self.prove(store, folds=1_000)
        try:
            self.bring_labels(store)
            return store.apply(TOPIC, [some])
        except StateInDoubt:
            self.prove(store, folds=1_000)
        except ReplyGone:
            raise AssertionError("what is not committed keeps its reply") from None
        self.bring_labels(store)
        return store.apply(TOPIC, [some])

    def expected(self, seq: int, record: tuple[int, int]) -> tuple[float, ...]:
        """Return what the twin says of a record that is applied for the first time, after all others."""
        assert seq > max((*self.scores, *(told for told, _ in self.told.values())), default=0)
        for label in self.labels[self.labels_of_twin :]:
            self.twin.label(label)
        self.labels_of_twin = len(self.labels)
        return self.twin.apply(*record, self.transaction(*record)).features

    def remember(self) -> None:
        """Have a twin know what the state does: all that is committed, and what it kept beyond that.

        The order within a partition is the one in which it was applied, whatever was lost meanwhile.
        """
        self.twin, self.labels_of_twin, self.lost = Twin(), 0, False
        for record in sorted({*self.scores.values(), *self.told}):
            self.twin.apply(*record, self.transaction(*record))

    def transaction(self, partition: int, offset: int) -> Transaction:
        transaction = self.log.partitions[partition][offset]
        assert transaction is not None
        return transaction

    def bring_labels(self, store: FeatureStore) -> None:
        mark = store.marks("feedback-id", [0])[0]
        send_labels(store, self.labels[mark + 1 :], mark + 1)

    @rule(worker=WORKERS, folds=st.integers(0, 3))
    def die_while_rebuilding(self, worker: int, folds: int) -> None:
        """Begin to prove or rebuild, and die after a few calls; its lease runs out."""
        dying = self.workers[worker]
        self.prove(dying, folds=folds)
        self.proven.discard(dying)
        self.server.client.delete(lease_key(dying.state))
        if len(self.stale) < 2 and self.committed[0]:
            packed = dying.pack_fold(TOPIC, [self.log.slice(0, 0, self.committed[0])])
            self.stale.append((dying, packed))
            self.workers[worker] = self.connect()

    @rule()
    def a_stale_worker_wakes(self) -> None:
        """It does what it was about to do when it was frozen."""
        for store, packed in self.stale:
            state = store.state
            try:
                store.fold(TOPIC, packed)
            except StateInDoubt:
                assert not state.move("ready", proven=True) or state.look() is not None

    def prove(self, store: FeatureStore, *, folds: int) -> None:
        """Do what scorer/recovery.py does; give up after so many folds."""
        state = store.state
        self.proven.add(store)
        Lives.now_ms += 1_000
        while True:
            process = state.server.run_id()
            meta = store.adopt()
            lacking = self.lacking(store)
            if meta.state == "ready" and not lacking:
                assert state.vouch(self.now_ms, process)
                return
            if meta.state == "ready":
                assert state.move("rebuilding")
            lease = Lease.take(state)
            assert lease is not None
            assert state.move("rebuilding", holder=lease.token, proven=True)
            with lease:
                if self.snapshot and all(begin == 0 for begin, _ in lacking.values()):
                    fill(state, self.snapshot, lambda: None, proven=True)
                    self.told, self.lost = dict(self.told_in_snapshot), True
                while lacking := self.lacking(store):
                    if folds == 0:
                        return
                    folds -= 1
                    partition, (begin, end) = next(iter(lacking.items()))
                    some = self.log.slice(partition, begin, min(begin + 25, end))
                    store.fold(TOPIC, store.pack_fold(TOPIC, [some]))
                self.bring_labels(store)
                assert state.finish(self.now_ms, process) is not None

    def lacking(self, store: FeatureStore) -> dict[int, tuple[int, int]]:
        marks = store.marks(TOPIC, [0, 1])
        return {
            p: (marks[p] + 1, end) for p, end in enumerate(self.committed) if marks[p] + 1 < end
        }

    @rule()
    def keep_a_copy(self) -> None:
        self.copy, self.told_in_copy = self.everything(), dict(self.told)

    @rule()
    def put_back_the_copy(self) -> None:
        """As a server that is started on files from before."""
        if self.copy:
            self.server.client.flushall()
            self.server.client.mset(self.copy)
            self.told, self.lost = dict(self.told_in_copy), True
            self.server.client.function_flush()

    @rule()
    def flush(self) -> None:
        self.server.client.flushall()
        self.told, self.lost = {}, True

    @rule()
    def restart(self) -> None:
        self.server.client.function_flush()

    @rule()
    def take_a_snapshot(self) -> None:
        target = self.server.folder / "copy.features"
        store = self.connect()
        try:
            take_snapshot(store.state, target, environment="lives", now_ms=self.now_ms)
        except FraudstreamError:
            return
        finally:
            store.close()
        self.snapshot, self.told_in_snapshot = target, dict(self.told)

    def everything(self) -> dict[bytes, bytes]:
        keys: Any = [k for k in self.server.client.scan_iter() if b":lease:" not in k]
        values: Any = self.server.client.mget(keys) if keys else []
        return dict(zip(keys, values, strict=True))

    @invariant()
    def what_is_committed_has_a_score_each(self) -> None:
        if hasattr(self, "committed"):
            assert len(self.scores) == sum(self.committed)

    def score_all(self) -> None:
        for _ in range(60):
            for partition in (0, 1):
                self.score(0, partition, 1_000, commits=True)
            done = self.committed == [len(part) for part in self.log.partitions]
            if done:
                return
        raise AssertionError("not all could be scored")

    def compare(self) -> None:
        """Compare with a state that nothing happened to."""
        calm = FeatureStore.connect(
            self.server.url, "calm", NINE, connect_timeout_ms=5_000, request_timeout_ms=5_000
        )
        for partition, records in enumerate(self.log.partitions):
            if records:
                calm.apply(TOPIC, [self.log.slice(partition, 0, len(records))])
        self.bring_labels(calm)
        self.prove(self.workers[0], folds=1_000)
        self.bring_labels(self.workers[0])
        calm.close()
        assert self.server.state("lives", "ct") == self.server.state("calm", "ct")


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Lives]]:
    monkeypatch.setattr(feature_state, "now_ms", lambda: Lives.now_ms)
    folder = Path(tempfile.mkdtemp(prefix="lives-"))
    Lives.server = Server(folder)
    yield Lives
    Lives.server.kill()
    shutil.rmtree(folder)


@pytest.mark.parametrize("examples", [30, pytest.param(200, marks=pytest.mark.proof)])
def test_whatever_happens_to_the_state_the_scores_are_the_same(
    examples: int, lives: type[Lives]
) -> None:
    lives.TestCase.settings = hypothesis_settings(
        max_examples=examples, stateful_step_count=30, deadline=None
    )
    lives.TestCase().runTest()


@pytest.mark.parametrize(
    ("keep", "put_back"),
    [(Lives.take_a_snapshot, Lives.flush), (Lives.keep_a_copy, Lives.put_back_the_copy)],
)
def test_a_state_from_before_the_first_commit_comes_back_with_places_of_its_own(
    keep: Callable[[Lives], None], put_back: Callable[[Lives], None], lives: type[Lives]
) -> None:
    case = lives()
    case.begin(seed=0, n=20)
    case.score(worker=0, partition=0, n=1, commits=False)
    keep(case)
    case.flush()
    case.score(worker=0, partition=1, n=1, commits=True)
    put_back(case)
    case.teardown()
