"""What thieves do: they add transactions of their own, or turn those of a terminal into fraud."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from fraudstream.core.feature_set import DAY_MS
from producer.generator.intervals import key, latest_interval
from producer.generator.ordinary import HOUR_MS, small_amount
from producer.generator.parameters import Parameters
from producer.generator.rows import CODE, Floats, Ints, Rows, chosen, joined, make_rows
from producer.generator.world import DEAR, DIGITAL, World, terminals_in

DRAINING_RATIO, DRAINING_SPREAD = 7.0, 0.4
TAKEOVER_RATIO, TAKEOVER_SPREAD = 5.3, 0.42
DRAINING_ONLINE, TAKEOVER_ONLINE = 0.5, 0.35
_TICKET_RATIO, _TICKET_SPREAD = 8.0, 0.5
_TESTED_FIRST = 0.8
_NIGHT_SHARE = 0.6
_GOLDEN = 0.6180339887498949


class Attacks(msgspec.Struct, frozen=True):
    """Times in which a thief uses a customer's card: `count` transactions in [start, end), one behaviour."""

    customer: Ints
    start_ms: Ints
    end_ms: Ints
    count: Ints
    behaviour: NDArray[np.uint8]


def attacks_of(parameters: Parameters, frauds: float, rng: np.random.Generator) -> Attacks:
    """Return attacks with about `frauds` times the shares of testing, draining and takeover."""
    testing = _sizes(parameters.testing_share * frauds, 2, 5, rng=rng)
    draining = _sizes(parameters.draining_share * frauds, 2, 5, rng=rng)
    takeover = _sizes(parameters.takeover_share * frauds, 3, 8, rng=rng)
    tested = _phase(parameters, testing, "card_testing", (0.3 / 24, 2 / 24), rng=rng)
    drained = _phase(parameters, draining, "draining", (3 / 24, 1.0), rng=rng)
    taken = _phase(parameters, takeover, "takeover", (2.0, 6.0), rng=rng)
    linked = min(len(testing), round(_TESTED_FIRST * len(draining)))
    pause = rng.uniform(0.5, 20, linked) * HOUR_MS
    shift = tested.end_ms[:linked] + pause.astype(np.int64) - drained.start_ms[:linked]
    drained.customer[:linked] = tested.customer[:linked]
    drained.start_ms[:linked] += shift
    drained.end_ms[:linked] += shift
    return joined([tested, drained, taken])


def wave_of(parameters: Parameters, rng: np.random.Generator) -> Attacks:
    """Return the drainings of `wave_day`: each card within two hours, all of them within eight."""
    start_ms = (parameters.wave_day or 0) * DAY_MS + 10 * HOUR_MS
    customer = rng.choice(parameters.customers, parameters.wave_cards, replace=False)
    start = start_ms + (rng.uniform(0, 6, len(customer)) * HOUR_MS).astype(np.int64)
    length = (rng.uniform(0.5, 2, len(customer)) * HOUR_MS).astype(np.int64)
    return Attacks(
        customer,
        start,
        start + length,
        rng.integers(2, 6, len(customer)),
        np.full(len(customer), CODE["draining"], dtype=np.uint8),
    )


def attack_rows(world: World, attacks: Attacks, rng: np.random.Generator) -> Rows:
    """Return the thieves' transactions."""
    parts = []
    for name, make in (("card_testing", _test), ("draining", _drain), ("takeover", _take_over)):
        index = np.flatnonzero(attacks.behaviour == CODE[name])
        attack = np.repeat(index, attacks.count[index])
        customer = attacks.customer[attack]
        terminal, amount = make(world, customer, rng)
        time_ms = _times(attacks, attack, night=name == "takeover", rng=rng)
        parts.append(make_rows(customer, terminal, time_ms, amount, behaviour=name))
    return joined(parts)


def tickets(world: World, parameters: Parameters, frauds: float, rng: np.random.Generator) -> Rows:
    """Return single dear purchases: with odds by amount, hour and place a thief's, else a washing machine."""
    count = int(frauds * 8) + 20
    customer = rng.integers(0, parameters.customers, count)
    dear = np.flatnonzero(np.isin(world.category, DEAR))
    terminal = dear[rng.integers(0, len(dear), count)]
    near = world.terminal_city[terminal] == world.customer_city[customer]
    ratio = _TICKET_RATIO * np.exp(rng.normal(0, _TICKET_SPREAD, count))
    night = rng.random(count) < 0.25
    hour = np.where(night, rng.uniform(0, 6, count), rng.normal(15, 3.5, count) % 24)
    score = -0.7 + 1.3 * np.log(ratio / _TICKET_RATIO) + 1.6 * night - 1.2 * near
    odds = 1 / (1 + np.exp(-score))
    kept = np.cumsum(odds) <= frauds
    fraud = rng.random(count) < odds
    day = rng.integers(0, parameters.days, count)
    time_ms = day * DAY_MS + (hour * HOUR_MS).astype(np.int64)
    amount = world.mean_amount[customer] * ratio
    behaviour = np.where(fraud, CODE["high_value"], CODE["big_purchase"]).astype(np.uint8)
    return chosen(Rows(customer, terminal, time_ms, amount, fraud, behaviour, odds), kept)


def compromise(
    world: World, rows: Rows, parameters: Parameters, *, frauds: float, rng: np.random.Generator
) -> None:
    """Turn about `frauds` ordinary transactions at compromised terminals into fraud, in place."""
    terminal, start, end, share = _candidates(world, rows, parameters, rng=rng)
    order = np.sort(key(rows.terminal, rows.time_ms))
    inside = np.searchsorted(order, key(terminal, end)) - np.searchsorted(
        order, key(terminal, start)
    )
    taken = _within_budget(inside * share, frauds)
    found = latest_interval(
        terminal[taken], start[taken], end[taken], of_owner=rows.terminal, at_ms=rows.time_ms
    )
    hit = np.flatnonzero(found >= 0)
    rows.odds[hit] = share[taken][found[hit]]
    stolen = hit[rng.random(len(hit)) < rows.odds[hit]]
    rows.fraud[stolen] = True
    rows.behaviour[stolen] = CODE["compromised_terminal"]


def _candidates(
    world: World, rows: Rows, parameters: Parameters, *, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints, Floats]:
    """Return terminal, start, end (ms) and share of possible compromises, evenly spread over time."""
    physical = world.first[world.online]
    volume = np.bincount(rows.terminal, minlength=len(world.popularity))[:physical]
    middling = np.argsort(volume, kind="stable")[int(0.2 * physical) : int(0.65 * physical)]
    terminal = rng.permutation(middling)
    count = len(terminal)
    length = rng.uniform(14, 34, count)
    # Multiples of the golden ratio fill the time evenly, however many of them the budget takes.
    place = (rng.random() + _GOLDEN * np.arange(count)) % 1
    start = -34 + place * (parameters.days + 34)
    share = rng.uniform(0.75, 0.98, count)
    return (
        terminal,
        (start * DAY_MS).astype(np.int64),
        ((start + length) * DAY_MS).astype(np.int64),
        share,
    )


def _within_budget(expected: Floats, budget: float) -> Ints:
    """Return the first candidates whose sum stays below `budget`, passing over those too large."""
    taken: list[int] = []
    total = 0.0
    for index, value in enumerate(expected.tolist()):
        if value > 0 and total + value <= budget * 1.02:
            taken.append(index)
            total += value
        if total >= budget * 0.98:
            break
    return np.array(taken, dtype=np.int64)


def _sizes(transactions: float, low: int, high: int, *, rng: np.random.Generator) -> Ints:
    """Return at least one size in [low, high], together about `transactions`."""
    sizes = rng.integers(low, high + 1, int(transactions / low) + 1)
    before = np.cumsum(sizes) - sizes
    kept: Ints = sizes[before + sizes / 2 <= max(transactions, high)]
    return kept


def _phase(
    parameters: Parameters,
    sizes: Ints,
    behaviour: str,
    length_days: tuple[float, float],
    *,
    rng: np.random.Generator,
) -> Attacks:
    count = len(sizes)
    length = rng.uniform(*length_days, count)
    start = rng.uniform(0, np.maximum(parameters.days - length, 0.01))
    return Attacks(
        rng.integers(0, parameters.customers, count),
        (start * DAY_MS).astype(np.int64),
        ((start + length) * DAY_MS).astype(np.int64),
        sizes,
        np.full(count, CODE[behaviour], dtype=np.uint8),
    )


def _times(attacks: Attacks, attack: Ints, *, night: bool, rng: np.random.Generator) -> Ints:
    length = attacks.end_ms[attack] - attacks.start_ms[attack]
    time_ms = attacks.start_ms[attack] + (rng.random(len(attack)) * length).astype(np.int64)
    if not night:
        return time_ms
    moved = time_ms // DAY_MS * DAY_MS + (rng.uniform(0, 6, len(attack)) * HOUR_MS).astype(np.int64)
    inside = (moved >= attacks.start_ms[attack]) & (moved < attacks.end_ms[attack])
    return np.where(inside & (rng.random(len(attack)) < _NIGHT_SHARE), moved, time_ms)


def _test(world: World, customer: Ints, rng: np.random.Generator) -> tuple[Ints, Floats]:
    shops = np.flatnonzero(world.category == DIGITAL)
    return shops[rng.integers(0, len(shops), len(customer))], small_amount(len(customer), rng)


def _drain(world: World, customer: Ints, rng: np.random.Generator) -> tuple[Ints, Floats]:
    ratio = DRAINING_RATIO * np.exp(rng.normal(0, DRAINING_SPREAD, len(customer)))
    terminal = _far_or_online(world, len(customer), DRAINING_ONLINE, rng=rng)
    return terminal, world.mean_amount[customer] * ratio


def _take_over(world: World, customer: Ints, rng: np.random.Generator) -> tuple[Ints, Floats]:
    ratio = TAKEOVER_RATIO * np.exp(rng.normal(0, TAKEOVER_SPREAD, len(customer)))
    terminal = _far_or_online(world, len(customer), TAKEOVER_ONLINE, rng=rng)
    return terminal, world.mean_amount[customer] * ratio


def _far_or_online(
    world: World, count: int, online_share: float, *, rng: np.random.Generator
) -> Ints:
    city = rng.choice(world.online, count, p=world.city_weight)
    city = np.where(rng.random(count) < online_share, world.online, city)
    return terminals_in(world.popularity, world.first, city, rng=rng)
