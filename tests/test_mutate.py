"""The command that changes the code: its operators, its judgement, and its lists."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .mutate import __main__ as command
from .mutate.lists import Guard, equivalents, guards
from .mutate.operators import mutants
from .mutate.trial import NO_START, TIMEOUT, judge, stages

CHANGES = [
    ("if a:\n    b()", "condition negated", ["if not (a):\n    b()"]),
    ("while a:\n    b()", "condition negated", ["while not (a):\n    b()"]),
    ("c = a if b == c else d", "condition negated", ["c = a if not (b == c) else d"]),
    ("c = [a for a in b if a]", "condition negated", ["c = [a for a in b if not (a)]"]),
    ("if a == b:\n    c()", "comparison negated", []),  # the condition is already
    ("c = a == b", "comparison negated", ["c = a != b"]),
    ("c = a is b in c", "comparison negated", ["c = a is not b in c", "c = a is b not in c"]),
    ("c = a is not b", "comparison negated", ["c = a is b"]),
    ("c = a < b <= c", "boundary", ["c = a <= b <= c", "c = a < b < c"]),
    ("c = (a) >= (b)", "boundary", ["c = (a) > (b)"]),
    ("c = a and b or c", "and / or", ["c = a or b or c", "c = a and b and c"]),
    ("c = order or (\n    andes)", "and / or", ["c = order and (\n    andes)"]),
    ("c = not a", "not dropped", ["c = (a)"]),
    ("a.b()", "statement dropped", ["pass"]),
    ("a.b = c", "statement dropped", ["pass"]),
    ("a.b: int = c", "statement dropped", ["pass"]),
    ("a += b", "statement dropped", ["pass"]),
    ("del a[b]", "statement dropped", ["pass"]),
    ("raise a", "statement dropped", ["pass"]),
    ("raise NotImplementedError", "statement dropped", []),
    ("while a:\n    break", "statement dropped", ["while a:\n    pass"]),
    ("async def f():\n    await a", "await dropped", ["async def f():\n    pass"]),
    ("try:\n    a()\nexcept B:\n    c = d\n    e = f", "except raises", None),
    ("try:\n    a()\nexcept B:\n    raise", "except raises", []),
    ("a = 1_000", "constant + 1", ["a = 1001"]),
    ("a = 0.5", "constant - 1", ["a = -0.5"]),
    ("a = True", "constant flipped", ["a = False"]),
    ("a = 'ä', 1", "constant + 1", ["a = 'ä', 2"]),  # a column is one of bytes
    ("def f() -> int:\n    return a", "returns None", ["def f() -> int:\n    return None"]),
    ("def f():\n    return None", "returns None", []),
    ("assert a == 1", "comparison negated", []),
    ("if TYPE_CHECKING:\n    a()", "statement dropped", []),
    ("a: Literal[1]", "constant + 1", []),
]


@pytest.mark.parametrize(("source", "operator", "changed"), CHANGES)
def test_an_operator_changes_one_place(source, operator, changed):
    if changed is None:
        changed = ["try:\n    a()\nexcept B:\n    raise"]
    found = [each.apply(source) for each in mutants("a.py", source) if each.operator == operator]
    assert found == changed


def test_a_mutant_shows_its_place():
    source = "def f(a):\n    if a:\n        return 1\n"
    negated, *_ = mutants("a.py", source)
    assert (negated.path, negated.line) == ("a.py", 2)
    assert negated.diff(source) == "-    if a:\n+    if not (a):"


@pytest.mark.parametrize("path", command.files(command.CORE))
def test_a_mutant_of_the_core_is_another_program(path):
    source = Path(command.ROOT, path).read_text()
    tree = ast.dump(ast.parse(source))
    for mutant in mutants(path, source)[::20]:
        assert ast.dump(ast.parse(mutant.apply(source))) != tree, mutant


def test_a_module_is_found_by_name_folder_or_path():
    assert command.files(["hub"]) == ["realtime/delivery/hub.py"]
    assert command.files(["server/transport"]) == ["realtime/server/transport.py"]
    assert "realtime/access/identity.py" in command.files(["access"])
    assert "realtime/server/access_log.py" not in command.files(["access"])
    with pytest.raises(ValueError, match="hug"):
        command.files(["hug"])


# -- judging


class Runs:
    """Runs of tests that end as told."""

    def __init__(self, *ends, broken=()):
        self.ends = list(ends)
        self.broken = broken
        self.runs = []

    def run(self, tests, without):
        self.runs.append((list(tests), list(without)))
        return self.ends.pop(0)

    def judge(self, *stages):
        return judge(self.run, lambda test: test not in self.broken, stages)


def test_a_mutant_is_killed_by_a_test_that_fails_again():
    tests = Runs("a::b", "a::b")
    assert tests.judge(["a"], ["c"]) == "a::b"
    assert tests.runs == [(["a"], []), (["a::b"], [])]


def test_a_mutant_that_no_stage_notices_survives():
    tests = Runs(None, None)
    assert tests.judge(["a"], ["c", "d"]) is None
    assert tests.runs == [(["a"], []), (["c", "d"], [])]


def test_a_flaky_test_kills_nothing():
    tests = Runs("a::b", None, None, "a::d", "a::d")
    assert tests.judge(["a"]) == "a::d"
    assert tests.runs[3] == (["a"], ["a::b"])


def test_a_test_that_fails_now_and_then_with_the_mutant_kills_it():
    assert Runs("a::b", None, "a::b").judge(["a"]) == "a::b"


def test_a_test_that_fails_without_the_mutant_kills_nothing():
    tests = Runs("a::b", "a::b", None, None, broken=["a::b"])
    assert tests.judge(["a"], ["c"]) is None


@pytest.mark.parametrize("end", [TIMEOUT, NO_START])
def test_what_does_not_end_or_start_is_killed(end):
    assert Runs(None, end).judge(["a"], ["c"]) == end


def test_a_command_that_is_killed_leaves_no_test_that_runs():
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.mutate.trial import start_group\n"
        "command = ['sh', '-c', 'echo begun; sleep 20; echo ended']\n"
        "with start_group(command, Path(), os.environ, sys.stdout) as process:\n"
        "    process.wait()\n"
    )
    command_line = [sys.executable, "-c", script]
    with subprocess.Popen(command_line, cwd=command.ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        process.kill()
        assert process.stdout.read() == b""  # which ends when the last process does


def test_the_tests_that_mirror_the_file_come_first():
    first, wider = stages(command.ROOT, "realtime/delivery/subscription.py")
    assert first[0] == "tests/delivery/test_subscription.py"
    assert set(first[1:]) == {"tests/delivery/test_subscription_properties.py"}
    assert "tests/delivery/test_hub.py" in wider
    assert "tests/websocket/test_consumers.py" in wider
    assert not set(first) & set(wider)
    mirror, *_ = stages(command.ROOT, "realtime/streaming/sql_json/__init__.py")
    assert mirror == ["tests/streaming/test_sql_json.py"]


def test_a_guard_s_own_tests_come_first():
    expected = ["tests/access/test_connections.py"]
    first, wider = stages(command.ROOT, "realtime/access/cache.py", expected)
    assert first == expected
    assert wider[0] == "tests/access/test_cache.py"


@pytest.mark.timeout(180)
def test_the_command_tells_a_test_that_sees_from_one_that_does_not(tmp_path, monkeypatch, capsys):
    for name, text in {
        "realtime/maths.py": "def double(a):\n    return a + a\n\ndef unseen():\n    return []\n",
        "tests/test_maths.py": "from realtime.maths import double\n\n"
        "def test_double():\n    assert double(2) == 4\n",
        "pytest.ini": "[pytest]\npythonpath = .\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "equivalents", list)
    # Without the settings and the plugins of the tests around this one: it starts pytest often.
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p xdist.plugin")
    assert command.main(["--modules", "maths", "--jobs", "1"]) == 1
    output = capsys.readouterr().out
    assert "killed     realtime/maths.py:2 [returns None] by tests/test_maths.py::test_do" in output
    assert "SURVIVED   realtime/maths.py:5 [returns None]\n-    return []\n+    return N" in output
    assert output.endswith("\n2 mutants, 1 killed, 50 %\n")


# -- the lists


@pytest.mark.parametrize("guard", guards(), ids=lambda guard: guard.name)
def test_a_guard_stands_in_its_file_and_can_go(guard):
    source = Path(command.ROOT, guard.path).read_text()
    changed = guard.mutant(source).apply(source)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    assert all(Path(command.ROOT, name).exists() for name in guard.tests)


def test_guards_have_names_of_their_own():
    names = [guard.name for guard in guards()]
    assert len(names) == len(set(names))


def test_a_guard_is_a_piece_of_a_diff():
    text = (
        "# why\n\nit holds\na.py\ntests/test_a.py tests/test_b.py\n-if a:\n-    b()\n c()\n+d()\n"
    )
    [guard] = guards(text)
    assert guard.name == "it holds"
    assert guard.tests == ("tests/test_a.py", "tests/test_b.py")
    source = "def f():\n    if a:\n        b()\n    c()\n"
    assert guard.mutant(source).apply(source) == "def f():\n    c()\n    d()\n"


@pytest.mark.parametrize("source", ["b()\n", "a()\na()\n"])
def test_a_guard_that_is_not_there_once_is_an_error(source):
    with pytest.raises(ValueError, match="name"):
        Guard("name", "a.py", (), "a()\n", "").mutant(source)


@pytest.mark.parametrize("each", equivalents(), ids=str)
def test_an_equivalent_mutant_is_one_of_its_file(each):
    source = Path(command.ROOT, each.path).read_text()
    found = {mutant.line for mutant in mutants(each.path, source) if each.has(mutant, source)}
    assert len(found) == 1
    assert each.reason
