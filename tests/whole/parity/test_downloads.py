"""Rows 13 and 14: rows as NDJSON, files, and downloads that are made while they are sent."""

import asyncio
import csv
import io
import json
import zipfile
from typing import Any

import httpx

from .clients import (
    SMALL,
    by_all_means,
    call,
    http,
    is_ok,
    offered,
    raw,
    read_head,
    request,
)
from .contestants import BIG_FILE, BIG_FILE_BYTES, FILE, FILE_BODY, ITEMS, SECRET, Server, Site
from .outcomes import NotOffered, Seen, row, see

MIB = 2**20
CONSTANT = 16 * MIB  # what a worker may grow by for one client
ROWS_BOUND = 8 * MIB  # a server that buffers all of the rows grows by half as much again
PAUSE = 1.0  # seconds that a slow client reads nothing
DOWNLOAD = f"/download/{FILE}"
FIELDS = ["id", "name", "price", "created", "uuid"]


async def growth_while_stalled(server: Server, path: str, warm_up: str) -> int:
    """What the worker grows by while a client has read 1 KB of the answer, and stops."""
    is_ok(await call(server, "GET", warm_up, server.users["staff"]))
    before = server.forget_peak()
    with raw(server, SMALL) as client:
        client.sendall(request(server, path, by_all_means(server.users["staff"])))
        status, _ = await asyncio.to_thread(read_head, client)
        if status in (404, 405):
            raise NotOffered(f"{path.partition('?')[0]} is answered with {status}.")
        see(status == 200, f"The answer was {status}.")
        await asyncio.sleep(PAUSE)
        return server.peak() - before


# -- row 13


def items_of(text: str) -> list[Any]:
    """The objects, one a line."""
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        raise Seen("A line was not JSON.") from None


@row(13, "Every row is a JSON object on a line of its own, in order")
async def test_all_rows(here: Server) -> None:
    answer = await call(here, "GET", "/stream/items", here.users["alice"])
    is_ok(answer)
    kind = answer.headers.get("content-type", "")
    see(kind.startswith("application/x-ndjson"), f"Content-Type was {kind!r}.")
    items = items_of(answer.text)
    see([item["id"] for item in items] == list(range(1, ITEMS + 1)), "Rows were missing.")
    see(sorted(items[0]) == sorted(FIELDS), "A row had other fields.")
    see("content-length" not in answer.headers, "It was made as a whole before it was sent.")


@row(13, "after= and limit= give a part of the rows")
async def test_part_of_rows(here: Server) -> None:
    for query, expected in (
        ("?after=10&limit=3", [11, 12, 13]),
        (f"?after={ITEMS - 1}", [ITEMS]),
        (f"?after={ITEMS}", []),
    ):
        answer = await call(here, "GET", f"/stream/items{query}", here.users["alice"])
        is_ok(answer)
        see([item["id"] for item in items_of(answer.text)] == expected, "Other rows came.")


@row(13, "Constant memory while a client stops reading the rows")
async def test_memory_of_rows(site: Site) -> None:
    server = site.start()  # what others had in memory, and gave back, would not be seen
    growth = await growth_while_stalled(server, "/stream/items", "/stream/items?limit=2000")
    see(growth < ROWS_BOUND, "The worker grew by more than 8 MiB.")


@row(13, "A stream that fails half-way can be told from a finished one")
async def test_cut_rows(site: Site) -> None:
    if not site.contestant.items_table:
        raise NotOffered("There are no items.")
    server = site.start()
    path, received = "/stream/items", b""
    async with http(server, server.users["alice"]) as client:
        try:
            async with client.stream("GET", path) as response:
                offered(response, path)
                is_ok(response)
                async for piece in response.aiter_raw():
                    if not received:
                        await asyncio.to_thread(site.break_items)
                    received += piece
        except httpx.TransportError:
            return
    see(received.count(b"\n") == ITEMS, "It ended like a finished one, with rows missing.")


# -- row 14


async def get(server: Server, path: str = DOWNLOAD, **headers: str) -> httpx.Response:
    """An answer; `if_range` becomes If-Range."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await call(server, "GET", path, server.users["alice"], headers=named)


@row(14, "A file comes whole, with its length, its type and a name to save it under")
async def test_file(here: Server) -> None:
    answer = await get(here)
    is_ok(answer)
    see(answer.content == FILE_BODY, "Other bytes came.")
    headers = answer.headers
    see(headers.get("content-length") == str(len(FILE_BODY)), "Content-Length was another one.")
    see(headers.get("content-type", "").startswith("text/plain"), "It was no text/plain.")
    see(FILE in headers.get("content-disposition", ""), "Content-Disposition had no file name.")
    see(headers.get("accept-ranges") == "bytes", "Ranges were not announced.")


@row(14, "HEAD has the same headers, and no body")
async def test_head(here: Server) -> None:
    whole = await get(here)
    is_ok(whole)
    answer = await call(here, "HEAD", DOWNLOAD, here.users["alice"])
    is_ok(answer)
    see(answer.content == b"", "A body came.")
    for name in ("content-length", "content-type", "etag", "accept-ranges"):
        same = answer.headers.get(name) == whole.headers.get(name)
        see(same, f"{name} was another one.")


@row(14, "Range gives the first, the middle and the last bytes, as 206")
async def test_range(here: Server) -> None:
    size = len(FILE_BODY)
    for asked, start, end in (
        ("bytes=0-9", 0, 10),
        ("bytes=100-199", 100, 200),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=0-{size * 2}", 0, size),
    ):
        answer = await get(here, range=asked)
        is_ok(answer, 206)
        see(answer.content == FILE_BODY[start:end], "Other bytes came.")
        expected = f"bytes {start}-{end - 1}/{size}"
        see(answer.headers.get("content-range") == expected, "Content-Range was another one.")


@row(14, "Several ranges come as multipart/byteranges")
async def test_ranges(here: Server) -> None:
    answer = await get(here, range="bytes=0-7,800-807")
    is_ok(answer, 206)
    kind = answer.headers.get("content-type", "")
    see(kind.startswith("multipart/byteranges"), f"Content-Type was {kind!r}.")
    for part in (FILE_BODY[:8], FILE_BODY[800:808]):
        see(part in answer.content, "A part was missing.")
    see(FILE_BODY[8:16] not in answer.content, "More came than was asked for.")


@row(14, "A range beyond the end is answered with 416 and the length")
async def test_unsatisfiable(here: Server) -> None:
    is_ok(await get(here))
    answer = await get(here, range=f"bytes={len(FILE_BODY)}-")
    is_ok(answer, 416)
    expected = f"bytes */{len(FILE_BODY)}"
    see(answer.headers.get("content-range") == expected, "Content-Range was another one.")


@row(14, "If-Range: the part of the same file, the whole of a changed one")
async def test_if_range(here: Server) -> None:
    etag = (await get(here)).headers.get("etag")
    see(etag, "There was no ETag.")
    same = await get(here, range="bytes=0-9", if_range=str(etag))
    is_ok(same, 206)
    changed = await get(here, range="bytes=0-9", if_range='"another"')
    is_ok(changed, 200)
    see(changed.content == FILE_BODY, "Other bytes came.")


@row(14, "If-None-Match with the ETag is answered with 304")
async def test_etag(here: Server) -> None:
    etag = (await get(here)).headers.get("etag")
    see(etag, "There was no ETag.")
    answer = await get(here, if_none_match=str(etag))
    is_ok(answer, 304)
    see(answer.content == b"", "A body came.")
    is_ok(await get(here, if_none_match='"another"'), 200)


@row(14, "What lies outside of the folder can't be had")
async def test_traversal(here: Server) -> None:
    is_ok(await get(here))
    for name in (
        *("../secret.txt", "..%2fsecret.txt", "..%2Fsecret.txt", "%2e%2e/secret.txt"),
        *("%2e%2e%2fsecret.txt", "..%5csecret.txt", "x/../../secret.txt", "%00", "..", "."),
    ):
        with raw(here) as client:
            headers = {**by_all_means(here.users["staff"]), "Connection": "close"}
            client.sendall(request(here, f"/download/{name}", headers))
            status, body = await asyncio.to_thread(read_head, client)
            see(status in (400, 403, 404), f"{name} was answered with {status}.")
            see(SECRET not in body, "The file beside the folder came.")


@row(14, "Constant memory while a client stops reading a file of 64 MiB")
async def test_memory_of_a_file(here: Server) -> None:
    growth = await growth_while_stalled(here, f"/download/{BIG_FILE}", DOWNLOAD)
    see(growth < CONSTANT, "The worker grew by more than 16 MiB.")


@row(14, "A file of 64 MiB comes whole")
async def test_big_file(here: Server) -> None:
    path, size = f"/download/{BIG_FILE}", 0
    async with (
        http(here, here.users["alice"]) as client,
        client.stream("GET", path) as response,
    ):
        offered(response, path)
        is_ok(response)
        async for piece in response.aiter_raw():
            size += len(piece)
    see(size == BIG_FILE_BYTES, "Bytes were missing.")


@row(14, "The table as CSV, made while it is sent")
async def test_csv(here: Server) -> None:
    answer = await call(here, "GET", "/export/items.csv", here.users["alice"])
    is_ok(answer)
    kind = answer.headers.get("content-type", "")
    see(kind.startswith("text/csv"), f"Content-Type was {kind!r}.")
    see("items.csv" in answer.headers.get("content-disposition", ""), "It had no file name.")
    see("content-length" not in answer.headers, "It was made as a whole before it was sent.")
    head, *rows = csv.reader(io.StringIO(answer.content.decode("utf-8-sig")))
    see(head == FIELDS, "The first line did not name the columns.")
    see([line[0] for line in rows] == [str(n + 1) for n in range(ITEMS)], "Rows were missing.")


@row(14, "All files as a ZIP archive")
async def test_zip(here: Server) -> None:
    answer = await call(here, "GET", "/export/files.zip", here.users["alice"])
    is_ok(answer)
    try:
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
    except zipfile.BadZipFile:
        raise Seen("It was no ZIP archive.") from None
    with archive:
        see(sorted(archive.namelist()) == sorted([FILE, BIG_FILE]), "Other files were in it.")
        see(archive.testzip() is None, "A file in it was broken.")
        see(archive.read(FILE) == FILE_BODY, "A file in it had other bytes.")


@row(14, "Constant memory while a client stops reading the archive")
async def test_memory_of_a_zip(here: Server) -> None:
    growth = await growth_while_stalled(here, "/export/files.zip", DOWNLOAD)
    see(growth < CONSTANT, "The worker grew by more than 16 MiB.")
