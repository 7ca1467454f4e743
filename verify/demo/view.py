"""The live view: a `Picture` becomes lines of a terminal of any size, one status line, or an SVG."""

import io
import re

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.segment import Segment

from verify.demo.layout import (
    PLAIN,
    Line,
    Lines,
    bold,
    cells,
    fitting,
    item,
    printable,
    shortened,
    wrapped,
)
from verify.demo.panels import (
    NARROW,
    Block,
    Frame,
    frame_of,
    in_short,
    milliseconds,
    moment,
    quality,
    rule,
    transactions,
)
from verify.demo.state import AlertLine, Picture

STORY_INDENT = 10
ROOM = (("alerts", 15, 4), ("newest", 7, 1), ("story", 14, 3))
"""Name, rank and least number of lines of what takes the lines that are left."""
MONOSPACE = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def render(picture: Picture, width: int, height: int) -> Lines:
    """Return the picture on at most `height` lines of at most `width` columns."""
    frame = frame_of(width, height)
    fixed = [*transactions(picture, frame), *quality(picture, frame)]
    heading = Block(11, [rule("story", "", width)])
    room = {name: Block(rank, [[]] * lines) for name, rank, lines in ROOM}
    kept, spare = _that_fit([*fixed, heading, *room.values()], height)
    rows = [line for block in fixed if id(block) in kept for line in block.lines]
    if id(room["alerts"]) in kept:
        rows += _last_alerts(picture, frame, len(room["alerts"].lines) + spare // 2)
        spare -= spare // 2
    if id(heading) in kept:
        rows += heading.lines
    lines = sum(len(room[name].lines) for name in ("newest", "story") if id(room[name]) in kept)
    if lines:
        rows += _story(picture, width, lines + spare)
    return Lines([row if cells(row) <= width else [] for row in rows])


def status_line(picture: Picture) -> str:
    """Return the essentials in one line, for output that is no terminal."""
    p = picture
    parts = [
        f"{p.transactions:,} in",
        f"{p.scored:,} scored",
        f"{p.dead_letters:,} dead letters",
        f"{p.waiting:,} waiting",
        "difference —" if p.difference is None else f"difference {p.difference:,}",
        "p99 —" if p.latency is None else f"p99 {milliseconds(p.latency.p99)} ms",
        f"recall {in_short(p.recall, 'frauds')}",
        f"precision {in_short(p.precision, 'alerts')}",
        f"version {printable(p.versions[-1].version)}" if p.versions else "no model yet",
    ]
    return ", ".join(parts)


def svg(picture: Picture, width: int, height: int, title: str = "fraudstream demo") -> str:
    """Return the view as an SVG drawing; it takes its fonts from the reader's machine alone."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=width,
        height=height,
        force_terminal=True,
        color_system="standard",
        legacy_windows=False,
    )
    console.print(render(picture, width, height), end="")
    template = re.sub(r"@font-face \{\{.*?\}\}|<!--.*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("Fira Code, monospace", MONOSPACE)
    return console.export_svg(title=title, code_format=template, unique_id="demo")


def _that_fit(blocks: list[Block], height: int) -> tuple[set[int], int]:
    """Return the identities of the blocks that fit, by rank, and how many lines are left."""
    kept = set()
    for block in sorted(blocks, key=lambda block: block.rank):
        if len(block.lines) <= height:
            height -= len(block.lines)
            kept.add(id(block))
    return kept, height


# -- alerts and story --------------------------------------------------------------------------------


def _last_alerts(p: Picture, frame: Frame, count: int) -> list[Line]:
    """Return a heading and the newest alerts, the newest first, `count` lines together."""
    note = "event time, amount, score, what is unusual"
    lines = [rule("last alerts", note, frame.width)]
    newest = p.last_alerts[::-1][: count - 1]
    lines += [_alert(alert, frame) for alert in newest] or [list(item("— (no alerts yet)"))]
    return [*lines, *[[]] * (count - len(lines))]


def _alert(alert: AlertLine, frame: Frame) -> Line:
    amount = f"{alert.amount_minor // 100:,}.{alert.amount_minor % 100:02d}"
    amount = f"{amount:>10} {printable(alert.currency)}"
    if frame.narrow:
        parts = [item(moment(alert.event_time_ms)[-5:]), item(amount.strip())]
        return fitting([*parts, item(bold(f"{alert.score:.3f}"))], frame.width)
    begin = item(f"{moment(alert.event_time_ms)}  {amount}  ", bold(f"{alert.score:.3f}"), "  ")
    return [*begin, Segment(_unusual(alert.unusual, frame.width - cells(begin)), PLAIN)]


def _unusual(features: tuple[str, ...], width: int) -> str:
    """Return the features in full, or without what is usual, or as many of them as fit."""
    named = [printable(feature) for feature in features]
    if cells(item(", ".join(named))) <= width:
        return ", ".join(named)
    named = [feature.partition(" (usual")[0] for feature in named]
    while named and cells(item(", ".join(named))) > width:
        named.pop()
    return ", ".join(named)


def _story(p: Picture, width: int, count: int) -> list[Line]:
    """Return the newest lines of the story, the newest last, on `count` lines."""
    lines: list[str] = []
    indent = STORY_INDENT if width >= NARROW else 2
    for told in reversed(p.story):
        broken = wrapped(told, width, indent)
        if len(lines) + len(broken) > count:
            break
        lines[:0] = broken
    if not lines and p.story:
        lines = [shortened(printable(p.story[-1]), width)]
    return [list(item(line)) for line in lines or ["—"]]
