"""Lines of styled text of a given width: words and numbers are left out whole, never cut."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from verify.demo.charts import ASCII_BLOCKS

PLAIN = Style.null()
BOLD = Style(bold=True)
GOOD = Style(bold=True, color="green")
BAD = Style(bold=True, color="red")
CHART = Style(color="cyan")

Line = list[Segment]
Item = tuple[Segment, ...]
"""What stays together on one line: a number with its unit and its name."""
GAP = Segment("   ", PLAIN)
ELLIPSIS = "…"
_WORD = re.compile(r"\s*\S+")
_ASCII = ASCII_BLOCKS | str.maketrans({"─": "-", "·": "|", "—": "-", "…": "~"})
_NEW_LINE = Segment.line()


class Lines:
    """A renderable of finished lines; terminals without Unicode get letters and signs of ASCII."""

    def __init__(self, rows: list[Line]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the segments of every line, each line ended."""
        del console
        for row in self.rows:
            yield from (map(_in_ascii, row) if options.ascii_only else row)
            yield _NEW_LINE


def _in_ascii(segment: Segment) -> Segment:
    text = segment.text.translate(_ASCII).encode("ascii", "replace").decode()
    return Segment(text, segment.style)


def item(*parts: str | Segment) -> Item:
    """Return an item of plain words and styled segments."""
    return tuple(Segment(part, PLAIN) if isinstance(part, str) else part for part in parts)


def bold(text: str) -> Segment:
    """Return text that stands out."""
    return Segment(text, BOLD)


def cells(parts: Iterable[Segment]) -> int:
    """Return how many columns of the terminal the segments take."""
    return sum(cell_len(part.text) for part in parts)


def fitting(items: Sequence[Item], width: int) -> Line:
    """Return the first items that fit into `width` with gaps between; the others are left out."""
    line: Line = []
    for one in items:
        gap = [GAP] if line else []
        if cells(line) + cells(gap) + cells(one) > width:
            break
        line += [*gap, *one]
    return line


def flowing(items: Sequence[Item], width: int) -> list[Line]:
    """Return the items on as many lines as they need; one wider than `width` is left out."""
    lines: list[Line] = []
    rest = [one for one in items if cells(one) <= width]
    while rest:
        lines.append(fitting(rest, width))
        rest = rest[_count(rest, width) :]
    return lines


def _count(items: Sequence[Item], width: int) -> int:
    """Return how many items `fitting` takes."""
    used, count = 0, 0
    for one in items:
        used += cells(one) + (cells([GAP]) if count else 0)
        if used > width:
            break
        count += 1
    return count


def padded(line: Line, width: int) -> Line:
    """Return the line with blanks up to `width`."""
    return [*line, Segment(" " * max(width - cells(line), 0), PLAIN)]


def printable(text: str) -> str:
    """Return the text with a dot for all that would move the cursor, turn the writing or show nothing."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "·" for c in text)


def shortened(text: str, width: int) -> str:
    """Return the text, or as many whole words as fit before an ellipsis."""
    if cell_len(text) <= width:
        return text
    kept, used = "", 0
    for word in _WORD.findall(text):
        used += cell_len(word)
        if used + 2 > width:
            break
        kept += word
    return f"{kept} {ELLIPSIS}" if kept else ELLIPSIS[:width]


@lru_cache(maxsize=256)
def wrapped(text: str, width: int, indent: int) -> tuple[str, ...]:
    """Return the text on lines of at most `width`, broken between words; later lines are indented."""
    lines: list[str] = []
    line = ""
    for word in _WORD.findall(printable(text)):
        if line and cell_len(line) + cell_len(word) > width:
            lines.append(line)
            line = " " * indent + word.lstrip()
        else:
            line += word
    lines.append(line)
    return tuple(shortened(one, width) for one in lines)
