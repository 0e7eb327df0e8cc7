"""Pages that are made from the code: `python -m tests.support.pages` writes them again."""

import importlib
import inspect
import os
import re
from collections.abc import Mapping
from typing import Any, Final

import django

import realtime
from realtime.conf import Settings
from realtime.conf.setting import Setting
from realtime.conf.topic_patterns import TOPIC_KEYS
from realtime.llm import conf as llm_conf
from realtime.metrics.series import Series, registry

from .servers import ROOT

PAGE: Final = ROOT / "docs" / "settings.md"
API: Final = ROOT / "docs" / "api.md"
METRICS: Final = ROOT / "docs" / "metrics.md"
HEADING: Final = re.compile(r"    # ([A-Z].*)")
KEY: Final = re.compile(r"    ([A-Z_]+) = ")
COLUMNS: Final = "| name | default | unit | at the limit |\n|---|---|---|---|\n"
LANGUAGE_MODELS: Final = "Answers of language models"


def with_tables(page: str) -> str:
    """Return the text of docs/settings.md with its tables as the code has them."""
    before, _, rest = page.partition("\n### ")
    _, _, after = rest.partition("\n## The environment")
    tables = {
        **sections(Settings),
        LANGUAGE_MODELS: "See [llm.md](llm.md); keys of `realtime.llm`.\n\n"
        + table(llm_conf.Settings.table()),
    }
    tables["Topics"] += "\nKeys of its entries:\n\n" + table(TOPIC_KEYS)
    made = "\n".join(f"### {heading}\n\n{text}" for heading, text in tables.items())
    return f"{before}\n{made}\n## The environment{after}"


def sections(settings: type[Settings]) -> dict[str, str]:
    """Return a table for each heading that stands as a comment among the settings."""
    names: dict[str, list[str]] = {}
    heading = ""
    for line in inspect.getsource(settings).splitlines():
        if found := HEADING.fullmatch(line):
            heading = found[1]
        elif found := KEY.match(line):
            names.setdefault(heading, []).append(found[1])
    known = settings.table()
    return {key: table({name: known[name] for name in group}) for key, group in names.items()}


def table(settings: Mapping[str, Setting[Any]]) -> str:
    """Return one table of the page."""
    return COLUMNS + "".join(
        f"| `{name}` | `{written(each.default)}` "
        f"| {each.unit}{', or `None`' * each.is_nullable} | {each.help} |\n"
        for name, each in settings.items()
    )


def written(default: object) -> str:
    """Return a default as it would stand in a settings file."""
    return f'"{default}"' if isinstance(default, str) else repr(default)


def with_names(page: str) -> str:
    """Return the text of docs/api.md with its table of names as the package has them."""
    before, head, rest = page.partition("| name | what it is |\n|---|---|\n")
    after = rest[rest.index("\n\n") + 1 :] if not rest.startswith("\n") else rest
    return before + head + "".join(f"| `{n}` | {summary(n)} |\n" for n in realtime.__all__) + after


def with_series(page: str) -> str:
    """Return the text of docs/metrics.md with its table of series as the package has them."""
    load_series()
    before, head, rest = page.partition("| series | type | what it is |\n|---|---|---|\n")
    after = rest[rest.index("\n\n") + 1 :] if not rest.startswith("\n") else rest
    rows = (f"| `{n}` | {described(each)} |\n" for n, each in sorted(registry.items()))
    return before + head + "".join(rows) + after


def load_series() -> None:
    """Import all that makes series."""
    for path in (ROOT / "realtime").rglob("*.py"):
        if "metrics.series import" in path.read_text():
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def described(series: Series) -> str:
    """Return a series' cells: its type; its help and what its labels can be."""
    labels = [f"`{n}`: {', '.join(v)}." for n, v in series.labels.items() if n != "version"]
    return " ".join([series.type, "|", series.help, *labels])


def summary(name: str) -> str:
    """Return the first paragraph of a public name's docstring."""
    text = inspect.getdoc(getattr(realtime, name)) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.support.settings")
    django.setup()
    API.write_text(with_names(API.read_text()))
    PAGE.write_text(with_tables(PAGE.read_text()))
    METRICS.write_text(with_series(METRICS.read_text()))
