"""Long at a good part of the maximum: does memory stay, and does the last minute look like the first?"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import Producer
from redis import Redis

from fraudstream.clients.clock import now_ns
from fraudstream.clients.kafka import common
from fraudstream.core.feature_set import NINE
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from verify.bench import listen
from verify.bench.backlog import Stream, fill, send
from verify.bench.footprint import Memory, forget_old_records, memory
from verify.bench.latency import LINGER_MS, WAIT_S
from verify.bench.listen import MINUTE_S, Heard, Minute
from verify.bench.load import Load
from verify.bench.model import TREES, bench_model, serve
from verify.bench.pipeline import Progress, own_stack
from verify.bench.processes import expect, finish, started, tell
from verify.bench.rate import Watched, committed_anew, timed
from verify.demo.children import Children
from verify.ledger import Log

SHARE = 0.6
BACKLOG = 20_000
"""So many transactions wait at any time while the maximum is looked for, which takes `MAXIMUM_S`."""
MAXIMUM_S = 15.0
CHUNK_S = 0.01
LEAD_S = 0.5
TICK_S = 0.001
MOST_GROWTH, MOST_SLOWER = 0.05, 1.5
FLAT_FROM = 2
"""Memory is compared from the end of this minute on: caches and heaps have their size by then."""
_pause = threading.Event()


class Soak(msgspec.Struct, frozen=True):
    """The report of `fraudstream bench soak`; `growth` is the largest part by which a process grew.

    `maximum_per_s`: what one worker does while the transactions are sent, on the same machine.
    """

    maximum_per_s: int
    rate: int
    seconds: float
    transactions: int
    lost: int
    duplicates: int
    minutes: list[Minute]
    memory: list[Memory]
    growth: dict[str, float]
    p99_last_to_first: float
    holds: bool
    trees: int
    feature_set: str


def measure(minutes: int, rate: int | None, progress: Progress) -> Soak:
    """Find the maximum of one worker under a sender, then send at 60 % of it, or at `rate`, for so long.

    Raises:
        FraudstreamError: a server, the worker or one of the benchmark's own processes failed.
    """
    progress("starting servers")
    with own_stack() as settings:
        forget_old_records(settings)
        progress("filling the features of 5,000 cards, fitting a model")
        load, features = fill(settings)
        serve(settings, bench_model(features))
        with Children(settings, Path(settings.state_dir) / "logs", bars=False) as children:
            children.start("scorer", "scorer")
            progress("how fast one worker is while transactions are sent")
            who = Watched(f"{settings.environment}.scorer", "scorer", children.check)
            with _feeding(settings, load, who.group):
                maximum = timed(settings, who, lambda _, seconds: seconds > MAXIMUM_S).tx_per_s
            _drain(settings, who)
            rate = rate or round(maximum * SHARE)
            seconds = minutes * MINUTE_S
            run = _Run(settings, load, rate, seconds, children.check)
            heard = run.go(progress)
    return judge(maximum, rate, seconds, heard, run.memory)


@contextmanager
def _feeding(settings: Settings, load: Load, group: str) -> Iterator[None]:
    """Send for the length of the block, as much as the group goes through."""
    stop = threading.Event()
    send(settings, load, BACKLOG)
    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(_feed, settings, load, group, stop)
        try:
            yield
        finally:
            stop.set()
            feeding.result()


def _feed(settings: Settings, load: Load, group: str, stop: threading.Event) -> None:
    with Log(settings) as log:
        while not stop.is_set():
            done, total = log.lag(group)
            if total - done < 2 * BACKLOG:
                send(settings, load, BACKLOG)
            stop.wait(CHUNK_S)


def _drain(settings: Settings, who: Watched) -> None:
    with Log(settings) as log:
        done, total = log.lag(who.group)
        while done < total:
            done, total = committed_anew(log, who)


class _Run:
    """Sends, has the scores listened to, and looks at memory each minute."""

    def __init__(
        self, settings: Settings, load: Load, rate: int, seconds: float, check: Callable[[], None]
    ) -> None:
        self._settings, self._load, self._rate, self._check = settings, load, rate, check
        self._total = round(rate * seconds)
        self.memory: list[Memory] = []

    def go(self, progress: Progress) -> Heard:
        """Return what came of it."""
        found = Path(self._settings.state_dir) / "heard.json"
        given = msgspec.json.encode(self._settings).decode()
        arguments = (str(self._load.number), str(self._total), str(self._rate), str(found))
        with started(listen.__name__, given, *arguments) as listening:
            expect(listening, "ready")
            start_ns = now_ns() + int(LEAD_S * 1e9)
            tell(listening, str(start_ns))
            self._send(start_ns, progress)
            finish(listening, wait_s=WAIT_S)
        return msgspec.json.decode(found.read_bytes(), type=Heard)

    def _send(self, start_ns: int, progress: Progress) -> None:
        """Send each record when it is due, whatever becomes of those before."""
        gathers = {"linger.ms": LINGER_MS, "queue.buffering.max.messages": 1_000_000}
        producer = Producer(common(self._settings) | gathers)
        with (
            Redis.from_url(self._settings.redis_url) as client,
            Stream(self._settings, self._load) as stream,
        ):
            chunk = max(round(self._rate * CHUNK_S), 1)
            for sent in range(0, self._total, chunk):
                self._look(client, (now_ns() - start_ns) / 1e9, progress)
                if sent % (self._rate // chunk * chunk) == 0:  # once a second
                    stream.send_labels()
                self._send_chunk(producer, stream, sent, min(chunk, self._total - sent), start_ns)
            producer.flush(WAIT_S)
            self._look(client, self._total / self._rate, progress)

    def _send_chunk(
        self, producer: Producer, stream: Stream, sent: int, n: int, start_ns: int
    ) -> None:
        topic = topic_name(self._settings.environment, "transactions")
        for number, record in enumerate(stream.take(n), sent):
            early_s = (start_ns - now_ns()) / 1e9 + number / self._rate
            if early_s > TICK_S:
                _pause.wait(early_s)
            producer.produce(
                topic, record.value, record.key, record.partition, headers=record.headers
            )
        producer.poll(0)

    def _look(self, client: Redis, now_s: float, progress: Progress) -> None:
        """Note the memory at the end of each minute."""
        if now_s < MINUTE_S * (len(self.memory) + 1):
            return
        self._check()
        self.memory.append(memory(self._settings, client))
        progress(f"minute {len(self.memory)}: {self.memory[-1].sentence}")


def judge(maximum: int, rate: int, seconds: float, heard: Heard, found: list[Memory]) -> Soak:
    """Return the report: what grew since the second minute, and how the last minute was beside the first."""
    grew = growth(found)
    ratio = round(heard.minutes[-1].p99_ms / heard.minutes[0].p99_ms, 2)
    flat = all(grew[name] <= MOST_GROWTH for name in ("worker", "redis"))
    return Soak(
        maximum_per_s=maximum,
        rate=rate,
        seconds=seconds,
        transactions=sum(minute.transactions for minute in heard.minutes),
        lost=heard.lost,
        duplicates=heard.duplicates,
        minutes=heard.minutes,
        memory=found,
        growth=grew,
        p99_last_to_first=ratio,
        holds=flat and ratio <= MOST_SLOWER and not heard.lost and not heard.duplicates,
        trees=TREES,
        feature_set=NINE.hash,
    )


def growth(found: list[Memory]) -> dict[str, float]:
    """Return by process the largest part by which its memory has grown since the end of the second minute."""
    later = found[FLAT_FROM - 1 :] or found
    names = ("worker", "redis", "kafka")
    begin = {name: getattr(later[0], f"{name}_mb") for name in names}
    most = {name: max(getattr(each, f"{name}_mb") for each in later) for name in names}
    return {name: round(most[name] / begin[name] - 1, 3) for name in names}
