"""The Lua functions that are made for a feature set: straight through its windows and features, no tables.

For each entity: `next` (a transaction later than all others: its features into V, the windows as of it),
`pass` (the same without features), `late` (the features as of any place), `add` (a late one joins the
windows that it lies in).
"""

from collections.abc import Iterator

from fraudstream.clients.feature_layout import Plan, Window, plan_of
from fraudstream.clients.feature_packing import function, indented, packing
from fraudstream.core.feature_kinds import (
    ENTITIES,
    HOT_KINDS,
    RUN_KINDS,
    Feature,
    FeatureSet,
    duration_text,
)

_VALUES = {
    "amount": "amount / MINOR_PER_MAJOR",
    "ratio": "ratio",
    "age": "(t - first) / DAY",
    "count": "rows",
    "sum": "total / MINOR_PER_MAJOR",
    "mean": "total / (rows * MINOR_PER_MAJOR)",
    "max": "most / MINOR_PER_MAJOR",
    "min": "least / MINOR_PER_MAJOR",
    "std": "deviation(rows, total, high, low) / MINOR_PER_MAJOR",
    "distinct": "distinct(e, limit, part, k, other)",
    "since_last": "previous > limit and (t - previous) / DAY or NONE_DAYS",
    "largest_ratio": "top",
    "since_last_hot": "last_hot > 0 and (t - last_hot) / DAY or NONE_DAYS",
    "since_first_hot": "first_hot > 0 and (t - first_hot) / DAY or NONE_DAYS",
    "confirmed_run": "run",
    "run_age": "start and days_between(start, t) or NO_RUN_DAYS",
    "genuine_before_run": "not start and NO_RUN_DAYS or genuine and days_between(genuine, t) or UNKNOWN_DAYS",
    "since_genuine": "genuine and (t - genuine) / DAY or NONE_DAYS",
    "fraud_share": "entries > 0 and count_frauds(e, t, limit, t - LABEL_DELAY_MS, part, k) / entries or 0",
}
"""The Lua expression of each kind, over the locals of the block that it stands in."""

_BEFORE = HOT_KINDS
"""What a window had before the transaction; the aggregates have it with it."""
_AFTER = frozenset({"count", "sum", "mean", "max", "min", "std"})
_FIELDS = {
    "total": ("total",),
    "high": ("high", "low"),
    "most": ("most", "most_t", "least", "least_t"),
    "top": ("top", "top_t", "first_hot", "last_hot"),
}
"""The fields of a window beside its rows, by the first of each group."""
_ADD = {
    "total": ["total = total + amount"],
    "high": ["high, low = add_squares(high, low, square(amount))"],
    "most": [
        "if rows == 1 or amount > most or (amount == most and t > most_t) then",
        "  most, most_t = amount, t",
        "end",
        "if rows == 1 or amount < least or (amount == least and t > least_t) then",
        "  least, least_t = amount, t",
        "end",
    ],
    "top": [
        "if ratio > top or (ratio == top and t > top_t) then",
        "  top, top_t = ratio, t",
        "end",
        "if ratio > HOT_RATIO then",
        "  first_hot = (first_hot == 0 or t < first_hot) and t or first_hot",
        "  last_hot = t > last_hot and t or last_hot",
        "end",
    ],
}
"""A transaction joins the locals of a window; `rows` counts it already."""


def steps(feature_set: FeatureSet) -> str:
    """Return the functions made for a set, as Lua."""
    lines = ["-- Made for this set: how rows are packed, its windows and its features.", ""]
    for entity in ENTITIES:
        plan = plan_of(feature_set, entity)
        for each in (*packing(plan), *_EntitySteps(feature_set, plan).functions()):
            lines += [*each, ""]
    count = len(feature_set.features)
    features = "".join(f", V[{i}]" for i in range(1, count + 1))
    lines += [
        "local function pack_reply(offset, seq, duplicate_of, flags)",
        f"  return pack('<i8i8i8I4{'f' * count}', offset, seq, duplicate_of, flags{features})",
        "end",
        "",
    ]
    return "\n".join(lines)


def _groups(window: Window) -> list[str]:
    return [group for group in _FIELDS if group in window.places]


class _EntitySteps:
    """The functions of one entity of a set, each as lines of Lua."""

    def __init__(self, feature_set: FeatureSet, plan: Plan) -> None:
        self._plan, self._table = plan, plan.entity.upper()
        self._features = [
            (i, each)
            for i, each in enumerate(feature_set.definitions, start=1)
            if each.entity == plan.entity or (not each.entity and plan.entity == "customer")
        ]

    def functions(self) -> Iterator[list[str]]:
        """Yield all of them, in an order in which they can stand."""
        yield self._next()
        yield self._pass()
        yield self._late()
        yield self._add()

    # ------------------------------------------------------------ one transaction

    def _next(self) -> list[str]:
        places = self._plan.distincts or self._plan.runs or self._plan.shares
        body = ["local part, k = e.tail, e.tail.n"] if places else []
        body += [*self._plain(), *self._shares_locals()]
        for window in self._plan.windows:
            body += self._window(window, features=True)
        if self._plan.flags["previous"]:
            body += ["local previous = e[ROWS] > 0 and e[NEWEST] or -1"]
        body += self._age(store=True)
        body += self._others(late=False)
        return function(self._plan, "next(e, t, amount, ratio, other)", body)

    def _pass(self) -> list[str]:
        body = []
        for window in self._plan.windows:
            body += self._window(window, features=False)
        body += self._age(store=True)
        return function(self._plan, "pass(e, t, amount, ratio)", body)

    def _late(self) -> list[str]:
        body = [*self._plain(), *self._shares_locals()]
        for number, window in enumerate(self._plan.windows, start=1):
            if window.asked:
                body += self._late_window(number, window)
        if self._plan.flags["previous"]:
            body += ["local previous = time_before(e, oldest, part, k)"]
        body += self._age(store=False)
        body += self._others(late=True)
        return function(self._plan, "late(e, t, amount, ratio, other, part, k, oldest)", body)

    def _add(self) -> list[str]:
        body = []
        for window in self._plan.windows:
            body.append(f"if t > newest - {window.length_ms} then -- in the {_named(window)}")
            body += indented([*_load(window), "rows = rows + 1", *_added(window), *_store(window)])
            body.append("end")
        return function(self._plan, "add(e, t, amount, ratio, newest)", body)

    def _age(self, *, store: bool) -> list[str]:
        """Return what knows the time of the first transaction."""
        if not self._plan.flags["age"]:
            return []
        place = [name for name, _ in self._plan.small].index("first") + 1
        lines = [
            f"local first = e[{place}]",
            "first = (first == 0 or t < first) and t or first",
        ]
        return [*lines, f"e[{place}] = first"] if store else lines

    def _plain(self) -> list[str]:
        """Return the features that need no rows."""
        return [_value(i, each) for i, each in self._features if each.kind in {"amount", "ratio"}]

    # ------------------------------------------------------------ windows

    def _shares_locals(self) -> list[str]:
        numbers = sorted({n for length in self._plan.shares for n in self._share_windows(length)})
        return [f"local {', '.join(f'before_{n}' for n in numbers)}"] if numbers else []

    def _share_windows(self, length_ms: int) -> tuple[int, int]:
        """Return the numbers of the windows between which a share lies: to a delay ago, and of all."""
        lengths, delay = [each.length_ms for each in self._plan.windows], self._plan.label_delay_ms
        return lengths.index(delay), lengths.index(delay + length_ms)

    def _in_window(self, window: Window, kinds: frozenset[str]) -> list[str]:
        return [
            _value(i, each)
            for i, each in self._features
            if each.kind in kinds and each.window_ms == window.length_ms
        ]

    def _before(self, window: Window) -> list[str]:
        number = self._plan.windows.index(window)
        wanted = {n for length in self._plan.shares for n in self._share_windows(length)}
        return [f"before_{number} = rows"] if number in wanted else []

    def _window(self, window: Window, *, features: bool) -> list[str]:
        """Return the block that brings a window up to t and adds the transaction."""
        body = [f"local limit = t - {window.length_ms}", *_load(window), *self._leave(window)]
        if features:
            body += [*self._before(window), *self._in_window(window, _BEFORE)]
        body += ["rows = rows + 1", *_added(window)]
        if features:
            body += self._in_window(window, _AFTER)
        body += _store(window)
        return [f"do -- the {_named(window)}", *indented(body), "end"]

    def _leave(self, window: Window) -> list[str]:
        """Return what takes rows off that are no longer later than `limit`."""
        places, width = window.places, self._plan.row_bytes
        less = []
        if "total" in places:
            less += [
                f"local a = read('<I5', held, at + {self._plan.at('amount')})",
                "total = total - a",
            ]
        if "high" in places:
            less += ["high, low = less_squares(high, low, square(a))"]
        return [
            f"local i, from, left = e[{places['index']}], e, 0",
            "if e.large then",
            f"  from = part_at(e, e[{places['start']}])",
            "end",
            "local held, n = from.rows, from.n",
            "while i < n do",
            f"  local at = {width} * i + 1",
            "  if read('<I6', held, at) > limit then",
            "    break",
            "  end",
            *indented(less),
            "  i, left = i + 1, left + 1",
            "  if i == n and from ~= e.tail then",
            "    from = part_after(e, from)",
            "    i, held, n = 0, from.rows, from.n",
            "  end",
            "end",
            "if left > 0 then",
            f"  e[{places['index']}], rows = i, rows - left",
            "  if e.large then",
            f"    e[{places['start']}] = from.start",
            "  end",
            *indented(self._extremes_left(window)),
            "end",
        ]

    def _extremes_left(self, window: Window) -> list[str]:
        """Return what looks for extremes again, if one of them has left the window."""
        number = self._plan.windows.index(window) + 1
        again = f"local found = look_again(e, {self._table}.windows[{number}], limit)"
        lines = []
        if "most" in window.places:
            lines += [
                "if most_t <= limit or least_t <= limit then",
                f"  {again}",
                "  most, most_t, least, least_t = found.most, found.most_t, found.least, found.least_t",
                "end",
            ]
        if "top" in window.places:
            lines += [
                "if last_hot <= limit then",
                "  first_hot, last_hot = 0, 0",
                "end",
                "if top_t <= limit or (first_hot > 0 and first_hot <= limit) then",
                f"  {again}",
                "  top, top_t, first_hot, last_hot = found.top, found.top_t, found.first_hot, found.last_hot",
                "end",
            ]
        return lines

    def _late_window(self, number: int, window: Window) -> list[str]:
        """Return the block of a window as of a place among the rows."""
        body = [
            f"local limit = t - {window.length_ms}",
            "limit = limit > oldest and limit or oldest",
            f"local found = look_back(e, {self._table}.windows[{number}], limit, part, k)",
            "local rows = found.rows",
        ]
        for group in _groups(window):
            names = _FIELDS[group]
            body.append(
                f"local {', '.join(names)} = {', '.join(f'found.{each}' for each in names)}"
            )
        body += [*self._before(window), *self._in_window(window, _BEFORE)]
        after = self._in_window(window, _AFTER)
        if after:
            body += ["rows = rows + 1", *_added(window), *after]
        return [f"do -- the {_named(window)}", *indented(body), "end"]

    # ------------------------------------------------------------ other features

    def _others(self, *, late: bool) -> list[str]:
        """Return the blocks of features that read rows, by the kinds and lengths that they share."""
        lines = [_value(i, each) for i, each in self._features if each.kind == "age"]
        for kinds in (
            frozenset({"since_last"}),
            frozenset({"distinct"}),
            RUN_KINDS,
            frozenset({"fraud_share"}),
        ):
            for length in sorted(
                {each.window_ms for _, each in self._features if each.kind in kinds}
            ):
                values = [
                    _value(i, each)
                    for i, each in self._features
                    if each.kind in kinds and each.window_ms == length
                ]
                body = [*self._block_locals(kinds, length, late=late), *values]
                lines += [f"do -- within {duration_text(length)}", *indented(body), "end"]
        return lines

    def _block_locals(self, kinds: frozenset[str], length: int, *, late: bool) -> list[str]:
        share = "fraud_share" in kinds
        span = length + self._plan.label_delay_ms if share else length
        lines = [f"local limit = t - {span}"]
        if late:
            lines.append("limit = limit > oldest and limit or oldest")
        if share:
            inner, outer = self._share_windows(length)
            lines.append(f"local entries = before_{outer} - before_{inner}")
        if kinds == RUN_KINDS:
            lines += self._run(late=late)
        return lines

    def _run(self, *, late: bool) -> list[str]:
        if late:
            return ["local run, start, genuine = run_at(e, t, limit, nil, part, k)"]
        cursor = self._plan.window(self._plan.label_delay_ms)
        number, width = self._plan.windows.index(cursor) + 1, self._plan.row_bytes
        last = f"{width} * i - {width - 1}"
        return [
            "local run, start, genuine = 0, nil, nil",
            f"local i = e[{cursor.places['index']}]",
            f"local old_t = not e.large and i > 0 and read('<I6', e.rows, {last}) or 0",
            "if old_t > newest_label(e) then -- the newest old row has no label: genuine",
            "  genuine = old_t > limit and old_t or nil",
            "elseif e.large or e.labels ~= '' then",
            f"  run, start, genuine = run_at(e, t, limit, {self._table}.windows[{number}], part, k)",
            "end",
        ]


def _named(window: Window) -> str:
    return f"last {duration_text(window.length_ms)}"


def _value(number: int, feature: Feature) -> str:
    return f"V[{number}] = {_VALUES[feature.kind]} -- {feature.name}"


def _load(window: Window) -> list[str]:
    """Return the locals of a window, from the header."""
    names = ["rows", *(name for group in _groups(window) for name in _FIELDS[group])]
    return [
        f"local {', '.join(names)} = {', '.join(f'e[{window.places[each]}]' for each in names)}"
    ]


def _store(window: Window) -> list[str]:
    """Return what puts the locals of a window into the header."""
    names = ["rows", *(name for group in _groups(window) for name in _FIELDS[group])]
    return [f"{', '.join(f'e[{window.places[each]}]' for each in names)} = {', '.join(names)}"]


def _added(window: Window) -> list[str]:
    return [line for group in _groups(window) for line in _ADD[group]]
