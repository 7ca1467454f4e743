"""Does the story of `fraudstream demo` hold for other seeds? Runs it whole for each and prints JSON.

    .venv/bin/python -m benchmarks.drift_story --seeds 1-10

The story holds for a seed if recall fell (the interval before lies below that of the calm), recovered
(after > before, and the paired interval of what the retrained model found more than the first one would
have, on the same transactions, lies above 0), two versions served, and nothing was lost or doubled
within 180 s. Two and a half minutes a seed; better on a machine that does
nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from verify.demo.periods import Period
from verify.demo.summary import Summary

MOST_SECONDS = 180


def main() -> None:
    """Run the demo for each seed and print the table with the number of seeds for which it holds."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--seeds", default="1-10", help="such as 1-10 or 3,7")
    seeds = numbers(arguments.parse_args().seeds)
    rows = []
    for seed in seeds:
        load = os.getloadavg()[0]
        rows.append({**row(seed, told(seed)), "load_average_before": round(load, 1)})
        print(json.dumps(rows[-1]), file=sys.stderr)
    report = {
        "command": f"python -m benchmarks.drift_story --seeds {seeds[0]}-{seeds[-1]}",
        "holds": sum(bool(each["holds"]) for each in rows),
        "in_time": sum(bool(each["in_time"]) for each in rows),
        "of": len(rows),
        "seeds": rows,
    }
    print(json.dumps(report, indent=2))


def numbers(text: str) -> list[int]:
    """Return the numbers in a text such as `1-3,7`."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def told(seed: int) -> Summary:
    """Run the demo in a folder of its own and return its summary."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "summary.json"
        overrides = ("--set", f"state_dir={folder}/state")
        options = ("--seed", str(seed), "--exit", "--json", str(report))
        command = (sys.executable, "-m", "fraudstream.cli", *overrides, "demo", *options)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return msgspec.json.decode(report.read_bytes(), type=Summary)


def row(seed: int, s: Summary) -> dict[str, object]:
    """Return one line of the table."""
    periods = {period.name: period for period in s.periods}
    shares = {
        f"{measure}_{name}": interval(period, measure)
        for name, period in periods.items()
        for measure in ("recall", "precision")
    }
    return {
        "seed": seed,
        "holds": holds(s, periods),
        "in_time": s.seconds <= MOST_SECONDS,
        **shares,
        "recall_without_retraining": s.recall_without_retraining,
        "gain": s.retraining and [s.retraining.gain, s.retraining.gain_low, s.retraining.gain_high],
        "alerts_per_1000": {
            name: round(p.precision.total / p.transactions * 1000, 1) for name, p in periods.items()
        },
        "model_versions": s.model_versions,
        "swaps": s.swaps,
        "swap_longest_pause_ms": s.swap_longest_pause_ms,
        "lost": s.lost,
        "duplicates": s.duplicates,
        "p99_ms": s.p99_ms,
        "view_cpu_share": s.view_cpu_share,
        "seconds": s.seconds,
    }


def interval(period: Period, measure: str) -> list[float | None]:
    """Return value, lower and upper bound of a share, rounded."""
    share = getattr(period, measure)
    values = (share.value, share.low, share.high)
    return [None if value is None else round(value, 3) for value in values]


def holds(s: Summary, periods: dict[str, Period]) -> bool:
    """Tell whether everything that the story claims is so in this run."""
    if set(periods) != {"calm", "before", "after"}:
        return False
    calm, before, after = (periods[name].recall for name in ("calm", "before", "after"))
    fell = (before.high or 1) < (calm.low or 0)
    recovered = (after.value or 0) > (before.value or 1)
    better = s.retraining is not None and s.retraining.gain_low > 0
    whole = s.lost == s.duplicates == 0
    return fell and recovered and better and whole and s.model_versions >= 2


if __name__ == "__main__":
    main()
