"""What a worker takes for a batch: all that is there; for more it waits only where that pays."""

from confluent_kafka import Consumer, Message

FIRST_S = 0.1
FEW = 64
"""Fewer records than these are worth waiting for more: a Kafka transaction costs as much as they do."""


def gather(consumer: Consumer, most: int, wait_s: float) -> list[Message]:
    """Return up to `most` messages, in order; none where 0.1 s brings no first one.

    Waits for up to `wait_s` while they are few, or fill half a batch: then many wait in Kafka, and full
    batches are the fastest way through. In between, those that are there would only wait for others.
    """
    first = consumer.poll(FIRST_S)
    if first is None:
        return []
    found = [first]
    steps = ((1, min(FEW, most), wait_s), (FEW, most, 0.0), (max(FEW, most // 2), most, wait_s))
    for at_least, at_most, seconds in steps:
        if at_least <= len(found) < at_most:
            found += consumer.consume(at_most - len(found), seconds)
    return found
