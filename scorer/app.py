"""The Faust worker around the hot path: life cycle, supervision, web views, alias polling, audit wake-up."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType

import faust
import msgspec
from faust.web import Request, Response, View
from mode import Service

from fraudstream.clients.clock import now_ms
from fraudstream.clients.signals import ASK_TO_END, END_S
from fraudstream.core.health import Health
from fraudstream.core.settings import Settings, state_path
from fraudstream.core.topics import topic_name
from scorer.assignment import group_name
from scorer.ends import Ends
from scorer.hot_path import HotPath
from scorer.metrics import WorkerMetrics
from scorer.scoring import Scoring

logger = logging.getLogger(__name__)


class HotPathService(Service):
    """The hot path as a service of Faust's: what goes wrong there ends the worker before it commits."""

    def __init__(self, scoring: Scoring, shut_down: Callable[[], None]) -> None:
        super().__init__()
        self._scoring = scoring
        self._shut_down = shut_down
        self._over: asyncio.Future[None] | None = None

    async def on_start(self) -> None:
        """Watch the thread, which runs already."""
        self._over = asyncio.wrap_future(self._scoring.over)
        self.add_future(self._watch(self._over))

    async def on_stop(self) -> None:
        """Let the batch in hand be committed, then end."""
        self._scoring.end()
        if self._over is not None:
            await asyncio.wait([self._over], timeout=END_S)

    async def _watch(self, over: "asyncio.Future[None]") -> None:
        await asyncio.shield(over)
        if self._scoring.asked:  # before Faust heard of signals, it may be
            self._shut_down()


class ScorerWorker(faust.Worker):
    """Faust's worker, with the process's own logs, that tells the hot path of a signal at once."""

    def __init__(self, app: faust.App, scoring: Scoring) -> None:
        hot_path = HotPathService(scoring, partial(self._schedule_shutdown, signal.SIGTERM))
        super().__init__(app, hot_path, redirect_stdouts=False, quiet=True)
        self._scoring = scoring

    def _setup_logging(self) -> None:
        """Leave the logs as they are."""
        self.spinner = None
        logging.getLogger("faust.transport.drivers.aiokafka").addFilter(_tells_something)

    def on_worker_shutdown(self) -> None:
        """Faust ends, asked or not: from now on the process has its time to end."""
        self._scoring.end()
        super().on_worker_shutdown()

    def _crash(self, reason: BaseException) -> None:
        self._scoring.end()
        super()._crash(reason)

    def install_signal_handlers(self) -> None:
        """Hear what asks to end, until the process does; nothing else that Faust makes of signals.

        Not by the event loop, which when it is closed leaves a signal to kill the process.
        """
        for each in ASK_TO_END:
            signal.signal(each, self._heard)

    def _heard(self, number: int, _: FrameType | None) -> None:
        self._scoring.ask()
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._schedule_shutdown, signal.Signals(number))


def _tells_something(record: logging.LogRecord) -> bool:
    """Return False for what Faust says when it is ended before the thread of its own consumer ran."""
    failure = record.exc_info[1] if record.exc_info else None
    return not (isinstance(failure, RuntimeError) and "Event loop is closed" in str(failure))


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
