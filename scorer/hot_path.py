"""The hot path: poll -> decode -> features -> score -> decide -> emit -> commit, a batch at a time."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import Message as KafkaMessage

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.feature_store import (
    FeatureStore,
    ReplyGone,
    Slice,
    StateInDoubt,
)
from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.errors import BadRecord, DependencyUnreachable, FraudstreamError, Refused
from fraudstream.core.settings import Settings
from scorer.assignment import Assignment
from scorer.batch import Batch, Message, decode
from scorer.burial import Burial
from scorer.champion import Champion
from scorer.deaths import Deaths
from scorer.evenness import Apart, Evenness
from scorer.labels import LabelReader
from scorer.limits import Limits
from scorer.live_sets import AppliedSets, LiveSets
from scorer.output import BatchAborted, TransactionalOutput
from scorer.poison import Isolation, blaming
from scorer.recovery import Proof, Recovery
from scorer.results import Output, Timing, outputs_of, scores_of
from scorer.same_topics import SameTopics
from scorer.serving import Serving
from scorer.status import Status
from scorer.waiting import PATIENCE_S, Abandoned, Waiting, raise_for

logger = logging.getLogger(__name__)
T = TypeVar("T")

REST_S = 0.01
"""How often a worker that waits for others looks how far they are."""
CONFIRM_S = 1.0
"""How often a worker without records asks whether the features are still the same."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the hot path is made of; built once by `scorer.app`."""

    settings: Settings
    consumer: Consumer
    live: LiveSets
    transactions: TopicFacts
    feedback: TopicFacts
    labels: LabelReader
    champion: Champion
    assignment: Assignment
    evenness: Evenness
    output: TransactionalOutput
    limits: Limits
    deaths: Deaths
    same_topics: SameTopics


class HotPath:
    """Runs in a thread of its own until `stop`; any error that it raises ends the worker."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stopping = threading.Event()
        self._serving = Serving(parts.champion, parts.live)
        self._failing_since: float | None = None
        self._unsettled = False
        self._confirmed_s = 0.0
        self._last_ms: dict[str, float] = {}
        self.status = Status()
        self._waiting = Waiting(
            parts.consumer,
            parts.assignment,
            status=self.status,
            stopping=self._stopping,
            resumed=parts.evenness.forget,
        )
        self._proof = Proof(parts.live, self._recovery)
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
    def champion(self) -> Champion:
        """The watcher of the champion alias, which runs beside this loop."""
        return self._parts.champion

    @property
    def apart(self) -> dict[int, Apart]:
        """Return where each partition of this worker is in event time; may be called from another thread."""
        return self._parts.evenness.apart(list(self._parts.assignment.positions))

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
            while not self._stopping.is_set():
                self.step()
            p.deaths.withdraw()
            self.status.state = "stopped"
        except (Abandoned, BatchAborted, DependencyUnreachable, Refused):
            p.deaths.withdraw()
            raise
        finally:
            p.consumer.close()

    def step(self) -> None:
        """Take one batch through all hops; after one that failed, first settle what became of it."""
        if self._unsettled and not self._settle():
            return
        messages = self._timed("poll", self._poll)
        self._parts.same_topics.look(monotonic_s())
        try:
            if not self._parts.assignment.proven:
                self._prove()
            why = self._take_in_hand(messages)
            if why is None:
                self._isolation.take(messages)
            else:
                self._bury(messages[0], why)
        except (Abandoned, BatchAborted) as exc:
            self._start_over(exc)

    def _take_through(self, messages: Sequence[Message]) -> int:
        """Take messages through all hops, whatever is new to them; return the number of scores."""
        batch = self._timed("decode", lambda: self._decode(messages))
        self._parts.evenness.look(batch, self._parts.assignment, monotonic_s())
        self._serving.take_over()
        if batch.size == 0:
            self._patiently(self._idle)
            self._tell_ends()
            return 0
        applied = self._timed("features", lambda: self._features(batch))
        probabilities = self._timed("score", lambda: self._serving.score(applied))
        outputs = self._timed("emit", lambda: self._emit(batch, applied, probabilities))
        self._timed("commit", lambda: self._commit(batch, outputs))
        return batch.scorable

    def _take_in_hand(self, messages: Sequence[Message]) -> BadRecord | None:
        """Let it be known what is in hand, should that be the end of this worker; or why it is not tried."""
        if not messages:
            return None
        deaths = self._parts.deaths
        if deaths.careful:
            self._patiently(self._parts.live.confirm)  # what ends it now is no server that is away
        return deaths.take_in_hand(messages)

    def _bury(self, message: Message, why: BadRecord) -> None:
        try:
            self._burial.bury(message, why)
        except StateInDoubt as exc:
            self._parts.assignment.proven = False
            raise Abandoned(f"nothing is scored: {exc}") from exc
        self.status.count(scored=0, dead=1, alerts=0)
        self.status.poison += 1

    def _idle(self) -> None:
        """Without records: apply labels, and notice within a second that the features are others."""
        self._parts.labels.apply_available()
        if monotonic_s() - self._confirmed_s > CONFIRM_S:
            self._parts.live.confirm()
            self._confirmed_s = monotonic_s()

    def _tell_ends(self) -> None:
        """Tell the other workers, once, which partitions have ended though their log goes on in markers."""
        p = self._parts
        if notes := p.evenness.untold(p.assignment.committed):
            last_offsets = {partition: p.assignment.committed[partition] - 1 for partition in notes}
            offsets = p.assignment.offsets_after(last_offsets, notes)
            p.output.commit([], offsets, p.assignment.group_metadata)

    def _poll(self) -> list[Message]:
        """Wait for a first message, then gather what comes within the batch's time and size."""
        if self._parts.evenness.rests:
            self._stopping.wait(REST_S)
            return []
        messages = self._poll_consumer()
        errors = [error for message in messages if (error := message.error()) is not None]
        for error in errors:
            raise_for(error)
        if errors:
            messages = [message for message in messages if message.error() is None]
        return cast("list[Message]", messages)

    def _poll_consumer(self) -> list[KafkaMessage]:
        p = self._parts
        try:
            first = p.consumer.poll(0.1)
            if first is None:
                return []
            more = p.deaths.most_records(p.settings.batch_max_records) - 1
            wait_s = p.settings.batch_max_wait_ms / 1000
            return [first, *(p.consumer.consume(more, wait_s) if more else ())]
        except KafkaException as exc:
            raise_for(exc.args[0])
            self._unsettled = True  # a message taken before the error must not be skipped
            return []

    def _decode(self, messages: Sequence[Message]) -> Batch:
        with blaming("decode"):
            return decode(
                messages,
                self._parts.assignment.positions,
                polled_at_ms=now_ms(),
                max_ahead_days=self._parts.settings.max_event_ahead_days,
            )

    def _features(self, batch: Batch) -> AppliedSets:
        """Apply labels that the batch needs, then the batch, in one call for each live set."""
        p = self._parts
        slices = [
            Slice(
                partition=part.partition,
                previous_offset=part.previous_offset,
                last_offset=part.last_offset,
                committed_offset=p.assignment.committed[part.partition] - 1,
                offsets=[message.offset() for message in part.messages],
                transactions=part.transactions,
            )
            for part in batch.parts
        ]

        def call() -> AppliedSets:
            p.labels.apply_available()
            p.labels.apply_until(batch.after_feedback, timeout_s=1.0)
            with blaming("features"):
                return p.live.apply(p.transactions.topic_id, slices)

        return self._patiently(call)

    def _emit(
        self, batch: Batch, applied: AppliedSets, probabilities: np.ndarray | None
    ) -> list[Output]:
        with blaming("emit"):
            outputs = self._outputs(batch, applied, probabilities)
            self._parts.limits.check(outputs)
        self.status.count_features(applied[self._serving.feature_set])
        return outputs

    def _outputs(
        self, batch: Batch, applied: AppliedSets, probabilities: np.ndarray | None
    ) -> list[Output]:
        p, model = self._parts, self._serving.model
        now = now_ms()
        timing = Timing(
            produced_at_ms=now,
            features_ms=self._last_ms["features"],
            model_ms=self._last_ms["score"],
            total_ms=float(now - batch.polled_at_ms),
            deadline_ms=p.settings.score_deadline_ms,
        )
        scores = scores_of(
            batch,
            applied,
            probabilities,
            model=model,
            feature_set=self._serving.feature_set,
            timing=timing,
        )
        outputs = outputs_of(batch, scores, model=model, most_bytes=p.limits.dead_letters)
        return [*outputs, *self._serving.swaps(batch, now)]

    def _commit(self, batch: Batch, outputs: list[Output]) -> None:
        p = self._parts
        last_offsets = {part.partition: part.last_offset for part in batch.parts}
        notes = p.deaths.amend(p.evenness.notes(last_offsets), last_offsets)
        offsets = p.assignment.offsets_after(last_offsets, notes)
        p.output.commit(outputs, offsets, p.assignment.group_metadata)
        p.assignment.done(last_offsets)
        p.deaths.done(notes)
        self._failing_since = None
        self._count(batch, outputs)

    def _count(self, batch: Batch, outputs: list[Output]) -> None:
        status = self.status
        status.count(
            scored=batch.scorable,
            dead=len(batch.dead),
            alerts=sum(output.topic == "alerts" for output in outputs),
        )
        model = self._serving.model
        if model is not None and self._serving.fresh:
            logger.info("serving version %s", model.version)
            status.model_version = model.version
            status.swaps += 1
            self._serving.fresh = False
        status.check_probe()

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
            raise Abandoned(f"another worker has gone on from here: {exc}") from exc

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
            self._failing_since = None
            raise Abandoned("the features are whole again")

    def _start_over(self, exc: FraudstreamError) -> None:
        """Go back to what is committed; a batch that keeps failing ends the worker."""
        now = monotonic_s()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > PATIENCE_S:
            raise exc
        self.status.aborted += 1
        self._unsettled = True
        logger.warning("%s; the batch is read again", exc)
        self._stopping.wait(0.05)

    def _settle(self) -> bool:
        """Go back to what the group has committed, once it is certain what that is."""
        p = self._parts
        try:
            p.output.restore(anew=p.limits.refresh())
            p.assignment.rewind()
        except (BatchAborted, DependencyUnreachable) as exc:
            self._start_over(exc)
            return False
        self._unsettled = False
        return True
