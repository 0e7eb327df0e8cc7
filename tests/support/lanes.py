"""A fast lane whose application decides when it takes something, and what writes to many."""

from collections.abc import Callable

from realtime.server.extensions import Framing


def identity(body: bytes) -> bytes:
    return body


class FakeGroup:
    """Writes to one lane after the other."""

    def __init__(self) -> None:
        self.lanes: list[FakeLane | None] = []

    def add(self, lane: "FakeLane") -> int:
        self.lanes.append(lane)
        return len(self.lanes) - 1

    def remove(self, index: int) -> None:
        self.lanes[index] = None

    def write(self, data: bytes, start: int, stop: int) -> list[int]:
        lanes = enumerate(self.lanes[start:stop], start)
        return [index for index, lane in lanes if lane is not None and not lane.try_write(data)]

    def compact(self) -> list[int]:
        left = [index for index, lane in enumerate(self.lanes) if lane is not None]
        self.lanes = [self.lanes[index] for index in left]
        return left


class FakeLane:
    """Takes everything while it `takes`, and remembers it."""

    kind = FakeGroup

    def __init__(self, takes: bool = True) -> None:
        self.framing: Framing | None = identity
        self.takes = takes
        self.written: list[bytes] = []
        self.armed: bytes | None = None
        self.on_write: Callable[[], None] | None = None

    def arm(self, body: bytes) -> None:
        self.armed = body

    def try_write(self, data: bytes) -> bool:
        if self.on_write is not None:
            self.on_write()
        if self.takes:
            self.written.append(data)
        return self.takes

    def cork(self) -> None:
        pass

    def uncork(self) -> None:
        pass
