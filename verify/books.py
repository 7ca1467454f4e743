"""The balance kept record by record: what is settled is a count, what is open 33 bytes a transaction.

Pure: the reader tells what has come and what is certain. A partition's transactions up to the first one
without a result are settled and forgotten. A result for an offset among them is a duplicate by definition,
also where a marker stands and no transaction; whose it says it is can no longer be compared.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable

import msgspec

from verify.ledger import NAMED, Ledger, Place, Position
from verify.tally import DEAD_LETTER, SCORE

COMPACT_FROM = 50_000
"""So many settled transactions at least are dropped at once, when they are half of what is held."""
TOPICS = {SCORE: "scores", DEAD_LETTER: "dead-letters"}


class Output(msgspec.Struct, frozen=True):
    """One result: kind, its own partition and offset, and the digest of whose it says it is.

    `claimed`: what a dead letter that was cut says of the whole.
    """

    kind: int
    own: tuple[int, int]
    digest: int
    claimed: int | None = None


class Window:
    """The transactions of one partition from the first without a result on.

    `begin`: the first offset that was read; `passed`: everything below it has been read. What is lost
    counts as settled, its offset stays in `_lost`, eight bytes.
    """

    def __init__(self, begin: int) -> None:
        self.begin = self.passed = begin
        self.waiting = 0
        self._lost, self._late = array("q"), set[int]()
        self._offsets, self._names, self._contents = array("q"), array("q"), array("q")
        self._times_ms = array("q")
        self._done = bytearray()
        self._first = 0

    @property
    def settled(self) -> int:
        """Return the offset below which every transaction has its result."""
        return self._offsets[self._first] if self._first < len(self._offsets) else self.passed

    def held(self) -> int:
        """Return how many transactions are in memory."""
        return len(self._offsets)

    def oldest_ms(self) -> int | None:
        """Return when the first transaction without a result was sent, None if all have one."""
        return self._times_ms[self._first] if self._first < len(self._times_ms) else None

    def add(self, offset: int, name: int, content: int, at_ms: int) -> None:
        """Keep a transaction; offsets rise."""
        self._offsets.append(offset)
        self._names.append(name)
        self._contents.append(content)
        self._times_ms.append(at_ms)
        self._done.append(0)
        self.waiting += 1
        self.passed = offset + 1

    def find(self, offset: int) -> int:
        """Return the index of a transaction at or above `settled`, -1 where none stands."""
        at = bisect_left(self._offsets, offset, self._first)
        return at if at < len(self._offsets) and self._offsets[at] == offset else -1

    def is_done(self, at: int) -> bool:
        """Return whether the transaction at an index has a result, or is lost."""
        return bool(self._done[at])

    def digests(self, at: int) -> tuple[int, int]:
        """Return the digests of id and of bytes of the transaction at an index."""
        return self._names[at], self._contents[at]

    def settle(self, at: int) -> None:
        """Take the transaction at an index as settled; indices hold until the next `compact`."""
        self._done[at] = 1
        self.waiting -= 1
        if at == self._first:
            following = self._done.find(0, at)
            self._first = len(self._done) if following < 0 else following

    def lose_below(self, offset: int) -> "array[int]":
        """Settle each transaction below `offset` that has no result, as lost; return their offsets."""
        end, found = bisect_left(self._offsets, offset, self._first), array("q")
        at = self._done.find(0, self._first, end)
        while at >= 0:
            found.append(self._offsets[at])
            self.settle(at)
            at = self._done.find(0, at + 1, end)
        self._lost.extend(found)
        return found

    def find_lost(self, offset: int) -> bool:
        """Return whether the transaction at `offset` was lost until now; it is not any longer."""
        at = bisect_left(self._lost, offset)
        if at == len(self._lost) or self._lost[at] != offset or offset in self._late:
            return False
        self._late.add(offset)
        return True

    def compact(self) -> None:
        """Drop what is settled at the front, if it is much."""
        if self._first < COMPACT_FROM or self._first * 2 < len(self._offsets):
            return
        columns = (self._offsets, self._names, self._contents, self._times_ms, self._done)
        for column in columns:
            del column[: self._first]
        self._first = 0


class Shortened:
    """The partitions of `scores` whose beginning has expired, and what is left there of each transaction's.

    `_firsts`: lowest source offset by partition of `transactions`, then by own partition.
    """

    def __init__(self) -> None:
        self._partitions = set[int]()
        self._firsts: dict[int, dict[int, int]] = {}

    def open(self, partition: int, begin: int) -> None:
        """Hear where a partition of `scores` begins."""
        if begin > 0:
            self._partitions.add(partition)

    def add(self, source: tuple[int, int], own: int) -> None:
        """Hear of a score that stands in partition `own`."""
        if self._partitions:
            firsts = self._firsts.setdefault(source[0], {})
            firsts[own] = min(firsts.get(own, source[1]), source[1])

    def certain_from(self, partition: int) -> int:
        """Return the offset of `transactions` from which on no score of a partition can have expired.

        Scores stand in the order of their transactions: what has expired was below the first that is left.
        """
        if not self._partitions:
            return 0
        if partition not in self._firsts:
            return sys.maxsize
        firsts = self._firsts[partition]
        return max((firsts[own] for own in self._partitions & firsts.keys()), default=0)


class Books:
    """What came in against what came out, as far as it is read; `tell` hears each difference once.

    In `ledger` a result counts once its transaction has been read. A later result for a position that
    was lost takes the loss back, but stays a difference: offset and result were not one transaction.
    Only scores of what is committed at the first judgement may have expired: later ones come later.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._windows: dict[int, Window] = {}
        self._early: dict[int, dict[int, list[Output]]] = {}
        self._arrived = self._duplicates = self._unfounded = self._mismatched = 0
        self._by_kind = {SCORE: 0, DEAD_LETTER: 0}
        self._lost = self._unknown = self._expired = 0
        self._scores = Shortened()
        self._certain: dict[int, int] = {}
        self._positions: dict[str, list[Position]] = {"lost": [], "duplicate": []}
        self._places: dict[str, list[Place]] = {"unfounded": [], "mismatched": []}
        self._told: dict[str, int] = {}
        self.early = 0
        self.late = 0

    @property
    def named(self) -> int:
        """Return how many differences were found so far, those that were taken back included."""
        return sum(self._told.values())

    @property
    def waiting(self) -> int:
        """Return the transactions that have no result and are not lost."""
        return sum(window.waiting for window in self._windows.values())

    def oldest_ms(self) -> int | None:
        """Return when the oldest transaction without a result was sent, None if none waits."""
        found = [window.oldest_ms() for window in self._windows.values()]
        return min((each for each in found if each is not None), default=None)

    def held(self) -> int:
        """Return how many transactions and results are in memory one by one."""
        return self.early + sum(window.held() for window in self._windows.values())

    def open(self, partition: int, begin: int) -> None:
        """Begin a partition of `transactions` at its first offset; once for each."""
        self._windows[partition] = Window(begin)

    def open_scores(self, partition: int, begin: int) -> None:
        """Begin a partition of `scores` at its first offset; once for each, before anything is judged."""
        self._scores.open(partition, begin)

    def arrive(
        self, partition: int, offset: int, *, name: int, content: int, at_ms: int = 0
    ) -> None:
        """Enter one transaction, sent at `at_ms`; within a partition offsets rise."""
        window = self._windows[partition]
        if self.early:
            self.pass_by(partition, offset)
        window.add(offset, name, content, at_ms)
        self._arrived += 1
        if self.early:
            for output in self._take_early(partition, offset):
                self._join(partition, offset, output)

    def pass_by(self, partition: int, offset: int) -> None:
        """Hear that everything below `offset` was read: what has no record there stands for nothing."""
        window = self._windows[partition]
        early = self._early.get(partition, {})
        if early and offset > window.passed:
            few = offset - window.passed < len(early)
            gap: Iterable[int] = range(window.passed, offset) if few else sorted(early)
            for each in gap:
                if each < offset:
                    self._found_unfounded(self._take_early(partition, each))
        window.passed = max(window.passed, offset)
        window.compact()

    def result(self, source: tuple[int, int], output: Output) -> None:
        """Enter one result; `source` is (partition, offset) of its transaction, -1 for nowhere."""
        partition, offset = source
        window = self._windows.get(partition)
        if output.kind == SCORE and partition not in self._certain:
            self._scores.add(source, output.own[0])
        if partition < 0 or offset < 0:
            self._found_unfounded([output])
        elif window and offset < window.begin:
            self._expired += 1
        elif window is None or offset >= window.passed:
            self._early.setdefault(partition, {}).setdefault(offset, []).append(output)
            self.early += 1
        else:
            self._join(partition, offset, output)

    def judge_committed(self, committed: dict[int, int]) -> None:
        """Take as lost what has no result below `committed`, the group's next offset by partition.

        Only certain if all results were entered that had been written when `committed` was seen.
        """
        for partition, window in self._windows.items():
            end = committed.get(partition, 0)
            if partition not in self._certain:
                self._certain[partition] = min(self._scores.certain_from(partition), end)
            for offset in window.lose_below(end):
                self._found_missing(Position(partition, offset))
            window.compact()

    def judge_early(self, ends: dict[int, int]) -> None:
        """Take as unfounded what is for offsets from `ends` on: those asked after all results here."""
        for partition, early in self._early.items():
            end = ends.get(partition, 0)
            for offset in sorted(each for each in early if each >= end):
                self._found_unfounded(self._take_early(partition, offset))
        self._early = {partition: early for partition, early in self._early.items() if early}

    def ledger(self) -> Ledger:
        """Return the balance as of now."""
        return Ledger(
            transactions=self._arrived,
            scored=self._by_kind[SCORE],
            dead_letters=self._by_kind[DEAD_LETTER],
            waiting=self.waiting,
            unknown=self._unknown,
            lost=self._lost,
            duplicates=self._duplicates,
            unfounded=self._unfounded,
            mismatched=self._mismatched,
            expired=self._expired,
            lost_positions=list(self._positions["lost"]),
            duplicate_positions=list(self._positions["duplicate"]),
            unfounded_places=list(self._places["unfounded"]),
            mismatched_places=list(self._places["mismatched"]),
        )

    def _take_early(self, partition: int, offset: int) -> list[Output]:
        taken = self._early.get(partition, {}).pop(offset, [])
        self.early -= len(taken)
        return taken

    def _join(self, partition: int, offset: int, output: Output) -> None:
        """Enter the result of a position that has been read."""
        window = self._windows[partition]
        at = window.find(offset) if offset >= window.settled else -1
        if at >= 0 and not window.is_done(at):
            self._by_kind[output.kind] += 1
            self._check_own(window.digests(at), output)
            window.settle(at)
        elif window.find_lost(offset):
            self._found_late(Position(partition, offset), output)
        elif at >= 0 or offset < window.settled:
            self._found_duplicate(Position(partition, offset), output)
        else:
            self._found_unfounded([output])

    def _check_own(self, digests: tuple[int, int], output: Output) -> None:
        if digests[0 if output.kind == SCORE else 1] in (output.digest, output.claimed):
            return
        self._mismatched += 1
        self._found("mismatched", output, "is of another transaction than the one at its place")

    def _is_certain(self, where: Position) -> bool:
        return where.source_offset >= self._certain[where.source_partition]

    def _found_missing(self, where: Position) -> None:
        """Enter a committed position without a result."""
        if not self._is_certain(where):
            self._unknown += 1
            return
        self._lost += 1
        self._keep("lost", where)
        place = f"{where.source_partition}:{where.source_offset}"
        self._name("lost", f"{place} of transactions is committed, no result")

    def _found_late(self, where: Position, output: Output) -> None:
        self._by_kind[output.kind] += 1
        if not self._is_certain(where):
            self._unknown -= 1
            return
        self._lost -= 1
        self.late += 1
        if where in self._positions["lost"]:
            self._positions["lost"].remove(where)
        text = (
            f"{where.source_partition}:{where.source_offset} of transactions has a result after all"
        )
        self._name("late", text)

    def _found_duplicate(self, where: Position, output: Output) -> None:
        self._by_kind[output.kind] += 1
        self._duplicates += 1
        self._keep("duplicate", where)
        place = f"{TOPICS[output.kind]} {output.own[0]}:{output.own[1]}"
        text = f"{where.source_partition}:{where.source_offset} of transactions, again at {place}"
        self._name("duplicate", text)

    def _found_unfounded(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._by_kind[output.kind] += 1
            self._unfounded += 1
            self._found("unfounded", output, "is of no transaction")

    def _found(self, kind: str, output: Output, why: str) -> None:
        place = Place(TOPICS[output.kind], *output.own)
        if len(self._places[kind]) < NAMED:
            self._places[kind].append(place)
        self._name(kind, f"{place.topic} {place.partition}:{place.offset} {why}")

    def _keep(self, kind: str, where: Position) -> None:
        kept = self._positions[kind]
        if len(kept) < NAMED and where not in kept:
            kept.append(where)

    def _name(self, kind: str, text: str) -> None:
        told = self._told[kind] = self._told.get(kind, 0) + 1
        if told <= NAMED:
            self._tell(f"{kind}: {text}")
        elif told == NAMED + 1:
            self._tell(f"{kind}: more of them are counted, not named")
