"""The live view: a `Picture` becomes lines of a terminal of any size, one status line, or an SVG."""

import io
import re
from datetime import UTC, datetime

import msgspec
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.segment import Segment

from fraudstream.core.feature_set import DAY_MS
from verify.demo import charts
from verify.demo.layout import (
    BAD,
    CHART,
    GOOD,
    PLAIN,
    Item,
    Line,
    Lines,
    bold,
    cells,
    fitting,
    flowing,
    item,
    padded,
    printable,
    shortened,
    wrapped,
)
from verify.demo.state import AlertLine, Picture, Share

NARROW = 70
"""Below so many columns: no charts, no column of labels."""
LABEL, SCALE = 10, 12
MOST_COLUMNS = 120
SECONDS = 120
"""Charts by second cover so many, or somewhat more where the columns do not divide them."""
STORY_INDENT = 10
ROOM = (("alerts", 15, 4), ("newest", 7, 1), ("story", 14, 3))
"""Name, rank and least number of lines of what takes the lines that are left."""
MONOSPACE = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


class Frame(msgspec.Struct, frozen=True):
    """The columns of the screen: those of values and charts (0: no charts), and the lines of a chart."""

    width: int
    value: int
    chart: int
    rows: int

    @property
    def narrow(self) -> bool:
        """Return whether there is no room for a column of labels."""
        return self.width < NARROW


class Block(msgspec.Struct, frozen=True):
    """Lines that are shown or left out together; the lowest `rank` is the last to go."""

    rank: int
    lines: list[Line]


def render(picture: Picture, width: int, height: int) -> Lines:
    """Return the picture on at most `height` lines of at most `width` columns."""
    frame = frame_of(width, height)
    fixed = [*_transactions(picture, frame), *_quality_of_model(picture, frame)]
    heading = Block(11, [_rule("story", "", width)])
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
        "p99 —" if p.latency is None else f"p99 {_ms(p.latency.p99)} ms",
        f"recall {_in_short(p.recall, 'frauds')}",
        f"precision {_in_short(p.precision, 'alerts')}",
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


def frame_of(width: int, height: int) -> Frame:
    """Return how a terminal of this size is divided."""
    if width < NARROW:
        return Frame(width, width, 0, 1)
    value = 31 if width < 100 else 36
    chart = min(width - LABEL - value - SCALE - 2, MOST_COLUMNS)
    rows = 1 + (height >= 28) + (height >= 36) + (height >= 50)
    return Frame(width, value, chart, rows)


def _that_fit(blocks: list[Block], height: int) -> tuple[set[int], int]:
    """Return the identities of the blocks that fit, by rank, and how many lines are left."""
    kept = set()
    for block in sorted(blocks, key=lambda block: block.rank):
        if len(block.lines) <= height:
            height -= len(block.lines)
            kept.add(id(block))
    return kept, height


# -- transactions ------------------------------------------------------------------------------------


def _transactions(p: Picture, frame: Frame) -> list[Block]:
    seconds = charts.points_shown(frame.chart, SECONDS) if frame.chart else 0
    series = p.series
    rate = charts.newest(series.rate_per_s, frame.chart, SECONDS, charts.mean) if seconds else []
    p99 = charts.newest(series.p99_ms, frame.chart, SECONDS, max) if seconds else []
    alerts = (
        charts.newest(series.alerts_per_min, frame.chart, SECONDS, charts.mean) if seconds else []
    )
    a_minute = [item(bold(f"{p.alerts:,}"), " in all"), item(f"{p.alerts_per_min:,.0f} a minute")]
    return [
        Block(0, [_title(p, frame.width)]),
        Block(11, [_rule("transactions", f"charts: the last {seconds} s", frame.width)]),
        Block(1, _traffic(p, frame)),
        Block(2, [_row("ledger", _ledger(p), frame)]),
        Block(
            8,
            _charted(
                "rate",
                [item(bold(f"{p.rate_per_s:,.0f}"), "/s")],
                columns=rate,
                unit="/s",
                frame=frame,
            ),
        ),
        Block(6, _charted("latency", _latency(p), columns=p99, unit=" ms", frame=frame)),
        Block(12, [_row("stages", _stages(p), frame)]),
        Block(9, _charted("alerts", a_minute, columns=alerts, unit="/min", frame=frame)),
    ]


def _title(p: Picture, width: int) -> Line:
    scenario, step = printable(p.scenario), printable(p.step)
    elapsed = f"{p.elapsed_s:,.1f} s"
    time = _moment(p.event_time_ms) if p.event_time_ms is not None else "— (nothing scored yet)"
    for before, after in (
        ("fraudstream demo · ", f", event time {time}"),
        ("", f", event time {time}"),
        ("", f", {time}"),
        ("", ""),
    ):
        left = [Segment(before, PLAIN), bold(f"{scenario} · {step}")]
        right = item(elapsed + after)
        if cells(left) + cells(right) + 2 <= width:
            return [*padded(left, width - cells(right)), *right]
    return [bold(shortened(step, width))]


def _rule(name: str, note: str, width: int) -> Line:
    begin = item("── ", bold(name), " ")
    noted = (*begin, Segment(f"── {note} ", PLAIN)) if note else begin
    line = noted if cells(noted) + 2 <= width and width >= NARROW else begin
    return [*line, Segment("─" * max(width - cells(line), 0), PLAIN)]


def _traffic(p: Picture, frame: Frame) -> list[Line]:
    items = [
        item(bold(f"{p.transactions:,}"), " in"),
        item(bold(f"{p.scored:,}"), " scored"),
        item(bold(f"{p.dead_letters:,}"), " dead letters"),
        item(bold(f"{p.waiting:,}"), " waiting"),
    ]
    if frame.narrow:
        return flowing(items, frame.width)
    lines = flowing(items, frame.width - LABEL)
    return [[_label("traffic" if i == 0 else ""), *line] for i, line in enumerate(lines)]


def _ledger(p: Picture) -> list[Item]:
    if p.difference is None:
        return [item("— (not checked yet)")]
    where = item(f"over {p.checked:,} positions")
    if p.difference == 0:
        return [
            item(Segment("difference 0", GOOD)),
            where,
            item("nothing lost, nothing doubled"),
        ]
    return [item(Segment(f"DIFFERENCE {p.difference:,}: lost or doubled", BAD)), where]


def _latency(p: Picture) -> list[Item]:
    if p.latency is None:
        return [item("— (no live traffic yet)")]
    return [
        item("p50 ", bold(_ms(p.latency.p50)), " ms"),
        item("p99 ", bold(_ms(p.latency.p99)), " ms"),
    ]


def _stages(p: Picture) -> list[Item]:
    if p.latency is None:
        return [item("—")]
    s = p.latency
    stages = {"waiting": s.waiting, "features": s.features, "model": s.model}
    named = [item(f"{name} {_ms(value)}") for name, value in stages.items()]
    return [*named, item(f"until produce {_ms(s.until_produce)} ms"), item("(medians)")]


# -- quality -----------------------------------------------------------------------------------------


def _quality_of_model(p: Picture, frame: Frame) -> list[Block]:
    days = max(len(p.series.recall), len(p.series.precision))
    per_column = -(-max(days, 1) // max(frame.chart, 1))
    recall = charts.resample(p.series.recall, per_column, min) if frame.chart else []
    precision = charts.resample(p.series.precision, per_column, min) if frame.chart else []
    by = "day" if per_column == 1 else f"{per_column} days, the worst"
    note = f"matured labels, 95 % intervals; charts by {by}"
    labels = item(bold(f"{p.matured:,}"), " matured")
    marks = Segment(_marks(p, per_column, frame.chart), PLAIN)
    frauds, alerts = (
        _share(p, *of, frame) for of in ((p.recall, "frauds"), (p.precision, "alerts"))
    )
    return [
        Block(11, [_rule("quality", note, frame.width)]),
        Block(4, [_row("model", _serving(p), frame)]),
        Block(13, [_row("before", _before(p), frame)]),
        Block(3, _charted("recall", frauds, columns=recall, unit="", frame=frame, top=1.0)),
        Block(5, _charted("precision", alerts, columns=precision, unit="", frame=frame, top=1.0)),
        Block(10, [_beside("labels", [labels], drawn=marks, scale="", frame=frame)]),
    ]


def _serving(p: Picture) -> list[Item]:
    if not p.versions:
        return [item("— (no model yet; features are logged)")]
    newest = p.versions[-1]
    promised = "—" if p.promised_recall is None else f"{p.promised_recall * 100:.0f} %"
    return [
        item("version ", bold(_version(newest.version))),
        item(f"since {newest.at_s:,.1f} s ({_day(newest.event_time_ms)})"),
        item(f"promised recall {promised}"),
    ]


def _before(p: Picture) -> list[Item]:
    earlier = [
        item(f"version {_version(v.version)} since {v.at_s:,.1f} s ({_day(v.event_time_ms)})")
        for v in reversed(p.versions[:-1])
    ]
    return earlier or [item("—")]


def _share(p: Picture, share: Share, what: str, frame: Frame) -> list[Item]:
    if share.value is None or share.low is None or share.high is None:
        why = f"no mature {what} in these days" if p.matured else "no labels yet"
        return [item(f"— ({why})")]
    value = bold(f"{share.value * 100:.0f} %")
    interval = f" ({share.low * 100:.0f} to {share.high * 100:.0f})"
    full = item(value, f"{interval} of {share.total:,} {what}")
    return [full] if cells(full) <= frame.value else [item(value, interval)]


def _in_short(share: Share, what: str) -> str:
    if share.value is None:
        return "—"
    return f"{share.value * 100:.0f} % of {share.total:,} {what}"


def _marks(p: Picture, per_column: int, columns: int) -> str:
    """Return the line under the charts by day: `^2` where version 2 began to serve.

    The newest day of the series is that of the newest transaction.
    """
    days = max(len(p.series.recall), len(p.series.precision))
    if p.event_time_ms is None or not days or not columns:
        return ""
    first_day = p.event_time_ms // DAY_MS - days + 1
    line = ""
    for change in p.versions:
        column = (change.event_time_ms // DAY_MS - first_day) // per_column
        mark = f"^{_version(change.version)}"
        if len(line) <= column < columns:
            line = f"{line:<{column}}{mark if column + len(mark) <= columns else '^'}"
    return line


# -- rows --------------------------------------------------------------------------------------------


def _label(text: str) -> Segment:
    return Segment(f"{text:<{LABEL}}", PLAIN)


def _row(label: str, items: list[Item], frame: Frame) -> Line:
    if frame.narrow:
        begin = Segment(f"{label} ", PLAIN)
        return [begin, *fitting(items, frame.width - cells([begin]))]
    return [_label(label), *fitting(items, frame.width - LABEL)]


def _beside(label: str, items: list[Item], *, drawn: Segment, scale: str, frame: Frame) -> Line:
    """Return a label, values, one line of a chart and what is written beside it."""
    if frame.narrow:
        return _row(label, items, frame)
    values = padded([_label(label), *fitting(items, frame.value)], LABEL + frame.value + 1)
    if not drawn.text:
        return values
    return [*padded([*values, drawn], LABEL + frame.value + frame.chart + 2), *item(scale)]


def _charted(
    label: str,
    items: list[Item],
    *,
    columns: list[float | None],
    unit: str,
    frame: Frame,
    top: float | None = None,
) -> list[Line]:
    """Return a row with its chart; only charts of a fixed scale (`top`) get more than one line."""
    rows = frame.rows if top else 1
    top = top or charts.nice_top(columns)
    known = any(c is not None for c in columns)
    drawn = charts.chart(columns, top, rows) if known else [""] * rows
    scales = [f"0..{top:,g}{unit}"] if rows == 1 else [f"{top:,g}{unit}", *[""] * (rows - 2), "0"]
    first = [label, *[""] * (rows - 1)]
    values = [items, *[[] for _ in range(rows - 1)]]
    return [
        _beside(name, said, drawn=Segment(line, CHART), scale=scale, frame=frame)
        for name, said, line, scale in zip(first, values, drawn, scales, strict=True)
    ]


# -- alerts and story --------------------------------------------------------------------------------


def _last_alerts(p: Picture, frame: Frame, count: int) -> list[Line]:
    """Return a heading and the newest alerts, the newest first, `count` lines together."""
    note = "event time, amount, score, what is unusual"
    lines = [_rule("last alerts", note, frame.width)]
    newest = p.last_alerts[::-1][: count - 1]
    lines += [_alert(alert, frame) for alert in newest] or [list(item("— (no alerts yet)"))]
    return [*lines, *[[]] * (count - len(lines))]


def _alert(alert: AlertLine, frame: Frame) -> Line:
    amount = f"{alert.amount_minor // 100:,}.{alert.amount_minor % 100:02d}"
    amount = f"{amount:>10} {printable(alert.currency)}"
    if frame.narrow:
        parts = [item(_moment(alert.event_time_ms)[-5:]), item(amount.strip())]
        return fitting([*parts, item(bold(f"{alert.score:.3f}"))], frame.width)
    begin = item(f"{_moment(alert.event_time_ms)}  {amount}  ", bold(f"{alert.score:.3f}"), "  ")
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


# -- words -------------------------------------------------------------------------------------------


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _version(version: str) -> str:
    return shortened(printable(version), 20)
