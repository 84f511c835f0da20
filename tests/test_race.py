"""The race: budgets in steps, searches of equal size, no choice on test data, and its files."""

import dataclasses
import io
import json
import signal
import statistics
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import benchmarks.race
import benchmarks.race_run
import benchmarks.race_session
import sharnn
from benchmarks.__main__ import main
from benchmarks.race import choose
from benchmarks.race_file import _lock, append_row, claim, read_rows, start_file
from benchmarks.race_models import mean_length, missing_options, prepare
from benchmarks.race_report import results_of
from benchmarks.race_run import TAKEN, open_data, perform, train
from benchmarks.race_search import (
    STAGES,
    Run,
    best_setting,
    final_setting,
    grid,
    in_order,
    is_settled,
    next_runs,
    next_setting,
    offsets,
    settings_to_check,
)
from benchmarks.race_settings import FULL, QUICK, Contender, Setting, make_race
from benchmarks.race_status import missing_counts, run_seconds, status_lines
from benchmarks.race_timing import budget, ratio, step_seconds
from extras import HAS_TRANSFORMER, needs_transformer
from race_rows import REFERENCE, row_of, rows_of_race, search, timing

ROOT = Path(__file__).parent.parent


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


def bits_around(best):
    """Returns a function of a setting that is lowest at the best one."""
    return lambda setting: 2 + 0.1 * sum(step**2 for step in offsets(FULL, best, setting))


@pytest.mark.parametrize("factor", [0.5, 1, 2])
def test_a_search_that_starts_near_the_best_rate_tries_both_neighbours(factor):
    for contender in FULL.contenders:
        best = dataclasses.replace(contender.start, lr=factor * contender.start.lr, length=128)
        rows = search(FULL, contender, bits_around(best))
        results = {Setting(**row["setting"]): row["valid"] for row in rows}
        assert best_setting(results) == best, contender.name
        assert is_settled(FULL, results) or factor != 1, contender.name
        rates = [s.lr for s in results if (s.length, s.step_bytes) == (128, best.step_bytes)]
        assert {best.lr / 2, best.lr, best.lr * 2} <= set(rates), contender.name


def test_a_search_moves_to_a_best_setting_farther_away():
    for contender in FULL.contenders:
        best = dataclasses.replace(contender.start, length=256, lr=contender.start.lr / 4)
        rows = search(FULL, contender, bits_around(best))
        results = {Setting(**row["setting"]): row["valid"] for row in rows}
        assert best_setting(results) == best, contender.name


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
    checks = list(next_runs(QUICK, contender, rows))
    assert all(run.stage == "check" and run.setting.length == 8 for run in checks)
    rows += [row_of(checks[0], None), row_of(checks[1], 2.0)]
    finals = list(next_runs(QUICK, contender, rows))
    assert all((run.stage, run.setting) == ("final", checks[1].setting) for run in finals)


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


# Checks, final runs, trials, and the order of all


def test_the_checks_are_the_best_setting_and_the_next_lower_rate():
    results = dict.fromkeys(grid(FULL), 3.0)
    for lr, other in ((8e-3, 4e-3), (1e-3, 5e-4), (5e-4, 1e-3)):
        best = Setting(lr, 128, 4096)
        checked = settings_to_check(FULL, {**results, best: 2.0})
        assert checked == (best, dataclasses.replace(best, lr=other))


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_the_better_check_is_final_and_other_seeds_train_it(lower_is_better):
    contender = FULL.contenders[0]
    rows = search(FULL, contender, lambda setting: 2 + abs(setting.lr - 8e-3))
    checks = list(next_runs(FULL, contender, rows))
    assert [(run.stage, run.seed, run.setting.lr) for run in checks] == [
        ("check", FULL.search_seed, 8e-3),
        ("check", FULL.search_seed, 4e-3),
    ]
    rows.append(row_of(checks[0], 1.9))
    assert final_setting(FULL, contender, rows) is None
    assert [run.name for run in next_runs(FULL, contender, rows)] == [checks[1].name]
    rows.append(row_of(checks[1], 1.8 if lower_is_better else 1.95))
    chosen = checks[lower_is_better].setting
    finals = list(next_runs(FULL, contender, rows))
    assert final_setting(FULL, contender, rows) == chosen
    assert [run.seed for run in finals] == [1, 2, 3]
    assert all((run.stage, run.setting) == ("final", chosen) for run in finals)


@pytest.mark.parametrize("race", [FULL, QUICK], ids=["full", "quick"])
def test_no_seed_that_chose_a_setting_is_reported(race):
    assert race.search_seed not in race.seeds
    assert len(race.seeds) == len(race.trial_seeds) == 3
    chosen = {row["seed"] for row in rows_of_race(race, lambda one: 2.0)[2:] if "test" not in row}
    assert chosen == {race.search_seed} | set(race.trial_seeds)


@pytest.mark.parametrize("race", [FULL, QUICK], ids=["full", "quick"])
def test_every_trial_changes_a_contender_at_the_start_of_its_search(race):
    names = [one.name for one in (*race.contenders, *race.trials)]
    assert len(set(names)) == len(names)
    for trial in race.trials:
        other = race.contender(trial.compared_with)
        assert other in race.contenders
        assert trial.start == other.start
        assert (trial.model, trial.recipe) != (other.model, other.recipe)
        assert [run.setting for run in next_runs(race, other, [])] == [trial.start]


def test_searches_and_trials_are_a_third_as_long_as_checks_and_final_runs():
    seconds = {stage: FULL.seconds(stage) for stage in STAGES}
    assert seconds == {"search": 200, "check": 600, "final": 600, "trial": 200}
    shorter = make_race(False, seconds=60.0)
    assert [shorter.seconds(stage) for stage in STAGES] == pytest.approx([20, 60, 60, 20])
    contender, corpus = QUICK.contenders[1], open_data(QUICK, "sample")
    for stage, steps in (("search", 1), ("check", 3), ("trial", 1)):
        assert (
            train(QUICK, Run(stage, contender.name, contender.start, 0), corpus, 0.01)["steps_done"]
            == steps
        )


def test_the_order_of_the_runs():
    everyone, rows, order = (*FULL.contenders, *FULL.trials), [], []
    while runs := in_order(FULL, everyone, rows):
        order.append(runs[0])
        rows.append(row_of(runs[0], 2 + runs[0].setting.lr))
    assert len(order) == 80
    stages = [run.stage for run in order]
    assert stages == sorted(stages, key=STAGES.index)
    assert [stages.count(stage) for stage in STAGES] == [40, 10, 15, 15]
    head, no_head = "one head, shifted keys", "no head, LSTM skip"
    assert [run.contender for run in order[:16]] == 8 * [head, no_head]
    others = [one.name for one in FULL.contenders[2:]]
    assert [run.contender for run in order[16:40]] == 8 * others
    assert [run.contender for run in order[50:56]] == 3 * [head, no_head]
    assert [run.contender for run in order[65:]] == 3 * [one.name for one in FULL.trials]


def test_nothing_waits_for_the_stage_of_another_contender():
    first, second = FULL.contenders[:2]
    rows = search(FULL, first, lambda setting: 2 + setting.lr)
    runs = in_order(FULL, (first, second), rows)
    assert [(run.stage, run.contender) for run in runs] == [
        ("search", second.name),
        ("check", first.name),
        ("check", first.name),
    ]


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
    run = Run("check", contender.name, contender.start, 0)
    row = train(QUICK, run, hidden, 0.01)
    assert row["steps"] == row["steps_done"] == 3
    assert row["skipped"] == row["details"]["weight_decay"] == 0
    assert "test" not in row
    assert "test" not in train(QUICK, dataclasses.replace(run, stage="search"), hidden, 0.01)
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


@pytest.mark.parametrize("contender", QUICK.contenders, ids=lambda one: one.name)
def test_a_diverged_run_is_recorded_without_bits(contender, monkeypatch):
    if contender.transformer and not HAS_TRANSFORMER:
        pytest.skip("x-transformers is not installed")

    def broken(*arguments, **options):
        entry = prepare(*arguments, **options)
        entry.trainer.recipe = dataclasses.replace(entry.trainer.recipe, max_skips=1)
        next(entry.trainer.model.parameters()).data.fill_(float("nan"))
        return entry

    monkeypatch.setattr(benchmarks.race_run, "prepare", broken)
    run = Run("final", contender.name, contender.start, 0)
    row = train(QUICK, run, open_data(QUICK, "sample"), 0.001)
    assert row["valid"] is row["test"] is None
    assert row["steps_done"] < row["steps"] == 30
    assert row["skipped"] == 2


def test_a_step_that_is_not_finite_does_not_end_a_run(monkeypatch):
    def broken(*arguments, **options):
        entry = prepare(*arguments, **options)
        take = entry.trainer.step

        def step():
            weight = entry.trainer.model.blocks[0].lstm.weight_ih_l0
            if entry.trainer.step_count != 1:
                return take()
            before = weight.data.clone()
            weight.data.fill_(float("nan"))
            result = take()
            weight.data.copy_(before)
            return result

        entry.trainer.step = step
        return entry

    monkeypatch.setattr(benchmarks.race_run, "prepare", broken)
    run = Run("check", "no head", QUICK.contenders[1].start, 0)
    row = train(QUICK, run, open_data(QUICK, "sample"), 0.01)
    assert (row["steps_done"], row["skipped"]) == (3, 1)
    assert 4 < row["valid"] < 10


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
    assert choose(race, arguments) == [*QUICK.contenders[:2], *QUICK.trials]
    arguments = type("Arguments", (), {"trial": ["memory of 24"], "contender": ["no head"]})
    assert choose(race, arguments) == [QUICK.contenders[1], *QUICK.trials]
    arguments = type("Arguments", (), {"trial": None, "contender": None})
    choose(race, arguments)
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
        "device": "cpu",
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
    assert row["device"] == "cpu"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--data FILE is needed"),
        (["--data", "/nowhere/text"], "/nowhere/text"),
        (["--quick", "--data", "sample"], "needs another results file"),
        (["--seconds", "0", "--data", "sample"], "--seconds must be more than 0"),
        (["--seconds", "nan", "--data", "sample"], "--seconds must be more than 0"),
        (["--contender", "nobody", "--data", "sample"], "no contender 'nobody'"),
        (["--trial", "one head", "--data", "sample"], "no trial 'one head'"),
        (["--next", "0"], "--next"),
        (["--device", "cuda", "--data", "sample"], "device cuda is not available"),
        (["--out", "/nowhere/race.jsonl", "--data", "sample"], "/nowhere/race.jsonl"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gives_one_line_and_exit_code_2(given, message, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["race", *given]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("benchmarks: ")
    assert message in lines[-1]
    assert all(" left out, sharnn has no option " in line for line in lines[:-1])


def test_the_device_reaches_the_runs(out, monkeypatch):
    sessions, tasks = [], []

    def keep_session(session, *limits):
        sessions.append(session)

    def keep_task(*arguments):
        tasks.append(arguments)
        return {}

    monkeypatch.setattr(benchmarks.race, "pick_device", torch.device)
    monkeypatch.setattr(benchmarks.race, "run_missing", keep_session)
    monkeypatch.setattr(benchmarks.race_run, "train", keep_task)
    for device in ((), ("--device", "cuda")):
        main(["race", "--quick", "--data", "sample", "--out", str(out), *device])
    on_cpu, on_gpu = [session.common for session in sessions]
    assert (on_cpu["device"], on_gpu["device"]) == ("cpu", "cuda")
    assert "--device cuda" in on_gpu["command"]
    assert "--device" not in on_cpu["command"]
    run = Run("search", "no head", QUICK.contenders[1].start, 0)
    perform({**task_of(out, run), "device": "cuda"})
    assert tasks[0][-1] == "cuda"


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
    assert "one head: search 0 of 3, check 0 of 2, final 0 of 3" in lines
    assert "trial memory of 24: 0 of 3 seeds" in lines
    counts = [line.split(" runs are missing")[0] for line in lines[-5:]]
    assert counts == ["search: 9", "check: 6", "final: 9", "trial: 3", "27"]
    rows = rows_of_race(QUICK, lambda contender: 2.0)
    assert list(status_lines(QUICK, rows))[-1].startswith("0 runs are missing")


def test_the_missing_runs_of_a_contender_by_stage():
    contender, rows = QUICK.contenders[0], []
    expected = [(3, 2, 3), (2, 2, 3), (1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 0, 3), (0, 0, 2)]
    for counts in expected:
        found = missing_counts(QUICK, contender, rows)
        assert tuple(found.values()) == counts
        rows.append(row_of(next(next_runs(QUICK, contender, rows)), 2.0))


def test_the_race_takes_about_eight_and_a_half_hours():
    last = list(status_lines(FULL, []))[-1]
    assert last == "80 runs are missing: about 8.5 hours of one CPU thread"
    run = Run("check", "one head", FULL.contenders[0].start, 0)
    rows = [row_of(run, 2.0, cpu_seconds=500.0, score_cpu_seconds=7.0)]
    assert run_seconds(FULL, "check", rows) == 507
    assert run_seconds(FULL, "search", rows) == 200 + 36, "no run of this stage yet"


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


class _InThisProcess:
    """Performs a task in this process instead of a new one, when its input is complete."""

    def __init__(self, command, **options):
        self.stdin = io.StringIO()
        self.stdin.close = self._perform
        self.returncode = None

    def _perform(self):
        self.returncode = perform({**json.loads(self.stdin.getvalue()), "parent": None})

    def poll(self):
        return self.returncode


@pytest.mark.slow
def test_a_contender_runs_to_its_end(tmp_path, monkeypatch):
    replaced = types.SimpleNamespace(Popen=_InThisProcess, PIPE=None)
    monkeypatch.setattr(benchmarks.race_session, "subprocess", replaced)
    out = tmp_path / "race.jsonl"
    command = ["race", "--quick", "--data", "sample", "--out", str(out), "--contender", "no head"]
    assert main([*command, "--jobs", "2"]) == 0
    rows = read_rows(out)
    assert {row["kind"] for row in rows} == {"track", "reference", "timing", "run"}
    runs = [row for row in rows if row["kind"] == "run"]
    assert len(runs) == len({row["name"] for row in runs}) == 8
    assert all(("test" in row) == (row["stage"] == "final") for row in runs)
    (no_head,) = results_of(QUICK, rows)
    checked = [row for row in runs if row["stage"] == "check"]
    assert no_head.setting.lr in [row["setting"]["lr"] for row in checked]
    assert {row["seed"] for row in checked} == {0}
    assert str(ROOT) not in out.read_text()
    before = out.read_bytes()
    assert main(command) == 0
    assert out.read_bytes() == before, "nothing was missing"
