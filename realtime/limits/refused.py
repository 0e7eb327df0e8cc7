"""The series that counts what limits have refused."""

from typing import Final

from ..metrics.series import OTHER, Counter

RATE_LIMITED: Final = Counter(
    "realtime_rate_limited_total",
    "What was refused by a rate or as too many, by what there was too much of; `publish_rate` is "
    "that of a topic.",
    what=(
        *("messages", "publishes", "subscribes", "authenticates", "opens", "topics"),
        *("publish_rate", "connections", OTHER),
    ),
)


def count_refused(setting: str) -> None:
    """Count a refusal by the name of its setting, as `RATE_PUBLISHES_PER_USER`."""
    what = setting.removeprefix("RATE_").removeprefix("MAX_").partition("_PER_")[0]
    RATE_LIMITED.inc(what.lower())
