"""Poison: a record that makes a hop raise what nobody expects is found by halving its batch.

A batch that fails is taken through again as two halves, each committed on its own, down to the record that
fails alone: that becomes a dead letter. Where record after record fails, the fault is not in them, and
the worker refuses to go on.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from fraudstream.clients.feature_store import ReplyGone, StateInDoubt
from fraudstream.core.errors import (
    BadRecord,
    DependencyUnreachable,
    FraudstreamError,
    Refused,
    SettingsError,
)
from scorer.batch import Message
from scorer.output import BatchAborted
from scorer.waiting import Abandoned

logger = logging.getLogger(__name__)

EXPECTED = (
    Abandoned,
    BatchAborted,
    DependencyUnreachable,
    Refused,
    ReplyGone,
    SettingsError,
    StateInDoubt,
)
"""What a hop may raise without any record being to blame."""


class Unscorable(FraudstreamError):
    """A hop raised what nobody expects; `kind` is that of the dead letter, should one record be why."""

    def __init__(self, message: str, kind: str = "poison") -> None:
        super().__init__(message)
        self.kind = kind


@contextmanager
def blaming(hop: str) -> Iterator[None]:
    """Turn whatever nobody expects of a hop into `Unscorable`, which ends the process if no record is why.

    Raises:
        Unscorable: names the hop and what it raised.
    """
    try:
        yield
    except (*EXPECTED, Unscorable):
        raise
    except Exception as exc:
        what = f"{type(exc).__name__}: {exc}"
        raise Unscorable(f"hop {hop} failed ({what[:1_000]})") from exc


def finite(probabilities: np.ndarray) -> np.ndarray:
    """Return float32 [N] as given.

    Raises:
        ValueError: one of them is no number between 0 and 1: JSON would say null of it.
    """
    wrong = np.flatnonzero(~((probabilities >= 0) & (probabilities <= 1)))
    if len(wrong):
        raise ValueError(f"the model says {probabilities[wrong[0]]}, which is no probability")
    return probabilities


class Isolation:
    """Takes batches through the hops by `handle`, which commits them.

    `bury` commits one record as a dead letter.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Message]], None],
        bury: Callable[[Message, BadRecord], None],
        *,
        stopping: threading.Event,
        most_in_a_row: int,
    ) -> None:
        self._handle = handle
        self._bury = bury
        self._stopping = stopping
        self._most = most_in_a_row
        self._in_a_row = 0
        """Dead letters for want of a score since the last score."""

    def take(self, messages: Sequence[Message]) -> None:
        """Take a batch through; what fails alone becomes a dead letter. Once asked to stop, the rest waits.

        Raises:
            Refused: too many records in a row fail.
            FraudstreamError: as the hops do; nothing of the present part was committed.
        """
        try:
            self._handle(messages)
        except Unscorable as exc:
            self._halve(messages, exc)

    def scored(self) -> None:
        """Take note that some records got their scores."""
        self._in_a_row = 0

    def _halve(self, messages: Sequence[Message], exc: Unscorable) -> None:
        if len(messages) == 1:
            self._condemn(messages[0], exc)
            return
        logger.warning("%s; looking for the record among %d", exc, len(messages))
        half = len(messages) // 2
        for part in (messages[:half], messages[half:]):
            if not self._stopping.is_set():
                self.take(part)

    def _condemn(self, message: Message, exc: Unscorable) -> None:
        place = f"offset {message.offset()} of partition {message.partition()}"
        self._in_a_row += 1
        if self._in_a_row > self._most:
            raise Refused(
                f"{self._most} records in a row became dead letters and {place} fails, too: {exc}. This "
                "looks like a fault of the deployment (model, feature store, limits), not of the records; "
                "mend it, start again, then send those with `fraudstream dead-letters replay --kind "
                f"{exc.kind}`. If the records are at fault, start with a higher poison_in_a_row"
            )
        logger.error("%s becomes a dead letter: %s", place, exc)
        self._bury(message, BadRecord(exc.kind, str(exc)))
