"""The balance as gauges for Prometheus, served on loopback while `fraudstream ledger --watch` runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from fraudstream.core.errors import SettingsError
from verify.ledger import Ledger

HOST = "127.0.0.1"
GAUGES = {
    "transactions": "transactions read",
    "scored": "scores of them",
    "dead_letters": "dead letters of them",
    "waiting": "transactions without a result that no worker has committed, or that may still be read",
    "lost": "transactions that were committed without a result",
    "duplicates": "results beyond the first of a transaction",
    "unfounded": "results of no transaction",
    "mismatched": "results of another transaction than the one at their place",
}
"""`fraudstream_ledger_*`, each the field of that name of `Ledger`."""
DIFFERENCE = ("lost", "duplicates", "unfounded", "mismatched")


class LedgerMetrics:
    """The gauges of one watch; `age_s` tells how old the newest complete judgement is, in seconds."""

    def __init__(self, age_s: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._gauges = {
            name: Gauge(f"fraudstream_ledger_{name}", says, registry=self.registry)
            for name, says in GAUGES.items()
        }
        self._difference = Gauge(
            "fraudstream_ledger_difference",
            f"sum of {', '.join(DIFFERENCE)}",
            registry=self.registry,
        )
        age = Gauge(
            "fraudstream_ledger_age_seconds",
            "how long ago the newest complete judgement began",
            registry=self.registry,
        )
        age.set_function(age_s)

    def show(self, ledger: Ledger) -> None:
        """Set every gauge to the balance as of now."""
        for name, gauge in self._gauges.items():
            gauge.set(getattr(ledger, name))
        self._difference.set(sum(getattr(ledger, name) for name in DIFFERENCE))


@contextmanager
def served(metrics: LedgerMetrics, port: int) -> Iterator[int]:
    """Serve the gauges at 127.0.0.1 for the length of the block; yield the port, a free one for 0.

    Raises:
        SettingsError: the port is taken or not allowed.
    """
    try:
        server, thread = start_http_server(port, addr=HOST, registry=metrics.registry)
    except OSError as exc:
        raise SettingsError(
            f"--metrics-port {port} cannot be listened at ({exc.strerror}): choose another, or 0"
        ) from exc
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
