"""A worker's slot: a free lock of the state folder names its place in the group.

Of the free ones, first those that were taken here before and that the group still keeps a place for: whoever
takes the place of a worker that has died has its partitions at once, where nobody else gets them before the
session is over. A place that nobody has had here may be that of a living worker on another machine.
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
        """Take slot `number`, or the lowest free one: first of those known here with a place among `kept`.

        Raises:
            Refused: the slot, or every slot, is taken by a running worker.
            SettingsError: the state folder cannot be written.
        """
        folder = state / "slots"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise SettingsError(f"state_dir {state} cannot be written: {exc.strerror}") from exc

        def lock(slot: int) -> Path:
            return folder / f"{group}.{slot}.lock"

        def unwanted(slot: int) -> bool:
            return instance_id(group, slot) not in kept or not lock(slot).exists()

        for candidate in sorted(range(MAX_SLOTS), key=unwanted) if number is None else (number,):
            file = lock(candidate).open("a+")
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
