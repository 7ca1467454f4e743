"""The loss ledger while records come: reads on, and judges only what is certain.

A round, in this order, since no other order is safe:

1. what the group has committed;
2. the ends of the results' topics, records of open transactions included: whatever was committed in 1 is
   written below them, though its transaction's markers may be on their way;
3. results are read to these ends, which waits for the markers, and `transactions` to what is committed. A
   transaction committed in 1 and without a result now is lost;
4. the ends of `transactions`: a result read so far that stands for an offset beyond them is unfounded.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import DependencyUnreachable
from verify.books import Books, Output
from verify.live_log import NAMES, RESULTS, Place
from verify.tally import (
    DEAD_LETTER,
    SCORE,
    digests_of_arrival,
    origin_of_dead_letter,
    origin_of_score,
)

ROUND_S = 0.5
"""A round begins so long after the one before began, or once that has ended."""
SLOW_S = 1.0
"""A round that takes longer is one that reads much, or waits for an open transaction."""
LOOK_S = 1.0
"""So often the topics are looked at within a long round."""
AHEAD = 200_000
"""So many records of one side without their other side are read ahead, while the other side has more."""
POLL_MS = 100
GIVE_UP_S = 120.0
"""A broker that has not answered for so long ends the watch, as it ends a scorer."""


class Reader(Protocol):
    """What is read from: `verify.live_log.LiveLog`, or a test's."""

    def grown(self) -> list[tuple[Place, int]]:
        """Return new partitions and their begin."""

    def committed(self, group: str) -> dict[int, int]:
        """Return the group's next offset by partition."""

    def written(self, names: Sequence[str]) -> dict[Place, int]:
        """Return the ends of topics, open transactions included."""

    def read(self, timeout_ms: int) -> dict[Place, list[ConsumerRecord]]:
        """Return the committed records that have come."""

    def position(self, place: Place) -> int:
        """Return how far a partition has been read."""

    def hold(self, names: Collection[str]) -> None:
        """Pause these topics, and no others."""


class Round(msgspec.Struct, frozen=True):
    """One round: when it began, what was committed, and the ends of all topics asked after that."""

    began_s: float
    committed: dict[int, int]
    ends: dict[Place, int]


class Watch:
    """One watch over one environment.

    `judged_s`: when the last complete round began (monotonic), before the first when the watch began;
    `read_s`: when a record came last. All that was committed before `judged_s` is accounted for.
    `stepped_s`: when the last step began.
    `away`: why the broker cannot be asked, as who calls `step` was told; "" while it can.
    """

    def __init__(self, log: Reader, group: str, books: Books) -> None:
        self.books = books
        self.judged_s = self.read_s = self.stepped_s = monotonic_s()
        self.has_judged = False
        self.away = ""
        self._log = log
        self._group = group
        self._round: Round | None = None
        self._began_s = self._looked_s = -LOOK_S
        self._held: Collection[str] = ()

    def step(self) -> None:
        """Read what has come, for up to 0.1 s; begin a round if it is time, judge one that has all.

        Raises:
            FraudstreamError: as the methods of `LiveLog`; after DependencyUnreachable step again.
        """
        now_s = self.stepped_s = monotonic_s()
        if self._round is None and now_s - self._began_s >= ROUND_S:
            self._begin(now_s)
        elif now_s - self._looked_s >= LOOK_S:
            self._look(now_s)
        self._read()
        if self._round and self._has_all(self._round):
            self._judge(self._round)
        self._keep_level()

    def to_read(self) -> int:
        """Return how many offsets a round that is more than a second old has not read yet."""
        if self._round is None or monotonic_s() - self._round.began_s < SLOW_S:
            return 0
        ends = self._round.ends.items()
        return sum(max(end - self._log.position(place), 0) for place, end in ends)

    def _begin(self, now_s: float) -> None:
        """Begin a round: what is committed first, only then how far the topics go."""
        committed = self._log.committed(self._group)
        self._look(now_s)
        self._round = Round(now_s, committed, self._log.written(NAMES))
        self._began_s = now_s

    def _look(self, now_s: float) -> None:
        for (name, partition), begin in self._log.grown():
            if name == "transactions":
                self.books.open(partition, begin)
            elif name == "scores":
                self.books.open_scores(partition, begin)
        self._looked_s = now_s

    def _read(self) -> None:
        found = self._log.read(POLL_MS)
        self.read_s = monotonic_s() if found else self.read_s
        for (name, partition), records in found.items():
            if name == "transactions":
                for record in records:
                    named, content = digests_of_arrival(record)
                    self.books.arrive(
                        partition,
                        record.offset,
                        name=named,
                        content=content,
                        at_ms=record.timestamp,
                    )
                self.books.pass_by(partition, self._log.position((name, partition)))
                continue
            kind = SCORE if name == "scores" else DEAD_LETTER
            origin = origin_of_score if kind == SCORE else origin_of_dead_letter
            for record in records:
                source, *digests = origin(record)
                self.books.result(source, Output(kind, (partition, record.offset), *digests))

    def _has_all(self, round_: Round) -> bool:
        """Return whether all was read that was committed, and every result that may belong to it."""
        committed = (
            (("transactions", partition), min(offset, round_.ends["transactions", partition]))
            for partition, offset in round_.committed.items()
            if ("transactions", partition) in round_.ends
        )
        return self._is_read(RESULTS, round_) and all(
            self._log.position(place) >= offset for place, offset in committed
        )

    def _is_read(self, names: Collection[str], round_: Round) -> bool:
        ends = ((place, end) for place, end in round_.ends.items() if place[0] in names)
        return all(self._log.position(place) >= end for place, end in ends)

    def _judge(self, done: Round) -> None:
        self.books.judge_committed(done.committed)
        self._look(monotonic_s())
        for name, partition in done.ends:
            if name == "transactions":  # markers at its end are no records, yet they are passed
                self.books.pass_by(partition, self._log.position((name, partition)))
        ends = self._log.written(["transactions"])
        self.books.judge_early({partition: end for (_, partition), end in ends.items()})
        self._round = None
        self.judged_s, self.has_judged = done.began_s, True

    def _keep_level(self) -> None:
        """Hold the side that is far ahead, as long as the other has more, so that memory stays small."""
        held: Collection[str] = ()
        if self._round and self.books.early > AHEAD:
            held = () if self._is_read(["transactions"], self._round) else RESULTS
        elif self._round and self.books.waiting > AHEAD:
            held = () if self._is_read(RESULTS, self._round) else ["transactions"]
        if held != self._held:
            self._log.hold(held)
            self._held = held


class Backoff:
    """How long to wait for a broker that is away: from 0.1 s up to 1 s each time, in all `GIVE_UP_S`.

    `since_s`: when it was first asked in vain.
    """

    def __init__(self) -> None:
        self._next_s = self.since_s = 0.0

    def failed(self, began_s: float, error: DependencyUnreachable) -> float:
        """Return the seconds to wait after one more question, asked at `began_s`, had no answer.

        Raises:
            DependencyUnreachable: it has been away for `GIVE_UP_S`.
        """
        if not self._next_s:
            self.since_s = began_s
        elif monotonic_s() - self.since_s > GIVE_UP_S:
            raise DependencyUnreachable(f"{error} for {GIVE_UP_S:.0f} s: given up") from error
        self._next_s = min(max(self._next_s * 2, 0.1), 1.0)
        return self._next_s

    def answered(self) -> None:
        """Begin anew with the next failure."""
        self._next_s = 0.0
