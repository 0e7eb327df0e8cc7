"""Rows 3 to 5: the three ways to say who is asking, each followed by an echo."""

from .echo import Echo


class Welcome(Echo):
    """Greets the user, then echoes."""

    async def connected(self) -> None:
        welcome = {"type": "welcome", "user": self.user.get_username()}
        if (end := self.identity.ends_at) is not None:
            welcome["expires"] = end
        await self.send_json(welcome)


class ByQuery(Welcome):
    """`?token=...`, or better `?ticket=...`, which is of no use to who finds it in a log."""

    authentication = "required"
    credentials = frozenset({"query", "ticket"})


class ByCookie(Welcome):
    """The session cookie that a browser sends by itself; the Origin says for which page."""

    authentication = "required"
    credentials = frozenset({"session"})


class ByMessage(Welcome):
    """The first message is `{"token": "..."}`, and has to come in time."""

    authentication = "message"
