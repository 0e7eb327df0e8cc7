"""The whole server over TLS."""

import datetime
import json
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ..support.attempts import three_tries
from ..support.servers import free_port
from .support import EXIT_SECONDS, Client, Worker, eventually, frame

Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate signed with it, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


class Secure:
    """A worker that also listens with TLS."""

    def __init__(self, start: Start, certificate: Path, *options: str) -> None:
        self.port = free_port()
        endpoint = f"ssl:{self.port}:interface=127.0.0.1:privateKey={certificate}"
        self.worker = start("-e", f"{endpoint}:certKey={certificate}", *options)

    def client(self, receive_buffer: int = 0) -> Client:
        client = Client(("127.0.0.1", self.port), receive_buffer=receive_buffer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client.sock = context.wrap_socket(client.sock, suppress_ragged_eofs=False)
        return client


@pytest.fixture
def secure(start: Start, certificate: Path) -> Secure:
    return Secure(start, certificate)


def test_answers_that_are_not_read_do_not_pile_up(secure: Secure) -> None:
    secure.worker.get("/large")
    before = secure.worker.rss()
    with secure.client(receive_buffer=4_096) as client:
        client.send(b"GET /large HTTP/1.1\r\nHost: t\r\n\r\n" * 1_000)
        time.sleep(1.0)
        assert secure.worker.rss() - before < 10_000_000
        for _ in range(1_000):
            assert len(client.response().body) == 60_000


def test_http_over_tls(secure: Secure) -> None:
    with secure.client() as client:
        client.request("/scope")
        assert b'"scheme": "https"' in client.response().body
        client.request("/length", method="POST", body=b"a" * 500_000)
        assert client.response().body == b"500000"
        client.request("/firehose?mb=1")
        assert len(client.response().body) == 16 * 65_536
        client.request("/hello", "Connection: close")
        assert client.response().body == b"hello"
        assert client.rest() == b""


def test_websocket_over_tls(secure: Secure) -> None:
    with secure.client() as client:
        client.upgrade()
        for size in (5, 70_000):
            client.send(frame(1, b"m" * size))
            assert client.frame() == (0x81, b"m" * size)
        client.send(frame(8, b"\x03\xe8"))
        assert client.closed() == 1000


def test_a_tls_client_that_does_not_read_pauses_the_generator(secure: Secure) -> None:
    secure.worker.get("/hello")
    before = secure.worker.rss()

    def read_nothing() -> None:
        assert secure.worker.reset(15)
        with secure.client(receive_buffer=65_536) as client:
            client.request("/firehose?mb=1000")
            client.exactly(1_000)
            time.sleep(1)
            assert secure.worker.rss() - before < 8_000_000
        assert secure.worker.wait_for("firehose finally") < 1.5

    three_tries(read_nothing)


def test_tls_has_no_fast_lane(secure: Secure) -> None:
    with secure.client() as client:
        client.request("/scope")
        extensions = json.loads(client.response().body)["extensions"]
    assert "realtime.disconnect" in extensions
    assert "realtime.lane" not in extensions


def test_a_tls_stream_ends_at_shutdown(secure: Secure) -> None:
    with secure.client() as client:
        client.request("/sse")
        client.until(b": hi\n\n\r\n")
        secure.worker.terminate()
        assert client.rest().endswith(b"0\r\n\r\n")
    assert secure.worker.process.wait(EXIT_SECONDS) == 0


@pytest.mark.parametrize(
    ("ending", "count"), [("reset", 32), ("orderly", 500), ("close_notify", 500)]
)
def test_a_tls_client_that_leaves_is_noticed_with_a_full_receive_queue(
    secure: Secure, ending: str, count: int
) -> None:
    def leave() -> None:
        assert secure.worker.reset(15)
        with secure.client() as client:
            client.upgrade("/slow?gone=1")
            client.send(frame(1, b"x" * 100) * 500)
            time.sleep(0.2)
            if ending == "reset":
                client.reset()
            elif ending == "close_notify":
                with suppress(TimeoutError):
                    client.sock.settimeout(0.1)
                    client.sock.unwrap()
        assert secure.worker.wait_for("gone is set") < 1.0
        secure.worker.wait_for(f"slow got {count} then 1006")

    three_tries(leave)


@pytest.fixture
def impatient(start: Start, certificate: Path) -> Secure:
    return Secure(start, certificate, "--stall-timeout", "1")


def test_a_tls_client_that_takes_nothing_is_dropped(impatient: Secure) -> None:
    with impatient.client(receive_buffer=65_536) as client:
        client.request("/firehose?mb=1000")
        client.exactly(1_000)
        impatient.worker.wait_for("firehose finally", seconds=8)


def test_a_tls_websocket_that_takes_nothing_is_dropped(impatient: Secure) -> None:
    with impatient.client(receive_buffer=65_536) as client:
        client.upgrade("/flood")
        impatient.worker.wait_for("flood finally", seconds=8)


def test_a_tls_client_that_takes_a_little_at_a_time_stays(impatient: Secure) -> None:
    def read_slowly() -> None:
        with impatient.client(receive_buffer=65_536) as client:
            client.request("/echo", "Connection: close", method="POST", body=b"a" * 16_000_000)
            for _ in range(12):
                time.sleep(0.25)
                client.exactly(200_000)
            assert len(client.rest()) > 16_000_000 - 12 * 200_000

    three_tries(read_slowly)


@pytest.mark.parametrize("size", [5, 8_000_000])
def test_a_tls_client_that_does_not_read_to_the_end_keeps_no_place(
    impatient: Secure, size: int
) -> None:
    descriptors = Path(f"/proc/{impatient.worker.process.pid}/fd")
    with impatient.client(receive_buffer=65_536) as client:
        client.request("/hello")
        client.response()
        before = len(list(descriptors.iterdir()))
        client.request("/echo", "Connection: close", method="POST", body=b"a" * size)
        client.exactly(10)
        eventually(lambda: len(list(descriptors.iterdir())) < before, seconds=8)
