"""A batch is cut into what one call takes: nothing lost, nothing twice, places without a gap."""

from hypothesis import given
from hypothesis import strategies as st

from fraudstream.clients.feature_library import Slice, bunches
from tests.feature_streams import Stream

STREAM = Stream(1)


def slice_of(partition: int, records: int, undecodable: int) -> Slice:
    return Slice(
        partition=partition,
        previous_offset=9,
        last_offset=9 + records + undecodable,
        committed_offset=5,
        offsets=list(range(10, 10 + records)),
        transactions=[STREAM.transaction() for _ in range(records)],
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=5), st.integers(1, 7))
def test_bunches_hold_every_record_once_in_order(sizes: list[tuple[int, int]], most: int) -> None:
    whole = [slice_of(p, records, undecodable) for p, (records, undecodable) in enumerate(sizes)]
    found = list(bunches(whole, most))
    assert all(found)
    assert all(sum(len(part.offsets) for part in bunch) <= most for bunch in found)
    full = [sum(len(part.offsets) for part in bunch) == most for bunch in found[:-1]]
    assert all(full), "no more calls than needed"
    for each in whole:
        parts = [part for bunch in found for part in bunch if part.partition == each.partition]
        places = [each.previous_offset, *(part.last_offset for part in parts)]
        assert [part.previous_offset for part in parts] == places[:-1]
        assert places[-1] == each.last_offset
        assert all(part.committed_offset == 5 for part in parts)
        assert [offset for part in parts for offset in part.offsets] == each.offsets
        assert [one for part in parts for one in part.transactions] == each.transactions
        assert all(len(part.offsets) == len(part.transactions) for part in parts)
        assert all(offset <= part.last_offset for part in parts for offset in part.offsets)
