"""Listening sockets that are bound here, and who has them last."""

import os
import socket
import stat
from pathlib import Path

import pytest

from realtime.server import systemd
from realtime.server.sockets import ListenError, ListeningSocket


def test_a_connection_from_before_the_workers_does_not_wait_for_acknowledgements() -> None:
    listener = ListeningSocket.open("127.0.0.1", 0, None, {})
    try:
        assert listener.address
        with socket.create_connection(listener.address):
            listener.sock.setblocking(True)
            accepted, _ = listener.sock.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        listener.close()


def test_file_of_a_unix_socket_goes_with_it(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = ListeningSocket.open("", 0, path, {})
    assert (listener.path, listener.address) == (path, None)
    with pytest.raises(ListenError, match="Can't listen on"):
        ListeningSocket.open("", 0, path, {})
    listener.close()
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("umask", "mode"), [(0o022, 0o666), (0o027, 0o660), (0o007, 0o660), (0o077, 0o600)]
)
def test_those_may_connect_to_a_unix_socket_whom_the_umask_lets_read(
    umask: int, mode: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        listener = ListeningSocket.open("", 0, str(tmp_path / "socket"), {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == mode
    listener.close()


def test_what_is_no_socket_is_named_and_stays(tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text("mine")
    for path in (file, tmp_path):
        with pytest.raises(ListenError, match=f"on {path}: a file or folder is there, no socket"):
            ListeningSocket.open("", 0, str(path), {})
    assert file.read_text() == "mine"


@pytest.mark.parametrize("port", [-1, 65_536, 70_000])
def test_a_port_that_there_is_not(port: int) -> None:
    with pytest.raises(ListenError, match=f"1:{port} is not an address .* a port is 0 to 65535"):
        ListeningSocket.open("127.0.0.1", port, None, {}).close()


def test_more_than_one_passed_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        monkeypatch.setattr(systemd, "passed_sockets", lambda env: [one, two])
        with pytest.raises(ListenError, match="LISTEN_FDS passes 2"):
            ListeningSocket.open("127.0.0.1", 0, None, {})


@pytest.mark.parametrize("pid", ["1", ""])
def test_sockets_that_are_passed_to_another_process_are_none_of_ours(pid: str) -> None:
    listener = ListeningSocket.open("127.0.0.1", 0, None, {"LISTEN_PID": pid, "LISTEN_FDS": "1"})
    assert not listener.is_passed
    listener.close()
