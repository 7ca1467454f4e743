"""The live loss ledger: results seen by the position of their transaction, against what is committed."""

from collections.abc import Mapping

import msgspec


class Balance(msgspec.Struct, frozen=True):
    """`difference`: committed without a result plus results beyond the first, over `checked` positions."""

    difference: int
    checked: int


class PartitionAccount:
    """The results of one partition of `transactions`: one for each offset, in nearly that order."""

    def __init__(self) -> None:
        self._next = 0
        self._holes: set[int] = set()
        self.doubled = 0

    def enter(self, offset: int) -> None:
        """Note a result of the transaction at `offset`."""
        if offset == self._next:
            self._next += 1
        elif offset > self._next:
            self._holes.update(range(self._next, offset))
            self._next = offset + 1
        elif offset in self._holes:
            self._holes.remove(offset)
        else:
            self.doubled += 1

    def missing(self, committed: int) -> int:
        """Return how many of the offsets below `committed` have no result."""
        return sum(hole < committed for hole in self._holes) + max(committed - self._next, 0)


class Accounts:
    """The accounts of all partitions; positions begin at 0, as topics of the demo never expire."""

    def __init__(self) -> None:
        self._partitions: dict[int, PartitionAccount] = {}

    def enter(self, partition: int, offset: int) -> None:
        """Note a result of the transaction at (`partition`, `offset`)."""
        account = self._partitions.get(partition)
        if account is None:
            account = self._partitions[partition] = PartitionAccount()
        account.enter(offset)

    def balance(self, committed: Mapping[int, int]) -> Balance:
        """Return the balance; `committed` is the scorers' next offset by partition."""
        empty = PartitionAccount()
        missing = sum(
            self._partitions.get(partition, empty).missing(offset)
            for partition, offset in committed.items()
        )
        doubled = sum(account.doubled for account in self._partitions.values())
        return Balance(missing + doubled, sum(committed.values()))
