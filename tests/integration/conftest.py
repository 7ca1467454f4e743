"""What several integration tests start with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fraudstream.core.settings import Settings
from tests.integration.recovery_run import Run
from tests.own_server import Server
from tests.processes import faster
from verify.ledger import Log


@pytest.fixture
def run(topics: Settings, log: Log, tmp_path: Path) -> Iterator[Run]:
    """Yield an environment with a feature server of its own; end its workers and the server."""
    (tmp_path / "redis").mkdir()
    server = Server(tmp_path / "redis")
    made = Run(faster(topics, redis_url=server.url), server, log)
    yield made
    made.close()
