"""Prometheus' text, read by Prometheus' own parser."""

import json
import re
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families as parse

from realtime.metrics.exposition import render
from realtime.metrics.series import Counter, Gauge, Histogram, registry

from ..support.pages import METRICS, load_series, with_series
from ..support.servers import ROOT
from .support import own_series

DEPLOY: Final = ROOT / "deploy"


def test_prometheus_reads_what_is_written():
    with own_series():
        Counter("a_total", "What: \\ and more.", path=("lane", "log"))
        Gauge("b", "B.")
        Histogram("c_seconds", "C.", (0.1,))
        totals = {'a_total{path="log"}': 3, "b": -2, 'c_seconds_bucket{le="0.1"}': 2}
        text = render({**totals, "c_seconds_sum": 1_500_000_000, 'forged{x="y"}': 1})
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in parse(text)
            for sample in family.samples
        }
    assert found == {
        ("a_total", "lane"): 0,
        ("a_total", "log"): 3,
        ("b",): -2,
        ("c_seconds_bucket", "0.1"): 2,
        ("c_seconds_bucket", "+Inf"): 2,
        ("c_seconds_sum",): 1.5,
        ("c_seconds_count",): 2,
    }


ODD: Final = 'a "b", \\ c\\n}\nd'


def test_prometheus_reads_texts_with_quotes_backslashes_and_line_ends():
    with own_series():
        Counter("a_total", ODD, path=(ODD, "plain"))
        (family,) = parse(render({}))
    assert family.documentation == ODD
    assert [sample.labels["path"] for sample in family.samples] == [ODD, "plain"]


def test_every_series_is_told_in_its_type_and_with_help():
    families = {family.name: family for family in parse(render({}))}
    assert {name.removesuffix("_total") for name in registry} == set(families)
    for name, series in registry.items():
        family = families[name.removesuffix("_total")]
        assert (family.type, family.documentation) == (series.type, series.help)
        assert name.startswith("realtime_")
        assert name.endswith("_total") == (series.type == "counter")


def test_the_page_has_every_series():
    page = METRICS.read_text()
    assert page == with_series(page), "make it again: python -m tests.support.pages"


def used(path: Path) -> set[str]:
    """The series that a file names, histograms by their own name."""
    names = re.findall(r"\brealtime_[a-z_]+", path.read_text())
    return {name if name in registry else name.removesuffix("_bucket") for name in names}


def test_the_dashboard_shows_every_series_and_the_alerts_know_no_other():
    load_series()
    assert used(DEPLOY / "grafana" / "realtime.json") == set(registry)
    assert used(DEPLOY / "prometheus" / "alerts.yml") < set(registry)


def test_the_dashboard_is_one_that_grafana_reads():
    dashboard = json.loads((DEPLOY / "grafana" / "realtime.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        assert panel["type"] in ("row", "timeseries")
        assert all(target["expr"].count("(") for target in panel.get("targets", ()))
