"""How fast the features are rebuilt from the log: read, decoded, packed and folded as a worker does it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from redis import Redis

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_store import FeatureStore
from fraudstream.clients.kafka import topic_facts
from fraudstream.clients.topic_admin import create_topics
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from fraudstream.stack.state import ServerName
from producer.generator import make_parameters, source
from producer.pace import Unpaced
from producer.replay import ReplayPlan, replay_table
from scorer.rebuild import Rebuild
from scorer.status import Status
from verify.bench.server import Meter

CUSTOMERS, TERMINALS = 5_000, 10_000
SERVERS: tuple[ServerName, ...] = ("kafka", "redis")


class RebuildCost(msgspec.Struct, frozen=True):
    """A rebuild from an empty state: transactions, and by the clock so many a second; CPU of both sides."""

    transactions: int
    per_s: int
    server_us_per_tx: float
    client_us_per_tx: float


@contextmanager
def log_of(days: int) -> Iterator[Settings]:
    """Start Kafka and Redis, send `days` of the generator's transactions with their labels; end both after.

    Raises:
        FraudstreamError: a server did not start.
    """
    with tempfile.TemporaryDirectory(prefix="fraudstream-bench-") as folder:
        bare = Settings(state_dir=folder, environment="bench", mlflow_url="http://127.0.0.1:1")
        try:
            embedded.up(bare, wait_for=SERVERS)
            settings = with_addresses(bare)
            create_topics(settings.kafka_bootstrap, "bench", settings.partitions, timeout_ms=20_000)
            numbers = {"customers": CUSTOMERS, "terminals": TERMINALS, "days": days}
            plan = ReplayPlan(pace=Unpaced(), client="confluent")
            replay_table(settings, source(make_parameters(numbers)), plan)
            yield settings
        finally:
            embedded.down(bare, wipe=True)


def rebuild_all(settings: Settings) -> tuple[FeatureStore, RebuildCost]:
    """Rebuild an empty state from the whole log; return the store, connected, and what it took.

    Raises:
        FraudstreamError: a server failed meanwhile.
    """
    store = FeatureStore.connect(
        settings.redis_url, settings.environment, connect_timeout_ms=5_000, request_timeout_ms=5_000
    )
    topics = {each: topic_name(settings.environment, each) for each in ("transactions", "feedback")}
    facts = topic_facts(settings, list(topics.values()))
    store.bind({each: facts[name].topic_id for each, name in topics.items()})
    with TopicReader(settings) as reader:
        ends = {p: high for p, (_, high) in reader.bounds(topics["transactions"]).items()}
    status = Status()
    of_both = (facts[topics["transactions"]], facts[topics["feedback"]])
    with Redis.from_url(settings.redis_url) as client:
        begun_s, meter = monotonic_s(), Meter(client)
        Rebuild(settings, store, of_both, status).run(lambda: ends, lambda: None)
        n = status.rebuild_done
        return store, RebuildCost(n, round(n / (monotonic_s() - begun_s)), *meter.read(n))
