"""What the monitor makes of records: scores, labels; and how far the partitions of scores have come."""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import msgspec
from confluent_kafka import Message

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import BadRecord, Refused
from fraudstream.core.transaction import Feedback, decode_feedback
from monitoring.watching import Scored

logger = logging.getLogger(__name__)

SILENT_S = 30.0
"""A partition without a score for so long holds nobody: longer than a takeover from a dead worker."""

T = TypeVar("T")


class _Alert(msgspec.Struct):
    event_time_ms: int


_score = msgspec.json.Decoder(Scored).decode
_alert = msgspec.json.Decoder(_Alert).decode


def scores_of(messages: Sequence[Message]) -> list[Scored]:
    """Return the scores in records.

    Raises:
        Refused: one is none; only the scorer writes there.
    """
    return [_score_of(each) for each in messages]


def _score_of(message: Message) -> Scored:
    found = _decoded(_score, message)
    if found.model_version is not None and found.score is None:
        raise _not_ours(message, "a version, but no score")
    return found


def require_width(
    messages: Sequence[Message], scores: Sequence[Scored], widths: dict[str, int | None]
) -> None:
    """See that scores have as many features as the version that made them, where `widths` tells.

    Raises:
        Refused: one has not.
    """
    for message, each in zip(messages, scores, strict=True):
        width = widths.get(each.model_version or "")
        if width is not None and len(each.features) != width:
            why = f"{len(each.features)} features, but version {each.model_version} has {width}"
            raise _not_ours(message, why)


def alert_times_ms(messages: Sequence[Message]) -> list[int]:
    """Return the event times of the transactions of alerts.

    Raises:
        Refused: a record is none; only the scorer writes there.
    """
    return [_decoded(_alert, each).event_time_ms for each in messages]


def answers_of(messages: Sequence[Message]) -> list[Feedback]:
    """Return the labels that can be read; the scorer leaves out the others as well."""
    answers = []
    for message in messages:
        value = message.value()
        try:
            answers.append(decode_feedback(value.encode() if isinstance(value, str) else value))
        except BadRecord as exc:
            logger.warning("left out, no label at %s (partition:offset): %s", _place(message), exc)
    return answers


def _decoded(decode: Callable[[bytes], T], message: Message) -> T:
    try:
        return decode(message.value() or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _not_ours(message, exc) from exc


def _not_ours(message: Message, why: object) -> Refused:
    return Refused(f"record {_place(message)} is none of this product's: {why}")


def _place(message: Message) -> str:
    return f"{message.topic()} {message.partition()}:{message.offset()}"


class Progress:
    """How far the partitions of scores are: `newest`, event time (UTC ms) of the last score of each.

    A partition whose worker is dead or far behind holds the time, until it is silent for SILENT_S.
    """

    def __init__(self, newest: dict[int, int]) -> None:
        self._newest = newest
        self._heard_s = dict.fromkeys(newest, monotonic_s())

    def heard(self, messages: Sequence[Message], scores: Collection[Scored]) -> None:
        """Take note of what has come, in the order of each partition."""
        pairs = zip(messages, scores, strict=True)
        last = {message.partition() or 0: each.event_time_ms for message, each in pairs}
        self._newest |= last
        self._heard_s |= dict.fromkeys(last, monotonic_s())

    def limit(self, time_ms: int) -> int:
        """Return `time_ms`, or the time of the partition that is furthest behind it."""
        now_s = monotonic_s()
        return min(
            [
                time_ms,
                *(self._newest[p] for p, at in self._heard_s.items() if now_s - at < SILENT_S),
            ]
        )
