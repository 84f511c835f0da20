"""The data of chapter 21: published results, numbers of the log of runs, and the race."""

import hashlib
import json
import re
import sys
from pathlib import Path

import jupytext
import pytest
from IPython.display import Markdown

import sharnn
from benchmarks.race_settings import FULL
from race_rows import bits_of, rows_of_race
from sharnn.notebook import table

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
    chapter = (ROOT / "book" / "21-since-2019.md").read_text()
    files = re.findall(r'repository_file\(\s*"(book/data/[^"]+)",\s*"(\w+)"', chapter)
    assert {name for name, _ in files} == {f"book/data/{path.name}" for path in DATA.glob("*.json")}
    for name, sha256 in files:
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == sha256, name


@pytest.mark.parametrize("finished", [None, "nothing", "all but one", "all"])
def test_the_race_is_shown_before_and_after_its_results(finished, tmp_path, monkeypatch):
    """Runs the chapter's cell without a results file, and with more and more results."""
    notebook = jupytext.read(ROOT / "book" / "21-since-2019.ipynb")
    (source,) = (cell.source for cell in notebook.cells if "race.jsonl" in cell.source)
    monkeypatch.setattr(sharnn, "__file__", str(tmp_path / "sharnn" / "__init__.py"))
    monkeypatch.setattr("sys.path", list(sys.path))
    if finished is not None:
        rows = rows_of_race(FULL, bits_of)
        if finished == "nothing":
            rows = rows[:2]
        elif finished == "all but one":
            rows = [row for row in rows if row.get("contender") != "Transformer, Muon"]
        lines = [json.dumps(row) + "\n" for row in rows]
        (tmp_path / "benchmarks").mkdir()
        (tmp_path / "benchmarks" / "race.jsonl").write_text("".join(lines))
        (tmp_path / "benchmarks" / "records.json").write_text("[]")
    shown = []
    names = {"json": json, "sys": sys, "Path": Path, "sharnn": sharnn, "table": table}
    exec(source, {**names, "Markdown": Markdown, "display": shown.append})
    assert "only a hint" in shown[0].data
    if finished in ("all but one", "all"):
        is_partial = "Not finished yet: *Transformer, Muon*." in shown[0].data
        assert is_partial == (finished == "all but one")
        assert "one head, shifted keys" in shown[1].data
        assert "is ahead of" in shown[2].data
    else:
        assert len(shown) == 1
        assert "is not complete" in shown[0].data


def test_pages_that_read_results_are_built_again_when_these_change():
    reads = r"^ *from benchmarks[. ]|\b(race\.jsonl|results\.json)\""
    reading = {
        path.stem
        for path in (ROOT / "book").glob("*.md")
        if re.search(reads, path.read_text(), re.MULTILINE)
    }
    listed = re.search(r"^RESULT_PAGES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert reading
    assert set(listed[1].split()) == reading
