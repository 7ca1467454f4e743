"""Last hop: everything a batch sends and the offsets it has read become one Kafka transaction."""

from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from fraudstream.clients.kafka import init_transactions
from fraudstream.core.errors import Fenced, FraudstreamError, KafkaUnreachable
from fraudstream.core.health import Waited
from fraudstream.core.topics import topic_name
from scorer.results import Output
from scorer.watchdog import Watchdog

COMMIT_S = 4.0
"""How long the broker may take for one step of a commit; it aborts a transaction that is older by default."""
ABORT_S = 1.0
"""How long the broker may take to abort a transaction; what it has not by then is left to a new producer."""
ANEW_S = 4.0
"""How long the broker may take to end what the last producer left open and to begin with a new one."""

WORN_OUT = (
    KafkaError._STATE,  # noqa: SLF001 - librdkafka's own codes begin so
    KafkaError._FATAL,  # noqa: SLF001
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
)
"""A producer goes no further, or was not answered."""


class BatchAborted(FraudstreamError):
    """A batch was not seen to be committed: `restore`, then read on from what the group has committed."""

    what: Waited = "kafka"


def fenced(error: KafkaError) -> Fenced:
    """Return the error of a worker whose slot another process has taken."""
    why = error.str().rpartition("Broker: ")[2]
    return Fenced(
        f"this worker was fenced ({why}): another process has its slot now. It has written nothing since. If "
        "that is a worker on another machine, give each a --slot of its own; else start this one again"
    )


class TransactionalOutput:
    """Produces and commits whole batches; begun only when everything is computed (ADR 0002)."""

    def __init__(self, make_producer: Callable[[], Producer], environment: str) -> None:
        self._make_producer = make_producer
        self._producer = make_producer()
        self._environment = environment
        self._ready = False
        self._watchdog = Watchdog()

    def fence_predecessor(self, *, timeout_s: float) -> None:
        """Abort what an earlier process of this slot left open, and fence it should it still live.

        Raises:
            DependencyUnreachable: the broker does not take this worker's transactional id in time.
        """
        try:
            init_transactions(self._producer, timeout_s)
            self._ready = True
            self._watchdog.start()
        except KafkaException as exc:
            raise KafkaUnreachable(
                f"Kafka does not let this worker begin ({exc.args[0].str()}): see what the broker says "
                "with `fraudstream stack logs`, then start the worker again"
            ) from exc

    def commit(
        self, outputs: list[Output], offsets: list[TopicPartition], group_metadata: object
    ) -> None:
        """Make `outputs` and `offsets` visible together, if `group_metadata` is still in force.

        Raises:
            BatchAborted: it failed; `restore`, then go on from what the group has committed.
        """
        try:
            self._producer.begin_transaction()
            self._produce(outputs)
            with self._watchdog:
                self._producer.send_offsets_to_transaction(offsets, group_metadata, COMMIT_S)
            with self._watchdog:
                self._producer.commit_transaction(COMMIT_S)
        except KafkaException as exc:
            self._give_up(exc.args[0], exc)

    def _produce(self, outputs: list[Output]) -> None:
        topics = {name: topic_name(self._environment, name) for name in {o.topic for o in outputs}}
        produce = self._producer.produce
        for output in outputs:
            if output.headers:
                produce(topics[output.topic], output.value, output.key, headers=output.headers)
            else:
                produce(topics[output.topic], output.value, output.key)

    def _give_up(self, error: KafkaError, exc: KafkaException) -> None:
        """Abort what Kafka has refused, and have a new producer begin the next batch in any case.

        Where a step was not answered in time the step goes on, and an abort beside it was seen not to return:
        the new producer has the transaction ended. An abort drops a record that is to be sent again, though
        the broker may have it; the next record of the same producer would be taken for it (ADR 0033).
        A broker that was away expires the transaction and fences its producer: that alone does not
        say that another process has the slot. If one has, it has our place in the group as well, and
        the consumer, a static member, hears of it at its next poll.
        """
        if not (error.fatal() or error.retriable() or error.code() in WORN_OUT):
            if not error.txn_requires_abort():
                raise exc
            with suppress(KafkaException), self._watchdog:
                self._producer.abort_transaction(ABORT_S)
        self._ready = False
        raise BatchAborted(
            f"the Kafka transaction was not seen to be committed: {error.str()}"
        ) from exc

    def restore(self, *, anew: bool = False) -> None:
        """Make sure that a batch that failed is settled, committed or not, before offsets are asked for.

        A commit whose answer did not come may still be carried out; a new producer with the same
        transactional id waits for its end and fences the old one. `anew`: make one in any case.

        Raises:
            BatchAborted: the broker does not answer yet.
        """
        if self._ready and not anew:
            return
        self._ready = False
        try:
            with self._watchdog:  # over the end of the old one as well, which may be in a step
                self._producer.purge()
                self._producer = self._make_producer()
                init_transactions(self._producer, ANEW_S)
        except KafkaException as exc:
            raise BatchAborted(f"Kafka does not answer: {exc.args[0].str()}") from exc
        self._ready = True
