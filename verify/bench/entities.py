"""Copies of filled entities, so that a large state costs the time of a small one."""

from collections.abc import Mapping
from typing import Any

from redis import Redis


def copy_entities(client: Redis, environment: str, counts: Mapping[str, int], copies: int) -> None:
    """Copy each entity under `copies` - 1 names more: number + k x how many there are.

    `counts` by kind of key: `c` customers, `t` terminals, whose names are their numbers.
    """
    for kind, count in counts.items():
        keys: list[Any] = list(client.scan_iter(f"{{{environment}:b0}}:v*:{kind}:*", count=1_000))
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            prefix, _, number = key.decode().rpartition(":")
            for k in range(1, copies):
                pipeline.copy(key, f"{prefix}:{int(number) + k * count}")
        pipeline.execute()
