"""One record without a score becomes a dead letter, in a Kafka transaction of its own."""

import msgspec

from fraudstream.clients.feature_store import Slice
from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.errors import BadRecord
from scorer.assignment import Assignment
from scorer.batch import ALL, DeadLetter, Message
from scorer.deaths import Deaths
from scorer.evenness import Evenness
from scorer.limits import Limits
from scorer.live_sets import LiveSets
from scorer.output import TransactionalOutput
from scorer.results import dead_letter


class Burial(msgspec.Struct, frozen=True, kw_only=True):
    """Commits a dead letter that says which feature sets lack the record; their rebuilds leave it out.

    A set holds it if its mark has reached it: the record failed, or ended the worker, further on.
    """

    live: LiveSets
    transactions: TopicFacts
    assignment: Assignment
    evenness: Evenness
    deaths: Deaths
    limits: Limits
    output: TransactionalOutput

    def bury(self, message: Message, why: BadRecord) -> None:
        """Commit the dead letter, then let the sets that lack the record pass over its place.

        Dying in between is no harm: the marks lag behind what is committed, so the features are rebuilt.

        Raises:
            BatchAborted: it was not committed.
            StateInDoubt, DependencyUnreachable: as the feature store does.
        """
        partition, offset = message.partition(), message.offset()
        lacking = self._lacking(partition, offset)
        sets = ALL if len(lacking) == len(self.live.stores) else ",".join(lacking)
        bare = why.kind == "deadly"  # whatever kills may be in the headers
        letter = DeadLetter(message, why.kind, str(why), not_applied=sets, bare=bare)
        previous = self.assignment.positions[partition] - 1
        places = {partition: offset}
        notes = self.deaths.amend(self.evenness.notes(places), places, buried=True)
        self.output.commit(
            [dead_letter(letter, self.limits.dead_letters)],
            self.assignment.offsets_after(places, notes),
            self.assignment.group_metadata,
        )
        self.assignment.done(places)
        self.deaths.done(notes)
        self._pass_over(partition, previous, offset, lacking)

    def _lacking(self, partition: int, offset: int) -> list[str]:
        topic_id = self.transactions.topic_id
        return [
            each
            for each, store in self.live.stores.items()
            if store.marks(topic_id, [partition])[partition] < offset
        ]

    def _pass_over(self, partition: int, previous: int, offset: int, lacking: list[str]) -> None:
        nothing = Slice(
            partition=partition,
            previous_offset=previous,
            last_offset=offset,
            committed_offset=offset,
            offsets=[],
            transactions=[],
        )
        for each in lacking:
            self.live.stores[each].apply(self.transactions.topic_id, [nothing])
