"""What the served site and its tests both know.

It is not in a module of the tests' clients: the site would import them too, and a server with those
in it is 17 MiB larger than the one that runs.
"""

REMOTE = bytes(range(256)) * 4096  # 1 MiB; what the storage elsewhere has
