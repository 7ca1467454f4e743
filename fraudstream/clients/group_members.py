"""Static members of a consumer group do not leave it by ending: whoever scales down removes them."""

from kafka.admin import MemberToRemove
from kafka.errors import UnknownMemberIdError

from fraudstream.clients.kafka import instance_id
from fraudstream.clients.topic_admin import admin
from fraudstream.core.settings import Settings


def remove_member(settings: Settings, group: str, slot: int) -> None:
    """Take a worker that has ended out of its group, if it is in it: the others get its partitions at once.

    Raises:
        DependencyUnreachable: the broker does not do it; it happens by itself after `session_timeout_ms`.
    """
    member = MemberToRemove(group_instance_id=instance_id(group, slot), reason="scaled down")
    with admin(settings.kafka_bootstrap, timeout_ms=settings.request_timeout_ms) as client:
        for error in client.remove_group_members(group, [member]).values():
            if error.errno not in {0, UnknownMemberIdError.errno}:
                raise error(f"member {instance_id(group, slot)}")
