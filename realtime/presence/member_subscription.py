"""A subscription that makes its user present on the topics it reads."""

from collections.abc import Awaitable, Callable, Iterator

from ..access.identity import Identity
from ..access.permissions import User, may
from ..conf.topics import topic_settings
from ..delivery.subscription import Subscription
from ..delivery.topic_subscriber import Started
from ..events.position import Position
from ..exceptions import PresenceOff
from .keeper import Watch, get_keeper
from .seen import key_of, seen_of


class MemberSubscription(Subscription):
    """A subscription of a user, who is present on those of its topics that have `PRESENCE`."""

    __slots__ = ("_identity", "_info", "_keys", "_watches")

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._identity = identity
        self._info: str | None = None  # what the others see; None until somebody asks
        self._keys: dict[str, str] | None = None  # by topic; most have none
        # None for what is not read yet: from the beginning, the right to it may be lost.
        self._watches: dict[str, Watch | None] | None = None

    async def add(
        self,
        topic: str,
        after: Position | None = None,
        on_start: Callable[[Started], Awaitable[None]] | None = None,
        now: Position | None = None,
        is_watched: bool = False,
    ) -> Started:
        """Start reading `topic`, as `Subscription.add` does, and make the user present.

        If it `is_watched`, `notices` yields who is there, and `interrupt` is called for news.
        """
        if is_watched and topic not in self.topics:
            self._watches = {**(self._watches or {}), topic: None}
        started = await super().add(topic, after, on_start, now)
        if topic_settings(topic).has_presence:
            user = self._identity.user
            if self._info is None:
                self._info = await seen_of(user)
            keys = self._keys = self._keys or {}
            if topic in self.topics and topic not in keys:
                keys[topic] = key_of(user)
                get_keeper().enter(topic, keys[topic], self._info)
        watches = self._watches or {}
        if topic in watches and watches[topic] is None:
            watches[topic] = get_keeper().watch(topic, self.interrupt)
        return started

    def remove(self, topic: str) -> None:
        """Stop reading `topic`, and count the user as present no longer."""
        super().remove(topic)
        self.unwatch(topic)
        key = self._keys.pop(topic, None) if self._keys else None
        if key is not None:
            get_keeper().leave(topic, key)

    def unwatch(self, topic: str) -> None:
        """Stop telling who is on a topic."""
        watch = self._watches.pop(topic, None) if self._watches else None
        if watch is not None:
            get_keeper().unwatch(watch)

    def notices(self) -> Iterator[str]:
        """Yield the news of who is on each watched topic, as JSON objects."""
        for watch in filter(None, list((self._watches or {}).values())):
            if (text := watch.take()) is not None:
                yield text

    async def lost_presence(self, user: User) -> list[str]:
        """Stop telling who is on topics where `user` may not see it any more; return them."""
        watched = list(self._watches or ())
        lost = [topic for topic in watched if not await may(user, topic, "presence")]
        for topic in lost:
            self.unwatch(topic)
        return lost


def require_kept(topic: str) -> None:
    """Raise `PresenceOff` for a topic without `PRESENCE`."""
    if not topic_settings(topic).has_presence:
        raise PresenceOff(topic)
