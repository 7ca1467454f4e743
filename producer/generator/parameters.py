"""Everything that decides a generated stream, as one frozen object; its hash names the source."""

import hashlib
import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from fraudstream.core.errors import SettingsError

VERSION = 1
"""Rises when the same parameters no longer give the same stream, so that two never share an identity."""
EVENTS_VERSION = 2
"""The same for streams with an event; the others keep their identity."""
MAX_ROWS = 20_000_000
"""The simulation holds all rows in memory, about 150 bytes each."""

_SWITCHED = {"shells_from_day": ("shell_share",), "wave_day": ("wave_cards",)}
"""What does not count while its switch is None: the stream, and so its digest, is what it was before."""

Share = Annotated[float, Meta(ge=0, le=1)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seed, size and difficulty of a stream. Shares are of the expected number of frauds.

    The defaults are those of the demo: 3,400 transactions a day, of which a terminal sees about two.
    """

    seed: Annotated[int, Meta(ge=0, lt=2**62)] = 7
    customers: Annotated[int, Meta(ge=20, le=5_000_000)] = 2_000
    terminals: Annotated[int, Meta(ge=50, le=5_000_000)] = 1_500
    days: Annotated[int, Meta(ge=1, le=3_660)] = 60
    start: str = "2025-01-06"
    per_customer_day: Annotated[float, Meta(gt=0, le=50)] = 1.7
    fraud_rate: Annotated[float, Meta(ge=0.0005, le=0.05)] = 0.005
    compromised_share: Share = 0.46
    draining_share: Share = 0.16
    takeover_share: Share = 0.18
    high_value_share: Share = 0.14
    testing_share: Share = 0.06
    never_reported: Share = 0.1
    shells_from_day: Annotated[int, Meta(ge=0)] | None = None
    """From this day on thieves open merchants of their own; honest ones open during the whole stream."""
    shell_share: Annotated[float, Meta(gt=0, le=5)] = 1.0
    """Frauds of shells a day, relative to all others."""
    wave_day: Annotated[int, Meta(ge=0)] | None = None
    """On this day `wave_cards` cards are drained within hours."""
    wave_cards: Annotated[int, Meta(ge=1, le=1_000_000)] = 300

    @property
    def digest(self) -> str:
        """Return 12 hex digits of SHA-256 over the version and the canonical JSON of the parameters."""
        chosen = msgspec.to_builtins(self)
        events = any(chosen[switch] is not None for switch in _SWITCHED)
        for switch, names in _SWITCHED.items():
            if chosen[switch] is None:
                for name in (switch, *names):
                    del chosen[name]
        version = [VERSION, EVENTS_VERSION] if events else VERSION
        document = msgspec.json.encode((version, chosen), order="sorted")
        return hashlib.sha256(document).hexdigest()[:12]


def make_parameters(values: Mapping[str, object]) -> Parameters:
    """Return parameters made from `values`.

    Raises:
        SettingsError: an unknown name, a value of a wrong type or out of range, or too many rows.
    """
    try:
        made = msgspec.convert(dict(values), Parameters)
    except msgspec.ValidationError as exc:
        found = re.search(r"`\$\.(\w+)`", str(exc))
        field = found.group(1) if found else "parameters"
        reason = re.sub(r" - at `.*`$", "", str(exc))
        raise SettingsError(f"{field} = {values.get(field)!r}: {reason}") from exc
    _check(made)
    return made


def _check(made: Parameters) -> None:
    try:
        first = date.fromisoformat(made.start)
    except ValueError as exc:
        raise SettingsError(
            f"start = {made.start!r}: use an ISO date from 2000-01-01 to 2089-12-31"
        ) from exc
    if not 2000 <= first.year < 2090:
        raise SettingsError(
            f"start = {made.start!r}: use an ISO date from 2000-01-01 to 2089-12-31"
        )
    rows = made.customers * made.days * made.per_customer_day
    if not 500 <= rows <= MAX_ROWS:
        raise SettingsError(
            f"customers x days x per_customer_day = {rows:,.0f} transactions: use 500 to {MAX_ROWS:,}"
        )
    _check_events(made)
    names = ("compromised", "draining", "takeover", "high_value", "testing")
    shares = {f"{name}_share": getattr(made, f"{name}_share") for name in names}
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise SettingsError(
            f"the shares {shares} add up to {sum(shares.values()):g}: they must give 1"
        )


def _check_events(made: Parameters) -> None:
    for name in _SWITCHED:
        day = getattr(made, name)
        if day is not None and day >= made.days:
            raise SettingsError(
                f"{name} = {day}: the stream has days 0 to {made.days - 1}; use one of them"
            )
    if made.wave_day is not None and made.wave_cards > made.customers:
        raise SettingsError(
            f"wave_cards = {made.wave_cards}: there are {made.customers} customers; use at most that"
        )
