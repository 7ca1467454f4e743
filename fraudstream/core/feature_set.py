"""The nine features as data: names, order, parameters; their hash names the set everywhere."""

import hashlib

import msgspec

DAY_MS = 86_400_000


class FeatureSet(msgspec.Struct, frozen=True, kw_only=True):
    """Names in order and every constant of the definitions; amounts in minor units, times in milliseconds.

    A ratio is amount / clean mean, rounded once to float32, and compared as rounded. An entity's entries
    are in order of (event_time_ms, id digest). `lateness_ms`: how far behind the newest transaction of its
    entity a late one may be and still be exact.
    """

    name: str = "nine"
    features: tuple[str, ...] = (
        "amount",
        "amount_ratio",
        "max_ratio_14d",
        "days_since_last_hot",
        "days_since_first_hot",
        "terminal_fraud_run",
        "terminal_run_age_days",
        "terminal_days_genuine_before_run",
        "terminal_days_since_genuine",
    )
    minor_per_major: int = 100
    """The feature `amount` is in major units."""
    prior_sum_minor: int = 5_300
    """The clean mean is (sum + prior_sum) / (n + 1) over the customer's clean transactions."""
    clean_max_minor: int = 22_000
    clean_max_ratio: float = 2.5
    clean_warm_up: int = 3
    hot_ratio: float = 3.0
    customer_window_ms: int = 14 * DAY_MS
    terminal_window_ms: int = 60 * DAY_MS
    lateness_ms: int = 7 * DAY_MS
    label_delay_ms: int = 7 * DAY_MS
    """Without a label, a transaction counts as genuine from event time + this on."""
    none_days: float = 99.0
    unknown_days: float = 200.0
    no_run_days: float = -1.0

    @property
    def customer_retention_ms(self) -> int:
        """Return how far behind the customer's newest transaction an entry is still kept."""
        return self.customer_window_ms + self.lateness_ms

    @property
    def terminal_retention_ms(self) -> int:
        """Return how far behind the terminal's newest transaction an entry or label is still kept."""
        return self.terminal_window_ms + self.lateness_ms

    @property
    def hash(self) -> str:
        """Return 16 hex digits of SHA-256 over the canonical JSON of the set."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


NINE = FeatureSet()


def id_digest(transaction_id: str) -> bytes:
    """Return the 8-byte BLAKE2b digest by which the feature store knows a transaction (ADR 0010)."""
    return hashlib.blake2b(transaction_id.encode(), digest_size=8).digest()
