"""The natural Faust agent: a Redis pipeline, one ONNX row and one send for each event.

    python faust_agent.py --bootstrap HOST:PORT --redis redis://... --group g --source transactions \
        --scores scores --alerts alerts --model model.onnx --threshold 0.5 --state folder

Windows of 1, 7 and 14 days of customer and terminal are sorted sets in Redis by event time. At least once,
as Faust's documents do it: an event is acknowledged when the agent is through with it, and offsets go out in
intervals. It does less than the product: no labels, profiles or terminal runs, no dead letters, and its
state begins empty.
"""

import argparse
from collections.abc import Sequence

import faust
import numpy as np
import onnxruntime as ort
from faust.types import StreamT
from redis.asyncio import Redis

DAY_MS = 86_400_000
WINDOWS = (DAY_MS, 7 * DAY_MS, 14 * DAY_MS)
FEATURES = (
    "amount",
    *(f"customer_{what}_{days}d" for days in (1, 7, 14) for what in ("count", "sum")),
    "terminal_count_14d",
    "terminal_sum_14d",
)


class Entities(faust.Record):
    """Who took part."""

    customer: str
    terminal: str


class Transaction(faust.Record, serializer="json"):
    """A card transaction; fields that are not named here are left aside."""

    transaction_id: str
    event_time_ms: int
    amount_minor: int
    currency: str
    entities: Entities


async def entries(redis: Redis, paid: Transaction) -> list[list[tuple[bytes, float]]]:
    """Add the transaction to the sets of customer and terminal; return what both have of 14 days."""
    now = paid.event_time_ms
    member = f"{paid.transaction_id}:{paid.amount_minor}"
    pipeline = redis.pipeline(transaction=False)
    for key in (f"faust:c:{paid.entities.customer}", f"faust:t:{paid.entities.terminal}"):
        pipeline.zadd(key, {member: now})
        pipeline.zremrangebyscore(key, "-inf", now - WINDOWS[-1])
        pipeline.zrangebyscore(key, now - WINDOWS[-1], now, withscores=True)
    _, _, customer, _, _, terminal = await pipeline.execute()
    return [customer, terminal]


def windows(found: Sequence[tuple[bytes, float]], now: int) -> list[float]:
    """Return count and sum (major units) of each window (now - length, now]."""
    rows = [(at, int(member.rpartition(b":")[2]) / 100) for member, at in found]
    values: list[float] = []
    for length in WINDOWS:
        amounts = [amount for at, amount in rows if at > now - length]
        values += (len(amounts), sum(amounts))
    return values


def make_app(options: argparse.Namespace) -> faust.App:
    """Return the application with its one agent."""
    app = faust.App(
        options.group,
        broker=f"kafka://{options.bootstrap}",
        datadir=options.state,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        producer_linger_ms=5,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    source = app.topic(options.source, value_type=Transaction)
    scores = app.topic(options.scores, value_serializer="json")
    alerts = app.topic(options.alerts, value_serializer="json")
    redis = Redis.from_url(options.redis)
    threads = ort.SessionOptions()
    threads.intra_op_num_threads = threads.inter_op_num_threads = 1
    model = ort.InferenceSession(options.model, threads, providers=["CPUExecutionProvider"])

    @app.agent(source)
    async def score(stream: StreamT[Transaction]) -> None:
        async for paid in stream:
            customer, terminal = await entries(redis, paid)
            now = paid.event_time_ms
            row = [paid.amount_minor / 100, *windows(customer, now), *windows(terminal, now)[-2:]]
            (output,) = model.run(["probabilities"], {"features": np.array([row], np.float32)})
            probability = float(output[0, 1])
            record = {
                "transaction_id": paid.transaction_id,
                "event_time_ms": now,
                "customer": paid.entities.customer,
                "terminal": paid.entities.terminal,
                "amount_minor": paid.amount_minor,
                "currency": paid.currency,
                "score": probability,
                "decision": "alert" if probability > options.threshold else "pass",
                "threshold": options.threshold,
                "features": dict(zip(FEATURES, row, strict=True)),
            }
            await scores.send(key=paid.entities.customer, value=record)
            if probability > options.threshold:
                await alerts.send(key=paid.entities.customer, value=record)

    return app


def main() -> None:
    """Score until this process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "redis", "group", "source", "scores", "alerts", "model", "state"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threshold", type=float, required=True)
    app = make_app(parser.parse_args())
    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


if __name__ == "__main__":
    main()
