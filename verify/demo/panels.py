"""The blocks of the live view with figures and charts: transactions, and the quality of the model."""

from datetime import UTC, datetime

import msgspec
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
    bold,
    cells,
    fitting,
    flowing,
    item,
    padded,
    printable,
    shortened,
)
from verify.demo.state import Picture, Share

NARROW = 70
"""Below so many columns: no charts, no column of labels."""
LABEL, SCALE = 10, 13
MOST_COLUMNS = 120
SECONDS = 120
"""Charts by second cover so many, or somewhat more where the columns do not divide them."""


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


class Chart(msgspec.Struct, frozen=True):
    """Columns, their unit, the top of the scale from 0 (None: a round number that holds all), the lines."""

    columns: list[float | None]
    unit: str = ""
    top: float | None = None
    rows: int = 1


class Block(msgspec.Struct, frozen=True):
    """Lines that are shown or left out together; the lowest `rank` is the last to go."""

    rank: int
    lines: list[Line]


def frame_of(width: int, height: int) -> Frame:
    """Return how a terminal of this size is divided."""
    if width < NARROW:
        return Frame(width, width, 0, 1)
    value = 31 if width < 100 else 35
    chart = min(width - LABEL - value - SCALE - 2, MOST_COLUMNS)
    rows = 1 + (height >= 28) + (height >= 36) + (height >= 50)
    return Frame(width, value, chart, rows)


# -- transactions ------------------------------------------------------------------------------------


def transactions(p: Picture, frame: Frame) -> list[Block]:
    """Return the title, what came in and went out, its latency, and how many alerts there were."""
    rate, p99, alerts = _by_second(p, frame)
    now = [item(bold(f"{p.rate_per_s:,.0f}"), "/s")]
    counted = [item(bold(f"{p.alerts:,}"), " in all"), item(f"{p.alerts_per_min:,.0f} a minute")]
    seconds = charts.points_shown(frame.chart, SECONDS) if frame.chart else 0
    return [
        Block(0, [_title(p, frame.width)]),
        Block(11, [rule("transactions", f"charts: the last {seconds} s", frame.width)]),
        Block(1, _traffic(p, frame)),
        Block(2, [_row("ledger", _ledger(p), frame)]),
        Block(8, _charted("rate", now, rate, frame)),
        Block(6, _charted("latency", _latency(p), p99, frame)),
        Block(12, [_row("stages", _stages(p), frame)]),
        Block(9, _charted("alerts", counted, alerts, frame)),
    ]


def _by_second(p: Picture, frame: Frame) -> tuple[Chart, Chart, Chart]:
    """Return the charts of rate (mean of a column), p99 (its worst) and alerts a minute (mean)."""
    if not frame.chart:
        return Chart([]), Chart([]), Chart([])
    s = p.series
    rate = charts.newest(s.rate_per_s, frame.chart, SECONDS, charts.mean)
    p99 = charts.newest(s.p99_ms, frame.chart, SECONDS, max)
    alerts = charts.newest(s.alerts_per_min, frame.chart, SECONDS, charts.mean)
    # History comes ten times as fast: its end would flatten the live rate for two minutes.
    of_now = charts.nice_top(rate[len(rate) // 2 :])
    return Chart(rate, "/s", of_now), Chart(p99, " ms"), Chart(alerts, "/min")


def _title(p: Picture, width: int) -> Line:
    scenario, step = printable(p.scenario), printable(p.step)
    elapsed = f"{p.elapsed_s:,.1f} s"
    time = moment(p.event_time_ms) if p.event_time_ms is not None else "— (nothing scored yet)"
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


def rule(name: str, note: str, width: int) -> Line:
    """Return a line with a heading, and a note if there is room."""
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
        item("p50 ", bold(milliseconds(p.latency.p50)), " ms"),
        item("p99 ", bold(milliseconds(p.latency.p99)), " ms"),
    ]


def _stages(p: Picture) -> list[Item]:
    if p.latency is None:
        return [item("—")]
    s = p.latency
    stages = {"waiting": s.waiting, "features": s.features, "model": s.model}
    named = [item(f"{name} {milliseconds(value)}") for name, value in stages.items()]
    return [*named, item(f"until produce {milliseconds(s.until_produce)} ms"), item("(medians)")]


# -- quality -----------------------------------------------------------------------------------------


def quality(p: Picture, frame: Frame) -> list[Block]:
    """Return the serving version, those before it, and what they found by the labels known now."""
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
        Block(11, [rule("quality", note, frame.width)]),
        Block(4, [_row("model", _serving(p), frame)]),
        Block(13, [_row("before", _before(p), frame)]),
        Block(3, _charted("recall", frauds, Chart(recall, "", 1.0, frame.rows), frame)),
        Block(5, _charted("precision", alerts, Chart(precision, "", 1.0, frame.rows), frame)),
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
        why = f"no {what} with a label" if p.matured else "no labels yet"
        return [item(f"— ({why})")]
    value = bold(f"{share.value * 100:.0f} %")
    interval = f" ({share.low * 100:.0f} to {share.high * 100:.0f})"
    full = item(value, f"{interval} of {share.total:,} {what}")
    return [full] if cells(full) <= frame.value else [item(value, interval)]


def in_short(share: Share, what: str) -> str:
    """Return a share in words, a dash without data."""
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
    line = padded([*values, drawn], LABEL + frame.value + frame.chart + 2)
    return [*line, *fitting([item(scale)], frame.width - cells(line))]


def _charted(label: str, items: list[Item], chart: Chart, frame: Frame) -> list[Line]:
    """Return a row with its chart on as many lines as that has; a `+` says that it was cut off above."""
    rows, unit = chart.rows, chart.unit
    known = [c for c in chart.columns if c is not None]
    top = chart.top or charts.nice_top(chart.columns)
    drawn = charts.chart(chart.columns, top, rows) if known else [""] * rows
    over = "+" if known and max(known) > top else ""
    whole = [f"0..{top:,g}{over}{unit}"]
    scales = whole if rows == 1 else [f"{top:,g}{over}{unit}", *[""] * (rows - 2), "0"]
    first = [label, *[""] * (rows - 1)]
    values = [items, *[[] for _ in range(rows - 1)]]
    return [
        _beside(name, said, drawn=Segment(line, CHART), scale=scale, frame=frame)
        for name, said, line, scale in zip(first, values, drawn, scales, strict=True)
    ]


# -- words -------------------------------------------------------------------------------------------


def moment(time_ms: int) -> str:
    """Return a time in UTC to the minute."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"


def milliseconds(value: float) -> str:
    """Return milliseconds with a tenth only where it matters."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _version(version: str) -> str:
    return shortened(printable(version), 20)
