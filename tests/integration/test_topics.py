"""Topics at a real broker: created once, compared afterwards."""

from fraudstream.clients.topic_admin import create_topics, describe_topics
from fraudstream.core.settings import Settings
from fraudstream.core.topics import MAX_DEAD_LETTER_BYTES
from fraudstream.core.topics import topics as all_topics


def test_the_second_creation_changes_nothing(settings: Settings) -> None:
    arguments = (settings.kafka_bootstrap, settings.environment, 2)
    first = create_topics(*arguments, timeout_ms=5_000)
    second = create_topics(*arguments, timeout_ms=5_000)
    assert len(first.created) == len(all_topics())
    assert first.differences == ()
    assert second == type(second)((), ())
    found = {
        topic.name: topic
        for topic in describe_topics(
            settings.kafka_bootstrap, settings.environment, timeout_ms=5_000
        )
    }
    dead_letters = found[f"{settings.environment}.dead-letters"]
    assert dead_letters.partitions == 2
    assert dead_letters.config["max.message.bytes"] == str(MAX_DEAD_LETTER_BYTES)
