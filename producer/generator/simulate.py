"""Parameters in, canonical table out: the hops of a generated stream in order."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraudstream.core.feature_set import DAY_MS
from producer.generator.ceiling import true_odds
from producer.generator.fraud import (
    attack_rows,
    attacks_of,
    compromise,
    tickets,
    wave_of,
)
from producer.generator.newcomers import with_newcomers
from producer.generator.ordinary import HOUR_MS, ordinary
from producer.generator.parameters import Parameters
from producer.generator.rows import BEHAVIOURS, Floats, Ints, Rows, chosen, joined
from producer.generator.world import CASH, CATEGORIES, World, distance_km, is_online, make_world
from producer.sources import Source, canonical_schema

ATTRIBUTES = ("distance_km", "card_present", "mcc")
STEPS = ("world", "ordinary", "fraud", "table")


class Simulation(msgspec.Struct, frozen=True):
    """A generated stream, and the odds of fraud that only its simulator knows, float64 [N] by row."""

    table: pa.Table
    odds: Floats


def identity(parameters: Parameters) -> str:
    """Return what names the stream of `parameters` in headers."""
    return f"generator-{parameters.digest}"


def source(parameters: Parameters) -> Source:
    """Return the stream of `parameters` as a source of a replay, without a file in between."""
    table = generate(parameters)
    return Source(identity(parameters), table, 0, table.num_rows)


def generate(parameters: Parameters) -> pa.Table:
    """Return the canonical table of `parameters`, with the attributes of `ATTRIBUTES`."""
    return simulate(parameters).table


def simulate(parameters: Parameters, step: Callable[[str], None] = lambda _: None) -> Simulation:
    """Return the stream of `parameters` and its true odds; `step` hears each of `STEPS` as it ends."""
    streams = np.random.SeedSequence(parameters.seed).spawn(5)
    rngs = [np.random.Generator(np.random.PCG64(stream)) for stream in streams]
    world = make_world(parameters, rngs[0])
    step("world")
    rows = ordinary(world, parameters, rngs[1])
    step("ordinary")
    world, rows, odds = _with_fraud(world, rows, parameters, rng=rngs[2], rng_of_events=rngs[4])
    step("fraud")
    table = _table(world, rows, parameters, rng=rngs[3])
    step("table")
    return Simulation(table, odds)


def _with_fraud(
    world: World,
    rows: Rows,
    parameters: Parameters,
    *,
    rng: np.random.Generator,
    rng_of_events: np.random.Generator,
) -> tuple[World, Rows, Floats]:
    """Return the world with new merchants, all rows in order of time, and their true odds.

    What a scenario adds draws from `rng_of_events`, so that without it the stream is what it always was.
    """
    frauds = parameters.fraud_rate * len(rows.customer)
    budget = parameters.compromised_share * frauds
    compromise(world, rows, parameters, frauds=budget, rng=rng)
    attacks = attacks_of(parameters, frauds, rng)
    parts = [rows, attack_rows(world, attacks, rng)]
    parts.append(tickets(world, parameters, parameters.high_value_share * frauds, rng))
    if parameters.wave_day is not None:
        wave = wave_of(parameters, rng_of_events)
        parts.append(attack_rows(world, wave, rng_of_events))
        attacks = joined([attacks, wave])
    if parameters.shells_from_day is not None:
        a_day = parameters.shell_share * frauds / parameters.days
        world, new = with_newcomers(world, parameters, a_day, rng_of_events)
        parts.append(new)
    everything = joined(parts)
    everything = chosen(everything, everything.time_ms < parameters.days * DAY_MS)
    everything = chosen(everything, np.argsort(everything.time_ms, kind="stable"))
    return world, everything, true_odds(world, everything, attacks)


def _table(
    world: World, rows: Rows, parameters: Parameters, *, rng: np.random.Generator
) -> pa.Table:
    start_ms = int(datetime.fromisoformat(parameters.start).replace(tzinfo=UTC).timestamp() * 1000)
    cash = world.category[rows.terminal] == CASH
    codes = np.array([category.code for category in CATEGORIES])
    columns = [
        _ids(f"{parameters.digest[:8]}-", np.arange(len(rows.customer)), 9),
        start_ms + rows.time_ms,
        _named(("purchase", "withdrawal"), cash.astype(np.int64)),
        np.maximum(np.rint(rows.amount * 100), 50).astype(np.int64),
        _named(("EUR",), np.zeros(len(cash), dtype=np.int64)),
        _entities("C", len(world.rate), rows.customer, rng),
        _entities("T", len(world.category), rows.terminal, rng),
        np.round(distance_km(world, rows.customer, rows.terminal), 1),
        (~is_online(world, rows.terminal)).astype(np.float64),
        codes[world.category[rows.terminal]],
        rows.fraud,
        _reports(rows, parameters, start_ms, rng=rng),
        _named(BEHAVIOURS, rows.behaviour.astype(np.int64)),
    ]
    return pa.table(columns, schema=canonical_schema(ATTRIBUTES))


def _reports(
    rows: Rows, parameters: Parameters, start_ms: int, *, rng: np.random.Generator
) -> "pa.Array[Any]":
    """Return when each fraud becomes known, UTC ms: most within a week, some after a month, some never."""
    count = int(rows.fraud.sum())
    days = np.clip(rng.lognormal(np.log(2.6), 0.65, count), 2 / 24, 31)
    slow = rng.random(count) < 0.08
    days[slow] = rng.uniform(7, 31, int(slow.sum()))
    reported = np.zeros(len(rows.fraud), dtype=np.int64)
    reported[rows.fraud] = start_ms + rows.time_ms[rows.fraud] + (days * 24 * HOUR_MS).astype(int)
    never = ~rows.fraud
    never[rows.fraud] = rng.random(count) < parameters.never_reported
    return pa.array(reported, mask=never)


def _entities(letter: str, count: int, index: Ints, rng: np.random.Generator) -> "pa.Array[Any]":
    """Return ids of entities by index, numbered at random so that an id says nothing."""
    return _ids(letter, rng.permutation(count), 7).take(index)


def _ids(prefix: str, numbers: Ints, width: int) -> "pa.Array[Any]":
    digits: Any = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    ids: pa.Array[Any] = pc.binary_join_element_wise(prefix, digits, "")
    return ids


def _named(names: tuple[str, ...], index: Ints) -> "pa.Array[Any]":
    return pa.array(names).take(index)
