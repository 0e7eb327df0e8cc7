"""`realtime.utils.redis_slots`."""

import pytest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot

from realtime.utils.redis_slots import partition_tags


@pytest.mark.parametrize("partitions", [1, 3, 128, 1_000])
def test_partitions_spread_evenly_over_the_slots(partitions):
    tags = partition_tags(partitions)
    assert len(set(tags)) == partitions
    slots = [key_slot(tag.encode()) for tag in tags]
    for part, slot in enumerate(slots):
        assert part * SLOTS // partitions <= slot <= (part + 1) * SLOTS // partitions
