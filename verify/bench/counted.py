"""Whether a benchmark's worker did all of its work: what the scores say of themselves, and the ledger."""

from collections.abc import Iterator

import msgspec
import onnx

from trainer.export import Exported
from verify.ledger import Ledger, Log, count
from verify.tally import Record

FEWEST_ALERTS, MOST_ALERTS = 0.0025, 0.01
"""Shares of alerts that are near the 0.5 % that are ordered: each is work of its own."""


class _Says(msgspec.Struct):
    feature_set: str
    model_version: str | None = None
    decision: str = ""


_says = msgspec.json.Decoder(_Says)


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What came out, in records; `without_model`: scores that no version made.

    `unfounded`, `mismatched`: as in the ledger. `alerts`: scores that decide so, and `alert_records` those of
    the topic. `feature_sets`: those that the scores name.
    """

    scores: int
    alerts: int
    alert_records: int
    dead_letters: int
    without_model: int
    unfounded: int
    mismatched: int
    feature_sets: list[str]

    @property
    def alert_share(self) -> float:
        """Return which share of the scores are alerts, 0 to 1."""
        return self.alerts / self.scores if self.scores else 0.0

    @property
    def shortcomings(self) -> list[str]:
        """Return in words what was not done, or not as it says; empty if all was."""
        kinds = ("dead_letters", "without_model", "unfounded", "mismatched")
        found = [
            f"{name.replace('_', ' ')} {number:,}"
            for name in kinds
            if (number := getattr(self, name))
        ]
        if self.alerts != self.alert_records:
            found.append(f"{self.alerts:,} scores are alerts, and there are {self.alert_records:,}")
        if len(self.feature_sets) != 1:
            found.append(f"the scores are of {len(self.feature_sets)} feature sets")
        return found

    @property
    def off_alerts(self) -> list[str]:
        """Return in words that there are far more or fewer alerts than ordered, if so."""
        if FEWEST_ALERTS <= self.alert_share <= MOST_ALERTS:
            return []
        return [f"alerts are {self.alert_share:.2%} of the scores, 0.5 % were ordered"]


class ScoredLog(Log):
    """The topics, and what the scores say of themselves while somebody reads them."""

    scores = alerts = without_model = 0
    feature_sets: frozenset[str] = frozenset()

    def records(self, name: str, *, with_open: bool = False) -> Iterator[Record]:
        """Yield as `Log` does; take note of scores."""
        for record in super().records(name, with_open=with_open):
            if name == "scores":
                self.note(record)
            yield record

    def note(self, score: Record) -> None:
        """Take note of one; one that cannot be read is unfounded in the ledger."""
        self.scores += 1
        try:
            said = _says.decode(score.value or b"")
        except (ValueError, RecursionError):
            return
        self.without_model += said.model_version is None
        self.alerts += said.decision == "alert"
        if said.feature_set not in self.feature_sets:
            self.feature_sets |= {said.feature_set}


def count_all(log: ScoredLog, group: str) -> tuple[Ledger, Counted]:
    """Read everything once; return the ledger, and what else came out."""
    ledger = count(log, group)
    alert_records = sum(1 for _ in log.records("alerts", with_open=True))
    return ledger, counted(log, ledger, alert_records)


def counted(log: ScoredLog, ledger: Ledger, alert_records: int) -> Counted:
    """Return what was noted and counted."""
    return Counted(
        scores=log.scores,
        alerts=log.alerts,
        alert_records=alert_records,
        dead_letters=ledger.dead_letters,
        without_model=log.without_model,
        unfounded=ledger.unfounded,
        mismatched=ledger.mismatched,
        feature_sets=sorted(log.feature_sets),
    )


def trees_of(exported: Exported) -> int:
    """Return how many trees the file of a model has."""
    graph = onnx.load_from_string(exported.onnx_bytes).graph
    return len(
        {
            number
            for node in graph.node
            for attribute in node.attribute
            if attribute.name == "nodes_treeids"
            for number in attribute.ints
        }
    )
