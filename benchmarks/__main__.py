"""`python -m benchmarks`: in an environment of its own, where its packages are not installed."""

import sys

if __name__ == "__main__":
    from .environment import enter

    enter()
    if sys.argv[1:2] == ["compare"]:
        from .compare import main

        sys.exit(main(sys.argv[2:]))
    from .command import main

    sys.exit(main())
