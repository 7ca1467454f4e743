"""Fills the addresses that the settings leave empty from the stack that runs in their state folder."""

from collections.abc import Sequence

import msgspec

from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.settings import Settings
from fraudstream.stack.embedded import addresses
from fraudstream.stack.state import SERVERS, ServerName

FIELDS: dict[ServerName, tuple[str, str]] = {
    "kafka": ("kafka_bootstrap", "Kafka"),
    "redis": ("redis_url", "Redis"),
    "mlflow": ("mlflow_url", "MLflow"),
}


def with_addresses(settings: Settings, needs: Sequence[ServerName] = SERVERS) -> Settings:
    """Return the settings with every address that is known, those of `needs` for certain.

    Raises:
        DependencyUnreachable: an address of `needs` is neither set nor does the embedded stack run.
    """
    found = msgspec.structs.asdict(addresses(settings))
    for name in needs:
        field, title = FIELDS[name]
        if not found[field]:
            raise DependencyUnreachable(
                f"no {title} address: start the embedded stack with `fraudstream stack up` "
                f"or set FRAUDSTREAM_{field.upper()}"
            )
    return msgspec.structs.replace(settings, **found)
