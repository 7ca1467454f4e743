"""Writes the dashboard from its list of panels: `.venv/bin/python deploy/grafana/make_dashboard.py`."""

import json
from pathlib import Path

import msgspec

DASHBOARD = Path(__file__).parent / "dashboards" / "fraudstream.json"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH, HEIGHT = 24, 7


class Panel(msgspec.Struct, frozen=True):
    """One panel: its queries by legend, the unit of Grafana, how wide of 24, its kind."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    says: str = ""


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return the query of a quantile of a histogram."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[1m])))"


ROWS: dict[str, list[Panel]] = {
    "Is all well?": [
        Panel(
            "Lost or doubled",
            {"difference": "fraudstream_ledger_difference"},
            width=4,
            kind="stat",
            says="Committed transactions without exactly one result of their own. Must be 0.",
        ),
        Panel(
            "Oldest without a result",
            {"age": "fraudstream_ledger_oldest_waiting_seconds"},
            unit="s",
            width=4,
            kind="stat",
        ),
        Panel(
            "Scorers ready",
            {"ready": 'count(fraudstream_scorer_state{state="ready"}) or vector(0)'},
            width=4,
            kind="stat",
        ),
        Panel("Records that wait", {"lag": "sum(fraudstream_scorer_lag)"}, width=4, kind="stat"),
        Panel(
            "Version that serves",
            {"{{version}}": "count by (version) (fraudstream_scorer_model)"},
            width=4,
            kind="stat",
        ),
        Panel(
            "Age of the ledger's judgement",
            {"age": "fraudstream_ledger_age_seconds"},
            unit="s",
            width=4,
            kind="stat",
        ),
    ],
    "Throughput and latency": [
        Panel(
            "Scored a second",
            {"{{instance}}": "sum by (instance) (rate(fraudstream_scorer_scored_total[1m]))"},
            unit="cps",
        ),
        Panel(
            "Latency by stage, p99",
            {"{{stage}}": quantile(0.99, "fraudstream_scorer_stage_seconds", "stage")},
            unit="s",
        ),
        Panel(
            "Latency by stage, median",
            {"{{stage}}": quantile(0.5, "fraudstream_scorer_stage_seconds", "stage")},
            unit="s",
        ),
        Panel(
            "Commit",
            {
                "p50": quantile(0.5, "fraudstream_scorer_commit_seconds"),
                "p99": quantile(0.99, "fraudstream_scorer_commit_seconds"),
            },
            unit="s",
        ),
        Panel(
            "Records a batch",
            {
                "p50": quantile(0.5, "fraudstream_scorer_batch_records"),
                "p99": quantile(0.99, "fraudstream_scorer_batch_records"),
            },
        ),
        Panel(
            "Where the loop's time goes",
            {"{{hop}}": "sum by (hop) (rate(fraudstream_scorer_seconds_total[1m]))"},
            unit="percentunit",
        ),
        Panel("Lag by partition", {"{{partition}}": "sum by (partition) (fraudstream_scorer_lag)"}),
        Panel(
            "Behind the furthest partition, event time",
            {"{{partition}}": "max by (partition) (fraudstream_scorer_behind_ms)"},
            unit="ms",
        ),
        Panel("Partitions that wait for slower ones", {"held": "sum(fraudstream_scorer_held)"}),
    ],
    "Features": [
        Panel(
            "Calls a second",
            {
                "{{feature_set}}": "sum by (feature_set) (rate(fraudstream_scorer_feature_calls_total[1m]))"
            },
            unit="cps",
        ),
        Panel("Memory", {"used": "max(fraudstream_scorer_feature_memory_bytes)"}, unit="bytes"),
        Panel(
            "State",
            {
                "{{feature_set}} {{phase}}": (
                    "count by (feature_set, phase) (fraudstream_scorer_feature_state)"
                ),
                "waits for {{for}}": "sum by (for) (fraudstream_scorer_waiting)",
            },
        ),
        Panel(
            "Rebuild",
            {
                "done": "max(fraudstream_scorer_rebuild_records)",
                "of": "max(fraudstream_scorer_rebuild_records_wanted)",
            },
        ),
        Panel(
            "Late and repeated",
            {
                "later than the lateness": "sum(rate(fraudstream_scorer_truncated_total[1m]))",
                "too late to be kept": "sum(rate(fraudstream_scorer_beyond_retention_total[1m]))",
                "redelivered": "sum(rate(fraudstream_scorer_redelivered_total[1m]))",
            },
            unit="cps",
        ),
        Panel(
            "Aborted batches, restarts, rebuilds",
            {
                "aborted": "sum(increase(fraudstream_scorer_aborted_total[5m]))",
                "restarts": "sum(fraudstream_scorer_restarts_total)",
                "rebuilds": "sum(fraudstream_scorer_rebuilds_total)",
            },
        ),
    ],
    "Model and scores": [
        Panel(
            "Share of alerts",
            {"1 h": "fraudstream:alert_share:rate1h"},
            unit="percentunit",
        ),
        Panel(
            "Scores",
            {"{{le}}": "sum by (le) (increase(fraudstream_scorer_score_bucket[5m]))"},
            kind="heatmap",
        ),
        Panel("Swaps", {"{{instance}}": "sum by (instance) (fraudstream_scorer_swaps_total)"}),
    ],
    "Dead letters": [
        Panel(
            "By kind, in 5 minutes",
            {"{{kind}}": "sum by (kind) (increase(fraudstream_scorer_dead_letters_total[5m]))"},
        ),
        Panel("Share", {"5 m": "fraudstream:dead_share:rate5m"}, unit="percentunit"),
        Panel("Poison", {"all": "sum(fraudstream_scorer_poison_total)"}),
    ],
    "Producer, trainer, ledger": [
        Panel(
            "Sent a second",
            {
                "transactions": "sum(rate(fraudstream_producer_sent_total[1m]))",
                "labels": "sum(rate(fraudstream_producer_labels_total[1m]))",
            },
            unit="cps",
        ),
        Panel("Late", {"last row": "max(fraudstream_producer_late_seconds)"}, unit="s"),
        Panel(
            "Trainings by outcome",
            {"{{outcome}}": "sum by (outcome) (fraudstream_trainer_trainings_total)"},
        ),
        Panel("Last fit", {"{{metric}}": "max by (metric) (fraudstream_trainer_validation)"}),
        Panel(
            "Balance",
            {
                "transactions": "fraudstream_ledger_transactions",
                "scored": "fraudstream_ledger_scored",
                "dead letters": "fraudstream_ledger_dead_letters",
                "waiting": "fraudstream_ledger_waiting",
            },
        ),
        Panel(
            "Memory of the services",
            {"{{job}} {{instance}}": "process_resident_memory_bytes"},
            unit="bytes",
        ),
    ],
}


def queries() -> dict[str, str]:
    """Return every query by panel and legend."""
    return {
        f"{panel.title}: {legend}": query
        for panels in ROWS.values()
        for panel in panels
        for legend, query in panel.queries.items()
    }


def dashboard() -> dict[str, object]:
    """Return the dashboard as Grafana takes it."""
    panels: list[dict[str, object]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {"type": "row", "title": title, "id": len(panels) + 1, "panels": []}
            | {"collapsed": False, "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        )
        y, x = y + 1, 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + HEIGHT
            place = {"x": x, "y": y, "w": panel.width, "h": HEIGHT}
            panels.append(_panel(panel, len(panels) + 1) | {"gridPos": place})
            x += panel.width
        y += HEIGHT
    return {
        "uid": "fraudstream",
        "title": "fraudstream",
        "tags": ["fraudstream"],
        "timezone": "utc",
        "refresh": "10s",
        "schemaVersion": 41,
        "time": {"from": "now-30m", "to": "now"},
        "panels": panels,
    }


def _panel(panel: Panel, number: int) -> dict[str, object]:
    targets = [
        {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend, "datasource": SOURCE}
        | ({"format": "heatmap"} if panel.kind == "heatmap" else {})
        for i, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"textMode": "name"} if panel.title == "Version that serves" else {},
    }


def main() -> None:
    """Write the file."""
    DASHBOARD.parent.mkdir(exist_ok=True)
    DASHBOARD.write_text(json.dumps(dashboard(), indent=1) + "\n")


if __name__ == "__main__":
    main()
