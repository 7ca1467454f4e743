"""The Faust worker around the hot path: life cycle, supervision, web views, alias polling, audit wake-up."""

import asyncio
import logging
import os
import socket
import threading
import uuid
from functools import partial

import faust
import msgspec
from confluent_kafka import Producer, TopicPartition
from faust.web import Request, Response, View
from mode import Service

from fraudstream.clients import kafka
from fraudstream.clients.clock import now_ms
from fraudstream.clients.feature_store import FeatureStore
from fraudstream.clients.group_places import GroupPlaces
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.set_log import SetLog
from fraudstream.clients.signals import END_S
from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.health import Health
from fraudstream.core.model import model_name
from fraudstream.core.settings import Settings, state_path
from fraudstream.core.topics import topic_name
from scorer.assignment import WAYS_OUT, Assignment, group_name
from scorer.champion import Champion
from scorer.contact import Contact, answers_new_client, end_at_once
from scorer.deaths import Deaths
from scorer.ends import Ends
from scorer.evenness import Evenness
from scorer.hot_path import HotPath
from scorer.labels import LabelReader
from scorer.limits import Limits
from scorer.live_sets import LiveSets
from scorer.lost_marks import LostMarks
from scorer.metrics import WorkerMetrics
from scorer.neighbours import Neighbours
from scorer.output import TransactionalOutput
from scorer.parts import Parts
from scorer.same_topics import SameTopics

logger = logging.getLogger(__name__)


class HotPathService(Service):
    """Runs the hot path in a thread; what goes wrong there ends the worker before it commits."""

    def __init__(self, hot_path: HotPath) -> None:
        super().__init__()
        self.hot_path = hot_path
        self.failure: Exception | None = None
        self._ending = False
        self._thread: asyncio.Future[None] | None = None

    async def on_start(self) -> None:
        """Start the thread."""
        self._thread = asyncio.get_running_loop().run_in_executor(None, self.hot_path.run)
        self.add_future(self._watch(self._thread))

    async def on_stop(self) -> None:
        """Let the batch in hand be committed, then end."""
        self.end()
        if self._thread is not None:
            await asyncio.wait([self._thread], timeout=END_S)

    def end(self) -> None:
        """Ask the hot path to end after its batch, and see that the process ends in any case.

        Faust's own consumer, or the batch, may wait for a broker that is away. What is not committed
        by then is read again by the next worker: nothing is lost by not waiting.
        """
        self.hot_path.stop()
        if not self._ending:
            self._ending = True
            guard = threading.Timer(END_S, self._exit)
            guard.daemon = True
            guard.start()

    def _exit(self) -> None:
        logger.warning(
            "a server did not let this worker end in %.0f s; it ends all the same", END_S
        )
        os._exit(self.exit_code)

    @property
    def exit_code(self) -> int:
        """Return the exit status that says what ended the hot path."""
        if isinstance(self.failure, FraudstreamError):
            return self.failure.exit_code
        return 0 if self.failure is None else 1

    async def _watch(self, thread: "asyncio.Future[None]") -> None:
        try:
            await asyncio.shield(thread)
        except Exception as exc:
            self.failure = exc
            raise


class ScorerWorker(faust.Worker):
    """Faust's worker, with the process's own logs, that tells the hot path of a signal at once."""

    def __init__(self, app: faust.App, service: HotPathService) -> None:
        super().__init__(app, service, redirect_stdouts=False, quiet=True)
        self._service = service

    def _setup_logging(self) -> None:
        """Leave the logs as they are."""
        self.spinner = None
        logging.getLogger("faust.transport.drivers.aiokafka").addFilter(_tells_something)

    def _on_sigint(self) -> None:
        self._service.end()
        super()._on_sigint()

    def _on_sigterm(self) -> None:
        self._service.end()
        super()._on_sigterm()


def _tells_something(record: logging.LogRecord) -> bool:
    """Return False for what Faust says when it is ended before the thread of its own consumer ran."""
    failure = record.exc_info[1] if record.exc_info else None
    return not (isinstance(failure, RuntimeError) and "Event loop is closed" in str(failure))


def build_hot_path(settings: Settings, slot: int) -> HotPath:
    """Return the hot path with all its clients connected.

    Raises:
        DependencyUnreachable: Kafka, Redis or MLflow does not answer.
        Refused: a topic is missing, or the feature store would lose data.
    """
    names = {name: topic_name(settings.environment, name) for name in ("transactions", "feedback")}
    facts = kafka.topic_facts(settings, list(names.values()))
    log = SetLog(settings)
    log.begin(actor="scorer")
    topic_ids = {name: facts[full].topic_id for name, full in names.items()}
    live = LiveSets(log, partial(connect, settings, topic_ids))
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)
    champion = Champion(registry, model_name(settings.environment), live.sets)
    group = group_name(settings)
    kafka.require_coordinator(settings, group, names["transactions"])
    consumer = kafka.worker_consumer(settings, group=group, slot=slot)
    feedback = kafka.reader(settings, group=f"{group}.feedback", tell_end=True)
    limits = Limits(settings)

    def make_producer() -> Producer:
        name = kafka.instance_id(group, slot)
        return kafka.transactional_producer(
            settings, transactional_id=name, most_bytes=limits.lowest
        )

    transactions = facts[names["transactions"]]
    output = TransactionalOutput(make_producer, settings.environment)
    lost_marks = LostMarks(settings, group, slot, transactions.partitions)
    assignment = Assignment(consumer, transactions, lost_marks, LogBounds(settings))
    return HotPath(
        Parts(
            settings=settings,
            consumer=consumer,
            live=live,
            transactions=transactions,
            feedback=facts[names["feedback"]],
            labels=LabelReader(feedback, live, facts[names["feedback"]]),
            champion=champion,
            assignment=assignment,
            evenness=Evenness(
                consumer,
                transactions.name,
                live.lead_ms,
                Neighbours(GroupPlaces(settings, transactions, group), transactions.partitions),
            ),
            output=output,
            limits=limits,
            same_topics=SameTopics(settings, [*facts.values()]),
            contact=Contact(
                [
                    (consumer, TopicPartition(transactions.name, 0)),
                    (feedback, TopicPartition(names["feedback"], 0)),
                ],
                partial(answers_new_client, settings),
                end_at_once,
            ),
            deaths=Deaths(
                assignment,
                lambda places: output.commit([], places, assignment.group_metadata),
                owner=f"{slot}.{uuid.uuid4().hex[:12]}",
                topic=transactions.name,
                most_in_a_row=settings.poison_in_a_row,
            ),
        )
    )


def connect(settings: Settings, topic_ids: dict[str, str], feature_set: FeatureSet) -> FeatureStore:
    """Return the store of one live set, tied to the topics.

    Raises:
        DependencyUnreachable: Redis does not answer.
        Refused: the server would lose data, or the state is of another version or topic.
    """
    store = FeatureStore.connect(
        settings.redis_url,
        settings.environment,
        feature_set,
        connect_timeout_ms=settings.connect_timeout_ms,
        request_timeout_ms=settings.request_timeout_ms,
    )
    try:
        store.bind(topic_ids)
    except Refused as exc:
        raise Refused(f"{exc}; {WAYS_OUT}") from exc
    return store


def build_app(settings: Settings, hot_path: HotPath, slot: int, port: int) -> faust.App:
    """Return the Faust app: web views, the timer that polls the alias, the agent on the audit topic."""
    datadir = state_path(settings) / "faust" / str(slot)
    datadir.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        # A group of its own for each process: it must not wait for the end of one that was killed.
        f"{group_name(settings)}.{slot}.life.{now_ms()}",
        broker="kafka://" + settings.kafka_bootstrap.replace(",", ";"),
        store="memory://",
        datadir=str(datadir),
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_bind=settings.web_host,
        web_host=settings.web_host,
        web_port=port or _free_port(settings.web_host),
        consumer_auto_offset_reset="latest",
    )
    champion = hot_path.parts.champion
    audit = app.topic(topic_name(settings.environment, "audit"), value_serializer="raw")

    @app.agent(audit)
    async def wake_on_promotion(events: faust.StreamT[bytes]) -> None:
        async for _ in events:
            await asyncio.to_thread(champion.look_again)

    @app.timer(interval=settings.model_poll_ms / 1000)  # type: ignore[untyped-decorator]
    async def poll_alias() -> None:
        await asyncio.to_thread(champion.look_again)

    _add_views(app, hot_path, Ends(settings, hot_path.parts.transactions.name))
    return app


def _free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        port: int = free.getsockname()[1]
        return port


def _add_views(app: faust.App, hot_path: HotPath, ends: Ends) -> None:
    served = WorkerMetrics(hot_path.status, hot_path.parts, ends)

    @app.page("/livez")
    async def livez(view: View, request: Request) -> Response:
        health = hot_path.status.health()
        return _health(view, health, fine=not health.hangs)

    @app.page("/readyz")
    async def readyz(view: View, request: Request) -> Response:
        health = hot_path.status.health()
        return _health(view, health, fine=health.ready)

    @app.page("/healthz")
    async def healthz(view: View, request: Request) -> Response:
        health = hot_path.status.health()
        return _health(view, health, fine=health.ready)

    @app.page("/model")
    async def model(view: View, request: Request) -> Response:
        status = hot_path.status
        return view.json({"version": status.model_version, "swaps": status.swaps})

    @app.page("/metrics")
    async def metrics(view: View, request: Request) -> Response:
        return view.text(await asyncio.to_thread(served.text))


def _health(view: View, health: Health, *, fine: bool) -> Response:
    return view.json(msgspec.to_builtins(health), status=200 if fine else 503)
