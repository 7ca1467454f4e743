"""The best score that exists: odds of fraud for one who knows the simulator's hidden state.

Known are which terminals are compromised and with which share, which cards a thief uses now and how he
pays, which new merchants are shells, and the odds of each single dear purchase; unknown are the coin
flips, and whose transaction it is.
"""

import numpy as np
from numpy.typing import NDArray

from fraudstream.core.feature_set import DAY_MS
from producer.generator.fraud import (
    DRAINING_ONLINE,
    DRAINING_RATIO,
    DRAINING_SPREAD,
    TAKEOVER_ONLINE,
    TAKEOVER_RATIO,
    TAKEOVER_SPREAD,
    Attacks,
)
from producer.generator.intervals import latest_interval
from producer.generator.ordinary import NOISE, ONLINE_SHARE
from producer.generator.rows import CODE, Floats, Rows
from producer.generator.world import World, is_online, scales

_FAR_SHARE = 0.05
"""How often an honest customer pays in another city."""
_SMALL = (np.log(2.5), 0.6)
_SETTLED = ("high_value", "big_purchase", "shell_merchant", "new_shop")
"""Their odds do not depend on what a thief does with the card meanwhile."""


def true_odds(world: World, rows: Rows, attacks: Attacks) -> Floats:
    """Return P(fraud | hidden state, amount, place) of every row, float64 [N] in [0, 1]."""
    found = latest_interval(
        attacks.customer,
        attacks.start_ms,
        attacks.end_ms,
        of_owner=rows.customer,
        at_ms=rows.time_ms,
    )
    settled = np.isin(rows.behaviour, [CODE[name] for name in _SETTLED])
    under = np.flatnonzero((found >= 0) & ~settled)
    odds = rows.odds.copy()
    odds[under] = _posterior(world, rows, attacks, under, found[under], odds[under])
    return odds


def _posterior(
    world: World,
    rows: Rows,
    attacks: Attacks,
    under: NDArray[np.int64],
    attack: NDArray[np.int64],
    before: Floats,
) -> Floats:
    """Weigh the thief's rate and density of (log amount, place) against the customer's (Bayes)."""
    customer, terminal = rows.customer[under], rows.terminal[under]
    log_amount = np.log(rows.amount[under])
    online = is_online(world, terminal)
    far = ~online & (world.terminal_city[terminal] != world.customer_city[customer])
    days = (attacks.end_ms[attack] - attacks.start_ms[attack]) / DAY_MS
    log_mean = np.log(world.mean_amount[customer])
    kind = attacks.behaviour[attack]
    middle, spread, remote = _payments(kind, log_mean)
    thief = attacks.count[attack] / days * _normal(log_amount, middle, spread)
    thief *= np.where(online, remote, np.where(far, 1 - remote, (1 - remote) * 0.1))
    usual = log_mean + np.log(scales()[world.category[terminal]])
    owner = world.rate[customer] * _normal(log_amount, usual, np.full(len(under), NOISE))
    owner *= np.where(online, ONLINE_SHARE, np.where(far, _FAR_SHARE, 1 - ONLINE_SHARE))
    # A thief's own row carries odds 1 so far; only a compromised terminal's share is kept as prior.
    share = np.where(before < 1, before, 0.0)
    odds: Floats = 1 - (1 - thief / (thief + owner + 1e-12)) * (1 - share)
    return odds


def _payments(kind: NDArray[np.uint8], log_mean: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean and standard deviation of the log amount, and the share online, of each attack."""
    draining, takeover = kind == CODE["draining"], kind == CODE["takeover"]
    middle = np.full(len(kind), _SMALL[0])
    middle = np.where(draining, log_mean + np.log(DRAINING_RATIO), middle)
    middle = np.where(takeover, log_mean + np.log(TAKEOVER_RATIO), middle)
    spread = np.select([draining, takeover], [DRAINING_SPREAD, TAKEOVER_SPREAD], _SMALL[1])
    remote = np.select([draining, takeover], [DRAINING_ONLINE, TAKEOVER_ONLINE], 1.0)
    return middle, spread, remote


def _normal(value: Floats, middle: Floats, spread: Floats) -> Floats:
    density: Floats = np.exp(-(((value - middle) / spread) ** 2) / 2) / spread
    return density
