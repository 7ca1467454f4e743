"""Feature sets on a real server: equal to the twin bit for bit, whole or in parts; known answers."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from redis import Redis

from fraudstream.clients import feature_store
from fraudstream.clients.feature_server import FeatureServer
from fraudstream.clients.feature_store import FeatureStore
from fraudstream.core import twin as twin_module
from fraudstream.core.feature_set import parse
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Transaction
from fraudstream.core.twin import Twin, TwinReply
from tests.feature_cases import answer, pay
from tests.feature_set_samples import EVERYTHING, SETS
from tests.feature_streams import (
    TOPIC,
    Connect,
    Log,
    Stream,
    batches,
    mutated,
    one,
    rows,
    send_labels,
    twin_replies,
)
from tests.known_answers import wrong_cases
from tests.window_cases import CASES, KINDS

PARTS_OF = "ROOM, MOST_ROWS = 6, 512"


def parts_of(most: int, patch: pytest.MonkeyPatch, *more: tuple[str, str]) -> None:
    """Let entities of more than `most` rows be kept in parts."""
    small = (PARTS_OF, f"ROOM, MOST_ROWS = 6, {most}")
    patch.setattr(feature_store, "build_library", mutated(small, *more))
    patch.setattr(twin_module, "NEWEST_LOOKED_AT", most)


def keys(server: Redis, settings: Settings, suffix: str = "") -> dict[bytes, bytes]:
    """Return the keys and values of all entities, parts and directories of an environment."""
    tag = f"{{{settings.environment}{suffix}:b0}}:v3:"
    found = [key for kind in "ct" for key in server.scan_iter(f"{tag}*:{kind}[.:]*", count=1_000)]
    # Without the version and the incarnation, which is another in every environment.
    return {key.split(b":", 4)[4]: server.get(key) for key in found}  # type: ignore[misc]


def differs(store: FeatureStore, twin: Twin, stream: Stream, n: int) -> TwinReply | None:
    """Send n transactions and labels through store and twin; return the first reply that is wrong."""
    sent = 0
    for slices, labels in batches(stream, n, partitions=3):
        for got, want in zip(
            rows(store.apply(TOPIC, slices)), twin_replies(twin, slices), strict=True
        ):
            if got != want:
                return got
        send_labels(store, labels, sent)
        sent += len(labels)
        for label in labels:
            twin.label(label)
    return None


@pytest.mark.parametrize("name", SETS)
def test_every_set_equals_the_twin_bit_for_bit(name: str, connect: Connect) -> None:
    stream = Stream(5, customers=30, terminals=20, days=120 / 3_000)
    assert differs(connect("", SETS[name]), Twin(SETS[name]), stream, 3_000) is None


@pytest.mark.parametrize(
    ("name", "most", "days", "seed"),
    [
        (name, *how)
        for name in SETS
        for how in ((3, 40, 1), (8, 800, 2), (20, 5, 3), (8, 200, 4))
        if name != "terminals"
    ],
)
def test_entities_in_parts_equal_the_twin(
    name: str,
    most: int,
    days: int,
    seed: int,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts_of(most, monkeypatch)
    stream = Stream(seed, customers=seed % 3 + 1, terminals=2, days=days / 1_000)
    assert differs(connect("", SETS[name]), Twin(SETS[name]), stream, 1_000) is None


def test_large_entities_are_really_kept_in_parts_and_small_ones_are_not(
    connect: Connect, server: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of(8, monkeypatch)
    store = connect("", EVERYTHING)
    for i in range(400):
        store.apply(TOPIC, one(pay(i / 50, customer=f"c{i % 100}", terminal="hot"), i))
    found = keys(server, settings)
    hot = [key for key in found if key.startswith(b"t.") and not key.startswith(b"t.d:")]
    assert len(hot) > 30
    assert b"t.d:hot" in found
    assert not [key for key in found if key.startswith(b"c.")]


def left_behind(connect: Connect, server: Redis, settings: Settings) -> set[bytes]:
    """Return the keys of two entities in parts after a gap in which all their entries expire."""
    store = connect("", EVERYTHING)
    for i in range(200):
        store.apply(TOPIC, one(pay(i / 50, customer="me", terminal="hot"), i))
    assert len(keys(server, settings)) > 40
    store.apply(TOPIC, one(pay(100, customer="me", terminal="hot"), 200))
    return set(keys(server, settings))


def test_what_expires_leaves_no_key_behind(
    connect: Connect, server: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of(8, monkeypatch)
    assert left_behind(connect, server, settings) == {b"c:me", b"t:hot"}


@pytest.mark.parametrize(
    "mutant",
    [
        ("e[ROWS] = e[ROWS] - part.n", "e[ROWS] = e[ROWS]"),
        ("    give_up(e, part_key(e, part.start))\n    e.parts", "    e.parts"),
    ],
)
def test_a_mutant_that_keeps_what_expired_is_found(
    mutant: tuple[str, str],
    connect: Connect,
    server: Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts_of(8, monkeypatch, mutant)
    assert len(left_behind(connect, server, settings)) > 2


def early_label(connect: Connect) -> float:
    """Return the share of frauds at a terminal in parts whose fraud had its label before it was there."""
    store, offsets = connect("", KINDS), itertools.count()
    for i in range(20):
        store.apply(TOPIC, one(pay(i / 40), next(offsets)))
    fraud = pay(1.5)
    send_labels(store, [answer(fraud, "fraud", 1.5)], 0)
    for i in range(20):
        store.apply(TOPIC, one(pay(0.75 + i / 40), next(offsets)))
    store.apply(TOPIC, one(fraud, next(offsets)))
    reply = rows(store.apply(TOPIC, one(pay(3.5), next(offsets))))[0]
    return reply.features[KINDS.features.index("share")]


def test_a_label_waits_for_its_transaction_also_where_parts_change(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of(4, monkeypatch)
    assert early_label(connect) == np.float32(1 / 41)


def test_control_a_label_that_stays_with_an_old_part_is_found(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of(4, monkeypatch, ("labels = after.labels }", "labels = '' }"))
    assert early_label(connect) == 0.0


@pytest.mark.parametrize("most", [3, 8, 512])
def test_the_state_is_the_same_for_any_interleaving_of_partitions(
    most: int,
    connect: Connect,
    server: Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts_of(most, monkeypatch)
    monkeypatch.setattr(Stream, "transaction", _without_resends(Stream.transaction))
    stream, log = Stream(most, customers=12, terminals=2, days=0.2), Log(3)
    for _ in range(900):
        log.append(stream.transaction())
    labels = [stream.label() for _ in range(100)]
    states = []
    for name in ("first", "last", "any"):
        store, ends = (
            connect(f"-{name}", SETS["terminals"] if most == 3 else SETS["nine"]),
            [0, 0, 0],
        )
        half = 50 if name == "any" else 0
        if half:
            send_labels(store, labels[:half], 0)
        while ends != [len(records) for records in log.partitions]:
            p = _chosen(name, [p for p in range(3) if ends[p] < len(log.partitions[p])], stream)
            end = min(ends[p] + stream.random.randrange(1, 200), len(log.partitions[p]))
            store.apply(TOPIC, [log.slice(p, ends[p], end)])
            ends[p] = end
        send_labels(store, labels[half:], half)
        states.append(keys(server, settings, f"-{name}"))
    assert (len(states[0]) > 60) == (most < 512)
    assert states[0] == states[1] == states[2]


def _chosen(name: str, left: list[int], stream: Stream) -> int:
    return {"first": left[0], "last": left[-1], "any": stream.random.choice(left)}[name]


def _without_resends(make: Callable[[Stream], Transaction]) -> Callable[[Stream], Transaction]:
    """Return a source in which no id is sent twice: in parts, only recent ones are told."""

    def transaction(self: Stream) -> Transaction:
        while True:
            n = len(self.sent)
            made = make(self)
            if len(self.sent) > n:
                return made

    return transaction


@pytest.mark.parametrize("most", [512, 1])
def test_the_store_gives_the_answers_worked_out_by_hand(
    most: int, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of(most, monkeypatch)
    assert list(wrong_cases(connect, CASES, KINDS)) == []


MUTANTS = {
    "what leaves a window stays": ("if read('<I6', held, at) > limit then", "if true then"),
    "a sum keeps what left": ("total = total - a", "total = total"),
    "squares keep what left": ("high, low = less_squares(high, low, square(a))", ""),
    "the largest is not looked for again": ("if most_t <= limit or", "if false or"),
    "the smallest is not looked for again": ("or least_t <= limit then", "or false then"),
    "late ones count in every window": ("if t > newest - ", "if true or t > newest - "),
    "late ones count in no window": ("if t > newest - ", "if false and t > newest - "),
    "a late one sees the newest windows": (
        "if not row or t <= newest then",
        "if not row then",
    ),
    "the deviation in doubles": (
        "return math.sqrt(spread(n, total, high, low) / (n * n))",
        "return math.sqrt((high * LIMB + low - total ^ 2 / n) / n)",
    ),
    "distinct beyond the window": (
        "read('<I6', part.rows, at) <= limit then\n        return n",
        "false then\n        return n",
    ),
    "the share from the delay on, not before": (
        "local entries = before_2 - before_1",
        "local entries = before_2",
    ),
    "the share takes any label": (
        "        if code == FRAUD then\n          frauds",
        "        if true then\n          frauds",
    ),
    "the age of the newest": ("(first == 0 or t < first) and t or first", "t"),
    "ties see each other": (
        "part, k = place_of(e, t, digest)",
        "part, k = part_until(e, t), part_until(e, t).n",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_library_fails_a_known_answer(
    mutant: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "build_library", mutated(MUTANTS[mutant]))
    assert next(wrong_cases(connect, CASES, KINDS), None)


PART_MUTANTS = {
    "a part is split without its labels": (
        "LABEL_ROW * m + 1) }\nend",
        "LABEL_ROW * m + 22) }\nend",
    ),
    "cursors stay when parts change": (
        "if append_row(e, t, row) or moved then",
        "if append_row(e, t, row) and moved then",
    ),
    "a cursor stops at the end of its part": (
        "if i == n and from ~= e.tail then",
        "if false then",
    ),
    "a closed part is not written": (
        "part.dirty, part.known_from = true,",
        "part.dirty, part.known_from = nil,",
    ),
    "parts before are not looked at": (
        "      return before, before.n\n",
        "      return nil\n",
    ),
    "a changed part keeps its entry": (
        "local entry, n = entry_of(e, part), #ranges",
        "local entry, n = sub(e.directory, place + 1, place + plan.entry_bytes), #ranges",
    ),
    "a part's label in force is passed over": (
        "(part.known_from or 0) <= t",
        "(part.known_from or 0) < 0",
    ),
    "rows appended in a call are not looked at": (
        "e.fresh_t <= t - plan.shortest or plan.whole_rows",
        "false",
    ),
    "the directory keeps what expired": (
        "e.directory = sub(e.directory, plan.entry_bytes * expired + 1)",
        "e.directory = e.directory",
    ),
}


@pytest.mark.parametrize("mutant", PART_MUTANTS)
def test_a_mutant_of_the_parts_differs_from_the_twin(
    mutant: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of(4, monkeypatch, PART_MUTANTS[mutant])
    stream = Stream(9, customers=2, terminals=2, days=0.2)
    store = connect("", EVERYTHING)  # a mutant that cannot be made, or loaded, is none
    found: object = None
    try:
        found = differs(store, Twin(EVERYTHING), stream, 1_000)
    except Exception as exc:  # noqa: BLE001 (a library that fails is caught, too)
        found = exc
    assert found is not None


@pytest.mark.parametrize("most", [4, 512])
def test_amounts_at_the_limit_have_exact_squares_in_order_and_late(
    most: int, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of(most, monkeypatch)
    store, twin = connect("", EVERYTHING), Twin(EVERYTHING)
    amounts = [10**12 - less for less in (0, 3, 7, 1, 10, 4, 9, 2)]
    for offset, amount in enumerate(amounts * 12):
        day = offset / 12 - (offset % 3 == 1)
        batch = one(pay(day, amount, customer="me", terminal="shop"), offset)
        assert rows(store.apply(TOPIC, batch)) == twin_replies(twin, batch)


def calls_that_stop_early(
    connect: Connect, patch: pytest.MonkeyPatch, *mutant: tuple[str, str]
) -> tuple[TwinReply | None, int]:
    """Send 3,000 transactions in calls whose time is always over; return a wrong reply, and the calls."""
    patch.setattr(feature_store, "CALL_MS", 0)
    patch.setattr(feature_store, "build_library", mutated(*mutant))
    call, made = FeatureServer.call, []

    def counted(
        self: FeatureServer,
        function: str,
        keys: tuple[str, ...],
        *arguments: str | bytes | int,
        topic_id: str = "",
    ) -> object:
        made.append(function)
        return call(self, function, keys, *arguments, topic_id=topic_id)

    patch.setattr(FeatureServer, "call", counted)
    store = connect("", EVERYTHING)
    stream = Stream(6, customers=30, terminals=20, days=120 / 3_000)
    return differs(store, Twin(EVERYTHING), stream, 3_000), made.count("apply")


def test_calls_whose_time_is_over_go_on_where_they_stopped(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, calls = calls_that_stop_early(connect, monkeypatch)
    assert wrong is None
    assert calls > 3_000 / 33


def test_control_a_call_that_stops_early_without_its_mark_is_found(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_mark = ("      section[3] = previous\n      break\n", "      break\n")
    with pytest.raises(feature_store.ReplyGone):
        calls_that_stop_early(connect, monkeypatch, late_mark)


def test_a_set_of_a_hundred_features_in_as_many_windows(connect: Connect) -> None:
    lines = [
        f'{kind}_{n}h = {{ entity = "{entity}", window = "{n}h", aggregate = "{kind}" }}'
        for entity, kind in (("customer", "std"), ("terminal", "max"))
        for n in range(1 + 50 * (entity == "terminal"), 51 + 50 * (entity == "terminal"))
    ]
    hundred = parse("[features]\n" + "\n".join(lines), "hundred.toml", "hundred")
    stream = Stream(3, customers=3, terminals=2, days=0.02)
    assert differs(connect("", hundred), Twin(hundred), stream, 300) is None


def test_a_terminal_only_set_keeps_of_customers_what_tells_duplicates(
    connect: Connect, server: Redis, settings: Settings
) -> None:
    store = connect("", SETS["terminals"])
    paid = pay(0, customer="me", terminal="shop")
    store.apply(TOPIC, one(paid, 0))
    assert store.apply(TOPIC, one(paid, 1)).duplicate_of.tolist() == [0]
    assert store.apply(
        TOPIC, one(pay(0.5, customer="me", terminal="shop"), 2)
    ).features.tolist() == [[2, 53]]
    assert len(keys(server, settings)[b"c:me"]) < 8 * 20 + 40
