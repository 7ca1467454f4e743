"""The live view: every item at every size, no number cut, no line too wide, words where nothing is known."""

import io
import math
import re
from collections.abc import Iterable
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from fraudstream.core.evaluation import share
from fraudstream.core.feature_set import DAY_MS
from tests.demo_pictures import FIRST_DAY_MS, empty, moving
from verify.demo import charts, view
from verify.demo.layout import printable, shortened, wrapped
from verify.demo.state import AlertLine, Latency, Picture, Series, VersionChange

SIZES = [(80, 24), (100, 30), (120, 40), (200, 60)]
NUMBER = re.compile(r"\d[\d.,:-]*")


def drawn(picture: Picture, width: int, height: int) -> list[str]:
    """Return the lines as a terminal of this size would show them, without styles."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    with console.capture() as captured:
        console.print(view.render(picture, width, height), end="", crop=False)
    return captured.get().split("\n")[:-1]


def changed(picture: Picture, **changes: object) -> Picture:
    return msgspec.structs.replace(picture, **changes)


def numbers_in(lines: Iterable[str]) -> set[str]:
    """Return the numbers, dates and times in the lines, each as it is written."""
    return {number.rstrip(".,:-") for line in lines for number in NUMBER.findall(line)}


texts = st.text(max_size=30)
numbers = st.integers(0, 10**12)
times = st.integers(FIRST_DAY_MS, FIRST_DAY_MS + 400 * DAY_MS)
reals = st.floats(0, 1e9)
points = st.lists(st.none() | st.floats(0, 1e6), max_size=60).map(tuple)
shares = st.lists(st.none() | st.floats(0, 1), max_size=60).map(tuple)
proportions = st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)).map(
    lambda pair: share(min(pair), max(pair))
)
pictures = st.builds(
    Picture,
    scenario=texts,
    step=texts,
    elapsed_s=reals,
    event_time_ms=st.none() | times,
    transactions=numbers,
    scored=numbers,
    dead_letters=numbers,
    waiting=numbers,
    difference=st.none() | numbers,
    checked=numbers,
    rate_per_s=reals,
    alerts=numbers,
    alerts_per_min=reals,
    latency=st.none() | st.builds(Latency, reals, reals, reals, reals, reals, reals),
    versions=st.lists(st.builds(VersionChange, texts, reals, times), max_size=5).map(tuple),
    recall=proportions,
    precision=proportions,
    matured=numbers,
    promised_recall=st.none() | st.floats(0, 1),
    series=st.builds(Series, points, points, points, shares, shares),
    last_alerts=st.lists(
        st.builds(
            AlertLine,
            times,
            numbers,
            texts,
            texts,
            texts,
            st.floats(0, 1),
            texts,
            st.tuples(texts, texts),
        ),
        max_size=4,
    ).map(tuple),
    story=st.lists(texts, max_size=6).map(tuple),
)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_item_is_shown_from_80_by_24_on(width: int, height: int) -> None:
    screen = "\n".join(drawn(moving(3), width, height))
    for item in (
        "drift · recall recovers",
        "157.2 s, event time 2018-05-30 00:03",
        "126,756 in",
        "126,710 scored",
        "0 dead letters",
        "46 waiting",
        "difference 0   over 125,556 positions   nothing lost, nothing doubled",
        "1,101/s",
        "0..1,500/s",
        "p50 14 ms   p99 41 ms",
        "waiting 3.1   features 4.0   model 0.6   until produce 2.2 ms",
        "526 in all   42 a minute",
        "version 2   since 121.4 s (2018-05-20)   promised recall 87 %",
        "version 1 since 31.0 s (2018-05-01)",
        "86 % (79 to 91) of 132 frauds",
        "93 % (86 to 96) of 110 alerts",
        "95 % intervals",
        "12,348 matured",
        "2018-05-30 01:13      746.42 EUR  0.932  amount_ratio 9.2",
        "terminal_fraud_run 6",
        "124.4 s  version 2 serves, from one batch to the next",
        "waiting for the labels",
    ):
        assert item in screen


@pytest.mark.parametrize(
    ("width", "height"), [*SIZES, (100, 20), (60, 15), (40, 10), (20, 5), (1, 1)]
)
@pytest.mark.parametrize("picture", [moving(3), empty()], ids=["full", "empty"])
def test_no_screen_is_larger_than_the_terminal(picture: Picture, width: int, height: int) -> None:
    lines = drawn(picture, width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


@settings(max_examples=150, deadline=None)
@given(picture=pictures, width=st.integers(1, 220), height=st.integers(1, 70))
def test_no_picture_is_larger_than_the_terminal_or_moves_its_cursor(
    picture: Picture, width: int, height: int
) -> None:
    lines = drawn(picture, width, height)
    assert len(lines) <= height
    for line in lines:
        assert cell_len(line) <= width
        assert line.isprintable()
    assert view.status_line(picture).isprintable()


@settings(max_examples=100, deadline=None)
@given(width=st.integers(10, 120), height=st.integers(3, 40), second=st.integers(0, 10_000))
def test_no_number_is_cut(width: int, height: int, second: int) -> None:
    picture = changed(moving(float(second)), series=Series())
    known = numbers_in([*drawn(picture, 250, 100), *picture.story])
    seconds_in_headings = {f"{charts.points_shown(columns, 120)}" for columns in range(1, 121)}
    assert numbers_in(drawn(picture, width, height)) <= known | seconds_in_headings


def test_a_small_terminal_keeps_the_essentials() -> None:
    lines = drawn(moving(3), 40, 10)
    assert len(lines) == 10
    screen = "\n".join(lines)
    for item in (
        "126,756 in",
        "46 waiting",
        "difference 0",
        "p99 41 ms",
        "version 2",
        "86 %",
        "93 %",
    ):
        assert item in screen
    assert not set(screen) & set(charts.BLOCKS[1:])


def test_a_lower_terminal_drops_alerts_before_figures() -> None:
    lower = "\n".join(drawn(moving(3), 80, 16))
    assert "last alerts" not in lower
    assert "until produce" in lower
    assert "version 2 serves" in lower


@pytest.mark.parametrize(("width", "height"), [*SIZES, (60, 24)])
def test_what_is_not_known_is_a_dash_with_a_reason(width: int, height: int) -> None:
    screen = "\n".join(drawn(empty(), width, height))
    for reason in ("not checked yet", "no live traffic yet", "no model yet", "no alerts yet"):
        assert f"— ({reason}" in screen
    assert screen.count("— (no labels yet)") == 2
    assert "None" not in screen
    assert "nan" not in screen


def test_labels_without_a_fraud_among_them_are_told_from_no_labels() -> None:
    screen = "\n".join(drawn(changed(empty(), matured=12), 80, 24))
    assert "— (no frauds with a label)" in screen
    assert "no labels yet" not in screen


@pytest.mark.parametrize(("width", "height"), [*SIZES, (40, 10)])
def test_a_difference_is_told_in_words_and_in_red(width: int, height: int) -> None:
    picture = changed(moving(3), difference=3)
    assert "DIFFERENCE 3: lost or doubled" in "\n".join(drawn(picture, width, height))
    for shown, colour in ((picture, "31"), (moving(3), "32")):
        console = Console(
            file=io.StringIO(), force_terminal=True, color_system="standard", width=width
        )
        with console.capture() as captured:
            console.print(view.render(shown, width, height), crop=False)
        assert re.search(rf"\x1b\[1;{colour}mdifference", captured.get(), re.IGNORECASE)


def test_versions_are_marked_under_the_day_on_which_they_began() -> None:
    lines = drawn(moving(3), 120, 24)
    recall = next(line for line in lines if line.startswith("recall"))
    marks = next(line for line in lines if line.startswith("labels"))
    begin = recall.index(charts.BLOCKS[7])
    assert marks.index("^1") == begin
    assert marks.index("^2") == begin + 19
    assert recall[begin + 18] != recall[begin + 19], "recall recovers on that day"


def test_the_worst_day_stays_visible_where_columns_hold_several() -> None:
    recall = [1.0] * 200
    recall[77] = 0.0
    series = Series(recall=tuple(recall), precision=tuple([1.0] * 200))
    lines = drawn(changed(moving(3), series=series), 80, 24)
    row = next(line for line in lines if line.startswith("recall"))
    assert row.count("▁") == 1
    assert any("days, the worst" in line for line in lines)


def test_the_end_of_history_does_not_flatten_the_live_rate() -> None:
    series = Series(rate_per_s=(9_000.0,) * 50 + (1_100.0,) * 70)
    lines = drawn(changed(moving(3), series=series), 100, 30)
    row = next(line for line in lines if line.startswith("rate"))
    assert row.endswith("0..1,500+/s")
    assert "███▆▆▆" in row, "what is above the scale is cut off, as the plus says"


def test_a_scale_that_has_no_room_does_not_cost_the_line() -> None:
    series = Series(alerts_per_min=(123_456_789.0,) * 120, rate_per_s=(400_000.0, 90_000.0) * 60)
    lines = drawn(changed(moving(3), series=series), 80, 24)
    assert any(line.startswith("alerts    526 in all") for line in lines)
    assert any(line.startswith("rate") and line.endswith("/s") for line in lines)


def test_control_characters_and_wide_letters_of_the_data_do_no_harm() -> None:
    alert = msgspec.structs.replace(moving(3).last_alerts[-1], unusual=("\x1b[2J\x07漢字 9",))
    screen = drawn(changed(moving(3), last_alerts=(alert,), story=("a\nb\x1b]0;x\x07",)), 80, 24)
    assert any("·[2J·漢字 9" in line for line in screen)
    assert screen[-1] == "a·b·]0;x·"
    assert all(cell_len(line) <= 80 for line in screen)


def test_the_status_line_has_the_essentials() -> None:
    assert view.status_line(moving(3)) == (
        "126,756 in, 126,710 scored, 0 dead letters, 46 waiting, difference 0, p99 41 ms, "
        "recall 86 % of 132 frauds, precision 93 % of 110 alerts, version 2"
    )
    assert view.status_line(empty()) == (
        "0 in, 0 scored, 0 dead letters, 0 waiting, difference —, p99 —, recall —, precision —, "
        "no model yet"
    )


def test_the_drawing_is_xml_that_fetches_nothing() -> None:
    drawing = view.svg(moving(3), 100, 30)
    ElementTree.fromstring(drawing)  # noqa: S314 - our own
    assert re.findall(r"\w+://[^\"' )]*", drawing) == ["http://www.w3.org/2000/svg"]
    assert "url(h" not in drawing
    assert "@font-face" not in drawing
    assert "monospace" in drawing
    assert "126,756" in drawing
    assert view.svg(moving(3), 100, 30) == drawing, "the same picture gives the same file"


# -- charts and words ---------------------------------------------------------------------------------

columns = st.lists(st.none() | st.floats(0, 1e6), min_size=1, max_size=200)


@given(columns, st.integers(1, 30))
def test_columns_of_minima_and_maxima_keep_the_extremes(
    series: list[float | None], per_column: int
) -> None:
    known = [point for point in series if point is not None]
    for reduce in (min, max):
        shown = [c for c in charts.resample(series, per_column, reduce) if c is not None]
        assert bool(shown) == bool(known)
        if known:
            assert reduce(shown) == reduce(known)


@given(columns, st.integers(1, 30))
def test_a_column_is_blank_only_where_no_point_is_known(
    series: list[float | None], per_column: int
) -> None:
    shown = charts.resample(series, per_column, charts.mean)
    assert len(shown) == math.ceil(len(series) / per_column)
    for i, column in enumerate(shown):
        bucket = [p for p in series[i * per_column : (i + 1) * per_column] if p is not None]
        assert (column is None) == (not bucket)
        if column is not None:
            assert min(bucket) <= column * (1 + 1e-9)
            assert column <= max(bucket) * (1 + 1e-9)


def test_points_that_are_no_numbers_are_gaps() -> None:
    assert charts.resample([math.nan, math.inf, 2.0], 1, max) == [None, None, 2.0]


@given(st.lists(st.floats(0, 1e6), max_size=400), st.integers(1, 120), st.integers(1, 200))
def test_the_newest_points_fill_at_most_the_width_and_columns_stay_as_they_are(
    series: list[float], width: int, at_least: int
) -> None:
    shown = charts.newest(series, width, at_least, max)
    assert len(shown) <= width
    if series:
        assert shown
        assert shown[-1] is not None
        assert shown[-1] >= series[-1]
    longer = charts.newest([*series, 7.0], width, at_least, max)
    whole = shown[1:-1]
    assert not whole or whole in (longer[: len(whole)], longer[1 : len(whole) + 1])


@given(columns, st.integers(1, 4))
def test_a_chart_is_as_high_as_its_values(series: list[float | None], rows: int) -> None:
    top = charts.nice_top(series)
    lines = charts.chart(series, top, rows)
    assert len(lines) == rows
    assert {len(line) for line in lines} == {len(series)}
    heights = [sum(charts.BLOCKS.index(line[i]) for line in lines) for i in range(len(series))]
    for value, height in zip(series, heights, strict=True):
        assert (height == 0) == (value is None)
    pairs = sorted((v, h) for v, h in zip(series, heights, strict=True) if v is not None)
    assert [h for _, h in pairs] == sorted(h for _, h in pairs), "higher values are not lower"


def test_a_chart_of_two_lines_fills_the_lower_one_first() -> None:
    assert charts.chart([0.0, 0.5, 0.75, 1.0, None], 1.0, 2) == ["  ▄█ ", "▁███ "]


@given(columns)
def test_the_scale_holds_all_and_is_round(series: list[float | None]) -> None:
    top = charts.nice_top(series)
    largest = max((p for p in series if p is not None), default=0.0)
    assert top >= largest
    if largest > 1e-300:
        assert top <= 2 * largest
    if largest >= 1e-3:
        assert len(f"{top:g}".strip("0.").replace(".", "")) <= 6


@given(st.text(), st.integers(1, 60))
def test_a_shortened_text_fits_and_holds_whole_words(text: str, width: int) -> None:
    text = printable(text)
    short = shortened(text, width)
    assert cell_len(short) <= width
    assert short == text or short.endswith("…")
    assert set(short.removesuffix("…").split()) <= set(text.split())


@given(st.text(alphabet="ab1 .,", max_size=200), st.integers(12, 60))
def test_a_wrapped_text_keeps_all_words_that_fit_in_their_order(text: str, width: int) -> None:
    lines = wrapped(text, width, 2)
    assert all(cell_len(line) <= width for line in lines)
    if all(len(word) <= width - 2 for word in text.split()):
        assert " ".join(lines).split() == text.split()


def test_columns_stand_for_the_same_seconds_while_the_chart_moves_on() -> None:
    assert charts.newest([float(i) for i in range(10)], 3, 6, max) == [5.0, 7.0, 9.0]
    assert charts.newest([float(i) for i in range(11)], 3, 6, max) == [7.0, 9.0, 10.0]


def test_a_value_far_above_the_scale_is_a_full_block() -> None:
    assert charts.chart([1.0, None, 1.1125369292536007e-308], 2e-308) == ["█ ▄"]
