"""Fills the addresses that the settings leave empty from the stack that runs in their state folder."""

import msgspec

from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.settings import Settings
from fraudstream.stack.embedded import addresses

NEEDS = {
    "kafka_bootstrap": ("Kafka", "FRAUDSTREAM_KAFKA_BOOTSTRAP"),
    "redis_url": ("Redis", "FRAUDSTREAM_REDIS_URL"),
    "mlflow_url": ("MLflow", "FRAUDSTREAM_MLFLOW_URL"),
}


def with_addresses(settings: Settings) -> Settings:
    """Return the settings with all three addresses.

    Raises:
        DependencyUnreachable: an address is neither set nor does the embedded stack run.
    """
    found = msgspec.structs.asdict(addresses(settings))
    for field, (name, variable) in NEEDS.items():
        if not found[field]:
            raise DependencyUnreachable(
                f"no {name} address: start the embedded stack with `fraudstream stack up` or set {variable}"
            )
    return msgspec.structs.replace(settings, **found)
