"""The head of an HTTP/1 request (RFC 9112), parsed strictly. No I/O.

What two parsers could understand differently is refused: that is how requests are smuggled. What
httptools and h11 make of the same bytes is compared in the tests, difference by difference.

httptools' parser is quicker: 2 us in place of 6 for a request with 4 headers, 4 in place of 14
for a browser's with 15 (h11: 42 and 70; `python -m benchmarks.parsers`), of the 100 us that the
smallest request takes. But it serves requests without a Host, with two, or with anything as its
value; other versions and protocols; `Transfer-Encoding: gzip, chunked`; lengths up to 2^64; any
number of lines before a request. A dozen checks would stay here, and they are what takes the time.
"""

import re
from collections.abc import Callable
from typing import Final

from realtime.server import header_names
from realtime.server.limits import Limits

# RFC 9110, section 9.1: methods are case-sensitive. Django takes "head" for HEAD, and its client,
# or a proxy in between, does not: it waits for a body.
_REQUEST_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Z]+) ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])"  # no fragment
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# RFC 9110, section 4.2.1: the host is not empty. Some parsers take a backslash for a slash.
_ABSOLUTE: Final = re.compile(rb"https?://(?!:)([^/?]+)(/[^?\\]*)?(\?.*)?", re.IGNORECASE)
# RFC 3986, section 3.2.2: a registered name or an address; RFC 9110, section 7.2: or nothing.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")


class BadRequest(Exception):
    """The request can't be served: `status` and `detail` are the answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class RequestHead:
    """A parsed request line and its headers. Names are in lower case."""

    __slots__ = (
        "chunked",
        "connection",
        "content_length",
        "expects_continue",
        "headers",
        "host",
        "keep_alive",
        "method",
        "minor",
        "path",
        "query",
        "target",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, minor: int) -> None:
        self.method = method
        self.target = target
        self.minor = minor  # of the version: HTTP/1.0 or HTTP/1.1
        self.path, _, self.query = target.partition(b"?")
        self.headers: list[tuple[bytes, bytes]] = []
        self.host: bytes | None = None
        self.connection: list[bytes] = []  # options, in lower case
        self.keep_alive = minor == 1
        self.content_length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.upgrade: list[bytes] = []  # protocols, in lower case

    @property
    def has_body(self) -> bool:
        """Return whether a body follows."""
        return self.chunked or bool(self.content_length)

    def get(self, name: bytes) -> list[bytes]:
        """Return all values of a header."""
        return [value for key, value in self.headers if key == name]


def parse_head(data: bytes, limits: Limits) -> RequestHead:
    """Return the head in data, which ends before its empty line. Raises BadRequest."""
    line, *lines = data.split(b"\r\n")
    if (
        len(data) > limits.max_line_bytes
        or len(line) > limits.max_target_bytes
        or len(lines) > limits.max_headers
    ):
        _check_sizes(line, lines, limits)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise _bad_request_line(line)
    # Any CR or LF that is not a line's end would let another parser see other lines.
    if _CONTROL.search(data) or data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines):
        raise BadRequest(400, "Invalid character in the headers.")
    method, target, minor = match[1], match[2], match[3] == b"1"
    authority = None
    if target[0] != 47:  # "/"
        authority, target = _other_form(method, target)
    head = RequestHead(method, target, int(minor))
    add, known, special = head.headers.append, header_names.known.get, _SPECIAL.get
    for line in lines:
        raw, colon, value = line.partition(b":")
        name = known(raw) or _header_name(raw)
        if not colon:
            raise BadRequest(400, "A header without a colon.")
        value = value.strip(b" \t")
        add((name, value))
        take = special(name)
        if take is not None:
            take(head, value)
    _check(head, limits)
    if authority is not None:  # RFC 9112, section 3.2.2: the target wins
        head.headers = [each for each in head.headers if each[0] != b"host"]
        head.headers.insert(0, (b"host", authority))
        head.host = authority
    return head


def _check_sizes(line: bytes, lines: list[bytes], limits: Limits) -> None:
    if len(line) > limits.max_target_bytes:
        raise BadRequest(414, "The request line is too long.")
    if len(lines) > limits.max_headers:
        raise BadRequest(431, "Too many headers.")
    if max(map(len, lines), default=0) > limits.max_line_bytes:
        raise BadRequest(431, "A header is too long.")


def _header_name(raw: bytes) -> bytes:
    name = header_names.lower(raw)
    if not name:
        # Also a space before the colon and a folded line, which RFC 9112 wants refused.
        raise BadRequest(400, "Invalid header name.")
    return name


def _bad_request_line(line: bytes) -> BadRequest:
    words = line.split(b" ")
    if len(words) == 3 and words[2].startswith(b"HTTP/"):
        if not words[2].startswith(b"HTTP/1."):
            return BadRequest(505, "HTTP/1.1 is spoken here.")
        if words[0] != words[0].upper():  # fetch() sends "patch" as it is
            return BadRequest(400, "Methods are in upper case.")
    return BadRequest(400, "Invalid request line.")


def _other_form(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """Return the absolute form's authority and path (RFC 9112, section 3.2.2)."""
    if target == b"*" and method == b"OPTIONS":
        return None, target
    match = _ABSOLUTE.fullmatch(target)
    # A host that holds a "@" would be somebody's name to one parser and the host to another.
    if match is None or not _HOST.fullmatch(match[1]):
        raise BadRequest(400, "Invalid request target.")
    return match[1], (match[2] or b"/") + (match[3] or b"")


# What the headers that concern the server itself say


def _take_host(head: RequestHead, value: bytes) -> None:
    if head.host is not None:
        raise BadRequest(400, "Exactly one Host header is needed.")
    if not _HOST.fullmatch(value):
        raise BadRequest(400, "Invalid Host header.")
    head.host = value


def _take_connection(head: RequestHead, value: bytes) -> None:
    head.connection += _list(value)


def _take_content_length(head: RequestHead, value: bytes) -> None:
    if head.content_length is not None or not _DIGITS.fullmatch(value):
        raise BadRequest(400, "Invalid Content-Length.")
    head.content_length = int(value)


def _take_content_type(head: RequestHead, value: bytes) -> None:
    if len(head.get(b"content-type")) > 1:  # RFC 9110, section 5.3: no list, so it comes once
        raise BadRequest(400, "Several Content-Type headers.")


def _take_transfer_encoding(head: RequestHead, value: bytes) -> None:
    if head.chunked or value.lower() != b"chunked":
        raise BadRequest(501, "The only transfer coding understood is chunked.")
    head.chunked = True


def _take_expect(head: RequestHead, value: bytes) -> None:
    head.expects_continue = head.minor == 1 and value.lower() == b"100-continue"


def _take_upgrade(head: RequestHead, value: bytes) -> None:
    head.upgrade += _list(value)


def _list(value: bytes) -> list[bytes]:
    value = value.lower()
    return [each.strip(b" \t") for each in value.split(b",")] if b"," in value else [value]


_SPECIAL: Final[dict[bytes, Callable[[RequestHead, bytes], None]]] = {
    b"host": _take_host,
    b"connection": _take_connection,
    b"content-length": _take_content_length,
    b"content-type": _take_content_type,
    b"transfer-encoding": _take_transfer_encoding,
    b"expect": _take_expect,
    b"upgrade": _take_upgrade,
}


def _check(head: RequestHead, limits: Limits) -> None:
    """Refuse headers that do not fit together; decide what Connection decides."""
    if head.host is None and head.minor:
        raise BadRequest(400, "Exactly one Host header is needed.")
    if head.chunked and (head.content_length is not None or not head.minor):
        raise BadRequest(400, "Transfer-Encoding is not possible here.")
    if head.content_length and head.content_length > limits.max_body_size:
        raise BadRequest(413, "The body is too long.")
    options = head.connection
    if options:
        if b"close" in options:
            head.keep_alive = False
        elif b"keep-alive" in options:
            head.keep_alive = True
    if head.upgrade and b"upgrade" not in options:  # RFC 9110, section 7.8
        head.upgrade = []
