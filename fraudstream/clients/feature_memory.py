"""How much memory a feature set will take, worked out from its plan before anything is stored."""

import msgspec

from fraudstream.clients.feature_layout import (
    LABEL_BYTES,
    MOST_ROWS,
    ROOM,
    Plan,
    plan_of,
    size_of,
)
from fraudstream.core.feature_kinds import ENTITIES, Entity, FeatureSet

KEY_BYTES = 60
"""Of a key beside name and value: object, length, place in the table, rounding of the allocator."""
PART_ROWS = 350
"""Rows of a part on average: it is split in halves above MOST_ROWS."""


class EntityMemory(msgspec.Struct, frozen=True):
    """Bytes of one entity with so many live entries, and of all of them together."""

    entity: Entity
    count: int
    live_entries: float
    bytes_each: int
    bytes_total: int


def memory_of(
    feature_set: FeatureSet,
    counts: dict[Entity, int],
    live: dict[Entity, float],
    *,
    labelled: float,
    name_bytes: int = 8,
) -> list[EntityMemory]:
    """Return the memory of each entity that the set keeps; `labelled` is the share of entries with a label.

    An entity keeps a little more than is live, since what expires goes by whole cells of time.
    """
    found = []
    for entity in ENTITIES:
        plan = plan_of(feature_set, entity)
        if plan.flags["used"]:
            each = _bytes_each(plan, live[entity], labelled, name_bytes)
            found.append(
                EntityMemory(entity, counts[entity], live[entity], each, each * counts[entity])
            )
    return found


def header_bytes(plan: Plan) -> int:
    """Return the bytes of a header of an entity in one string."""
    return size_of(kind for _, kind in plan.small) + 1


def _bytes_each(plan: Plan, live: float, labelled: float, name_bytes: int) -> int:
    rows = live * (1 + plan.cell_ms / 2 / plan.retention_ms)
    labels = rows * labelled * LABEL_BYTES * plan.flags["labels"]
    key = KEY_BYTES + len("{environment:b0}:v3:set-hash.incarn:c:") + name_bytes
    if rows <= MOST_ROWS:
        return round((rows + ROOM / 2) * plan.row_bytes + labels + header_bytes(plan) + key)
    parts = rows / PART_ROWS
    return round(
        rows * plan.row_bytes + labels + parts * (key + 20 + 50) + header_bytes(plan) + key
    )
