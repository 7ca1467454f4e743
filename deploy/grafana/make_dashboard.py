"""Writes Grafana's dashboard from panels.yml: `.venv/bin/python deploy/grafana/make_dashboard.py`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
FILE = FOLDER / "dashboards" / "fraudstream.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
COLUMNS = 24
HEIGHT = 7
Json = dict[str, Any]


def dashboard() -> Json:
    """Return the dashboard as Grafana imports it."""
    return {
        "uid": "fraudstream",
        "title": "fraudstream",
        "tags": ["fraudstream"],
        "schemaVersion": 41,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(_placed(), start=1)],
    }


def _placed() -> Iterator[Json]:
    """Yield rows and panels, each below or beside the one before."""
    y = 0
    for title, panels in yaml.safe_load((FOLDER / "panels.yml").read_text()).items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        x, y = 0, y + 1
        for panel in panels:
            width = panel.get("width", 8)
            if x + width > COLUMNS:
                x, y = 0, y + HEIGHT
            yield _panel(panel) | {"gridPos": {"x": x, "y": y, "w": width, "h": HEIGHT}}
            x += width
        y += HEIGHT


def _panel(panel: Json) -> Json:
    kind = panel.get("kind", "timeseries")
    steps: list[Json] = [{"color": "green", "value": None}]
    if "red" in panel:
        steps.append({"color": "red", "value": panel["red"]})
    defaults = {
        "unit": panel.get("unit", "short"),
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    return {
        "type": kind,
        "title": panel["title"],
        "description": panel["tells"],
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"calculate": False} if kind == "heatmap" else {},
        "targets": [
            {
                "refId": letter,
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend,
                "format": "heatmap" if kind == "heatmap" else "time_series",
            }
            for letter, (legend, expr) in zip("ABCDEFGH", panel["queries"].items(), strict=False)
        ],
    }


def main() -> None:
    """Write the file anew."""
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n")


if __name__ == "__main__":
    main()
