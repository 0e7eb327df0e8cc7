"""The slots of a Redis cluster: which names of partitions spread evenly over them."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import count

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot


@lru_cache(8)
def partition_tags(partitions: int) -> Sequence[str]:
    """Return a hash tag for each of as many equal parts of the slots, at most one for each slot."""
    tags: dict[int, str] = {}
    numbers = count()
    while len(tags) < min(partitions, REDIS_CLUSTER_HASH_SLOTS):
        tag = str(next(numbers))
        tags.setdefault(key_slot(tag.encode()) * partitions // REDIS_CLUSTER_HASH_SLOTS, tag)
    return [tags[part] for part in sorted(tags)]
