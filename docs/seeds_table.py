"""Puts what the two benchmarks of the drift story found into docs/demo.md and docs/generator.md, as tables.

Usage: .venv/bin/python docs/seeds_table.py live FILE | offline FILE (the JSON that the benchmark printed)
"""

import json
import sys
from pathlib import Path
from typing import Any

import click
from blocks import put

DOCS = Path(__file__).parent
LIVE = (
    "seed",
    "recall calm",
    "before the swap",
    "after",
    "gain over the first model, paired",
    "precision calm / before / after",
    "alerts in 1,000",
    "longest pause",
    "seconds (load before)",
    "holds",
)
OFFLINE = (
    "seed",
    "recall calm",
    "before",
    "after",
    "after, first model",
    "precision calm / before / after",
    "alerts in 1,000",
    "shells found before / after",
    "holds",
)


def main() -> None:
    """Write the table of one benchmark."""
    kind, file = sys.argv[1:]
    report = json.loads(Path(file).read_text())
    rows = [(live if kind == "live" else offline)(each) for each in report["seeds"]]
    page = DOCS / ("demo.md" if kind == "live" else "generator.md")
    begin = f"<!-- table: .venv/bin/python docs/seeds_table.py {kind} FILE -->"
    head = LIVE if kind == "live" else OFFLINE
    lines = [head, ("---",) * len(head), *rows]
    said = f"It holds for {report['holds']} of {report['of']} seeds."
    put(page, begin, "\n".join(["| " + " | ".join(row) + " |" for row in lines] + ["", said]))


def live(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one run of the whole demo."""
    names = ("calm", "before", "after")
    return (
        str(row["seed"]),
        *(interval(row[f"recall_{name}"]) for name in names),
        interval(row["gain"], sign="+"),
        " / ".join(f"{row[f'precision_{name}'][0]:.2f}" for name in names),
        " / ".join(f"{row['alerts_per_1000'][name]:.0f}" for name in names),
        f"{row['swap_longest_pause_ms']} ms",
        f"{row['seconds']:.0f} ({row['load_average_before']:.0f})",
        "yes" if row["holds"] else "no",
    )


def offline(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one stream without servers."""
    names = ("calm", "before", "after")
    shells = (row[name]["recall_by_behaviour"]["shell_merchant"][0] for name in names[1:])
    return (
        str(row["stream"]["seed"]),
        *(interval(row[name]["recall_by_incidents"]) for name in names),
        f"{row['after_without_retraining']['recall'][0]:.2f}",
        " / ".join(f"{row[name]['precision'][0]:.2f}" for name in names),
        " / ".join(f"{row[name]['alerts_per_1000']:.0f}" for name in names),
        " / ".join(f"{each:.2f}" for each in shells),
        "yes" if all(row["checks"].values()) else "no",
    )


def interval(values: list[float], *, sign: str = "") -> str:
    """Return value and bounds, such as `0.61 (0.52 to 0.69)`."""
    value, low, high = (f"{each:{sign}.2f}" for each in values[:3])
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as exc:
        sys.exit(f"{exc}\n{__doc__}")
    except click.ClickException as exc:
        sys.exit(exc.message)
