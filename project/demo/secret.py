"""The demo's own secret key, made once and kept."""

import os
import secrets
from pathlib import Path


def kept_secret_key(path: Path) -> str:
    """The key in `path`; a new one is stored there, readable by its owner alone, if it has none."""
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = ""
    if key:
        path.chmod(0o600)
        return key
    key = secrets.token_urlsafe(50)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and moved, so that a key is never half there; 0600 before it has content.
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key + "\n")
    beside.replace(path)
    return key
