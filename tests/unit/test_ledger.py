"""The loss ledger finds one lost, one doubled, one unfounded result and names their places."""

from verify.ledger import Position, Tally, balance


def tally(*positions: tuple[int, int]) -> Tally:
    made = Tally()
    for partition, offset in positions:
        made.add(partition, offset)
    return made


def everything(partitions: int, length: int) -> list[tuple[int, int]]:
    return [(p, o) for p in range(partitions) for o in range(length)]


def test_one_result_for_each_position_is_balanced() -> None:
    places = everything(3, 50)
    ledger = balance(tally(*places), tally(*reversed(places)), 140, {0: 50, 1: 50, 2: 50})
    assert ledger.balanced
    assert (ledger.transactions, ledger.scored, ledger.dead_letters) == (150, 140, 10)


def test_one_lost_among_many_is_named() -> None:
    places = everything(2, 1_000)
    results = [place for place in places if place != (1, 777)]
    ledger = balance(tally(*places), tally(*results), len(results), {0: 1_000, 1: 1_000})
    assert not ledger.balanced
    assert (ledger.lost, ledger.duplicates) == (1, 0)
    assert ledger.lost_positions == [Position(1, 777)]


def test_one_doubled_among_many_is_named() -> None:
    places = everything(2, 1_000)
    ledger = balance(tally(*places), tally(*places, (0, 5), (0, 5)), 2_002, {0: 1_000, 1: 1_000})
    assert not ledger.balanced
    assert (ledger.lost, ledger.duplicates) == (0, 2)
    assert ledger.duplicate_positions == [Position(0, 5)]


def test_what_is_not_committed_yet_waits_and_is_not_lost() -> None:
    ledger = balance(tally((0, 0), (0, 1), (0, 2)), tally((0, 0)), 1, {0: 1})
    assert ledger.balanced
    assert ledger.waiting == 2


def test_a_result_of_a_position_that_does_not_exist_is_unfounded() -> None:
    ledger = balance(tally((0, 0)), tally((0, 0), (0, 9), (4, 0)), 3, {0: 1})
    assert not ledger.balanced
    assert ledger.unfounded == 2


def test_offsets_taken_by_transaction_markers_are_no_loss() -> None:
    ledger = balance(tally((0, 0), (0, 2), (0, 5)), tally((0, 0), (0, 2), (0, 5)), 3, {0: 6})
    assert ledger.balanced
    assert ledger.lost == 0
