"""The bus of a single process: it carries nothing, since its hubs get events directly."""

from collections.abc import Iterable

from .base import Bus, Message, OnMessage


class MemoryBus(Bus):
    """Carries nothing."""

    name = "memory bus"
    is_local = True
    echoes_to_sender = False

    def start(self, on_message: OnMessage) -> None:
        self.is_running = True

    def join(self, topics: Iterable[str]) -> None:
        pass

    def leave(self, topics: Iterable[str]) -> None:
        pass

    async def settled(self) -> None:
        pass

    async def send(self, topic: str, message: Message) -> bool:
        return True

    async def stop(self) -> None:
        self.is_running = False
