"""Who can pay where: cities on a plane, customers with habits, terminals with place and category."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from producer.generator.parameters import Parameters
from producer.generator.rows import Floats, Ints

FAVOURITES = 12
ONLINE_FAVOURITES = 4
_SIDE_KM = 900.0
_CITY_KM = 7.0


class Category(msgspec.Struct, frozen=True):
    """A kind of shop: merchant category code (ISO 18245), typical amount, share among its terminals."""

    name: str
    code: float
    scale: float
    share: float


PHYSICAL = (
    Category("groceries", 5411, 0.9, 0.34),
    Category("fuel", 5541, 1.0, 0.13),
    Category("restaurant", 5812, 0.75, 0.25),
    Category("clothing", 5651, 1.2, 0.15),
    Category("electronics", 5732, 1.35, 0.05),
    Category("travel", 4722, 1.35, 0.03),
    Category("cash", 6011, 1.2, 0.05),
)
ONLINE = (
    Category("online_shop", 5964, 1.1, 0.6),
    Category("digital", 5815, 0.35, 0.4),
)
CATEGORIES = PHYSICAL + ONLINE
DIGITAL = len(PHYSICAL) + 1
CASH = 6
DEAR = (4, 5, len(PHYSICAL))
"""Categories where one expensive thing is bought: electronics, travel, online shop."""
_ONLINE_TERMINALS = 0.15


class World(msgspec.Struct, frozen=True):
    """Customers [C], terminals [T] and cities [K]; terminals stand sorted by city, online ones last.

    Places in km, mean amounts in major units, rates in transactions a day, hours in [0, 24).
    Terminals of city k have indices first[k] to first[k + 1]; "city" K is online.
    """

    city_x: Floats
    city_y: Floats
    city_weight: Floats
    first: Ints
    terminal_x: Floats
    terminal_y: Floats
    terminal_city: Ints
    category: Ints
    popularity: Floats
    customer_x: Floats
    customer_y: Floats
    customer_city: Ints
    mean_amount: Floats
    rate: Floats
    hour: Floats
    favourites: NDArray[np.int32]

    @property
    def online(self) -> int:
        """Return the number that stands for online among the cities."""
        return len(self.city_x)


def make_world(parameters: Parameters, rng: np.random.Generator) -> World:
    """Return the world of `parameters`, drawn from `rng`."""
    cities = max(2, min(24, parameters.terminals // 40))
    weight = (1.0 / np.arange(1, cities + 1) ** 0.7).astype(np.float64)
    weight /= weight.sum()
    city_x, city_y = rng.uniform(0, _SIDE_KM, (2, cities))
    city = _terminal_cities(parameters.terminals, weight, rng)
    first = np.searchsorted(city, np.arange(cities + 2))
    popularity = rng.lognormal(0.0, 0.6, parameters.terminals)
    home = rng.choice(cities, parameters.customers, p=weight).astype(np.int64)
    place_x, place_y = np.append(city_x, 0.0)[city], np.append(city_y, 0.0)[city]
    shift = rng.normal(0, _CITY_KM, (2, parameters.terminals))
    at_home = rng.normal(0, _CITY_KM, (2, parameters.customers))
    rate = rng.lognormal(-0.125, 0.5, parameters.customers) * parameters.per_customer_day
    return World(
        city_x,
        city_y,
        weight,
        first,
        place_x + shift[0],
        place_y + shift[1],
        city,
        _categories(city == cities, rng),
        popularity,
        city_x[home] + at_home[0],
        city_y[home] + at_home[1],
        home,
        np.clip(rng.lognormal(np.log(40), 0.55, parameters.customers), 8, 120),
        rate,
        rng.normal(15.5, 2.0, parameters.customers) % 24,
        _favourites(popularity, first, home, rng=rng),
    )


def terminals_in(popularity: Floats, first: Ints, city: Ints, *, rng: np.random.Generator) -> Ints:
    """Return for each city in `city` one of its terminals, drawn by popularity; int64 [N]."""
    total = np.concatenate([[0.0], np.cumsum(popularity)])
    low, high = total[first[city]], total[first[city + 1]]
    drawn = np.searchsorted(total, low + rng.random(city.shape) * (high - low), side="right") - 1
    inside: Ints = np.clip(drawn, first[city], first[city + 1] - 1)
    return inside


def distance_km(world: World, customer: Ints, terminal: Ints) -> Floats:
    """Return the distance from the customer's home, km; 0 for a terminal that is online."""
    x = world.customer_x[customer] - world.terminal_x[terminal]
    y = world.customer_y[customer] - world.terminal_y[terminal]
    return np.where(is_online(world, terminal), 0.0, np.hypot(x, y))


def is_online(world: World, terminal: Ints) -> NDArray[np.bool_]:
    """Return whether each terminal is online."""
    online: NDArray[np.bool_] = terminal >= world.first[world.online]
    return online


def scales() -> Floats:
    """Return the typical amount of each category, relative to the customer's mean."""
    return np.array([category.scale for category in CATEGORIES])


def _terminal_cities(terminals: int, weight: Floats, rng: np.random.Generator) -> Ints:
    """Return the sorted city of each terminal: at least one a city, at least two online."""
    cities = len(weight)
    online = max(4, round(terminals * _ONLINE_TERMINALS))
    drawn = rng.choice(cities, terminals - online - cities, p=weight)
    return np.sort(np.concatenate([drawn, np.arange(cities), np.full(online, cities)]))


def _categories(online: NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    physical = rng.choice(len(PHYSICAL), len(online), p=[c.share for c in PHYSICAL])
    remote = len(PHYSICAL) + rng.choice(len(ONLINE), len(online), p=[c.share for c in ONLINE])
    category = np.where(online, remote, physical).astype(np.int64)
    category[-2:] = DEAR[-1], DIGITAL  # every world has one of both
    return category


def _favourites(
    popularity: Floats, first: Ints, home: Ints, *, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return the terminals that each customer goes to, the online ones last; int32 [C, 12 + 4]."""
    online = np.full((len(home), ONLINE_FAVOURITES), len(first) - 2)
    near = np.repeat(home[:, None], FAVOURITES, axis=1)
    city = np.concatenate([near, online], axis=1)
    return terminals_in(popularity, first, city, rng=rng).astype(np.int32)
