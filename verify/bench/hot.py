"""A terminal with ever more live entries: what a transaction costs there, in order and late."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
from redis import Redis

from fraudstream.clients.feature_store import FeatureStore
from fraudstream.core.feature_set import DAY_MS
from verify.bench.load import Load
from verify.bench.server import Meter

CURVE = (10, 60, 1_000, 10_000, 100_000, 1_000_000)
DAYS = 42
BATCH, MEASURED, LATE, CUSTOMERS = 20, 2_000, 200, 20_000
FILL_BATCH, FILL_CUSTOMERS = 5_000, 500


class HotPoint(msgspec.Struct, frozen=True):
    """A terminal with so many live entries: server CPU a transaction in order and late (up to 3 days)."""

    live: int
    server_us_per_tx: float
    late_server_us_per_tx: float


def hot_point(store: FeatureStore, client: Redis, live: int) -> HotPoint:
    """Fill one terminal with `live` entries in 42 days, then measure it in calls of 20."""
    load = Load(CUSTOMERS, 1, live / DAYS, seed=live)
    _fill(store, load, live)
    meter = Meter(client)
    for _ in range(MEASURED // BATCH):
        store.apply("transactions", load.slices(load.transactions(BATCH)))
        load.send_labels(store)
    in_order, _ = meter.read(MEASURED)
    meter = Meter(client)
    for _ in range(LATE // BATCH):
        late = [
            msgspec.structs.replace(
                each, event_time_ms=each.event_time_ms - int(load.random.integers(3 * DAY_MS))
            )
            for each in load.transactions(BATCH)
        ]
        store.apply("transactions", load.slices(late))
    late_us, _ = meter.read(LATE)
    return HotPoint(live, in_order, late_us)


def _fill(store: FeatureStore, load: Load, live: int) -> None:
    """Apply the entries as a rebuild does: the next call is packed while the server takes the one before.

    Each call brings other customers, so that they, who are not measured here, are soon filled.
    """
    batch = min(FILL_BATCH, max(live // 10, 1))

    def packed(number: int) -> bytes:
        first = number * FILL_CUSTOMERS % CUSTOMERS
        some = range(first, first + FILL_CUSTOMERS)
        return store.pack_fold("transactions", load.slices(load.transactions(batch, some)))

    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(packed, 0)
        for number in range(1, live // batch + 1):
            blob = coming.result()
            coming = ahead.submit(packed, number)
            store.fold("transactions", blob)
        store.fold("transactions", coming.result())
    load.send_labels(store)
