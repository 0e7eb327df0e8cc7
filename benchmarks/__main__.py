"""`python -m benchmarks`: in an environment of its own, where its packages are not installed."""

import sys

if __name__ == "__main__":
    from .environment import enter

    enter()
    from .command import main

    sys.exit(main())
