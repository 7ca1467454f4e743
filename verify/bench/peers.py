"""The usual ways of doing the same work, in the same run: no labels, no marks, nothing exactly once.

And the floor: the bytes of two entities a transaction read and written in calls of 500, nothing computed.
"""

import msgspec
import numpy as np
from redis import Redis

from fraudstream.core.feature_set import DAY_MS, id_digest
from fraudstream.core.transaction import Transaction
from verify.bench.load import START_MS, Load
from verify.bench.server import Meter

EVENTS, ENTITIES, LIVE = 2_000, 1_000, 60

SCRIPT = """
local function window(key, member, t, length)
  redis.call('ZADD', key, t, member)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', t - length)
  local n, sum = 0, 0
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', key, t - length, t)) do
    n, sum = n + 1, sum + tonumber(string.sub(each, 18))
  end
  return { n, sum }
end
local t, length = tonumber(ARGV[2]), tonumber(ARGV[3])
return { window(KEYS[1], ARGV[1], t, length), window(KEYS[2], ARGV[1], t, length) }
"""
"""Two sorted sets of `digest:amount` by event time; count and sum of both."""


FLOOR_SCRIPT = """
for from = 1, #KEYS, 100 do
  redis.call('MGET', unpack(KEYS, from, math.min(from + 99, #KEYS)))
end
for i = 1, #KEYS do
  redis.call('SETRANGE', KEYS[i], 1400, ARGV[1])
end
"""
FLOOR_ENTITIES, FLOOR_BYTES, FLOOR_WRITTEN, FLOOR_CALL = 15_000, 1_500, 100, 1_000


class Peer(msgspec.Struct, frozen=True):
    """CPU a transaction of a usual way, server and client, in microseconds."""

    server_us_per_tx: float
    client_us_per_tx: float


def sorted_sets(client: Redis) -> Peer:
    """Measure two sorted sets per event, trimmed and read back whole in one pipeline."""
    events = _filled(client)
    meter = Meter(client)
    for event in events:
        pipeline = client.pipeline(transaction=False)
        t = event.event_time_ms
        for key in _keys(event):
            pipeline.zadd(key, {_member(event): t})
            pipeline.zremrangebyrank(key, 0, -LIVE - 1)
            pipeline.zrangebyscore(key, t - 21 * DAY_MS, t, withscores=True)
        pipeline.execute()
    return Peer(*meter.read(EVENTS))


def one_call_per_event(client: Redis) -> Peer:
    """Measure the same sorted sets, added up by one EVALSHA per event."""
    events = _filled(client)
    script = client.script_load(SCRIPT)
    meter = Meter(client)
    for event in events:
        t = event.event_time_ms
        client.evalsha(script, 2, *_keys(event), _member(event), str(t), str(21 * DAY_MS))
    return Peer(*meter.read(EVENTS))


def floor(client: Redis) -> Peer:
    """Measure two values of 1,500 bytes a transaction read, and 100 bytes of each written, 500 in a call."""
    client.flushall()
    random = np.random.default_rng(1)
    keys = [f"floor:{i}" for i in range(FLOOR_ENTITIES)]
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.set(key, random.bytes(FLOOR_BYTES))
    pipeline.execute()
    script = client.script_load(FLOOR_SCRIPT)
    chosen = [random.choice(keys, FLOOR_CALL, replace=False).tolist() for _ in range(40)]
    written = random.bytes(FLOOR_WRITTEN)
    meter = Meter(client)
    for some in chosen:
        client.evalsha(script, FLOOR_CALL, *some, written)
    return Peer(*meter.read(len(chosen) * FLOOR_CALL // 2))


def _filled(client: Redis) -> list[Transaction]:
    """Fill the sorted sets with 60 entries each; return the events that come next."""
    client.flushall()
    load = Load(ENTITIES, ENTITIES, ENTITIES * LIVE / 21)
    random = np.random.default_rng(1)
    pipeline = client.pipeline(transaction=False)
    for kind in "ct":
        for i in range(ENTITIES):
            entries = {f"{random.bytes(8).hex()}:5000": START_MS - j * 1_000 for j in range(LIVE)}
            pipeline.zadd(f"peer:{kind}:{i}", entries)
    pipeline.execute()
    return load.transactions(EVENTS)


def _keys(event: Transaction) -> tuple[str, str]:
    return f"peer:c:{event.entities.customer}", f"peer:t:{event.entities.terminal}"


def _member(event: Transaction) -> str:
    return f"{id_digest(event.transaction_id).hex()}:{event.amount_minor}"
