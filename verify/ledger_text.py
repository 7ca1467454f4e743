"""The ledger in words: the balance as one sentence, and the places of what is wrong with it."""

from fraudstream.core.errors import FraudstreamError
from verify.ledger import Ledger, Place, Position


class Unbalanced(FraudstreamError):
    """Something was lost or doubled; the report names the positions."""


def sentence(report: Ledger) -> str:
    """Return the balance; what should be nought and is not stands at its end."""
    return f"{_sum(report)}; {_wrong(report)}{_expired(report)}"


def live_line(report: Ledger) -> str:
    """Return the same with what should be nought first, where a narrow terminal still shows it."""
    return f"{_wrong(report)}; {_sum(report)}{_expired(report)}"


def _sum(report: Ledger) -> str:
    unknown = f" + {report.unknown:,} unknown" if report.unknown else ""
    return (
        f"{report.transactions:,} in = {report.scored:,} scored + {report.dead_letters:,} dead letters"
        f" + {report.waiting:,} waiting{unknown}"
    )


def _expired(report: Ledger) -> str:
    if not report.expired:
        return ""
    of = "result without its transaction" if report.expired == 1 else "results without transactions"
    return f"; expired: {report.expired:,} {of}"


def _wrong(report: Ledger) -> str:
    more = f", unfounded {report.unfounded:,}" if report.unfounded else ""
    more += f", mismatched {report.mismatched:,}" if report.mismatched else ""
    return f"lost {report.lost:,}, duplicates {report.duplicates:,}{more}"


def difference(report: Ledger) -> str:
    """Return what is wrong with a balance, with the first places of each kind."""

    def positions(found: list[Position]) -> str:
        return ", ".join(f"{p.source_partition}:{p.source_offset}" for p in found) or "none"

    def places(found: list[Place]) -> str:
        return ", ".join(f"{p.topic} {p.partition}:{p.offset}" for p in found) or "none"

    return (
        f"lost {report.lost} ({positions(report.lost_positions)}), "
        f"duplicates {report.duplicates} ({positions(report.duplicate_positions)}), places are "
        "partition:offset of topic transactions; "
        f"unfounded {report.unfounded} ({places(report.unfounded_places)}), "
        f"mismatched {report.mismatched} ({places(report.mismatched_places)}), places are the results' own"
    )
