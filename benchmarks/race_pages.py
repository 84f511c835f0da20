"""The results of equal time on the pages that are plain text: README.md and book/results.md.

A page has the results between two markers. Until the race is complete they are the older runs of
``results.json``, which have one seed each. ``python -m benchmarks race --write`` updates the pages,
and a test compares them with the results files.
"""

from __future__ import annotations

from pathlib import Path

import benchmarks.results
from benchmarks.page_blocks import ROOT, markdown_table, write_block
from benchmarks.race_file import DEFAULT, read_rows
from benchmarks.race_report import (
    caveats,
    conditions,
    contexts,
    race_of,
    results_of,
    seeds_and_errors,
    verdicts,
)
from benchmarks.race_tables import HEADER, result_rows

README = ROOT / "README.md"
PAGES = (README, ROOT / "book" / "results.md")
NAME = "race"  # of the markers
IN_README = ("contender", "parameters", "validation bits per byte", "test bits per byte")
OLDER = {
    "no-head": "no head",
    "library": "one head, in the second-to-last block",
    "every-head": "a head in every block",
    "transformer": "a Transformer (x-transformers), with this library's Muon",
}


def block(page: Path, out: Path = DEFAULT, older: Path = benchmarks.results.DEFAULT) -> str:
    """Returns the text between the markers.

    Args:
        page: the page; README.md has a shorter text than the others.
        out: the results file of the race.
        older: the results file with the runs of one seed each.
    """
    rows = read_rows(out)
    race = race_of(rows)
    results = results_of(race, rows)
    if len(results) < len(race.contenders):
        return older_block(older)
    cells = [HEADER, *result_rows(results)]
    if page == README:
        cells = [[row[HEADER.index(name)] for name in IN_README] for row in cells]
        sentences = [*verdicts(results), seeds_and_errors(race), *contexts(results)]
    else:
        sentences = [*verdicts(results), *conditions(race, results), *caveats(race, rows, results)]
    header, *body = cells
    table = markdown_table(header, body, left=header.index("parameters"))
    return f"{table}\n" + "".join(f"- {sentence}\n" for sentence in sentences)


def older_block(path: Path) -> str:
    """Returns the table of the older runs, 10 minutes with one seed each."""
    quality = benchmarks.results.read_results(path).get("quality", {"runs": []})
    runs = {
        run["contender"]: run
        for run in quality["runs"]
        if (run["preset"], run["minutes"], run["seed"]) == ("small", 10, 0)
    }
    body = [
        [title, f"{runs[name]['parameters']:,}", f"{runs[name]['test_bits_per_byte']:.3f}"]
        for name, title in OLDER.items()
        if name in runs
    ]
    header = ["10 minutes of one CPU thread, recipe of `small`", "parameters", "test bits per byte"]
    return (
        markdown_table(header, body)
        + "\nEach was trained **once, with one seed**, and the settings of the Transformer and of "
        "the others were not\nchosen by searches of equal size, so small differences prove "
        "nothing. The model without a head reads more\nbytes in the same time.\n"
    )


def write_pages(out: Path) -> None:
    """Updates the pages from the results.

    Raises:
        sharnn.InputError: a file can't be read or written.
    """
    for page in PAGES:
        write_block([page], NAME, block(page, out))
