"""Puts the list of metrics into docs/metrics.md: `.venv/bin/python docs/metrics_table.py`."""

from pathlib import Path

from blocks import put

from fraudstream.core.metrics import SCORER, table

PAGE = Path(__file__).parent / "metrics.md"
BEGIN = "<!-- metrics of a scorer -->"


def main() -> None:
    """Write the table anew."""
    put(PAGE, BEGIN, table(SCORER))


if __name__ == "__main__":
    main()
