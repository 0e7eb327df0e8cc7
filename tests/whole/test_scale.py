"""What many processes cost, by `benchmarks.scale` at its smaller sizes.

`python -m benchmarks.scale --output docs/scale.md` writes the page with the whole curve.
"""

import math
import re

import pytest

from benchmarks import scale
from benchmarks.scale import Result, page_table, simulate

# A second, for each process, of HEAD_CHECK_SECONDS = PROCESS_BEAT_SECONDS = 2:
MESSAGES = 0.5  # to itself: idle processes say nothing to each other
STATEMENTS = 3.1  # three for a beat, one for what is new, one or two for heads
SHARE = 1 / 30  # of the topics, by HEAD_CHECK_IDLE_SECONDS
FOUND_SECONDS = 2.5  # a lost last announcement: HEAD_CHECK_SECONDS, and what the log takes


@pytest.mark.parametrize(("processes", "topics"), [(2, 500), (16, 60)])
def test_the_cost_of_many_idle_processes_and_the_time_to_find_what_is_lost(processes, topics):
    result = simulate(processes, topics, seed=1)
    assert result.messages <= 1.05 * MESSAGES * processes
    renewals = scale.IDLE_SECONDS * processes * topics / 300  # each at a time drawn by lot
    assert scale.IDLE_SECONDS * result.renewals <= renewals + 5 * math.sqrt(renewals)
    assert result.statements <= STATEMENTS * processes
    assert result.heads <= 1.1 * SHARE * processes * topics
    assert result.lost == len(result.found) > 20
    assert result.found[-1] <= FOUND_SECONDS


def test_the_simulation_notices_what_is_not_found():
    """With rare checks of the heads the budget is broken."""
    result = simulate(2, 300, seed=1, HEAD_CHECK_SECONDS=20.0)
    assert result.found[-1] > FOUND_SECONDS


def test_the_table_goes_into_the_page(tmp_path, monkeypatch, capsys):
    result = Result(2, 100, 1.0, 0.7, 6.0, 7.3, 2, [1.0, 2.0], 3_000.0)
    monkeypatch.setattr(scale, "simulate_alone", lambda *arguments: result)
    page = tmp_path / "scale.md"
    page.write_text("before\n<!-- scale -->\nold\n<!-- end -->\nafter\n")
    assert scale.main(["--output", str(page)]) == 0
    table = page_table([result] * len(scale.SIZES))
    assert capsys.readouterr().out == f"{table}\n"
    assert page.read_text() == f"before\n<!-- scale -->\n\n{table}\n\n<!-- end -->\nafter\n"
    assert re.search(r"\| 2 \| 100 \| .* \| 2\.0 s \| 2\.9 KiB \|", table)
