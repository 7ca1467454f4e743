"""Text from records, safe for a terminal: nothing in it moves the cursor, colours or turns the writing."""

from collections.abc import Iterable


def printable(text: str) -> str:
    """Return the text with everything that shows nothing, or does something else, as a Python escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_bytes(value: bytes) -> str:
    r"""Return bytes as text: UTF-8 as it is, what is none as \xNN, and all of it printable."""
    return printable(value.decode("utf-8", "backslashreplace"))


def printable_json(text: str) -> str:
    r"""Return an equal JSON text whose strings hold no control characters, not even DEL or C1: \uNNNN."""
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(rf"\u{high:02x}{low:02x}" for high, low in _pairs(units))


def _pairs(units: bytes) -> Iterable[tuple[int, int]]:
    return zip(units[::2], units[1::2], strict=True)
