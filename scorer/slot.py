"""A worker's slot: a free lock of the state folder names its place in the group.

Of the free ones, first those that the group still keeps a place for: their workers have died, and whoever
takes such a place has its partitions at once, where nobody else gets them before the session is over.
"""

import fcntl
from collections.abc import Collection
from io import TextIOWrapper
from pathlib import Path

from fraudstream.clients.kafka import instance_id
from fraudstream.core.errors import Refused, SettingsError

MAX_SLOTS = 256


class Slot:
    """Holds the lock of one slot for the life of the process; the kernel frees it however that ends."""

    def __init__(self, number: int, file: TextIOWrapper) -> None:
        self.number = number
        self._file = file
        self.restarts = self._count()
        """How often this slot was taken before, since its lock file is there."""

    @classmethod
    def take(
        cls, state: Path, group: str, number: int | None = None, *, kept: Collection[str] = ()
    ) -> "Slot":
        """Take slot `number`, or the lowest free one, of those with a place among `kept` if there is one.

        Raises:
            Refused: the slot, or every slot, is taken by a running worker.
            SettingsError: the state folder cannot be written.
        """
        folder = state / "slots"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise SettingsError(f"state_dir {state} cannot be written: {exc.strerror}") from exc
        lowest_of_kept = sorted(range(MAX_SLOTS), key=lambda n: instance_id(group, n) not in kept)
        for candidate in lowest_of_kept if number is None else (number,):
            file = (folder / f"{group}.{candidate}.lock").open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            return cls(candidate, file)
        wanted = "every slot" if number is None else f"slot {number}"
        raise Refused(
            f"{wanted} of group {group} is taken by a running worker: stop it, or leave out --slot"
        )

    def _count(self) -> int:
        """Keep in the lock file how often the slot was taken; return how often it was before."""
        self._file.seek(0)
        text = self._file.read()
        before = int(text) if text.isdecimal() else 0
        self._file.truncate(0)
        self._file.write(str(before + 1))
        self._file.flush()
        return before

    def release(self) -> None:
        """Give the slot back."""
        self._file.close()
