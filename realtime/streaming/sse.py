"""Server-sent events as bytes (WHATWG HTML, section 9.2, "Server-sent events")."""

from typing import Final

KEEPALIVE: Final = b": keepalive\n"  # without a blank line, which some clients take for an event
_FORBIDDEN_IN_FIELD: Final = ("\r", "\n", "\0")


def encode_sse(
    data: str | None = None,
    *,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
) -> bytes:
    """Return one event, blank line included; `retry`, in milliseconds, needs none alone.

    Each line of `data` gets its own `data:` field; CR, LF and CRLF all end a line, and arrive as
    LF. `data=""` is dispatched as an event with empty data; `data=None` writes no data field and
    so dispatches nothing, as for an `id` alone, which counts from the blank line on. Raises
    ValueError for CR, LF or NUL in `event` or `id`: the standard gives no way to write them.
    """
    fields = []
    if event is not None:
        fields.append(f"event: {_field('event', event)}\n")
    if id is not None:
        fields.append(f"id: {_field('id', id)}\n")
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry is {retry} ms; it can't be negative.")
        fields.append(f"retry: {retry}\n")
    if data is not None:
        # Not splitlines(): that also breaks at form feeds and U+2028, which are plain data here.
        for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            fields.append(f"data: {line}\n")
    if retry is None or len(fields) > 1:  # it needs no blank line, and some clients see an event
        fields.append("\n")
    return "".join(fields).encode()


def encode_comment(text: str) -> bytes:
    """Return a comment, which clients ignore; it keeps proxies from closing an idle stream."""
    return "".join(f": {line}\n" for line in text.splitlines() or [""]).encode()


def _field(name: str, value: str) -> str:
    if any(character in value for character in _FORBIDDEN_IN_FIELD):
        raise ValueError(f"{name} is {value!r}: CR, LF and NUL can't be written in an SSE field.")
    return value
