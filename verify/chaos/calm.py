"""The state that Redis should hold at the end: everything in the log applied once, in peace, and compared.

Built in a process of its own, `python -m verify.chaos.calm`, while the oracle recomputes the scores; the
settings come on standard input.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping

import msgspec
from redis import Redis

from fraudstream.clients.feature_store import FeatureStore, Slice
from fraudstream.clients.kafka import topic_facts
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.feature_set import NINE
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import decode_feedback, decode_transaction
from verify.ledger import Log

CALM = "-calm"
BATCH = 500
AT_ONCE = 2_000
REQUEST_MS = 60_000


class Building:
    """The process that builds the state; leaving the block ends it."""

    def __init__(self, settings: Settings) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "verify.chaos.calm"], stdin=subprocess.PIPE
        )
        self._settings = msgspec.json.encode(settings)

    def __enter__(self) -> "Building":
        assert self._process.stdin is not None  # noqa: S101 - it was made with a pipe
        self._process.stdin.write(self._settings)
        self._process.stdin.close()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        """Return when the state is there.

        Raises:
            FraudstreamError: it could not be built.
        """
        if self._process.wait():
            raise FraudstreamError("the undisturbed state could not be built: see above")


def build(settings: Settings) -> None:
    """Apply every transaction, partitions in turn, then every label, to a state of its own."""
    names = {name: topic_name(settings.environment, name) for name in ("transactions", "feedback")}
    facts = topic_facts(settings, list(names.values()))
    with Log(settings) as log:
        values = transactions(log)
        answers = [decode_feedback(record.value) for record in log.records("feedback")]
    store = FeatureStore.connect(
        settings.redis_url,
        settings.environment + CALM,
        NINE,
        connect_timeout_ms=settings.connect_timeout_ms,
        request_timeout_ms=REQUEST_MS,
    )
    for part in _in_turn(values):
        store.apply(facts[names["transactions"]].topic_id, [part])
    if answers:
        store.apply_labels(
            facts[names["feedback"]].topic_id,
            previous_offset=-1,
            last_offset=len(answers) - 1,
            offsets=range(len(answers)),
            labels=answers,
        )
    store.close()


def transactions(log: Log) -> dict[int, list[bytes]]:
    """Return the bytes of every transaction by partition; the offset is the place.

    Raises:
        FraudstreamError: an offset is missing.
    """
    values: dict[int, list[bytes]] = {}
    for record in log.records("transactions"):
        known = values.setdefault(record.partition, [])
        if record.offset != len(known):
            raise FraudstreamError(f"transactions {record.partition} has no offset {len(known)}")
        known.append(record.value or b"")
    return values


def _in_turn(values: Mapping[int, list[bytes]]) -> Iterator[Slice]:
    longest = max((len(known) for known in values.values()), default=0)
    for begin in range(0, longest, BATCH):
        for partition, known in sorted(values.items()):
            found = known[begin : begin + BATCH]
            if found:
                yield Slice(
                    partition=partition,
                    previous_offset=begin - 1,
                    last_offset=begin + len(found) - 1,
                    committed_offset=begin - 1,
                    offsets=list(range(begin, begin + len(found))),
                    transactions=[decode_transaction(each) for each in found],
                )


def compare_state(settings: Settings) -> tuple[int, list[str]]:
    """Compare the state of the run with the one built in peace; return entities, and keys that differ."""
    with Redis.from_url(settings.redis_url) as client:
        calm, after = (
            _keys(client, environment)
            for environment in (settings.environment + CALM, settings.environment)
        )
        changed = [
            f"key {name.decode()!r} stands in one state only" for name in calm.keys() ^ after.keys()
        ]
        common = sorted(calm.keys() & after.keys())
        for begin in range(0, len(common), AT_ONCE):
            names = common[begin : begin + AT_ONCE]
            pairs = (client.mget([keys[name] for name in names]) for keys in (calm, after))
            for name, one, other in zip(names, *pairs, strict=True):
                if one != other:
                    changed.append(f"key {name.decode()!r} differs from a run in peace")
    entities = sum(name[1:2] == b":" for name in calm)
    return entities, changed


def _keys(client: Redis, environment: str) -> Mapping[bytes, bytes]:
    """Return the keys of customers and terminals by what follows the incarnation.

    Raises:
        FraudstreamError: keys of two incarnations are there.
    """
    found: dict[bytes, bytes] = {}
    for key in client.scan_iter(f"{{{environment}:b0}}:v*", count=1_000):
        name = key.split(b":", 4)[4]
        if name[:1] in b"ct" and name[1:2] in b":.":
            if name in found:
                raise FraudstreamError(f"two states of environment {environment} lie in Redis")
            found[name] = key
    return found


if __name__ == "__main__":
    build(msgspec.json.decode(sys.stdin.buffer.read(), type=Settings))
