"""Three parsers, one reading: ours, httptools (llhttp, as Node has it) and h11.

Where they read the same bytes differently, one in front of the other can be made to smuggle a
request. So what ours serves, both others read alike or refuse; and what ours refuses, others may
serve only for the reasons that are listed here.
"""

import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .oracles import Ours, Outcome, Request, by_h11, by_httptools, pieces_of

NEXT = b"GET /next HTTP/1.1\r\nHost: n\r\n\r\n"
HOST = b"Host: h\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n"
EMPTY = b"0\r\n\r\n"


@pytest.fixture(scope="module")
def ours() -> Iterator[Ours]:
    parser = Ours()
    yield parser
    parser.close()


def message(headers: bytes = HOST, body: bytes = b"", line: bytes = b"POST / HTTP/1.1") -> bytes:
    return line + b"\r\n" + headers + b"\r\n" + body + NEXT


def with_target(target: bytes) -> bytes:
    return message(line=b"GET " + target + b" HTTP/1.1")


def chunks(body: bytes) -> bytes:
    return message(CHUNKED, body)


# What becomes of a request and of the one that follows it: "2" if both are served, "0" if it waits
# for more, "!" for a refusal (of ours: its status). First ours, then httptools, then h11.
TABLE = {
    # Two lengths, or one that is none
    "a length": (message(HOST + b"Content-Length: 3\r\n", b"abc"), "2", "2", "2"),
    "chunks": (chunks(b"3\r\nabc\r\n0\r\n\r\n"), "2", "2", "2"),
    "CL, then TE": (message(CHUNKED + b"Content-Length: 3\r\n", EMPTY), "400", "!", "2"),
    "TE, then CL": (
        message(HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", EMPTY),
        *("400", "!", "2"),
    ),
    "the same CL twice": (message(HOST + b"Content-Length: 3\r\n" * 2, b"abc"), "400", "!", "2"),
    "two CL": (
        message(HOST + b"Content-Length: 3\r\nContent-Length: 0\r\n", b"abc"),
        *("400", "!", "!"),
    ),
    "a list of CL": (message(HOST + b"Content-Length: 3, 3\r\n", b"abc"), "400", "!", "2"),
    "CL with a sign": (message(HOST + b"Content-Length: +3\r\n", b"abc"), "400", "!", "!"),
    "CL in hex": (message(HOST + b"Content-Length: 0x3\r\n", b"abc"), "400", "!", "!"),
    "CL with _": (message(HOST + b"Content-Length: 1_0\r\n", b"abc"), "400", "!", "!"),
    "CL of nothing": (message(HOST + b"Content-Length:\r\n"), "400", "!", "!"),
    "CL with a space": (message(HOST + b"Content-Length: 1 1\r\n", b"abc"), "400", "!", "!"),
    "CL of 2^63": (message(HOST + b"Content-Length: 9223372036854775808\r\n"), "400", "0", "0"),
    "CL over 2^64": (message(HOST + b"Content-Length: 18446744073709551617\r\n"), "400", "!", "0"),
    "CL, space, colon": (message(HOST + b"Content-Length : 3\r\n", b"abc"), "400", "!", "!"),
    # A transfer coding in disguise
    "TE xchunked": (message(HOST + b"Transfer-Encoding: xchunked\r\n", EMPTY), "501", "!", "!"),
    "TE gzip, chunked": (
        message(HOST + b"Transfer-Encoding: gzip, chunked\r\n", EMPTY),
        *("501", "2", "!"),
    ),
    "TE chunked, gzip": (
        message(HOST + b"Transfer-Encoding: chunked, gzip\r\n", EMPTY),
        *("501", "!", "!"),
    ),
    "TE twice": (message(CHUNKED + b"Transfer-Encoding: chunked\r\n", EMPTY), "501", "!", "!"),
    "TE identity": (message(HOST + b"Transfer-Encoding: identity\r\n"), "501", "!", "!"),
    "TE, space, colon": (
        message(HOST + b"Transfer-Encoding : chunked\r\n", EMPTY),
        "400",
        "!",
        "!",
    ),
    "TE after a tab": (message(HOST + b"Transfer-Encoding:\tchunked\r\n", EMPTY), "2", "2", "2"),
    "TE after a VT": (
        message(HOST + b"Transfer-Encoding: \x0bchunked\r\n", EMPTY),
        "400",
        "!",
        "!",
    ),
    "TE quoted": (message(HOST + b'Transfer-Encoding: "chunked"\r\n', EMPTY), "501", "!", "!"),
    "TE folded": (message(HOST + b"Transfer-Encoding:\r\n chunked\r\n", EMPTY), "501", "!", "2"),
    "TE in capitals": (message(HOST + b"Transfer-Encoding: CHUNKED\r\n", EMPTY), "2", "2", "2"),
    "TE chunked,": (message(HOST + b"Transfer-Encoding: chunked,\r\n", EMPTY), "501", "!", "!"),
    "TE ,chunked": (message(HOST + b"Transfer-Encoding: ,chunked\r\n", EMPTY), "501", "2", "!"),
    "TE with NUL": (message(HOST + b"Transfer-Encoding: chunked\0\r\n", EMPTY), "400", "!", "!"),
    "TE in HTTP/1.0": (message(CHUNKED, EMPTY, b"POST / HTTP/1.0"), "400", "1!", "1"),
    "TE with _": (message(HOST + b"Transfer_Encoding: chunked\r\n"), "2", "2", "2"),
    # Ends of lines, and names
    "LF ends a header": (message(b"Host: h\nX: y\r\n"), "400", "!", "2"),
    "LF ends all": (b"GET / HTTP/1.1\nHost: h\n\n" + NEXT, "400", "!", "2"),
    "CR in a header": (message(b"Host: h\rX: y\r\n"), "400", "!", "!"),
    "CR CR LF": (message(b"Host: h\r\nX: y\r\r\n"), "400", "!", "!"),
    "LF CR": (message(b"Host: h\n\rX: y\r\n"), "400", "!", "!"),
    "NUL in a value": (message(HOST + b"X: a\0b\r\n"), "400", "!", "!"),
    "folded": (message(HOST + b"X: a\r\n b\r\n"), "400", "!", "2"),
    "begins folded": (message(b" X: y\r\n" + HOST), "400", "!", "!"),
    "no colon": (message(HOST + b"nocolon\r\n"), "400", "!", "!"),
    "no name": (message(HOST + b": x\r\n"), "400", "!", "!"),
    "a space in a name": (message(HOST + b"a b: x\r\n"), "400", "!", "!"),
    "8 bits in a name": (message(HOST + b"\xe9: x\r\n"), "400", "!", "!"),
    "8 bits in a value": (message(HOST + b"x: \xe9\r\n"), "2", "2", "2"),
    # Host (RFC 9112, section 3.2)
    "no Host": (message(b""), "400", "2", "!"),
    "two Hosts": (message(HOST * 2), "400", "2", "!"),
    "two Content-Types": (message(HOST + b"Content-Type: a/b\r\n" * 2), "400", "2", "2"),
    "Host of nothing": (message(b"Host:\r\n"), "2", "2", "2"),
    "Host with a user": (message(b"Host: u@h\r\n"), "400", "2", "2"),
    "Host with a path": (message(b"Host: h/a\r\n"), "400", "2", "2"),
    "Host with a space": (message(b"Host: a b\r\n"), "400", "2", "2"),
    "Host with two ports": (message(b"Host: h:1:2\r\n"), "400", "2", "2"),
    "Host in IPv6": (message(b"Host: [::1]:80\r\n"), "2", "2", "2"),
    # The request line
    "HTTP/2.0": (message(line=b"GET / HTTP/2.0"), "505", "1!", "2"),
    "HTTP/0.9": (message(line=b"GET / HTTP/0.9"), "505", "1!", "1"),
    "HTTP/1.2": (message(line=b"GET / HTTP/1.2"), "400", "!", "2"),
    "no version": (b"GET /\r\n" + NEXT, "400", "!", "!"),
    "http/1.1": (message(line=b"GET / http/1.1"), "400", "!", "!"),
    "two spaces": (message(line=b"GET  / HTTP/1.1"), "400", "2", "!"),
    "two spaces later": (message(line=b"GET /  HTTP/1.1"), "400", "2", "!"),
    "a tab": (message(line=b"GET\t/ HTTP/1.1"), "400", "!", "!"),
    "a space at the end": (message(line=b"GET / HTTP/1.1 "), "400", "!", "!"),
    "a space before": (message(line=b" GET / HTTP/1.1"), "400", "!", "!"),
    "GET *": (message(line=b"GET * HTTP/1.1"), "400", "2", "2"),
    "OPTIONS *": (message(line=b"OPTIONS * HTTP/1.1"), "2", "2", "2"),
    "CONNECT": (message(line=b"CONNECT a:1 HTTP/1.1"), "400", "1", "1"),
    "GET of RTSP": (message(line=b"GET / RTSP/1.0"), "400", "1!", "!"),
    "RTSP": (message(line=b"DESCRIBE / RTSP/1.0"), "400", "1!", "!"),
    "ICE": (message(line=b"SOURCE / ICE/1.0"), "400", "1!", "!"),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505", "!", "1!"),
    "an unknown method": (message(line=b"FOO / HTTP/1.1"), "2", "!", "2"),
    "a method in lower case": (message(line=b"get / HTTP/1.1"), "400", "!", "2"),
    # Its target
    "absolute, a user": (with_target(b"http://u@h/"), "400", "2", "2"),
    "absolute, a backslash": (with_target(b"http://h\\@x/"), "400", "!", "2"),
    "absolute, one in the path": (with_target(b"http://h/\\x"), "400", "2", "2"),
    "absolute, a fragment": (with_target(b"http://h/a#b"), "400", "2", "2"),
    "absolute, another scheme": (with_target(b"ftp://h/a"), "400", "2", "2"),
    "a fragment": (with_target(b"/a#b"), "400", "2", "2"),
    "8 bits in a target": (with_target(b"/\xe9"), "400", "!", "!"),
    "no slash": (with_target(b"a"), "400", "!", "2"),
    # Before it
    "an empty line": (b"\r\n" + message(), "2", "2", "!"),
    "two empty lines": (b"\r\n\r\n" + message(), "2", "2", "!"),
    "a hundred of them": (b"\r\n" * 100 + message(), "400", "2", "!"),
    "LF": (b"\n" + message(), "400", "2", "!"),
    "CR": (b"\r" + message(), "400", "2", "!"),
    # Chunks
    "an extension": (chunks(b"3;a=b;c\r\nabc\r\n0\r\n\r\n"), "2", "2", "2"),
    "a quoted one": (chunks(b'3;a="b;\\"c"\r\nabc\r\n0\r\n\r\n'), "2", "2", "2"),
    "LF in an extension": (chunks(b"3;a\nb\r\nabc\r\n0\r\n\r\n"), "400", "!", "!"),
    "CR in an extension": (chunks(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), "400", "!", "2"),
    "a control in one": (chunks(b"3;a\x01b\r\nabc\r\n0\r\n\r\n"), "400", "!", "2"),
    "8 bits in one": (chunks(b"3;a\xe9b\r\nabc\r\n0\r\n\r\n"), "400", "!", "2"),
    "spaces around one": (chunks(b"3 ; a = b\r\nabc\r\n0\r\n\r\n"), "400", "!", "!"),
    "a space after a size": (chunks(b"3 \r\nabc\r\n0\r\n\r\n"), "400", "!", "2"),
    "a space before a size": (chunks(b" 3\r\nabc\r\n0\r\n\r\n"), "400", "!", "!"),
    "a size of 0x3": (chunks(b"0x3\r\nabc\r\n0\r\n\r\n"), "400", "!", "!"),
    "a size of -3": (chunks(b"-3\r\nabc\r\n0\r\n\r\n"), "400", "!", "!"),
    "a size with _": (chunks(b"0_3\r\nabc\r\n0\r\n\r\n"), "400", "!", "!"),
    "a size with zeros": (chunks(b"0003\r\nabc\r\n000\r\n\r\n"), "2", "2", "2"),
    "a size over 2^64": (chunks(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), "400", "!", "0"),
    "LF after a size": (chunks(b"3\nabc\r\n0\r\n\r\n"), "400", "!", "!"),
    "LF after data": (chunks(b"3\r\nabc\n0\r\n\r\n"), "400", "!", "!"),
    "CR after data": (chunks(b"3\r\nabc\r0\r\n\r\n"), "400", "!", "!"),
    "nothing after data": (chunks(b"3\r\nabc0\r\n\r\n"), "400", "!", "!"),
    "too much data": (chunks(b"3\r\nabcd\r\n0\r\n\r\n"), "400", "!", "!"),
    "LF after the last size": (chunks(b"0\n\r\n"), "400", "!", "!"),
    "LF at the end": (chunks(b"0\r\n\n"), "400", "!", "2"),
    "no end": (chunks(b"0\r\n"), "400", "!", "!"),
    # Trailers
    "a trailer": (chunks(b"0\r\nA: b\r\n\r\n"), "2", "2", "2"),
    "LF ends a trailer": (chunks(b"0\r\nA: b\n\r\n"), "400", "!", "2"),
    "LF ends the trailers": (chunks(b"0\r\nA: b\n\n"), "400", "!", "2"),
    "a trailer without colon": (chunks(b"0\r\nAb\r\n\r\n"), "400", "!", "!"),
    "no end of trailers": (chunks(b"0\r\nA: b\r\n"), "400", "!", "!"),
    "a trailer, space, colon": (chunks(b"0\r\nA : b\r\n\r\n"), "400", "!", "!"),
    "a folded trailer": (chunks(b"0\r\nA: b\r\n c\r\n\r\n"), "400", "!", "2"),
    "NUL in a trailer": (chunks(b"0\r\nA: b\0\r\n\r\n"), "400", "!", "!"),
    "CL as a trailer": (chunks(b"0\r\nContent-Length: 5\r\n\r\n"), "400", "!", "2"),
}


def verdict(outcome: Outcome) -> str:
    """An outcome as the table has it."""
    served = str(len(outcome.requests) or "") or ("" if outcome.refused else "0")
    return served + ("!" if outcome.refused else "")


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "in bytes"])
def test_smuggling_is_refused(ours: Ours, row: tuple[bytes, str, str, str], cut: int) -> None:
    data, by_us, by_llhttp, by_h11_ = row
    pieces = pieces_of(data, range(len(data)) if cut else ())
    own, theirs = ours(pieces), [by_httptools(pieces), by_h11(pieces)]
    assert (str(own.refused) if own.refused else verdict(own)) == by_us
    if len(by_us) == 3:
        assert not own.requests, "a request of which a part was refused"
    assert [verdict(outcome) for outcome in theirs] == [by_llhttp, by_h11_]
    for outcome in theirs:
        if verdict(outcome) == by_us:
            assert outcome.requests == own.requests


# Requests by chance

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"]
NAMES = st.sampled_from(
    [b"x", b"X-Two", b"Accept", b"cookie", b"Content-Language", b"a!#$%&'*+-.^_`|~0"]
)
VALUES = st.lists(
    st.sampled_from([b"a", b"0", b" ", b"\t", b",", b":", b'"', b"\xe9", b"\x80", b"chunked"])
).map(lambda parts: b"".join(parts).strip(b" \t"))
TARGETS = st.lists(
    st.sampled_from([b"a", b"/", b"%20", b"?", b"=", b"&", b"..", b";", b":", b"@", b"//"])
).map(lambda parts: b"/" + b"".join(parts))
BODIES = st.binary(max_size=40)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that every parser has to read."""
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    lines = [
        b"%b:%b%b" % (name, draw(st.sampled_from([b"", b" ", b"\t "])), value)
        for name, value in headers
    ]
    body = b""
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    if framing == "length":
        body = draw(BODIES)
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"transfer-encoding: chunked")
        for part in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3)):
            extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
            body += b"%x%b\r\n%b\r\n" % (len(part), extension, part)
        trailer = draw(st.sampled_from([b"", b"T: x\r\n"]))
        body += b"0\r\n" + trailer + b"\r\n"
    lines.insert(draw(st.integers(0, len(lines))), b"Host: example.org:8000")
    line = b"%b %b HTTP/1.1" % (draw(st.sampled_from(METHODS)), draw(TARGETS))
    return b"\r\n".join([line, *lines, b"", b""]) + body


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.lists(requests(), min_size=1, max_size=3), CUTS)
def test_three_parsers_read_the_same(ours: Ours, wanted: list[bytes], cuts: list[int]) -> None:
    pieces = pieces_of(b"".join(wanted), cuts)
    own = ours(pieces)
    assert (len(own.requests), own.refused) == (len(wanted), 0)
    for theirs in (by_httptools(pieces), by_h11(pieces)):
        assert theirs == own


EDITS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 2),  # bytes that go
        st.sampled_from(
            [
                *(b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b";", b",", b"0", b"\0", b"\xe9"),
                *(b"#", b"\\", b"\r\nHost: b", b"\r\nContent-Length: 1"),
                b"\r\nTransfer-Encoding: chunked",
            ]
        ),
    ),
    min_size=1,
    max_size=3,
)

Known = dict[str, Callable[[bytes, Request], object]]  # by the data, or the request they serve


def found(pattern: bytes) -> Callable[[bytes, Request], object]:
    return lambda data, request: re.search(pattern, data)


def count(request: Request, name: bytes) -> int:
    return [key for key, _ in request.headers].count(name)


def is_host(value: bytes) -> bool:
    return bool(re.fullmatch(rb"[A-Za-z0-9.,;%\-]*(:[0-9]*)?", value))


ANY: Known = {
    "an invalid Host": lambda data, request: not is_host(dict(request.headers).get(b"host", b"")),
    "a fragment, or no path": lambda data, request: (
        b"#" in request.target or not request.target.startswith(b"/")
    ),
}
HTTPTOOLS_SERVES: Known = {
    **ANY,
    "not one Host": lambda data, request: count(request, b"host") != 1,
    "spaces in the request line": found(rb"(^|\n)[A-Z]+ [^\r\n]*  *HTTP/|(^|\n)[A-Z]+  "),
    "lines before a request": found(rb"^[\r\n]|[\r\n]{3}|\n\n"),
    "another version": found(rb"HTTP/(?!1\.1)|HTTP/1\.1[^\r]"),
    "other transfer codings": lambda data, request: (
        count(request, b"transfer-encoding") > 1
        or dict(request.headers).get(b"transfer-encoding", b"chunked").lower() != b"chunked"
    ),
}
H11_SERVES: Known = {
    **ANY,
    "a method in lower case": lambda data, request: request.method != request.method.upper(),
    "LF without CR": found(rb"(?<!\r)\n"),
    "folded lines": found(rb"\n[ \t]"),
    "a length twice": found(rb"(?i)content-length: ?(\d+)\r\n(.|\r|\n)*content-length: ?\1"),
    "a list of lengths": found(rb"(?i)content-length:[^\r]*,"),
    "a length and chunks": lambda data, request: (
        count(request, b"transfer-encoding") and count(request, b"content-length")
    ),
    "another version": found(rb"HTTP/(?!1\.1)|HTTP/1\.1[^\r]"),
    "invalid extensions, spaces after a size": found(rb"\n[0-9a-f]+([ \t]|;[^\n]*[^ -~\n]?)"),
    "trailers that frame": found(rb"\n0\r\n(.|\r|\n)*(Content-Length|Transfer-Encoding)"),
}


@settings(max_examples=2 * settings.default.max_examples)
@given(requests(), EDITS, CUTS)
def test_what_is_served_is_read_alike(
    ours: Ours, request_: bytes, edits: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    data = request_
    for place, gone, new in edits:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + gone :]
    data += NEXT
    pieces = pieces_of(data, cuts)
    own = ours(pieces)
    for name, theirs, known in (
        ("httptools", by_httptools(pieces), HTTPTOOLS_SERVES),
        ("h11", by_h11(pieces), H11_SERVES),
    ):
        both = min(len(own.requests), len(theirs.requests))
        assert theirs.requests[:both] == own.requests[:both], f"{name} reads it differently"
        if own.refused and len(theirs.requests) > both:
            served = theirs.requests[both]
            assert any(is_known(data, served) for is_known in known.values()), (name, data, served)
