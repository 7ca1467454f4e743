"""What a worker takes for a batch: all that is there; for more it waits only where that pays (ADR 23)."""

from collections.abc import Callable

from confluent_kafka import Consumer, Message

from fraudstream.clients.clock import monotonic_s

FIRST_S = 0.1
FEW = 64
"""Fewer records than these are worth waiting for more: a Kafka transaction costs more than they do."""


def gather(consumer: Consumer, most: Callable[[], int], *, wait_s: float) -> list[Message]:
    """Return what the consumer has, in order, errors among it; none where 0.1 s brings nothing.

    `most` says how many may be taken; it is asked when the first is there, since partitions, and what is to
    be heeded in them, may come with it. Waits while they are few, or fill half a batch, `wait_s` in all: then
    many wait in Kafka, and full batches are the fastest way through. In between, those that are there would
    only wait for others.
    """
    first = consumer.poll(FIRST_S)
    if first is None:
        return []
    found, full, deadline_s = [first], most(), monotonic_s() + wait_s
    for begin, end, waits in (
        (1, min(FEW, full), True),
        (FEW, full, False),
        (max(FEW, full // 2), full, True),
    ):
        if begin <= len(found) < end:
            seconds = max(deadline_s - monotonic_s(), 0.0) if waits else 0.0
            found += consumer.consume(end - len(found), seconds)
    return found
