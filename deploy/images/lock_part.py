"""A part of a lock file, with its hashes: what some packages need, or all but what some bring.

`python3 lock_part.py requirements.lock --only NAME ...` prints these packages and all that they need;
`--without NAME ...` leaves these out and what only they need. Who needs what stands in the lock file's
own comments ("via"). Plain Python: it runs in an image before anything is installed.
"""

import re
import sys
from collections.abc import Iterator, Sequence

ENTRY = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==")
VIA = re.compile(r"^\s+#\s+(?:via\s+)?(\S+)")
PROJECT = "fraudstream"


def entries(lock: str) -> dict[str, str]:
    """Return each package's text, by its name: the pin, the hashes, the comments behind them."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        match = ENTRY.match(line)
        name = match.group(1).lower() if match else name
        found[name] = found.get(name, "") + line
    found.pop("", None)
    return found


def needed_by(text: str) -> Iterator[str]:
    """Yield who needs a package, from the comments of its entry."""
    for line in text.splitlines():
        match = VIA.match(line)
        if match and match.group(1) != "via":
            yield match.group(1).lower()


def only(lock: str, wanted: Sequence[str]) -> str:
    """Return the entries of `wanted` and of all that they need.

    Raises:
        ValueError: a wanted package is not in the lock file.
    """
    every = entries(lock)
    if missing := [name for name in wanted if name not in every]:
        raise ValueError(
            f"{', '.join(missing)} is not in the lock file: mend deploy/images/service.txt"
        )
    return _closure(every, set(wanted))


def without(lock: str, unwanted: Sequence[str]) -> str:
    """Return the entries that something else than `unwanted` needs.

    Raises:
        ValueError: an unwanted package is not in the lock file.
    """
    every = entries(lock)
    if missing := [name for name in unwanted if name not in every]:
        raise ValueError(f"{', '.join(missing)} is not in the lock file: mend deploy/Dockerfile")
    roots = {name for name, text in every.items() if PROJECT in needed_by(text)}
    return _closure(every, roots - set(unwanted))


def _closure(every: dict[str, str], kept: set[str]) -> str:
    grown = True
    while grown:
        more = {name for name, text in every.items() if kept & set(needed_by(text))} - kept
        kept |= more
        grown = bool(more)
    return "".join(text for name, text in every.items() if name in kept)


def main(arguments: Sequence[str]) -> None:
    """Print the part."""
    if len(arguments) < 3 or arguments[1] not in ("--only", "--without"):
        sys.exit(__doc__)
    path, how, *names = arguments
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as small as it can be
        lock = file.read()
    try:
        part = only(lock, names) if how == "--only" else without(lock, names)
    except ValueError as exc:
        sys.exit(f"error: {exc}")
    sys.stdout.write(part)


if __name__ == "__main__":
    main(sys.argv[1:])
