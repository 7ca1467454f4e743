"""Merchants that open during the stream: honest ones all the time, from a day on also shells of thieves.

A shell bills cards of a stolen list once each, a small fixed price, and is gone before the first label
comes. It looks like a new shop: no confirmed outcome yet. Only generated when `shells_from_day` is set.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from fraudstream.core.feature_set import DAY_MS
from producer.generator.ordinary import typical_amount
from producer.generator.parameters import Parameters
from producer.generator.rows import Floats, Ints, Rows, joined, make_rows
from producer.generator.world import DEAR, DIGITAL, World

_PRICES = np.array([4.95, 6.95, 9.95, 14.95, 19.95, 29.95])
"""What small things cost online."""
_SHELL_PRICES = _PRICES[:4]
_SHELL_CARDS = (8, 28)
_SHELL_DAYS = (0.25, 1.5)
_SHOPS_PER_1000 = 0.36
"""New honest shops a day for each 1,000 transactions a day."""
_SHOP_RATE = (0.3, 1.5)
"""Transactions a day of a new honest shop."""
_DIGITAL_SHARE, _ONE_PRICE_SHARE = 0.6, 0.7
"""Shares of digital shops among the new ones, and of those with one price among the digital ones."""
_GOLDEN = 0.6180339887498949


def with_newcomers(
    world: World, parameters: Parameters, frauds_per_day: float, rng: np.random.Generator
) -> tuple[World, Rows]:
    """Return the world with the new merchants' terminals, all online, and their transactions."""
    world, honest = _new_shops(world, parameters, rng)
    first = len(world.category)
    stolen = _shells(parameters, first, frauds_per_day, rng)
    shells = int(stolen.terminal.max()) + 1 - first
    return _with_terminals(world, np.full(shells, DIGITAL)), joined([honest, stolen])


def _new_shops(
    world: World, parameters: Parameters, rng: np.random.Generator
) -> tuple[World, Rows]:
    """Return what honest customers pay at shops that open during the stream, from its first day on."""
    days, first = parameters.days, len(world.category)
    volume = parameters.customers * parameters.per_customer_day / 1000
    opened = rng.uniform(0, days, 1 + rng.poisson(_SHOPS_PER_1000 * volume * days))
    digital = rng.random(len(opened)) < _DIGITAL_SHARE
    one_price = digital & (rng.random(len(opened)) < _ONE_PRICE_SHARE)
    price = rng.choice(_PRICES, len(opened))
    sales = 1 + rng.poisson(rng.uniform(*_SHOP_RATE, len(opened)) * (days - opened))
    shop = np.repeat(np.arange(len(opened)), sales)
    time = opened[shop] + rng.random(len(shop)) * (days - opened[shop])
    customer = rng.integers(0, parameters.customers, len(shop))
    world = _with_terminals(world, np.where(digital, DIGITAL, DEAR[-1]))
    usual = typical_amount(world, customer, first + shop, rng=rng)
    amount = np.where(one_price[shop], price[shop], usual)
    return world, make_rows(customer, first + shop, _ms(time), amount, behaviour="new_shop")


def _shells(
    parameters: Parameters, first: int, frauds_per_day: float, rng: np.random.Generator
) -> Rows:
    """Return about `frauds_per_day` thefts a day from `shells_from_day` on, each card once a shell."""
    onset = parameters.shells_from_day or 0
    cards = _lists_of_cards(parameters, frauds_per_day * (parameters.days - onset), rng)
    life = rng.uniform(*_SHELL_DAYS, len(cards))
    # Multiples of the golden ratio fill the time evenly, however few they are.
    place = (rng.random() + _GOLDEN * np.arange(len(cards))) % 1
    opened = onset + place * np.maximum(parameters.days - life - onset, 0)
    shell = np.repeat(np.arange(len(cards)), cards)
    time = opened[shell] + rng.random(len(shell)) * life[shell]
    customer = np.concatenate(
        [rng.choice(parameters.customers, count, replace=False) for count in cards.tolist()]
    )
    prices = rng.choice(_SHELL_PRICES, (2, len(cards)))
    amount = prices[rng.integers(0, 2, len(shell)), shell]
    return make_rows(customer, first + shell, _ms(time), amount, behaviour="shell_merchant")


def _lists_of_cards(parameters: Parameters, wanted: float, rng: np.random.Generator) -> Ints:
    """Return how many cards each shell bills, at least one shell, together about `wanted`."""
    least, most = _SHELL_CARDS
    most = min(most, parameters.customers)
    cards: Ints = rng.integers(least, most + 1, int(wanted / least) + 2)
    return cards[: max(int(np.searchsorted(np.cumsum(cards), wanted)), 1)]


def _with_terminals(world: World, category: NDArray[np.int64]) -> World:
    """Return `world` with one more terminal online for each of `category`; no habit changes."""
    added = len(category)
    return msgspec.structs.replace(
        world,
        terminal_x=np.append(world.terminal_x, np.zeros(added)),
        terminal_y=np.append(world.terminal_y, np.zeros(added)),
        terminal_city=np.append(world.terminal_city, np.full(added, world.online)),
        category=np.append(world.category, category),
    )


def _ms(days: Floats) -> Ints:
    return (days * DAY_MS).astype(np.int64)
