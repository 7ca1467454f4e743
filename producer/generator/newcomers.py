"""Merchants that open during the stream: honest ones all the time, from a day on also shells of thieves.

A shell bills cards of a stolen list once each, a small fixed price, and is gone before the first label
comes. It looks like a new shop: no confirmed outcome yet. Only generated when `shells_from_day` is set.
"""

import msgspec
import numpy as np

from fraudstream.core.feature_set import DAY_MS
from producer.generator.parameters import Parameters
from producer.generator.rows import Floats, Ints, Rows, joined, make_rows
from producer.generator.world import DIGITAL, World

_SHELL_CARDS = (10, 40)
_SHELL_DAYS = (0.25, 1.5)
_SHELL_PRICES = (4, 15)
"""Whole units below 0.95, as in 4.95 to 14.95."""
_SHOPS_PER_DAY = 0.35
_SHOP_RATE = (1.0, 6.0)
"""Transactions a day of a new honest shop."""
_SHOP_PRICES = np.array([8.0, 12.0, 25.0, 50.0])
_SHOP_PRICE_SHARES = np.array([0.3, 0.2, 0.25, 0.25])
_ONE_PRICE_SHARE = 0.5
_ONE_PRICE_SPREAD, _PRICE_SPREAD = 0.05, 0.5


def with_newcomers(
    world: World, parameters: Parameters, frauds_per_day: float, rng: np.random.Generator
) -> tuple[World, Rows]:
    """Return the world with the new merchants' terminals, all online, and their transactions."""
    first = len(world.category)
    honest = _new_shops(parameters, first, rng)
    after = first + _count(honest, first)
    stolen = _shells(parameters, after, frauds_per_day, rng)
    added = _count(honest, first) + _count(stolen, after)
    online = msgspec.structs.replace(
        world,
        terminal_x=np.append(world.terminal_x, np.zeros(added)),
        terminal_y=np.append(world.terminal_y, np.zeros(added)),
        terminal_city=np.append(world.terminal_city, np.full(added, world.online)),
        category=np.append(world.category, np.full(added, DIGITAL)),
    )
    return online, joined([honest, stolen])


def _new_shops(parameters: Parameters, first: int, rng: np.random.Generator) -> Rows:
    """Return what honest customers pay at shops that open during the stream, from its first day on."""
    days = parameters.days
    opened = rng.uniform(0, days, 1 + rng.poisson(_SHOPS_PER_DAY * days))
    sales = 1 + rng.poisson(rng.uniform(*_SHOP_RATE, len(opened)) * (days - opened))
    shop = np.repeat(np.arange(len(opened)), sales)
    price = rng.choice(_SHOP_PRICES, len(opened), p=_SHOP_PRICE_SHARES)
    one_price = rng.random(len(opened)) < _ONE_PRICE_SHARE
    spread = np.where(one_price, _ONE_PRICE_SPREAD, _PRICE_SPREAD)[shop]
    amount = price[shop] * np.exp(rng.normal(0, 1, len(shop)) * spread)
    time = opened[shop] + rng.random(len(shop)) * (days - opened[shop])
    customer = rng.integers(0, parameters.customers, len(shop))
    return make_rows(customer, first + shop, _ms(time), amount, behaviour="new_shop")


def _shells(
    parameters: Parameters, first: int, frauds_per_day: float, rng: np.random.Generator
) -> Rows:
    """Return about `frauds_per_day` thefts a day from `shells_from_day` on, each card once a shell."""
    onset = parameters.shells_from_day or 0
    wanted = frauds_per_day * (parameters.days - onset)
    most = min(_SHELL_CARDS[1], parameters.customers)
    cards = rng.integers(min(_SHELL_CARDS[0], most - 1), most, int(wanted / _SHELL_CARDS[0]) + 2)
    cards = cards[: max(int(np.searchsorted(np.cumsum(cards), wanted)), 1)]
    life = rng.uniform(*_SHELL_DAYS, len(cards))
    opened = rng.uniform(onset, np.maximum(parameters.days - life, onset))
    shell = np.repeat(np.arange(len(cards)), cards)
    price = rng.integers(*_SHELL_PRICES, len(cards)) + 0.95
    time = opened[shell] + rng.random(len(shell)) * life[shell]
    customer = np.concatenate(
        [rng.choice(parameters.customers, count, replace=False) for count in cards.tolist()]
    )
    amount = price[shell].astype(np.float64)
    return make_rows(customer, first + shell, _ms(time), amount, behaviour="shell_merchant")


def _count(rows: Rows, first: int) -> int:
    return int(rows.terminal.max()) + 1 - first


def _ms(days: Floats) -> Ints:
    return (days * DAY_MS).astype(np.int64)
