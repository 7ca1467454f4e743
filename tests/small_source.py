"""A small source whose labels fall due while it lasts, for tests of the replay."""

import numpy as np
import pyarrow as pa

from producer.sources import Source, canonical_schema

BEGIN_MS = 1_532_476_800_000
HOUR_MS = 3_600_000


def small_source(rows: int = 120, customers: int = 40, identity: str = "small") -> Source:
    """Return transactions 10 minutes apart, some at one moment; every 8th a fraud, most known 4-6 h later."""
    rng = np.random.default_rng(rows)
    index = np.arange(rows)
    times = BEGIN_MS + (index - index % 3 // 2) * HOUR_MS // 6
    fraud = index % 8 == 3
    known = times + 4 * HOUR_MS + rng.integers(0, 2 * HOUR_MS, rows)
    columns = [
        pa.array([f"t{number:07d}" for number in index]),
        pa.array(times),
        pa.array(["purchase"] * rows),
        pa.array(100 + index),
        pa.array(["EUR"] * rows),
        pa.array([f"C{number}" for number in rng.integers(0, customers, rows)]),
        pa.array([f"T{number}" for number in rng.integers(0, 30, rows)]),
        pa.array(np.round(rng.random(rows), 3)),
        pa.array(fraud),
        pa.array(known, mask=~(fraud & (index % 5 != 0))),
        pa.array([""] * rows),
    ]
    return Source(identity, pa.table(columns, schema=canonical_schema(("distance_km",))), 0, rows)
