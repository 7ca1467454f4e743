"""What a service serves over HTTP: /livez, /readyz (also /healthz), /metrics; the scorer has Faust for it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socket import gaierror
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click
import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app

from fraudstream.core.errors import SettingsError
from fraudstream.core.health import Health

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LOOPBACK = "127.0.0.1"

metrics_port_option = click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Serve /livez, /readyz and /metrics there; 0 takes a free port.",
)


class Service(Protocol):
    """What has metrics and a state to show."""

    @property
    def registry(self) -> CollectorRegistry:
        """Return its metrics."""

    def health(self) -> Health:
        """Return how it is; called from other threads."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request: a slow reader of /metrics holds up no health check."""

    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the library
        """Log nothing: a check each few seconds is no news."""


@contextmanager
def serving(
    service: Service, port: int | None, host: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Serve for the length of the block and say where; nothing is served without a port.

    Raises:
        SettingsError: the port is taken or not allowed.
    """
    if port is None:
        yield
        return
    with served(service.registry, service.health, port, host) as taken:
        say(f"metrics at http://{host}:{taken}/metrics")
        yield


@contextmanager
def served(
    registry: CollectorRegistry, health: Callable[[], Health], port: int, host: str = LOOPBACK
) -> Iterator[int]:
    """Serve for the length of the block; yield the port, a free one for 0.

    Raises:
        SettingsError: the port is taken or not allowed.
    """
    try:
        server = make_server(
            host, port, _app(registry, health), server_class=_Server, handler_class=_Silent
        )
    except gaierror as exc:
        raise SettingsError(
            f"web_host {host} is no address ({exc.strerror}): set FRAUDSTREAM_WEB_HOST to one of this machine"
        ) from exc
    except OSError as exc:
        raise SettingsError(
            f"--metrics-port {port} cannot be listened at ({exc.strerror}): choose another, or 0"
        ) from exc
    thread = Thread(target=server.serve_forever, name="service-web", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _app(
    registry: CollectorRegistry, health: Callable[[], Health]
) -> "Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]":
    metrics = make_wsgi_app(registry, disable_compression=True)

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        now = health()
        statuses = {"/livez": not now.hangs, "/readyz": now.ready, "/healthz": now.ready}
        if path not in statuses:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there are /livez, /readyz, /healthz and /metrics here\n"]
        status = "200 OK" if statuses[path] else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [msgspec.json.encode(now)]

    return app
