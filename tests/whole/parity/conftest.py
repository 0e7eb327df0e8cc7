"""Runs each check against each contestant, and compares what is found with docs/parity.json."""

import os
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from . import page
from .background import Background, Model, Vigil
from .contestants import EVERYONE, Contestant, Server, Site
from .outcomes import FAILS, NOT_OFFERED, WORKS, NotOffered, Seen, note

FOUND = pytest.StashKey[dict[tuple[page.Check, str], tuple[str, str]]]()
CHECKS = pytest.StashKey[set[page.Check]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity")
    group.addoption(
        "--contestants",
        nargs="+",
        choices=sorted(EVERYONE),
        help="by default ours; fastapi too with PARITY=all or after a change of its files or of "
        "the checks, where benchmarks/requirements.txt is installed",
    )
    group.addoption(
        "--parity-report",
        type=Path,
        metavar="FILE",
        help="write what is found as JSON, instead of comparing it with docs/parity.json",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(number, topic, check): a row of the chapter")
    config.stash[FOUND] = {}
    config.stash[CHECKS] = set()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "contestant" not in metafunc.fixturenames:
        return
    # A run of all tests knows no options of ours: pytest reads this file too late for that.
    chosen = metafunc.config.getoption("contestants", None)
    if chosen is None:
        chosen = usual()
    metafunc.parametrize("contestant", [EVERYONE[name]() for name in chosen], ids=chosen)


@cache
def usual() -> list[str]:
    """Ours, and the twin if it may have changed since docs/parity.json was written."""
    is_due = os.environ.get("PARITY") == "all" or not page.is_current(page.PAGE)
    return ["ours", page.TWIN] if is_due and not EVERYONE[page.TWIN].missing() else ["ours"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[CHECKS].update(check_of(item) for item in items if item.get_closest_marker("row"))


def check_of(item: pytest.Item) -> page.Check:
    marker = item.get_closest_marker("row")
    assert marker is not None
    number, topic, sentence = marker.args
    return number, topic, sentence


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    if pyfuncitem.get_closest_marker("row") is None:
        return (yield)
    outcome, error = WORKS, None
    try:
        yield
    except Seen as seen:
        outcome, error = FAILS, seen
    except NotOffered as probe:
        outcome, error = NOT_OFFERED, probe
    except httpx.TimeoutException:
        outcome, error = FAILS, Seen("No answer came.")
    except httpx.TransportError:
        outcome, error = FAILS, Seen("The connection was closed before the answer was complete.")
    contestant = pyfuncitem.callspec.params["contestant"].name
    check = check_of(pyfuncitem)
    pyfuncitem.config.stash[FOUND][check, contestant] = outcome, note(error) if error else ""
    if contestant == "ours":
        if error is not None:
            raise error
    elif pyfuncitem.config.getoption("parity_report", None) is None:
        _compare(check, contestant, outcome, error)
    return True


def _compare(check: page.Check, contestant: str, outcome: str, error: Exception | None) -> None:
    entry = page.read(page.PAGE).get(check, {"results": {}})
    written = entry["results"].get(contestant, "nothing")
    if outcome != written:
        seen = f" ({note(error)})" if error else ""
        pytest.fail(
            f"docs/parity.json says {written!r} of {contestant}, and it is {outcome!r}{seen}. "
            f"Write it anew: {page.REMEDY}",
            pytrace=False,
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("parity_report", None)
    if path is not None:
        page.write(path, session.config.stash[CHECKS], session.config.stash[FOUND])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(FOUND, {})
    if config.getoption("parity_report", None) is None or not found:
        return
    terminalreporter.section("parity")
    for (check, contestant), (outcome, seen) in sorted(found.items()):
        terminalreporter.line(f"{check[0]:>2} {check[2]} | {contestant}: {outcome} {seen}")


# -- what the checks get


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    """What runs beside the checks."""
    running = Background()
    yield running
    running.close()


@pytest.fixture(scope="session")
def _model(background: Background) -> Iterator[Model]:
    """The language model of all contestants."""
    running = Model(background)
    yield running
    running.close()


@pytest.fixture
def model(_model: Model) -> Iterator[Model]:
    """The language model; what a check left hanging ends with it."""
    yield _model
    _model.release()


class Shared:
    """A site and a server per contestant, for all checks that break nothing."""

    def __init__(self, background: Background, model: Model) -> None:
        self._background = background
        self._model = model
        self._templates: dict[str, Site] = {}
        self._servers: dict[str, Server] = {}
        self._others: dict[str, Server] = {}
        self._sites: list[Site] = []
        self._models: list[Model] = []
        self.vigils: dict[str, Vigil] = {}

    def template(self, contestant: Contestant) -> Site:
        if contestant.name not in self._templates:
            self._templates[contestant.name] = Site.prepare(contestant, self._model.url)
        return self._templates[contestant.name]

    def server(self, contestant: Contestant) -> Server:
        if contestant.name not in self._servers:
            template = self.template(contestant)
            server = template.copy().start()
            self._servers[contestant.name] = server
            model = Model(self._background)
            other = template.copy(model.url)
            self._sites += [server.site, other]
            self._models.append(model)
            self.vigils[contestant.name] = Vigil(self._background, server, other, model)
        return self._servers[contestant.name]

    def other(self, contestant: Contestant) -> Server:
        if contestant.name not in self._others:
            self._others[contestant.name] = self.server(contestant).site.start()
        return self._others[contestant.name]

    def stop(self) -> None:
        for site in [*self._sites, *self._templates.values()]:
            site.stop()
        for vigil in self.vigils.values():
            vigil.stop()
        for model in self._models:
            model.close()


@pytest.fixture(scope="session")
def shared(background: Background, _model: Model) -> Iterator[Shared]:
    """What the checks share."""
    everything = Shared(background, _model)
    yield everything
    everything.stop()


@pytest.fixture
def here(contestant: Contestant, shared: Shared) -> Server:
    """A server that all checks share: leave it as it was."""
    return shared.server(contestant)


@pytest.fixture
def there(contestant: Contestant, shared: Shared) -> Server:
    """A second worker of the same site."""
    return shared.other(contestant)


@pytest.fixture
def vigil(contestant: Contestant, shared: Shared, here: Server) -> Vigil:
    """The clients that have waited since the shared server started."""
    return shared.vigils[contestant.name]


@pytest.fixture
def site(contestant: Contestant, shared: Shared) -> Iterator[Site]:
    """A site of the check's own, to start servers on and to break."""
    own = shared.template(contestant).copy()
    yield own
    own.stop()
