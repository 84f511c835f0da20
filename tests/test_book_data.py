"""The data of chapter 18: published results with their sources, and numbers of the log of runs."""

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = ROOT / "book" / "data"
PUBLISHED = json.loads((DATA / "enwik8-published.json").read_text())
PILOTS = json.loads((DATA / "pilot-runs.json").read_text())
KEYS = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(), re.M))


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["model"])
def test_every_published_result_has_a_source_and_its_citations_exist(row):
    assert row["source"]
    assert row["cite"]
    assert set(row["cite"]) <= KEYS


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["model"])
def test_published_results_are_plausible(row):
    assert row["kind"] in ("recurrent", "both", "attention")
    assert 2016 <= row["year"] <= 2026
    assert row["millions"] is None or 10 < row["millions"] < 1000
    assert 0.8 < row.get("learning", 0.9) < row["bits"] < 1.5


def test_no_model_is_listed_twice():
    assert len({row["model"] for row in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize("run", PILOTS, ids=lambda run: f"{run['group']}: {run['change']}")
def test_numbers_of_pilot_runs_are_in_the_log_of_runs(run):
    sections = (ROOT / "RUNS.md").read_text().split("\n## ")
    (section,) = (text for text in sections if text.startswith(run["section"] + "\n"))
    assert re.search(rf"(?<![\d.]){re.escape(run['value'])}(?!\d)", section)


def test_the_chapter_has_the_checksums_of_its_data():
    chapter = (ROOT / "book" / "18-since-2019.md").read_text()
    files = re.findall(r'repository_file\(\s*"(book/data/[^"]+)",\s*"(\w+)"', chapter)
    assert {name for name, _ in files} == {f"book/data/{path.name}" for path in DATA.glob("*.json")}
    for name, sha256 in files:
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == sha256, name
