"""What honest customers do: daily and weekly rhythm, travel, and the look-alikes of fraud."""

from datetime import date

import msgspec
import numpy as np
from numpy.typing import NDArray

from fraudstream.core.feature_set import DAY_MS
from producer.generator.intervals import latest_interval
from producer.generator.parameters import Parameters
from producer.generator.rows import CODE, Floats, Ints, Rows, chosen, joined, make_rows
from producer.generator.world import (
    DIGITAL,
    FAVOURITES,
    ONLINE_FAVOURITES,
    World,
    scales,
    terminals_in,
)

HOUR_MS = 3_600_000
NOISE = 0.36
"""Standard deviation of the logarithm of an amount around the customer's mean in a category."""
ONLINE_SHARE = 0.22
_ELSEWHERE_SHARE = 0.08
_WEEK = np.array([0.93, 0.92, 0.95, 1.0, 1.15, 1.2, 0.85])
_TRIPS_PER_DAY = 1 / 75
_HOLIDAY_SHARE = 0.5
_POPULAR_SHARE = 0.07
_BURSTS_PER_DAY = 1 / 150
_SUBSCRIPTIONS_PER_DAY = 1 / 60


class Trips(msgspec.Struct, frozen=True):
    """Stays in another city: on a holiday the customer also spends `factor` times as much."""

    customer: Ints
    start_ms: Ints
    end_ms: Ints
    city: Ints
    factor: Floats


def ordinary(world: World, parameters: Parameters, rng: np.random.Generator) -> Rows:
    """Return all honest transactions but the single big purchases, which come with their fraud twin."""
    customer, time_ms = _moments(world, parameters, rng)
    trips = _trips(world, parameters, rng)
    trip = latest_interval(
        trips.customer, trips.start_ms, trips.end_ms, of_owner=customer, at_ms=time_ms
    )
    terminal = _terminals(world, customer, np.where(trip >= 0, trips.city[trip], -1), rng=rng)
    terminal, popular = _to_popular_shops(world, parameters, terminal, time_ms, rng=rng)
    factor = np.where(trip >= 0, trips.factor[trip], 1.0)
    amount = typical_amount(world, customer, terminal, rng=rng) * factor
    rows = make_rows(customer, terminal, time_ms, amount, behaviour="")
    rows.behaviour[factor > 1] = CODE["holiday"]
    rows.behaviour[popular] = CODE["popular_shop"]
    return joined([rows, _small_purchases(world, parameters, rng)])


def typical_amount(
    world: World, customer: Ints, terminal: Ints, *, rng: np.random.Generator
) -> Floats:
    """Return what each customer pays at a terminal on an ordinary day, major units."""
    middle = world.mean_amount[customer] * scales()[world.category[terminal]]
    noise: Floats = np.exp(rng.normal(-NOISE * NOISE / 2, NOISE, len(customer)))
    return middle * noise


def _moments(world: World, parameters: Parameters, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return customer and time of every ordinary transaction, by day of week and hour of day."""
    counts = rng.poisson(world.rate * parameters.days)
    customer = np.repeat(np.arange(parameters.customers), counts)
    weekday = date.fromisoformat(parameters.start).weekday()
    weights = _WEEK[(weekday + np.arange(parameters.days)) % 7]
    days = np.cumsum(weights) / weights.sum()
    day = np.minimum(np.searchsorted(days, rng.random(len(customer))), parameters.days - 1)
    hour = (world.hour[customer] + rng.normal(0, 3.2, len(customer))) % 24
    anytime = rng.random(len(customer)) < 0.08
    hour[anytime] = rng.uniform(0, 24, int(anytime.sum()))
    return customer, day * DAY_MS + (hour * HOUR_MS).astype(np.int64)


def _trips(world: World, parameters: Parameters, rng: np.random.Generator) -> Trips:
    customers = parameters.customers
    count = rng.poisson(customers * (parameters.days + 10) * _TRIPS_PER_DAY) + 1
    start = rng.uniform(-10, parameters.days, count)
    holiday = rng.random(count) < _HOLIDAY_SHARE
    holiday[0] = True
    length = np.where(holiday, rng.uniform(4, 14, count), rng.uniform(1, 4, count))
    return Trips(
        rng.integers(0, customers, count),
        (start * DAY_MS).astype(np.int64),
        ((start + length) * DAY_MS).astype(np.int64),
        rng.choice(world.online, count, p=world.city_weight).astype(np.int64),
        np.where(holiday, rng.uniform(1.2, 2.2, count), 1.0),
    )


def _terminals(world: World, customer: Ints, away: Ints, *, rng: np.random.Generator) -> Ints:
    """Return where each transaction happens; `away` is the city of a trip or -1."""
    count = len(customer)
    online = rng.random(count) < ONLINE_SHARE
    # Squaring makes the first favourites the dearest ones.
    near = (rng.random(count) ** 2 * FAVOURITES).astype(np.int64)
    remote = FAVOURITES + (rng.random(count) ** 2 * ONLINE_FAVOURITES).astype(np.int64)
    usual = world.favourites[customer, np.where(online, remote, near)].astype(np.int64)
    strange = rng.random(count) < _ELSEWHERE_SHARE
    city = np.where(away >= 0, away, world.customer_city[customer])
    city = np.where(online, world.online, city)
    moved = np.flatnonzero(strange | ((away >= 0) & ~online))
    usual[moved] = terminals_in(world.popularity, world.first, city[moved], rng=rng)
    return usual


def _to_popular_shops(
    world: World, parameters: Parameters, terminal: Ints, time_ms: Ints, *, rng: np.random.Generator
) -> tuple[Ints, NDArray[np.bool_]]:
    """Send a share of a city's transactions to its shop of the month; return terminals and who went."""
    count = max(1, round(world.online * parameters.days / 45))
    shop = rng.integers(0, world.first[world.online], count)
    start = rng.uniform(-5, 0.9 * parameters.days, count)
    end = start + rng.uniform(7, 25, count)
    found = latest_interval(
        world.terminal_city[shop],
        (start * DAY_MS).astype(np.int64),
        (end * DAY_MS).astype(np.int64),
        of_owner=world.terminal_city[terminal],
        at_ms=time_ms,
    )
    going = (found >= 0) & (rng.random(len(terminal)) < _POPULAR_SHARE)
    return np.where(going, shop[found], terminal), going


def _small_purchases(world: World, parameters: Parameters, rng: np.random.Generator) -> Rows:
    """Return subscriptions (one each) and short series in app stores: they look like card testing."""
    per_day = parameters.customers * parameters.days * parameters.per_customer_day / 1.7
    bursts = rng.poisson(per_day * _BURSTS_PER_DAY) + 1
    singles = rng.poisson(per_day * _SUBSCRIPTIONS_PER_DAY)
    sizes = np.concatenate([rng.integers(2, 5, bursts), np.ones(singles, dtype=np.int64)])
    owner = rng.integers(0, parameters.customers, len(sizes))
    start = rng.uniform(0, parameters.days, len(sizes)) * DAY_MS
    customer = np.repeat(owner, sizes)
    digital = np.flatnonzero(world.category == DIGITAL)
    shop = np.repeat(digital[rng.integers(0, len(digital), len(sizes))], sizes)
    time_ms = np.repeat(start, sizes) + rng.uniform(0, HOUR_MS, len(customer))
    amount = small_amount(len(customer), rng)
    rows = make_rows(customer, shop, time_ms.astype(np.int64), amount, behaviour="small_purchases")
    return chosen(rows, rows.time_ms < parameters.days * DAY_MS)


def small_amount(count: int, rng: np.random.Generator) -> Floats:
    """Return amounts of apps, subscriptions and card tests, major units."""
    return np.clip(rng.lognormal(np.log(2.5), 0.6, count), 0.5, 12.0)
