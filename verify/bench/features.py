"""What the feature store costs: server and client CPU, memory, hot terminals, beside the usual ways.

Server figures are CPU time of the server's main thread from INFO, so that other processes on the machine
move them less than the clock. A state of 500 customers and 1,000 terminals is filled through the library,
copied ten times on the server, and goes on with all of them.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from redis import Redis

from fraudstream.clients.feature_store import FeatureStore
from fraudstream.core.feature_set import DAY_MS, NINE, FeatureSet, packaged
from verify.bench.entities import copy_entities
from verify.bench.hot import CURVE, HotPoint, hot_point
from verify.bench.load import Load
from verify.bench.peers import Peer, floor, one_call_per_event, sorted_sets
from verify.bench.rebuild import RebuildCost, log_of, rebuild_all
from verify.bench.server import Meter, own_server

CUSTOMERS, TERMINALS, LIVE, BATCH = 500, 1_000, 60, 500
COPIES = 10
MEASURED, PARTS = 20_000, 4
REBUILD_DAYS = 10
TIMEOUT_MS = 60_000
Progress = Callable[[str], None]


class Cost(msgspec.Struct, frozen=True):
    """Server CPU a transaction: mean and best part; client CPU; bytes of a customer's and terminal's keys."""

    server_us_per_tx: float
    best_part_us_per_tx: float
    client_us_per_tx: float
    customer_bytes: int
    terminal_bytes: int


class FeatureBench(msgspec.Struct, frozen=True):
    """The report of `fraudstream bench features`; `rebuild_per_s` is by the clock."""

    customers: int
    terminals: int
    live_entries: int
    batch: int
    nine_features: Cost
    three_windows: Cost
    memory_bytes_per_card: int
    client_us_per_tx: float
    hot_terminal_ratio: float
    hot_terminal_curve: list[HotPoint]
    peers: dict[str, Peer]
    rebuild: RebuildCost
    rebuild_per_s: int


def measure(most_live: int, progress: Progress) -> FeatureBench:
    """Measure everything on a server of its own; `most_live` bounds the curve of hot terminals."""
    with own_server() as url, Redis.from_url(url) as client:
        progress("nine features")
        nine = _cost(url, client, _shortened(NINE), LIVE / 21)
        client.flushall()
        progress("three windows")
        windows = _cost(url, client, packaged()["windows"], LIVE / 37)
        client.flushall()
        curve = []
        for live in [each for each in CURVE if each <= most_live]:
            progress(f"a terminal with {live:,} live entries")
            store = _connect(url, f"hot{live}", _shortened(NINE))
            curve.append(hot_point(store, client, live))
            store.close()
            client.flushall()
        progress("the usual ways")
        peers = {
            "sorted_sets_pipeline_per_event": sorted_sets(client),
            "one_evalsha_per_event": one_call_per_event(client),
            "floor": floor(client),
        }
    progress("a rebuild from the log")
    with log_of(REBUILD_DAYS) as settings:
        store, rebuild = rebuild_all(settings)
        store.close()
    usual = next(each.server_us_per_tx for each in curve if each.live >= LIVE)
    return FeatureBench(
        customers=CUSTOMERS * COPIES,
        terminals=TERMINALS * COPIES,
        live_entries=LIVE,
        batch=BATCH,
        nine_features=nine,
        three_windows=windows,
        memory_bytes_per_card=nine.customer_bytes + nine.terminal_bytes,
        client_us_per_tx=nine.client_us_per_tx,
        hot_terminal_ratio=round(curve[-1].server_us_per_tx / usual, 2),
        hot_terminal_curve=curve,
        peers=peers,
        rebuild=rebuild,
        rebuild_per_s=rebuild.per_s,
    )


def _shortened(feature_set: FeatureSet) -> FeatureSet:
    """Return the set with terminals kept 42 days: as many live entries as a customer of 21 days has."""
    definitions = tuple(
        msgspec.structs.replace(each, window_ms=min(each.window_ms, 35 * DAY_MS))
        for each in feature_set.definitions
    )
    return msgspec.structs.replace(feature_set, definitions=definitions)


def _connect(url: str, environment: str, feature_set: FeatureSet) -> FeatureStore:
    return FeatureStore.connect(
        url,
        environment,
        feature_set,
        connect_timeout_ms=TIMEOUT_MS,
        request_timeout_ms=TIMEOUT_MS,
    )


def _run(store: FeatureStore, load: Load, n: int, batch: int) -> None:
    for _ in range(n // batch):
        store.apply("transactions", load.slices(load.transactions(batch)))
        load.send_labels(store)


def _cost(url: str, client: Redis, feature_set: FeatureSet, a_day_each: float) -> Cost:
    """Fill, copy, and measure a set at `a_day_each` transactions a day of each customer."""
    store = _connect(url, "bench", feature_set)
    load = Load(CUSTOMERS, TERMINALS, CUSTOMERS * a_day_each)
    _run(store, load, int(CUSTOMERS * LIVE * 2.1) // BATCH * BATCH, BATCH)
    copy_entities(client, "bench", {"c": CUSTOMERS, "t": TERMINALS}, COPIES)
    load.spread_over(COPIES)
    _run(store, load, 5_000, BATCH)
    parts = []
    for _ in range(PARTS):
        batches = [load.slices(load.transactions(BATCH)) for _ in range(MEASURED // PARTS // BATCH)]
        meter = Meter(client)
        for batch in batches:
            store.apply("transactions", batch)
        load.send_labels(store)
        parts.append(meter.read(MEASURED // PARTS))
    store.close()
    server, own = (round(float(np.mean(column)), 2) for column in zip(*parts, strict=True))
    customer, terminal = (_key_bytes(client, kind) for kind in "ct")
    return Cost(server, min(parts)[0], own, customer, terminal)


def _key_bytes(client: Redis, kind: str) -> int:
    """Return the mean memory of an entity's keys, from a sample; 0 where there is none."""
    keys: list[Any] = list(client.scan_iter(f"{{bench:b0}}:v*:{kind}:*", count=1_000))[:1_000]
    used: list[Any] = [client.memory_usage(key) for key in keys]
    return round(float(np.mean(used))) if used else 0
