"""The race: budgets in steps, searches of equal size, no choice on test data, and its files."""

import dataclasses
import json
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import pytest
from filelock import FileLock

import benchmarks.race_run
import sharnn
from benchmarks.__main__ import main
from benchmarks.race import choose
from benchmarks.race_file import _lock, append_row, claim, read_rows, start_file
from benchmarks.race_models import mean_length, missing_options, prepare
from benchmarks.race_pages import PAGES, block, older_block, with_block
from benchmarks.race_report import (
    Result,
    compare,
    curves,
    record_rows,
    results_of,
    rivals,
    search_rows,
    verdicts,
)
from benchmarks.race_run import TAKEN, open_data, perform, train
from benchmarks.race_search import (
    Run,
    best_setting,
    grid,
    is_settled,
    next_runs,
    next_setting,
    offsets,
)
from benchmarks.race_settings import FULL, QUICK, Contender, Setting, make_race
from benchmarks.race_status import missing_count, status_lines
from benchmarks.race_timing import budget, ratio, step_seconds
from extras import HAS_TRANSFORMER, needs_transformer

ROOT = Path(__file__).parent.parent
MACHINE = {"processor": "a processor", "commit": "abc1234"}
REFERENCE = {"kind": "reference", "seconds": 0.01, "quiet": True, "machine": MACHINE}


def timing(contender, setting, ms, reference_ms):
    shape = {"length": setting.length, "step_bytes": setting.step_bytes}
    times = {"ms": ms, "reference_ms": reference_ms}
    return {"kind": "timing", "contender": contender, **shape, **times, "machine": MACHINE}


def row_of(run, valid, **more):
    return {
        "kind": "run",
        "name": run.name,
        "stage": run.stage,
        "contender": run.contender,
        "seed": run.seed,
        "setting": dataclasses.asdict(run.setting),
        "valid": valid,
        "parameters": 1000,
        "bytes_read": 2_000_000,
        "peak_bytes": 500_000_000,
        "cpu_seconds": 600.0,
        "score_cpu_seconds": 60.0,
        "step_seconds": 0.3,
        "machine": MACHINE,
        **more,
    }


def search(race, contender, bits_of):
    """Returns the rows of a complete search in which each setting has the bits of a function."""
    rows = []
    while True:
        run = next(next_runs(race, contender, rows), None)
        if run is None or run.stage != "search":
            return rows
        rows.append(row_of(run, bits_of(run.setting)))


def rows_of_race(race, bits_of, seed_step=0.01):
    """Returns the rows of a complete race, with ``bits_of(contender)`` for the final runs."""
    rows = [{"kind": "track", "quick": race.quick}, REFERENCE]
    for contender in race.contenders:
        rows += search(race, contender, lambda setting: 3 + setting.lr)
        for run in next_runs(race, contender, [row for row in rows if row["kind"] == "run"]):
            bits = bits_of(contender) + seed_step * run.seed
            points = [[10, bits + 1], [20, bits]]
            rows.append(row_of(run, bits, test=bits + 0.1, valid_curve=points))
    return rows


# Budgets


def test_the_budget_is_the_time_divided_by_the_reference_times_the_ratio():
    setting = QUICK.contenders[0].start
    race = dataclasses.replace(QUICK, track=dataclasses.replace(QUICK.track, rounds=2))
    quick, slow = [20.0] * 5, [90.0] * 15  # a busy machine delays most of the steps
    rows = [
        REFERENCE,
        timing("one head", setting, [*slow, *quick], [*slow, *[8.0] * 5]),
        timing("one head", setting, slow, [30.0] * 20),
    ]
    assert ratio(rows[1:]) == 20 / 8
    assert step_seconds(race, rows, "one head", setting) == pytest.approx(0.01 * 20 / 8)
    assert step_seconds(race, rows, "no head", setting) is None
    assert step_seconds(race, rows[1:], "one head", setting) is None, "no reference"
    assert step_seconds(race, rows[:2], "one head", setting) is None, "one round of two"
    assert budget(600, 0.025) == 24_000
    assert budget(600, 0.1) == 6000, "although 600 / 0.1 could be rounded down"
    assert budget(0.001, 5) == 1


def test_a_budget_that_was_used_never_changes():
    setting = QUICK.contenders[0].start
    rows = [REFERENCE, timing("one head", setting, [20.0] * 9, [10.0] * 9)]
    before = step_seconds(QUICK, rows, "one head", setting)
    rows += [{**REFERENCE, "seconds": 9.0}, timing("one head", setting, [5.0] * 9, [10.0] * 9)]
    assert step_seconds(QUICK, rows, "one head", setting) == before == 0.02


def test_the_learning_rate_has_no_effect_on_the_budget():
    setting = QUICK.contenders[0].start
    rows = [REFERENCE, timing("one head", setting, [20.0] * 9, [10.0] * 9)]
    other = dataclasses.replace(setting, lr=2e-3)
    assert step_seconds(QUICK, rows, "one head", other) == 0.02
    longer = dataclasses.replace(setting, length=32)
    assert step_seconds(QUICK, rows, "one head", longer) is None


def test_steps_are_timed_with_full_memory_and_segments_of_the_mean_length():
    corpus = open_data(QUICK, "sample")
    contender = QUICK.contenders[0]
    entry = prepare(QUICK, contender, Setting(4e-3, 32, 64), corpus, for_timing=True)
    sizes = {entry.trainer.step().size for _ in range(5)}
    recipe = sharnn.Recipe(segment_length=32)
    lengths = [recipe.segment_length_at(step) for step in range(1000)]
    assert sizes == {2 * mean_length(recipe)}
    assert abs(mean_length(recipe) - statistics.fmean(lengths)) <= 0.5
    assert mean_length(recipe) < 32
    (memory,) = [memory for memory in entry.trainer.state.memory if memory is not None]
    assert len(memory) == 48


# Searches


@pytest.mark.parametrize("race", [FULL, QUICK], ids=["full", "quick"])
def test_every_search_has_the_same_size_and_grid(race):
    for contender in race.contenders:
        assert contender.start in grid(race)
        rows = search(race, contender, lambda setting: 2.0)
        runs = [row["setting"] for row in rows]
        assert len(runs) == race.search_size
        assert len({json.dumps(setting) for setting in runs}) == race.search_size
        assert all(Setting(**setting) in grid(race) for setting in runs)
        assert {setting["length"] for setting in runs} >= set(race.opening)
        assert runs[0] == dataclasses.asdict(contender.start)


def test_a_search_ends_between_tried_neighbours():
    best = Setting(lr=4e-3, length=128, step_bytes=4096)

    def bits(setting):
        return 2 + 0.1 * sum(step**2 for step in offsets(FULL, best, setting))

    for contender in FULL.contenders:
        rows = search(FULL, contender, bits)
        results = {Setting(**row["setting"]): row["valid"] for row in rows}
        assert best_setting(results) == best, contender.name
        rates = [s.lr for s in results if (s.length, s.step_bytes) == (128, 4096)]
        assert {2e-3, 4e-3, 8e-3} <= set(rates), contender.name


def test_a_search_is_settled_if_all_neighbours_were_tried():
    best = Setting(lr=4e-3, length=16, step_bytes=64)
    results = dict.fromkeys(grid(QUICK), 3.0)
    results[best] = 2.0
    assert is_settled(QUICK, results)
    del results[dataclasses.replace(best, lr=8e-3)]
    assert not is_settled(QUICK, results)


def test_a_diverged_run_is_the_worst_and_does_not_end_the_search():
    contender = QUICK.contenders[0]
    rows = search(QUICK, contender, lambda s: None if s.length == 16 else 2 + s.lr)
    results = {Setting(**row["setting"]): row["valid"] for row in rows}
    assert len(rows) == QUICK.search_size
    assert results[contender.start] is None
    finals = list(next_runs(QUICK, contender, rows))
    assert [run.seed for run in finals] == [0, 1, 2]
    assert all(run.stage == "final" and run.setting.length == 8 for run in finals)


def test_the_next_run_depends_only_on_the_results():
    contender = FULL.contenders[0]
    rows = search(FULL, contender, lambda setting: 2 + setting.lr)
    for count in range(len(rows)):
        (run,) = next_runs(FULL, contender, rows[:count][::-1])
        assert run.name == rows[count]["name"]


def test_a_complete_grid_ends_a_search():
    results = dict.fromkeys(grid(QUICK), 2.0)
    larger = dataclasses.replace(QUICK, search_size=1000)
    assert next_setting(larger, larger.contenders[0], results) is None


# Runs


class Untouched:
    """A test part that must not be read."""

    def __getitem__(self, key):
        raise AssertionError("the test part was read")

    def __len__(self):
        raise AssertionError("the test part was measured")


@pytest.mark.parametrize("contender", QUICK.contenders, ids=lambda one: one.name)
def test_only_final_runs_see_test_data(contender):
    if contender.transformer and not HAS_TRANSFORMER:
        pytest.skip("x-transformers is not installed")
    corpus = open_data(QUICK, "sample")
    hidden = dataclasses.replace(corpus, test=Untouched())
    run = Run("search", contender.name, contender.start, 0)
    row = train(QUICK, run, hidden, 0.01)
    assert row["steps"] == row["steps_done"] == 3
    assert "test" not in row
    assert 4 < row["valid"] < 10
    final = train(QUICK, dataclasses.replace(run, stage="final"), corpus, 0.01)
    assert 4 < final["test"] < 10
    assert final["valid"] == row["valid"], "validations on the way change nothing"
    assert final["valid_curve"][-1][0] == 3
    assert json.loads(json.dumps(final)) == {
        **final,
        "changes": final["changes"]
        and {name: list(value) for name, value in final["changes"].items()},
    }
    with pytest.raises(AssertionError, match="test part"):
        train(QUICK, dataclasses.replace(run, stage="final"), hidden, 0.01)


def test_a_trial_is_trained_with_all_seeds_and_never_tested():
    (trial,) = QUICK.trials
    runs = list(next_runs(QUICK, trial, []))
    assert [(run.stage, run.seed) for run in runs] == [("trial", 0), ("trial", 1), ("trial", 2)]
    hidden = dataclasses.replace(open_data(QUICK, "sample"), test=Untouched())
    assert "test" not in train(QUICK, runs[0], hidden, 0.01)


def test_a_diverged_run_is_recorded_without_bits(monkeypatch):
    class Broken:
        def __init__(self, *arguments):
            self.__dict__.update(vars(prepare(*arguments)))
            self.trainer.recipe = dataclasses.replace(self.trainer.recipe, max_skips=1)
            self.trainer.model.embedding.weight.data.fill_(float("nan"))

    monkeypatch.setattr(benchmarks.race_run, "prepare", Broken)
    run = Run("final", "no head", QUICK.contenders[1].start, 0)
    row = train(QUICK, run, open_data(QUICK, "sample"), 0.001)
    assert row["valid"] is row["test"] is None
    assert row["steps_done"] < row["steps"] == 30


def test_a_model_above_the_limit_of_parameters_is_refused():
    track = dataclasses.replace(QUICK.track, parameters=10_000)
    race = dataclasses.replace(QUICK, track=track)
    with pytest.raises(sharnn.InputError, match="the track allows 10,000"):
        prepare(race, race.contenders[0], race.contenders[0].start, open_data(race, "sample"))


@needs_transformer
def test_every_contender_of_the_race_keeps_to_the_limit():
    corpus = sharnn.load_corpus("sample", sample_size=60_000)
    for contender in FULL.contenders:
        if not missing_options(contender):
            prepare(FULL, contender, Setting(1e-3, 32, 1024), corpus)


def test_a_contender_with_an_unknown_option_is_left_out(capsys):
    unknown = Contender("unknown", QUICK.contenders[0].start, {"wings": 2})
    race = dataclasses.replace(QUICK, contenders=(*QUICK.contenders[:2], unknown))
    assert missing_options(unknown) == ["wings"]
    arguments = type("Arguments", (), {"trial": None, "contender": None})
    assert choose(race, arguments) == list(QUICK.contenders[:2])
    assert "unknown: left out, sharnn has no option wings" in capsys.readouterr().err
    assert any("no option wings" in line for line in status_lines(race, []))
    with pytest.raises(sharnn.InputError, match="wings"):
        prepare(race, unknown, unknown.start, open_data(race, "sample"))


# The results file


@pytest.fixture
def out(tmp_path):
    """Returns a results file in which the steps of the quick race's opening are timed."""
    path = tmp_path / "race.jsonl"
    start_file(path, QUICK, open_data(QUICK, "sample"))
    append_row(path, REFERENCE)
    for contender in QUICK.contenders:
        for setting in grid(QUICK):
            if setting.lr == contender.start.lr:
                append_row(path, timing(contender.name, setting, [10.0], [10.0]))
    return path


def task_of(out, run):
    return {
        "kind": "run",
        "name": run.name,
        "stage": run.stage,
        "contender": run.contender,
        "setting": dataclasses.asdict(run.setting),
        "seed": run.seed,
        "out": str(out),
        "data": "sample",
        "quick": True,
        "seconds": None,
        "rounds": None,
        "command": "a command",
    }


def test_a_line_that_was_cut_off_is_ignored_and_removed(out):
    whole = out.read_bytes()
    out.write_bytes(whole + b'{"kind": "run", "na')
    assert read_rows(out, "run") == []
    append_row(out, {"kind": "run"})
    assert out.read_bytes() == whole + b'{"kind": "run"}\n'
    out.write_bytes(whole + b"no JSON\n")
    with pytest.raises(sharnn.InputError, match="can't be read as results of the race"):
        read_rows(out)


def test_a_file_has_one_track_and_one_text(out):
    corpus = open_data(QUICK, "sample")
    start_file(out, QUICK, corpus)
    with pytest.raises(sharnn.InputError, match=r"another track: seconds is 0\.03"):
        start_file(out, make_race(True, seconds=5.0), corpus)
    with pytest.raises(sharnn.InputError, match="other data"):
        start_file(out, QUICK, dataclasses.replace(corpus, fingerprint="another"))
    assert len(read_rows(out, "track")) == 1


def test_a_run_is_done_once(out):
    run = Run("search", "no head", QUICK.contenders[1].start, 0)
    task = task_of(out, run)
    with claim(out, run.name) as free:
        assert free
    with FileLock(_lock(out, run.name)):  # as another process
        with claim(out, run.name) as free:
            assert not free
        assert perform(task) == TAKEN
    assert read_rows(out, "run") == []
    assert perform(task) == 0
    assert perform(task) == TAKEN
    (row,) = read_rows(out, "run")
    assert row["name"] == run.name
    assert row["command"] == "a command"
    assert {"seed", "parameters", "cpu_seconds", "peak_bytes", "curve", "machine"} <= row.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--data FILE is needed"),
        (["--data", "/nowhere/text"], "/nowhere/text"),
        (["--quick", "--data", "sample"], "needs another results file"),
        (["--seconds", "0", "--data", "sample"], "--seconds must be more than 0"),
        (["--seconds", "nan", "--data", "sample"], "--seconds must be more than 0"),
        (["--contender", "nobody", "--data", "sample"], "no contender 'nobody'"),
        (["--next", "0"], "--next"),
        (["--out", "/nowhere/race.jsonl", "--data", "sample"], "/nowhere/race.jsonl"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gives_one_line_and_exit_code_2(given, message, capsys):
    assert main(["race", *given]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("benchmarks: ")
    assert message in lines[-1]
    assert all(" left out, sharnn has no option " in line for line in lines[:-1])


def test_a_busy_machine_does_not_measure_the_reference(monkeypatch):
    from benchmarks import race_timing

    monkeypatch.setattr(race_timing, "load", lambda: 2.0)
    with pytest.raises(sharnn.InputError, match="has other work"):
        race_timing.measure_reference(FULL, open_data(QUICK, "sample"), busy=False)
    assert race_timing.measure_reference(QUICK, open_data(QUICK, "sample"), True)["quiet"] is False


def test_the_status_lists_what_is_missing(out, capsys):
    assert main(["race", "--quick", "--status", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "reference: 10.0 ms a step, on a quiet machine"
    assert "one head: search 0 of 3, final 0 of 3" in lines
    assert lines[-1].startswith("18 runs are missing")
    rows = rows_of_race(QUICK, lambda contender: 2.0)
    assert list(status_lines(QUICK, rows))[-1].startswith("0 runs are missing")
    last = [row for row in rows if row["kind"] == "run"][:-1]
    assert missing_count(QUICK, QUICK.contenders[-1], last) == 1


# Reports


def result(name, *bits):
    contender = Contender(name, QUICK.contenders[0].start)
    rows = tuple({"valid": value, "test": value} for value in bits)
    return Result(contender, contender.start, rows)


def test_a_sentence_names_the_winner_and_the_spread():
    ahead, behind = result("A", 2.0, 2.01, 2.02), result("B", 2.2, 2.21, 2.22)
    error = 2 * (2 * 0.01**2 / 3) ** 0.5
    expected = f"On test, A is ahead of B by 0.200 ± {error:.3f} bits per byte."
    assert compare(ahead, behind, "test") == compare(behind, ahead, "test") == expected


def test_overlapping_seeds_show_no_difference():
    wide, narrow = result("A", 2.0, 2.0, 2.3), result("B", 2.29, 2.29, 2.29)
    sentence = compare(wide, narrow, "valid")
    assert sentence.startswith("On validation, no difference between A and B was shown")
    diverged = compare(result("A", 2.0, None, 2.0), narrow, "valid")
    assert diverged.endswith("can't be compared: a run diverged.")


def bits_of(contender):
    if contender.transformer:
        return 2.5
    return 2.0 if contender.has_head else 2.3


def test_the_verdicts_compare_the_best_of_each_kind():
    results = results_of(FULL, rows_of_race(FULL, bits_of))
    assert len(results) == len(FULL.contenders)
    names = [[one.contender.name for one in pair] for pair in rivals(results)]
    assert names == [["one head", "no head"], ["one head", "Transformer, AdamW"]]
    sentences = verdicts(results)
    assert "The lowest mean on validation is that of one head: 2.010 bits per byte." in sentences
    assert any("one head is ahead of no head by 0.300 ±" in sentence for sentence in sentences)
    minutes, bits = curves(results)["one head"]
    assert minutes == [10 * 0.3 / 60, 20 * 0.3 / 60]
    assert bits[-1] == pytest.approx(2.01)


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


def test_no_search_or_trial_has_a_test_score():
    for row in read_rows(ROOT / "benchmarks" / "race.jsonl", "run"):
        assert ("test" in row) == (row["stage"] == "final"), row["name"]
    assert all(len(cells) == 4 for cells in search_rows(QUICK, rows_of_race(QUICK, bits_of)))


def test_the_pages_keep_the_older_runs_until_the_race_is_complete(tmp_path):
    path = tmp_path / "race.jsonl"
    older = older_block(ROOT / "benchmarks" / "results.json")
    assert "one seed" in older
    assert older.count("\n| ") >= 4
    assert block(path) == older
    rows = rows_of_race(FULL, bits_of)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    assert block(path) == older
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    new = block(path)
    assert "| one head | " in new
    assert "- On test, one head is ahead of no head by 0.300 ± 0.016 bits per byte.\n" in new
    assert "Contexts of the Transformers: " in new
    assert "12 runs of each contender" in new


def test_the_pages_are_up_to_date():
    for page in PAGES:
        text = page.read_text()
        assert with_block(text, block()) == text, "run python -m benchmarks race --write"
    with pytest.raises(sharnn.InputError, match="lacks the markers"):
        with_block("no markers", "text")


@pytest.mark.parametrize("complete", [True, False])
def test_the_benchmarks_page_shows_the_race(complete, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sharnn, "__file__", str(tmp_path / "sharnn" / "__init__.py"))
    rows = rows_of_race(FULL, bits_of) if complete else []
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "race.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [row["name"] for row in rows if row.get("stage") == "final"][:3]
    record = {"record": "first", "change": "none", "runs": names, "commit": "abc1234"}
    (folder / "records.json").write_text(json.dumps([record] if complete else []))
    namespace = {}
    for cell in jupytext.read(ROOT / "book" / "benchmarks.md").cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
            if "race_report.verdicts" in cell.source:
                shown = list(namespace["lines"])
    plt.close("all")
    printed = capsys.readouterr().out
    assert ("No result yet" in printed) != complete
    assert ("No record yet." in printed) != complete
    assert any("one head is ahead of no head by" in line for line in shown) == complete


def test_records_name_runs_that_exist():
    records = json.loads((ROOT / "benchmarks" / "records.json").read_text())
    list(record_rows(records, read_rows(ROOT / "benchmarks" / "race.jsonl")))
    rows = rows_of_race(QUICK, bits_of)
    names = [row["name"] for row in rows if row["kind"] == "run" and row["stage"] == "final"][:3]
    record = {"record": "first", "change": "a change", "runs": names, "commit": "abc1234"}
    (cells,) = record_rows([record], rows)
    assert cells == ["first", "a change", "2.010", "2.110", "one head, 3 seeds", "`abc1234`"]
    with pytest.raises(sharnn.InputError, match="has no run"):
        list(record_rows([{**record, "runs": ["nothing"]}], rows))


# The whole race


def start(out, *options):
    command = [sys.executable, "-m", "benchmarks", "race", "--quick", "--data", "sample"]
    return subprocess.Popen(
        [*command, "--out", out, *options], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_run_is_lost_and_run_again(out):
    process = start(out, "--next", "1")
    for line in process.stderr:
        if line.endswith(" ...\n") and "search: " in line:
            break
    process.send_signal(signal.SIGKILL)
    # Its run has the same standard error, which ends with both.
    assert "the process that started this run has ended" in process.stderr.read()
    process.wait()
    process.stderr.close()
    assert read_rows(out, "run") == []
    again = start(out, "--next", "1")
    assert "bits per byte on validation" in again.communicate()[1]
    assert again.returncode == 0
    (row,) = read_rows(out, "run")
    assert row["name"] in line


@pytest.mark.slow
def test_two_processes_never_do_the_same_run(out):
    processes = [start(out, "--next", "2", "--jobs", "2") for _ in range(2)]
    for process in processes:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    names = [row["name"] for row in read_rows(out, "run")]
    assert len(set(names)) == len(names) >= 2


@pytest.mark.slow
def test_a_contender_runs_to_its_end(tmp_path):
    out = tmp_path / "race.jsonl"
    process = start(out, "--contender", "no head", "--jobs", "2")
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    rows = read_rows(out)
    assert {row["kind"] for row in rows} == {"track", "reference", "timing", "run"}
    runs = [row for row in rows if row["kind"] == "run"]
    assert len(runs) == len({row["name"] for row in runs}) == 6
    assert all(("test" in row) == (row["stage"] == "final") for row in runs)
    (no_head,) = results_of(QUICK, rows)
    searched = [row for row in runs if row["stage"] == "search"]
    assert no_head.rows[0]["valid"] == min(row["valid"] for row in searched), "the same run again"
    assert str(ROOT) not in out.read_text()
    before = out.read_bytes()
    process = start(out, "--contender", "no head")
    process.communicate()
    assert out.read_bytes() == before, "nothing was missing"
