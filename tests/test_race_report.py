"""The reports of the race: verdicts, tables, and the pages that show them."""

import dataclasses
import json
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import pytest

import sharnn
from benchmarks.page_blocks import with_block
from benchmarks.race_file import read_rows
from benchmarks.race_pages import NAME, PAGES, README, block, older_block
from benchmarks.race_report import (
    PARTS,
    Result,
    caveats,
    compare,
    contexts,
    curves,
    difference,
    origin,
    results_of,
    rivals,
    verdicts,
)
from benchmarks.race_search import best_setting, next_runs, results_at
from benchmarks.race_settings import FULL, QUICK, Contender
from benchmarks.race_status import run_seconds
from benchmarks.race_tables import record_rows, result_rows, search_rows, trial_rows
from race_rows import MACHINE, REFERENCE, bits_of, row_of, rows_of_race

ROOT = Path(__file__).parent.parent


def result(name, *bits):
    contender = Contender(name, QUICK.contenders[0].start)
    rows = tuple({"valid": value, "test": value} for value in bits)
    return Result(contender, contender.start, rows, 1_000_000)


def test_a_sentence_names_the_winner_and_the_spread():
    ahead, behind = result("A", 2.0, 2.01, 2.02), result("B", 2.2, 2.21, 2.22)
    error = 2 * (2 * 0.01**2 / 3) ** 0.5
    expected = f"*A* is ahead of *B* by 0.200 ± {error:.3f} bits per byte on test."
    assert compare(ahead, behind, ["test"]) == compare(behind, ahead, ["test"]) == expected
    both = f"0.200 ± {error:.3f} bits per byte on validation and by 0.200 ± {error:.3f} bits"
    assert both in compare(behind, ahead)
    for row in ahead.rows:
        row["test"] += 1
    first, second = compare(ahead, behind).split(". ")
    assert first == f"*A* is ahead of *B* by 0.200 ± {error:.3f} bits per byte on validation"
    assert second.startswith("*B* is ahead of *A* by 0.800 ±")


def test_overlapping_seeds_show_no_difference():
    wide, narrow = result("A", 2.0, 2.0, 2.3), result("B", 2.29, 2.29, 2.29)
    sentence = compare(wide, narrow, ["valid"])
    assert sentence == (
        "No difference between *A* and *B* was shown: 2.100 and 2.290 bits per byte on validation."
    )
    assert compare(wide, narrow).endswith(" on validation, 2.100 and 2.290 bits per byte on test.")
    for row, bits in zip(wide.rows, (2.0, 2.01, 2.02), strict=True):
        row["test"] = bits
    assert [line[:13] for line in compare(wide, narrow).split(". ")] == [
        "No difference",
        "*A* is ahead ",
    ]
    diverged = compare(result("A", 2.0, None, 2.0), narrow, ["valid"])
    assert diverged == "*A* and *B* can't be compared on validation: a run diverged."


def test_contexts_are_told_by_their_length():
    start, other = FULL.contenders[3].start, FULL.contenders[4].start
    longer = dataclasses.replace(other, length=512)
    found = [
        Result(one, setting, (), None)
        for one, setting in zip(FULL.contenders[2:], (start, start, longer), strict=True)
    ]
    (line,) = contexts(found)
    assert "64 bytes for *Transformer, AdamW*; 512 bytes for *Transformer, Muon*. " in line
    assert contexts(found[:1]) == []


def test_the_verdicts_compare_the_best_of_each_kind():
    results = results_of(FULL, rows_of_race(FULL, bits_of))
    assert len(results) == len(FULL.contenders)
    names = [[one.contender.name for one in pair] for pair in rivals(results)]
    head, no_head = "one head, shifted keys", "no head, LSTM skip"
    assert names == [[head, no_head], [head, "Transformer, AdamW"], ["one head", no_head]]
    assert rivals(results[1:])[0][0].contender.name == "one head", "the best that is left"
    assert rivals([one for one in results if "head" not in one.contender.name]) == []
    sentences = verdicts(results)
    assert sentences[0].startswith(f"*{head}* has the lowest mean on validation (2.020 bits per ")
    assert any(f"*{head}* is ahead of *{no_head}* by 0.300 ±" in line for line in sentences)
    parted = [result("A", 2.0, 2.01), result("B", 2.2, 2.21)]
    for row in parted[1].rows:
        row["test"] = 1.5
    assert [line for line in verdicts(parted) if "lowest" in line] == [
        "*A* has the lowest mean on validation: 2.005 bits per byte.",
        "*B* has the lowest mean on test: 1.500 bits per byte.",
    ]
    minutes, bits = curves(results)["one head"]
    assert minutes == [10 * 0.3 / 60, 20 * 0.3 / 60]
    assert bits[-1] == pytest.approx(2.02)


def test_final_runs_of_another_setting_do_not_count():
    rows = rows_of_race(QUICK, bits_of)
    assert len(results_of(QUICK, rows)) == 3
    for row in rows:
        if row["kind"] == "run" and row["stage"] == "final" and row["contender"] == "no head":
            row["setting"] = {**row["setting"], "step_bytes": 128}
    assert [one.contender.name for one in results_of(QUICK, rows)] == [
        "one head",
        "Transformer, Muon",
    ]


def test_a_contender_without_both_checks_has_no_result():
    rows = rows_of_race(QUICK, bits_of)
    checks = [row["name"] for row in rows if row.get("stage") == "check"][:2]
    assert all(": one head, " in name for name in checks)
    for name in checks:
        left = [row for row in rows if row.get("name") != name]
        assert "one head" not in [one.contender.name for one in results_of(QUICK, left)]


def test_a_result_is_of_the_setting_that_the_checks_chose():
    rows = rows_of_race(QUICK, bits_of)
    result = results_of(QUICK, rows)[0]
    runs = [row for row in rows if row["kind"] == "run"]
    searched = best_setting(results_at(QUICK, "search", result.contender, runs))
    checks = results_at(QUICK, "check", result.contender, runs)
    assert result.setting == best_setting(checks)
    assert searched.lr == 2e-3 == min(QUICK.axes["lr"]), "so the other check had a higher rate"
    assert {setting.lr for setting in checks} == {2e-3, 4e-3}
    lines = caveats(QUICK, rows, [result])
    assert "The final setting is at the end of the grid: *one head* (learning rate" in " ".join(
        lines
    )
    (remark,) = [one for one in caveats(QUICK, rows, results_of(QUICK, rows)) if "grid" in one]
    assert remark.count(" (learning rate") == 3, "it names all contenders that it is about"


def test_a_lower_rate_that_the_check_preferred_is_mentioned():
    race = dataclasses.replace(QUICK, search_size=2)  # the lengths of the opening
    contender, runs = race.contenders[0], []
    while True:
        run = next(next_runs(race, contender, runs), None)
        if run is None:
            break
        wanted = 4e-3 if run.stage == "search" else 2e-3
        runs.append(row_of(run, 2 + abs(run.setting.lr - wanted), test=2.0))
    (result,) = results_of(race, [REFERENCE, *runs])
    assert result.setting.lr == 2e-3
    lines = caveats(race, [REFERENCE, *runs], [result])
    assert any(
        "the lower of the two learning rates was better" in line and "*one head*" in line
        for line in lines
    )
    rows = list(search_rows(race, runs))
    assert [row[1] for row in rows if row[4]] == ["0.004", "0.002"]
    assert rows[-1][3] == "", "the search did not try the lower rate"


def test_no_search_check_or_trial_has_a_test_score():
    for row in read_rows(ROOT / "benchmarks" / "race.jsonl", "run"):
        assert ("test" in row) == (row["stage"] == "final"), row["name"]


def test_a_trial_is_compared_with_a_search_run_of_the_same_setting():
    rows = rows_of_race(QUICK, bits_of)
    (cells,) = trial_rows(QUICK, rows)
    assert cells == ["memory of 24", "2.010 (2.000 to 2.020)", "0, 1, 2", "one head", "3.004"]
    (trial,) = QUICK.trials
    other = QUICK.contender(trial.compared_with)
    assert trial.start == other.start
    left = [row for row in rows if row.get("stage") != "search"]
    assert next(trial_rows(QUICK, left))[-1] == "", "there is no such run"
    assert list(trial_rows(QUICK, [])) == []


def test_a_diverged_trial_has_no_mean():
    rows = rows_of_race(QUICK, bits_of)
    next(row for row in rows if row.get("stage") == "trial")["valid"] = None
    assert next(trial_rows(QUICK, rows))[1] == "1 of 3 diverged"


def test_the_pages_keep_the_older_runs_until_the_race_is_complete(tmp_path):
    path = tmp_path / "race.jsonl"
    older = older_block(ROOT / "benchmarks" / "results.json")
    assert "one seed" in older
    assert older.count("\n| ") >= 4
    assert [block(page, path) for page in PAGES] == [older, older]
    rows = rows_of_race(FULL, bits_of)
    final = max(index for index, row in enumerate(rows) if row.get("stage") == "final")
    without = rows[:final] + rows[final + 1 :]
    path.write_text("".join(json.dumps(row) + "\n" for row in without))
    assert [block(page, path) for page in PAGES] == [older, older]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    short, long = (block(page, path) for page in (README, PAGES[1]))
    for new in short, long:
        assert "| one head | " in new
        assert "- *one head, shifted keys* is ahead of *no head, LSTM skip* by 0.300" in new
        assert "Contexts that the searches chose: " in new
        assert "3 seeds (1, 2, 3)" in new
        assert "with another seed (0)" in new
    assert "Each contender got 8 runs of 200 seconds, and then two of 10 minutes" in long
    assert "| learning rate; batch x length | parameters | " in long
    assert "| contender | parameters | validation bits per byte | test bits per byte |" in short
    assert "Settings were chosen on the 200,000 bytes" in long
    assert "Settings were chosen on the 200,000 bytes" not in short


def test_the_pages_are_up_to_date():
    for page in PAGES:
        text = page.read_text()
        assert with_block(text, NAME, block(page)) == text, "run python -m benchmarks race --write"
    with pytest.raises(sharnn.InputError, match="lacks the markers"):
        with_block("no markers", NAME, "text")


@pytest.mark.parametrize("complete", [True, False])
def test_the_benchmarks_page_shows_the_race(complete, tmp_path, monkeypatch):
    monkeypatch.setattr(sharnn, "__file__", str(tmp_path / "sharnn" / "__init__.py"))
    rows = rows_of_race(FULL, bits_of) if complete else []
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "race.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [row["name"] for row in rows if row.get("stage") == "final"][:3]
    record = {"record": "first", "change": "none", "runs": names}
    (folder / "records.json").write_text(json.dumps([record] if complete else []))
    shown, namespace = [], {}
    monkeypatch.setattr("IPython.display.display", lambda *parts: shown.extend(parts))
    for cell in jupytext.read(ROOT / "book" / "benchmarks.md").cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
    plt.close("all")
    text = "\n".join(part.data for part in shown)
    assert ("Not complete" in text) != complete
    for found in ("shifted keys* is ahead of", "Log of records", "searches tried", "Trials."):
        assert (found in text) == complete


def test_final_runs_on_a_gpu_are_told_apart():
    rows = rows_of_race(QUICK, bits_of)
    on_cpu = results_of(QUICK, rows)
    assert not any("GPU" in line for line in (*caveats(QUICK, rows, on_cpu), *origin(rows)))
    for row in rows:
        if row["kind"] == "run" and row["stage"] == "final":
            row |= {"device": "a card", "peak_bytes": None, "machine": {**MACHINE, "commit": "d"}}
    results = results_of(QUICK, rows)
    assert [result.peak_bytes for result in results] == [one.peak_bytes for one in on_cpu]
    finals = len(QUICK.contenders) * len(QUICK.seeds)
    (line,) = [line for line in caveats(QUICK, rows, results) if "GPU" in line]
    assert line.startswith(
        f"{finals} of {finals} runs of stage *final* (*one head*; *no head*; *Transformer, Muon*) "
        "were made on a GPU (a card)"
    )
    first, second = origin(rows)
    assert "CPU thread on a processor; commit `abc1234`" in first
    assert second == f"{finals} runs, on a card; commit `d`."
    runs = [row for row in rows if row["kind"] == "run"]
    assert run_seconds(QUICK, "final", runs) == run_seconds(QUICK, "final", [])
    for row in runs:
        row |= {"device": "a card", "peak_bytes": None}
    results = results_of(QUICK, rows)
    assert [result.peak_bytes for result in results] == [None] * len(results)
    assert all(cells[4] == "-" for cells in result_rows(results))


def test_records_name_runs_that_exist():
    records = json.loads((ROOT / "benchmarks" / "records.json").read_text())
    list(record_rows(records, read_rows(ROOT / "benchmarks" / "race.jsonl")))
    rows = rows_of_race(QUICK, bits_of)
    names = [row["name"] for row in rows if row["kind"] == "run" and row["stage"] == "final"][:3]
    record = {"record": "first", "change": "a change", "runs": names}
    (cells,) = record_rows([record], rows)
    assert cells == ["first", "a change", "2.020", "2.120", "one head, 3 seeds", "`abc1234`"]
    with pytest.raises(sharnn.InputError, match="has no run"):
        list(record_rows([{**record, "runs": ["nothing"]}], rows))


def test_the_prose_quotes_the_race():
    rows = read_rows(ROOT / "benchmarks" / "race.jsonl")
    results = {one.contender.name: one for one in results_of(FULL, rows)}
    head, no_head = results["one head, shifted keys"], results["no head, LSTM skip"]
    less = 1 - head.rows[0]["bytes_read"] / no_head.rows[0]["bytes_read"]
    saved = difference(head, no_head, "test")
    page = (ROOT / "book" / "results.md").read_text()
    assert f"reads {100 * less:.0f} % less text" in page
    assert f"best model, with {head.mean('test'):.3f} bits" in page
    assert "shows no gain over *no head, LSTM skip*" in page
    assert compare(results["one head"], no_head).startswith("No difference between")
    chapter = (ROOT / "book" / "13-ablations.md").read_text()
    log = (ROOT / "RUNS.md").read_text()
    for one in results.values():
        cells = ["; ".join(f"{bits:.3f}" for bits in one.bits(part)) for part in PARTS]
        assert f"| {one.contender.name} | {' | '.join(cells)} |" in log
    assert f"already saves {saved.apart:.2f} ± {saved.error:.2f} bits on test data" in chapter
