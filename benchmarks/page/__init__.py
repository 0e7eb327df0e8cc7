"""docs/comparison.md: the prose of `page.md` and `rows.toml`, and what was measured and counted.

matplotlib is imported for the plots, and so for a page alone.
"""

from .page import write

__all__ = ["write"]
