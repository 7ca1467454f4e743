"""Puts the lists of metrics into docs/metrics.md: `.venv/bin/python docs/metrics_table.py`."""

from pathlib import Path

from blocks import put

from fraudstream.core.health import MEANINGS
from fraudstream.core.metrics import SERVICES, table

PAGE = Path(__file__).parent / "metrics.md"


def states() -> str:
    """Return the states of services as a table."""
    rows = [f"| `{state}` | {meaning} |" for state, meaning in MEANINGS.items()]
    return "\n".join(["| state | meaning |", "|---|---|", *rows])


def main() -> None:
    """Write each service's table anew, and that of the states."""
    put(PAGE, "<!-- states -->", states())
    for service, metrics in SERVICES.items():
        put(PAGE, f"<!-- metrics of {service} -->", table(metrics))


if __name__ == "__main__":
    main()
