"""The hot path: a batch at a time through six hops, each with a function and a timer of its own.

1 poll `_poll`, 2 decode `_decode`, 3 features `_ask` (in a thread, labels first) and `_features`, 4 score
`Serving.score`, 5 emit, the decision included, `_emit`, 6 commit `_commit`. `_take_ahead` has 1 to 3 of a
batch done before 4 to 6, `_finish`, of the one before (ADR 0018).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from confluent_kafka import KafkaException, TopicPartition

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.feature_store import FeatureStore, ReplyGone, StateInDoubt
from fraudstream.clients.gather import gather
from fraudstream.core.errors import (
    BadRecord,
    DependencyUnreachable,
    Fenced,
    FraudstreamError,
    Refused,
)
from scorer.ahead import Ahead, Answer, InHand, positions_after
from scorer.batch import Batch, Message, decode
from scorer.burial import Burial
from scorer.gone import GoneReplies
from scorer.idle import Idle
from scorer.output import BatchAborted
from scorer.parts import Parts
from scorer.poison import Isolation, Unscorable, blaming
from scorer.recovery import Proof, Recovery
from scorer.results import Emitted, Timing
from scorer.serving import Serving
from scorer.status import Status
from scorer.waiting import PATIENCE_S, Abandoned, Failing, Waiting, raise_for, sound

logger = logging.getLogger(__name__)
T = TypeVar("T")

REST_S = 0.01
"""How often a worker that waits for others looks how far they are."""


class HotPath:
    """Runs in a thread of its own until `stop`; any error that it raises ends the worker."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stopping = threading.Event()
        self.under_way = threading.Event()
        """Set once a batch is committed, or none waits; or there is no time for it any more."""
        self._serving = Serving(parts.champion, parts.live)
        self._ahead = Ahead(parts.live, parts.labels, parts.transactions.topic_id, parts.assignment)
        self._hand: InHand | None = None
        """Polled, its features asked for; finished while those of the next batch are."""
        self._tried: list[TopicPartition] = []
        """Offsets whose commit was begun, and it is not known what became of it."""
        self._alone = False
        """A hop failed: the next batch is taken through alone, so that it can be halved."""
        self._failing = Failing()
        self._unsettled = False
        self._last_ms: dict[str, float] = {}
        self.status = Status()
        self._waiting = Waiting(
            parts.consumer,
            parts.assignment,
            status=self.status,
            stopping=self._stopping,
            resumed=parts.evenness.forget,
            kafka_silent=lambda: parts.same_topics.silent,
        )
        self._proof = Proof(parts.live, self._recovery)
        self._idle = Idle(parts)
        self._gone = GoneReplies(parts.assignment, parts.live)
        self._burial = Burial(**{name: getattr(parts, name) for name in Burial.__struct_fields__})
        self._isolation = Isolation(
            self._take_through,
            self._bury,
            stopping=self._stopping,
            most_in_a_row=parts.settings.poison_in_a_row,
        )

    def _recovery(self, store: FeatureStore) -> Recovery:
        return Recovery(
            settings=self._parts.settings,
            store=store,
            topics=(self._parts.transactions, self._parts.feedback),
            assignment=self._parts.assignment,
            waiting=self._waiting,
            status=self.status,
        )

    @property
    def parts(self) -> Parts:
        """What the loop is made of, for those that run beside it and only look."""
        return self._parts

    def stop(self) -> None:
        """Ask the loop to end after the batch in hand."""
        self._stopping.set()

    def prepare(self) -> None:
        """Fence an earlier process of this slot and load the champion, before anything is read.

        Raises:
            DependencyUnreachable: Kafka or MLflow does not answer.
            Refused: the champion fails a check, and no other version serves.
        """
        p = self._parts
        p.output.fence_predecessor(timeout_s=p.settings.connect_timeout_ms / 1000)
        self._serving.begin()
        if (model := self._serving.model) is not None:
            self.status.model_version = model.version

    def run(self) -> None:
        """Score until `stop`.

        Raises:
            FraudstreamError: going on is not safe, or a server was away for too long.
        """
        p = self._parts
        p.assignment.subscribe()
        try:
            with p.contact:
                while not self._stopping.is_set():
                    self.step()
                self._finish_last()
                p.deaths.withdraw()
            self.status.become("stopped")
        except (Abandoned, BatchAborted, DependencyUnreachable, Fenced, Refused):
            p.deaths.withdraw()
            raise

    def leave(self) -> None:
        """Give the partitions up, once `run` is over; its place in the group is kept for a restart."""
        self._parts.assignment.leave()

    def step(self) -> None:
        """Take a batch up, finish the one before; after a failure, first settle what became of them."""
        self.status.move()
        if self._unsettled and not self._settle():
            return
        messages = self._timed("poll", self._poll)
        self._parts.same_topics.look(monotonic_s())
        try:
            if self._hand is not None:
                self._ahead.check(self._hand)
            if not self._parts.assignment.proven:
                self._prove()
            self._take(messages)
        except (Abandoned, BatchAborted, Unscorable) as exc:
            self._alone = isinstance(exc, Unscorable)
            self._start_over(exc)

    def _take(self, messages: Sequence[Message]) -> None:
        why = self._take_in_hand(messages)
        if why is not None:
            self._bury(messages[0], why)
        elif self._alone or self._parts.deaths.watched:
            if self._hand is not None:
                self._take_ahead(())
            self._isolation.take(messages)
            self._alone = self._alone and not messages
        else:
            self._take_ahead(messages)

    def _take_ahead(self, messages: Sequence[Message]) -> None:
        """Ask for the features of these messages; score and commit the batch before while they come."""
        before, batch = self._hand, self._read(messages)
        if before is not None:
            answer = self._timed("features", lambda: self._features(before))
        self._hand = self._ask(batch) if batch.size else None
        if before is not None:
            self._finish(before, answer)
        elif self._hand is None:
            self._rest()

    def _take_through(self, messages: Sequence[Message]) -> None:
        """Take messages through all hops, whatever is new to them, with nothing else in hand."""
        batch = self._read(messages)
        if batch.size == 0:
            self._rest()
            return
        hand = self._ask(batch)
        try:
            answer = self._timed("features", lambda: self._features(hand))
        finally:
            self._ahead.drop(hand)  # given up while a server was away, it may be asked for again
        self._finish(hand, answer)

    def _read(self, messages: Sequence[Message]) -> Batch:
        batch = self._timed("decode", lambda: self._decode(messages))
        self._parts.evenness.look(batch, self._parts.assignment, monotonic_s())
        return batch

    def _ask(self, batch: Batch) -> InHand:
        notes = self._parts.evenness.notes(part.partition for part in batch.parts)
        return self._ahead.ask(batch, notes)

    def _finish(self, hand: InHand, answer: Answer) -> None:
        self._serving.take_over()
        probabilities = self._timed("score", lambda: self._serving.score(answer.applied))
        emitted = self._timed("emit", lambda: self._emit(hand, answer, probabilities))
        self._timed("commit", lambda: self._commit(hand, emitted))
        self._count(hand.batch, emitted, probabilities)
        if hand.batch.scorable:
            self._isolation.scored()

    def _finish_last(self) -> None:
        """Asked to stop: finish what is in hand, unless a server is away; then it is read again."""
        if self._hand is None or self._unsettled:
            return
        hand, self._hand = self._hand, None
        try:
            self._finish(hand, self._features(hand))
        except (Abandoned, BatchAborted, Unscorable) as exc:
            logger.warning("%s; the batch is left to the next worker", exc)

    def _rest(self) -> None:
        self._patiently(self._idle.look_after)
        self._idle.tell_ends()
        if self._parts.assignment.positions:
            self.under_way.set()

    def _take_in_hand(self, messages: Sequence[Message]) -> BadRecord | None:
        """Let it be known what is in hand, should that be the end of this worker; or why it is not tried."""
        if not messages:
            return None
        deaths = self._parts.deaths
        if deaths.careful:
            self._patiently(self._parts.live.confirm)  # what ends it now is no server that is away
        return deaths.take_in_hand(messages)

    def _bury(self, message: Message, why: BadRecord) -> None:
        lacking = self._patiently(lambda: self._burial.lacking(message))
        place = self._burial.bury(message, why, lacking)
        self.status.count(scored=0, alerts=0, dead=[why.kind])
        self.status.poison += 1
        self._patiently(lambda: self._burial.pass_over(place, lacking))

    def _poll(self) -> list[Message]:
        """Return what is there for a batch, or behind a full one that is in hand."""
        p = self._parts
        if p.evenness.rests:
            if self._hand is None:
                self._stopping.wait(REST_S)
            return []
        try:
            if self._hand is not None:  # which waits to be finished
                full = self._hand.batch.size >= p.settings.batch_max_records
                return sound(p.consumer.consume(p.settings.batch_max_records, 0.0)) if full else []
            most = partial(p.deaths.most_records, p.settings.batch_max_records)
            return sound(gather(p.consumer, most, wait_s=p.settings.batch_max_wait_ms / 1000))
        except KafkaException as exc:
            raise_for(exc.args[0])
            self._unsettled = True  # a message taken before the error must not be skipped
            return []

    def _decode(self, messages: Sequence[Message]) -> Batch:
        with blaming("decode"):
            return decode(
                messages,
                positions_after(self._hand, self._parts.assignment.positions),
                polled_at_ms=now_ms(),
                max_ahead_days=self._parts.settings.max_event_ahead_days,
            )

    def _features(self, hand: InHand) -> Answer:
        return self._patiently(lambda: self._ahead.answer(hand))

    def _emit(self, hand: InHand, answer: Answer, probabilities: np.ndarray | None) -> Emitted:
        limits = self._parts.limits
        with blaming("emit"):
            emitted = self._serving.outputs(
                hand.batch,
                answer.applied,
                probabilities,
                timing=self._timing(hand, answer),
                most_bytes=limits.dead_letters,
            )
            limits.check(emitted.outputs)
        self.status.count_features(answer.applied[self._serving.feature_set])
        return emitted

    def _timing(self, hand: InHand, answer: Answer) -> Timing:
        now = now_ms()
        return Timing(
            produced_at_ms=now,
            features_ms=answer.took_ms,
            model_ms=self._last_ms["score"],
            total_ms=float(now - hand.batch.polled_at_ms),
            deadline_ms=self._parts.settings.score_deadline_ms,
        )

    def _commit(self, hand: InHand, emitted: Emitted) -> None:
        p = self._parts
        notes = p.deaths.amend(hand.notes, hand.last_offsets)
        offsets = p.assignment.offsets_after(hand.last_offsets, notes)
        self._tried = offsets
        p.output.commit(emitted.outputs, offsets, p.assignment.group_metadata)
        self._tried = []
        p.assignment.done(hand.last_offsets)
        p.deaths.done(notes)
        p.same_topics.heard(monotonic_s())
        self._failing.over()
        self.under_way.set()

    def _count(self, batch: Batch, emitted: Emitted, probabilities: np.ndarray | None) -> None:
        status = self.status
        status.count_batch(batch, emitted, probabilities, commit_ms=self._last_ms["commit"])
        self._swapped()
        status.check_probe()

    def _swapped(self) -> None:
        """Take note that a batch is committed, and with it the event of a swap if it was the first."""
        if (version := self._serving.committed()) is not None:
            self.status.swapped(version)

    def _timed(self, hop: str, call: Callable[[], T]) -> T:
        started = monotonic_s()
        result = call()
        seconds = monotonic_s() - started
        self._last_ms[hop] = seconds * 1000
        self.status.seconds[hop] = self.status.seconds.get(hop, 0.0) + seconds
        return result

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call the feature store, patiently while a server is away.

        Raises:
            Abandoned: the batch must be read again, maybe by another worker or after the features are proven.
            DependencyUnreachable: the server was away for too long.
        """
        try:
            return self._waiting.patiently(call)
        except StateInDoubt as exc:
            self._parts.assignment.proven = False
            raise Abandoned(f"nothing is scored: {exc}") from exc
        except ReplyGone as exc:
            raise self._waiting.patiently(partial(self._gone.judge, exc)) from exc

    def _prove(self) -> None:
        """See that the features hold what is committed; where they do not, have them rebuilt.

        Raises:
            Abandoned: that took its time, or the worker stops: read on from what is committed now.
            Refused: they cannot be rebuilt, or group, features and log do not fit.
            DependencyUnreachable: a server was away for too long.
        """
        p = self._parts
        waited = self._waiting.patiently(self._proof.prove)
        self._waiting.patiently(p.labels.go_back)
        p.champion.follow(p.live.sets)
        p.evenness.lead_ms = p.live.lead_ms
        p.assignment.proven = True
        if waited:
            self._failing.over()
            raise Abandoned("the features are whole again")

    def _start_over(self, exc: FraudstreamError) -> None:
        """Go back to what is committed; a batch that keeps failing ends the worker."""
        if self._hand is not None:
            self._ahead.drop(self._hand)
            self._hand = None
        if self._failing.for_s(monotonic_s()) > PATIENCE_S:
            raise exc
        self.status.aborted += 1
        if isinstance(exc, (BatchAborted, DependencyUnreachable)):  # until something succeeds again
            self.status.wait_for(exc.what)
        self._unsettled = True
        logger.warning("%s; the batch is read again", exc)
        self._stopping.wait(0.05)

    def _settle(self) -> bool:
        """Go back to what the group has committed, once it is certain what that is."""
        p = self._parts
        try:
            p.output.restore(anew=p.limits.refresh())
            p.assignment.rewind()
            tried, self._tried = self._tried, []
            if p.assignment.begins_at(tried):
                self._swapped()
        except (BatchAborted, DependencyUnreachable) as exc:
            self._start_over(exc)
            return False
        self._unsettled = False
        return True
