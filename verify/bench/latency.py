"""How long a transaction takes to a reader of committed scores, from the time at which it was to be sent."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from fraudstream.clients.clock import now_ns
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.scores import Stages
from fraudstream.core.settings import Settings
from verify.bench import arrivals, floor, open_loop
from verify.bench.aims import Aim, of_latency
from verify.bench.backlog import Stream, fill
from verify.bench.counted import Counted, ScoredLog, count_all, trees_of
from verify.bench.load import Load
from verify.bench.model import bench_model, serve
from verify.bench.pipeline import Progress, own_stack
from verify.bench.processes import expect, finish, started
from verify.demo.children import Children

RUNS = 3
WARMING_S = 5.0
"""Length of the run that does not count."""
WARM_S = 1.0
"""Each run begins so long before it counts: its clients are new, and so are the broker's ways to them."""
LEAD_S = 1.0
"""The first transaction is due so long after its sender was started."""
WAIT_S = 60.0
LINGER_MS = 5
"""So long a sender gathers a batch, as Kafka's own clients do since 4.0. With 1 ms its requests, one a
partition, are 8,000 a second on eight partitions, and take a core of the broker's by themselves."""
Floats = NDArray[np.float64]


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """How transactions are sent: so many a second, for so long, and how long a sender gathers a batch."""

    rate: float
    seconds: float
    partitions: int
    linger_ms: float


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from the intended time of sending to a reader of committed records; `lost` never came."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    lost: int


class Stage(msgspec.Struct, frozen=True):
    """One part of the way, in milliseconds, over all runs."""

    p50_ms: float
    p99_ms: float


class LatencyBench(msgspec.Struct, frozen=True):
    """The report of `fraudstream bench latency`: medians of the runs, and what they are medians of.

    `lost`: without a score, or with one that never came to the reader. `stages`: `sent` from the intended
    time to the record's timestamp, those that stand in a score, and from produce to the reader.
    """

    sending: Sending
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    lost: int
    duplicates: int
    stages: dict[str, Stage]
    floor: Latency
    runs: list[Latency]
    trees: int
    feature_set: str
    counted: Counted
    aims: list[Aim] = []


class Due(msgspec.Struct, frozen=True):
    """So many transactions from number `first` on, due from `start_ns`; the first `warm` do not count."""

    first: int
    n: int
    warm: int
    start_ns: int
    rate: float


class Run(msgspec.Struct, frozen=True):
    """One run: milliseconds float64 [N], by stage too, in the order of arrival; `lost` never came."""

    whole: Floats
    stages: dict[str, Floats]
    lost: int


def measure(sending: Sending, progress: Progress) -> LatencyBench:
    """Send at a rate: once to warm up, three times with the product behind it, once with the floor.

    Raises:
        FraudstreamError: a server, a worker or one of the benchmark's own processes failed.
    """
    progress("starting servers")
    with own_stack(sending.partitions) as settings:
        progress("filling the features of 5,000 cards, fitting a model")
        load, features = fill(settings)
        exported = bench_model(features)
        serve(settings, exported)
        runs = _product(settings, load, sending, progress)
        progress("counting")
        with ScoredLog(settings) as log:
            ledger, counted = count_all(log, f"{settings.environment}.scorer")
        progress(f"{_described(sending)}, the floor")
        bare = _floor(settings, load, sending)
    told = [latency_of(run) for run in runs]
    report = LatencyBench(
        sending=sending,
        p50_ms=_median(told, "p50_ms"),
        p99_ms=_median(told, "p99_ms"),
        p999_ms=_median(told, "p999_ms"),
        max_ms=_median(told, "max_ms"),
        lost=ledger.lost + ledger.waiting + sum(run.lost for run in told),
        duplicates=ledger.duplicates,
        stages=_stages(runs),
        floor=latency_of(bare),
        runs=told,
        trees=trees_of(exported),
        feature_set=", ".join(counted.feature_sets),
        counted=counted,
    )
    return msgspec.structs.replace(report, aims=of_latency(report))


def _described(sending: Sending) -> str:
    return f"{sending.rate:,.0f} transactions a second for {sending.seconds:g} s"


def _product(settings: Settings, load: Load, sending: Sending, progress: Progress) -> list[Run]:
    """Run a worker; the first time does not count: its parts, and the broker, are not what they will be."""
    with Children(settings, Path(settings.state_dir) / "logs", bars=False) as children:
        children.start("scorer", "scorer")
        warming = msgspec.structs.replace(sending, seconds=WARMING_S)
        progress(f"{_described(warming)}, to warm up")
        _run(settings, load, warming)
        runs = []
        for number in range(RUNS):
            progress(f"{_described(sending)}, run {number + 1} of {RUNS}")
            runs.append(_run(settings, load, sending))
    return runs


def _floor(settings: Settings, load: Load, sending: Sending) -> Run:
    """Run the floor, in an environment of its own.

    Raises:
        FraudstreamError: it lost some: its times say nothing.
    """
    bare = msgspec.structs.replace(settings, environment="floor")
    create_topics(
        bare.kafka_bootstrap, bare.environment, bare.partitions, timeout_ms=bare.connect_timeout_ms
    )
    with started(floor.__name__, msgspec.json.encode(bare).decode()):
        run = _run(bare, load, sending)
    if run.lost:
        raise FraudstreamError(f"the floor lost {run.lost:,} transactions: its times say nothing")
    return run


def _run(settings: Settings, load: Load, sending: Sending) -> Run:
    """Send, read, and take the times of what has come, but for what was sent in the first `WARM_S`."""
    rate, first = sending.rate, load.number
    n = round(rate * (WARM_S + sending.seconds))
    folder = Path(settings.state_dir)
    prepared, found = folder / "to-send", folder / "arrived.npz"
    with Stream(settings, load) as stream:
        stream.send_labels()
        prepared.write_bytes(msgspec.msgpack.encode(stream.take(n)))
    given = msgspec.json.encode(settings).decode()
    with started(arrivals.__name__, given, str(first), str(n), str(found)) as reading:
        expect(reading, "ready")
        start_ns = now_ns() + int(LEAD_S * 1e9)
        how = (str(prepared), str(start_ns), str(rate), str(sending.linger_ms))
        with started(open_loop.__name__, given, *how) as sender:
            finish(sender, wait_s=sending.seconds + WAIT_S)
        finish(reading, wait_s=sending.seconds + WAIT_S)
    with np.load(found) as arrays:
        return taken(dict(arrays), Due(first, n, round(rate * WARM_S), start_ns, rate))


def taken(arrays: dict[str, NDArray[np.int64]], due: Due) -> Run:
    """Return the times of those that count: all but the first ones."""
    begin = due.first + due.warm
    arrays = {name: array[arrays["numbers"] >= begin] for name, array in arrays.items()}
    intended_ms = due.start_ns / 1e6 + (arrays["numbers"] - due.first) / due.rate * 1e3
    received_ms = arrays["received_ns"] / 1e6
    stages = dict(zip(Stages.__struct_fields__, arrays["stages"].T, strict=True))
    return Run(
        received_ms - intended_ms,
        {
            "sent": arrays["sent_ms"] - intended_ms,
            **stages,
            "commit_and_read": received_ms - arrays["sent_ms"] - arrays["age_ms"],
        },
        due.n - due.warm - len(arrays["numbers"]),
    )


def latency_of(run: Run) -> Latency:
    """Return the percentiles of one run."""
    p50, p99, p999, most = np.percentile(run.whole, [50, 99, 99.9, 100]).round(1).tolist()
    return Latency(p50, p99, p999, most, run.lost)


def _median(told: Sequence[Latency], name: str) -> float:
    return float(np.median([getattr(each, name) for each in told]))


def _stages(runs: Sequence[Run]) -> dict[str, Stage]:
    return {
        name: Stage(
            *np.percentile(np.concatenate([r.stages[name] for r in runs]), [50, 99])
            .round(1)
            .tolist()
        )
        for name in runs[0].stages
    }
