"""Who asks Kafka while it comes back from standing still gets an answer or is told of none, and lives."""

import subprocess
import sys
import threading

from fraudstream.core.settings import Settings
from tests.integration.test_faults import own_stack
from tests.integration.test_servers_away import frozen

__all__ = ["own_stack"]

STILL_S = 2.2
"""A little longer than `broker.session.timeout.ms`: most often it then counts as none for a moment."""

ASKS = """
import select, sys
from fraudstream.clients.asking import require_answer
from fraudstream.core.errors import KafkaUnreachable
from fraudstream.core.settings import Settings

settings = Settings(kafka_bootstrap=sys.argv[1])
require_answer(settings)
print("asks", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        require_answer(settings)
    except KafkaUnreachable:
        pass  # to be asked again
"""


def test_a_broker_that_counts_as_none_for_a_moment_ends_nobody_who_asks(
    own_stack: Settings,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ASKS, own_stack.kafka_bootstrap],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asks:
        assert asks.stdout is not None
        assert asks.stdout.readline() == "asks\n"
        for _ in range(5):
            with frozen(own_stack, "kafka"):
                threading.Event().wait(STILL_S)
            threading.Event().wait(1.0)  # until it counts again
        _, complained = asks.communicate("end\n", timeout=60)
    assert (asks.returncode, complained) == (0, "")
