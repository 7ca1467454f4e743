"""One real stack for the whole test session; an environment of its own for every test."""

import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from redis import Redis

from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.settings import Settings, make_settings
from fraudstream.stack import embedded
from tests.feature_streams import Connect, connections
from verify.ledger import Log

REPOSITORY = Path(__file__).parents[1]
STACK = os.environ.get("TEST_STACK", "embedded")
HANDBOOK = os.environ.get("FRAUDSTREAM_HANDBOOK")
_numbers = itertools.count(1)

# What an example takes says something of the machine, and two tests share it. `make test` has the same
# examples each time: what fails is of the change at hand. `make proofs` looks for new ones.
hypothesis.settings.register_profile("exploring", deadline=None)
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")

if STACK not in ("embedded", "containers"):
    raise pytest.UsageError(f"STACK={STACK}: embedded or containers")

# The settings of the person who runs the tests reach no command that a test starts.
for variable in [name for name in os.environ if name.startswith("FRAUDSTREAM_")]:
    del os.environ[variable]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Addresses]:
    """Kafka, Redis and MLflow as real servers; they end with this session, also if it gets SIGKILL.

    `make test STACK=containers` takes those of docker-compose.yml instead, which a SIGKILL leaves behind.
    """
    if STACK == "containers":
        from tests.server_containers import servers  # noqa: PLC0415 - Docker's client, half a second

        with servers(tmp_path_factory.mktemp("stack")) as addresses:
            yield addresses
        return
    settings = make_settings({"state_dir": str(tmp_path_factory.mktemp("stack"))})
    try:
        yield embedded.up(settings, owner_pid=os.getpid())
    finally:
        embedded.down(settings, wipe=True)


@pytest.fixture
def partitions() -> int:
    """Partitions of the topics that scale; another number: `@pytest.mark.parametrize("partitions", [1])`."""
    return 2


@pytest.fixture
def settings(stack: embedded.Addresses, partitions: int, tmp_path: Path) -> Settings:
    """Settings with the stack's addresses, a fresh environment and a state folder of the test's own."""
    return make_settings(
        {
            "environment": f"t{next(_numbers)}-{uuid.uuid4().hex[:8]}",
            "state_dir": str(tmp_path / "state"),
            "kafka_bootstrap": stack.kafka_bootstrap,
            "redis_url": stack.redis_url,
            "mlflow_url": stack.mlflow_url,
            "partitions": partitions,
        }
    )


@pytest.fixture
def topics(settings: Settings) -> Settings:
    """The settings of the test, with all topics of its environment created."""
    create_topics(
        settings.kafka_bootstrap,
        settings.environment,
        settings.partitions,
        timeout_ms=settings.connect_timeout_ms,
    )
    return settings


@pytest.fixture
def log(topics: Settings) -> Iterator[Log]:
    """The topics of the test as an independent reader sees them."""
    with Log(topics) as reader:
        yield reader


@pytest.fixture
def connect(settings: Settings) -> Iterator[Connect]:
    """What connects feature stores to the test's environment, and closes them at its end."""
    with connections(settings) as make:
        yield make


@pytest.fixture
def server(settings: Settings) -> Iterator[Redis]:
    """A client of its own to the server of the features."""
    with Redis.from_url(settings.redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def handbook() -> Path:
    """The Handbook data as one parquet file; without it the test is skipped."""
    beside = REPOSITORY.parent / "shared" / "data" / "handbook.parquet"
    path = Path(HANDBOOK or beside)
    if not path.is_file():
        pytest.skip(f"no Handbook data at {path}: set FRAUDSTREAM_HANDBOOK to the parquet file")
    return path
