"""The stream, the workers and the comparison of the recovery tests."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import msgspec
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from fraudstream.clients.feature_library import build_library
from fraudstream.clients.feature_server import FeatureServer
from fraudstream.clients.feature_state import FeatureState
from fraudstream.clients.feature_store import FeatureStore, Slice
from fraudstream.clients.kafka import topic_facts
from fraudstream.core.feature_set import NINE, FeatureSet
from fraudstream.core.scores import Score
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import (
    Feedback,
    Transaction,
    decode_feedback,
    decode_transaction,
)
from fraudstream.core.twin import Twin
from producer.generator import make_parameters, source
from producer.pace import AtRate, Unpaced
from producer.replay import ReplayPlan, replay_table
from tests.own_server import Server
from tests.processes import Worker, wait_until
from verify.ledger import Log, count

STREAM = make_parameters({"seed": 8, "customers": 1_500, "terminals": 900, "days": 12})
TOTAL = source(STREAM).table.num_rows
LAST = 2_000
RATE = 4_000
Records = dict[tuple[int, int], Transaction]
Fault = Callable[["Run"], object]


class Run:
    """One environment with a feature server of its own, its workers and the stream of the tests."""

    def __init__(self, settings: Settings, server: Server, log: Log) -> None:
        self.settings, self.server, self.log = settings, server, log
        self.group = f"{settings.environment}.scorer"
        names = [topic_name(settings.environment, n) for n in ("transactions", "feedback")]
        facts = topic_facts(settings, names)
        self.topic_id, self.feedback_id = (facts[name].topic_id for name in names)
        self.workers: list[Worker] = []

    def start(self, *changes: str) -> Worker:
        """Start one more worker, with changes of tests/changed_command.py."""
        file = Path(self.settings.state_dir).parent / f"worker-{len(self.workers)}.log"
        self.workers.append(Worker(self.settings, file, changes=changes))
        return self.workers[-1]

    def close(self) -> None:
        """End the workers and the server."""
        for each in self.workers:
            each.kill()
        self.server.client.close()
        self.server.kill()

    def said(self) -> str:
        """Return what all workers have logged."""
        return "".join(each.said() for each in self.workers)

    def marks(self) -> dict[bytes, int]:
        """Return the offset applied last, by topic and partition."""
        found = self.server.state(self.settings.environment, "m")
        return {key: int(value) for key, value in found.items()}

    def committed(self) -> int:
        """Return how many transactions have committed results."""
        return sum(self.log.committed(self.group).values())

    def is_done(self) -> bool:
        """Tell whether every transaction is scored and every label applied; a worker that ended fails it."""
        for each in self.workers:
            assert each.process.poll() in (None, -signal.SIGKILL), each.said()[-3_000:]
        done, total = self.log.lag(self.group)
        labels = sum(1 for _ in self.log.records("feedback"))
        mark = self.marks().get(f"m:{self.feedback_id}:0".encode(), -1)
        return done == total and mark == labels - 1


def score_under(run: Run, fault: Fault, *, workers: int = 2, rate: int = RATE) -> None:
    """Score the stream while it is sent, with a fault after a third of it, and balance the ledger.

    The last ones are sent once the fault is over, so that they meet what it has left.
    """
    for _ in range(workers):
        run.start()
    wait_until(
        lambda: all("owns partitions" in each.said() for each in run.workers),
        timeout_s=40,
        what="joined",
    )
    plan = ReplayPlan(pace=AtRate(rate), client="confluent")
    first = msgspec.structs.replace(plan, limit=TOTAL - LAST)
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(replay_table, run.settings, source(STREAM), first)
        wait_until(lambda: run.committed() > TOTAL // 3, timeout_s=60, what="a third scored")
        fault(run)
        assert sending.result(120).sent == TOTAL - LAST
    assert replay_table(run.settings, source(STREAM), plan).sent == LAST
    wait_until(run.is_done, timeout_s=90, what="all scored")
    for each in run.workers:
        assert each.process.poll() is not None or each.stop() == 0, each.said()[-3_000:]
    ledger = count(run.log, run.group)
    assert ledger.balanced, ledger
    assert (ledger.scored, ledger.waiting) == (TOTAL, 0)


def check(run: Run, former: Records | None = None) -> None:
    """Compare all scores with the twin, fed in the order of their application, and the state byte by byte.

    Every apply_seq is given out once; features depend on nothing else than that order.
    """
    answers = [decode_feedback(record.value) for record in run.log.records("feedback")]
    records = (former or {}) | transactions(run)
    decoder = msgspec.json.Decoder(Score)
    scores = [decoder.decode(record.value or b"") for record in run.log.records("scores")]
    scores.sort(key=lambda score: score.apply_seq)
    assert len({score.apply_seq for score in scores}) == len(scores) == len(records)
    twin = Twin()
    for answer in answers:
        twin.label(answer)
    different = []
    for score in scores:
        place = (score.source_partition, score.source_offset)
        reply = twin.apply(*place, records[place])
        if list(reply.features) != score.features:
            different.append((place, score.apply_seq, reply.features, score.features))
    assert not different, f"{len(different)} of {len(scores)} scores differ, first {different[0]}"
    assert run.server.state(run.settings.environment, "ct") == undisturbed(run, records, answers)


def transactions(run: Run) -> Records:
    """Return the transactions that the log has now, by partition and offset."""
    return {
        (record.partition, record.offset): decode_transaction(record.value)
        for record in run.log.records("transactions")
    }


def undisturbed(
    run: Run, records: Records, answers: list[Feedback], feature_set: FeatureSet = NINE
) -> dict[bytes, bytes]:
    """Return the state of customers and terminals that the log gives, one partition after the other."""
    environment = run.settings.environment + "-calm"
    store = FeatureStore.connect(
        run.settings.redis_url,
        environment,
        feature_set,
        connect_timeout_ms=5_000,
        request_timeout_ms=5_000,
    )
    for partition, places in groupby(sorted(records), key=lambda place: place[0]):
        offsets = [offset for _, offset in places]
        for begin in range(0, len(offsets), 1_000):
            part = offsets[begin : begin + 1_000]
            store.apply(run.topic_id, [slice_of(records, partition, part)])
    store.apply_labels(
        run.feedback_id,
        previous_offset=-1,
        last_offset=len(answers) - 1,
        offsets=range(len(answers)),
        labels=answers,
    )
    store.close()
    return run.server.state(environment, "ct", feature_set.hash)


def slice_of(records: Records, partition: int, offsets: list[int]) -> Slice:
    return Slice(
        partition=partition,
        previous_offset=offsets[0] - 1,
        last_offset=offsets[-1],
        committed_offset=offsets[0] - 1,
        offsets=offsets,
        transactions=[records[partition, offset] for offset in offsets],
    )


def state_of(run: Run) -> FeatureState:
    """Return the feature state as it is now, as a bystander sees it."""
    server = FeatureServer.connect(
        run.settings.redis_url,
        build_library(NINE),
        connect_timeout_ms=5_000,
        request_timeout_ms=5_000,
    )
    state = FeatureState(server, run.settings.environment, NINE)
    state.look()
    return state


def send_some(run: Run, limit: int) -> None:
    """Send the stream up to so many transactions and wait until they are scored."""
    plan = ReplayPlan(pace=Unpaced(), client="confluent", limit=limit)
    replay_table(run.settings, source(STREAM), plan)
    wait_until(run.is_done, timeout_s=60, what="scored")


def forget_the_beginning(run: Run, before: int) -> None:
    """Let the log of partition 0 begin at an offset, as a retention would."""
    admin = AdminClient({"bootstrap.servers": run.settings.kafka_bootstrap})
    place = TopicPartition(topic_name(run.settings.environment, "transactions"), 0, before)
    for done in admin.delete_records([place]).values():
        done.result()
