"""The benchmarks: the plain model equals the library's, scoring is right, and the harness runs."""

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import sharnn
from benchmarks import cpu_step, sizes
from benchmarks.__main__ import main
from benchmarks.entry import exit_code
from benchmarks.flops import training_flops
from benchmarks.pair.__main__ import main as pair_main
from benchmarks.plain import PlainTrainer, plain_bits_per_byte, plain_from, to_plain_state
from benchmarks.quality import CONTENDERS, TRANSFORMERS
from benchmarks.results import add_part, read_results, require_same_kind
from benchmarks.speed import measure_cases
from benchmarks.transformer import (
    TransformerRecipe,
    TransformerTrainer,
    make_optimizer,
    parameter_count,
    transformer,
    window_bits,
)
from benchmarks.writers import random_state
from extras import HAS_TRANSFORMER, needs_transformer
from sharnn.trainer import NonFiniteError, Trainer
from small import small_config, small_model, small_recipe

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "change", [{"memory_window": "sliding"}, {"shifted_keys": True}, {"lstm_skip": 0.5}], ids=str
)
def test_the_plain_model_refuses_options_that_it_does_not_have(change):
    with pytest.raises(sharnn.InputError, match="the plain model needs"):
        plain_from(small_model(**change))


def test_the_plain_model_has_the_same_logits_and_gradients_as_the_library():
    model = small_model()
    plain = plain_from(model)
    text = torch.randint(256, (2, 60))
    state, plain_state = None, None
    for segment in text.split(12, dim=1):  # the memory of 24 rows overflows
        model.zero_grad()
        plain.zero_grad()
        logits, state = model(segment, state)
        plain_logits, plain_state = plain(segment, plain_state)
        torch.testing.assert_close(plain_logits, logits, rtol=1e-4, atol=1e-5)
        for output in (logits, plain_logits):
            F.cross_entropy(output.flatten(0, 1), segment.flatten()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


def test_the_plain_model_continues_from_a_state_of_the_library():
    model = small_model()
    plain = plain_from(model)
    text = torch.randint(256, (2, 40))
    with torch.no_grad():
        _, state = model(text[:, :39])
        logits, _ = model.step(text[:, 39], state)
        plain_logits, _ = plain(text[:, 39:], to_plain_state(state))
    torch.testing.assert_close(plain_logits[:, 0], logits, rtol=1e-4, atol=1e-5)


def test_the_plain_trainer_takes_the_same_steps(corpus):
    recipe = small_recipe(optimizer="muon", segment_jitter=0.0, short_segments=0.0)
    torch.manual_seed(1)
    model = sharnn.SHARNN(small_config())
    plain = PlainTrainer(plain_from(model), corpus, recipe)
    trainer = Trainer(model, corpus, recipe)
    for _ in range(3):
        assert plain.step() == pytest.approx(trainer.step().loss, rel=1e-4)


def test_the_plain_model_has_the_same_bits_per_byte_as_the_library():
    model = small_model()
    data = bytes(torch.randint(256, (101,)).tolist())
    bits = sharnn.bits_per_byte(model, data, segment_length=12)
    assert plain_bits_per_byte(plain_from(model), data, 12) == pytest.approx(bits, rel=1e-5)


def test_overlapping_windows_score_every_byte_once():
    class Uniform(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(*x.shape, 256)

    for size, context, stride in ((1001, 100, 25), (1000, 100, 30), (50, 100, 25), (102, 100, 50)):
        assert window_bits(Uniform(), bytes(size), context, stride) == pytest.approx(8)


def test_a_position_of_a_window_predicts_the_next_byte():
    """A model that predicts a repetition of each byte is right on b"aaa" and wrong on b"abab"."""

    class Repeat(torch.nn.Module):
        def forward(self, x):
            return 20.0 * F.one_hot(x, 256)

    assert window_bits(Repeat(), b"a" * 500, 64, 16) < 1e-3
    assert window_bits(Repeat(), b"ab" * 250, 64, 16) > 20


@needs_transformer
def test_the_transformer_has_the_required_size_and_is_causal():
    config = sharnn.ModelConfig.preset("tiny")
    size = sharnn.SHARNN(config).parameter_count()
    model = transformer(size, TRANSFORMERS["tiny"]).eval()
    assert abs(parameter_count(model) / size - 1) < 0.03
    text = torch.randint(256, (1, 40))
    changed = text.clone()
    changed[0, 30] = (text[0, 30] + 1) % 256
    with torch.no_grad():
        before, after = model(text), model(changed)
    torch.testing.assert_close(before[:, :30], after[:, :30])
    assert not torch.allclose(before[:, 30:], after[:, 30:])


@needs_transformer
def test_the_transformer_learns(corpus):
    own = TransformerRecipe(dim=32, depth=2, heads=2, context=32, batch_size=4, lr=1e-2)
    trainer = TransformerTrainer(corpus, 40_000, own, small_recipe(steps=20))
    first = trainer.step().loss
    while trainer.progress < 1:
        last = trainer.step().loss
    assert last < first - 0.5


@needs_transformer
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_of_the_transformer_that_is_not_finite_is_skipped(corpus, optimizer, where):
    own = TransformerRecipe(32, 2, 2, 32, 4, lr=1e-2, optimizer=optimizer)
    trainer = TransformerTrainer(corpus, 40_000, own, small_recipe(steps=20, max_skips=1))
    assert not trainer.step().skipped
    weight = trainer.model.to_logits.weight
    weights = [parameter.clone() for parameter in trainer.model.parameters()]

    def broken(tensor):
        return tensor * float("nan")

    if where == "loss":
        handle = trainer.model.register_forward_hook(lambda module, inputs, out: broken(out))
    else:
        handle = weight.register_hook(broken)
    assert trainer.step().skipped
    handle.remove()
    assert not any(
        before.ne(after).any()
        for before, after in zip(weights, trainer.model.parameters(), strict=True)
    )
    result = trainer.step()
    assert not result.skipped
    assert math.isfinite(result.loss)
    assert weights[0].ne(next(trainer.model.parameters())).any()
    assert (trainer.skipped, trainer.consecutive_skips, trainer.step_count) == (1, 0, 3)
    weight.data.fill_(float("nan"))
    assert trainer.step().skipped
    with pytest.raises(NonFiniteError, match="2 consecutive steps"):
        trainer.step()


@needs_transformer
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_optimiser_of_the_transformer_has_the_settings_of_the_recipe(name):
    model = transformer(40_000, TransformerRecipe(32, 2, 2, 32, 4, 1e-2))
    recipe = small_recipe(lr=3e-3, beta2=0.9, eps=1e-7, weight_decay=0.25)
    for group in make_optimizer(model, name, recipe).param_groups:
        found = [group[key] for key in ("lr", "betas", "eps", "weight_decay")]
        assert found == [3e-3, (recipe.beta1, 0.9), 1e-7, 0.25]
    for group in make_optimizer(model, name, small_recipe()).param_groups:
        assert group["weight_decay"] == 0


@needs_transformer
def test_the_optimiser_has_every_parameter_of_the_transformer():
    model = transformer(40_000, TransformerRecipe(32, 2, 2, 32, 4, 1e-2))
    groups = make_optimizer(model, "muon", small_recipe()).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {group["stacked"] for group in groups if group["matrices"]} == {1, 2}


def test_flops_agree_with_torchs_count():
    """torch doesn't count the products inside an LSTM, so the test adds them."""
    config = small_config(memory=24)
    model = sharnn.SHARNN(config)
    state = random_state(config, 3, 12)
    with FlopCounterMode(display=False) as counter:
        logits, _ = model(torch.randint(256, (3, 12)), state)
        logits.sum().backward()
    lstm = config.layers * 3 * 2 * (2 * 3 * 12 * config.dim * 4 * config.dim)
    counted = counter.get_total_flops() + lstm
    assert training_flops(config, 3, 12, 12) == pytest.approx(counted, rel=0.01)


def test_the_results_file_merges_runs_and_never_mixes_quick_and_full_ones(tmp_path):
    path = tmp_path / "results.json"
    run = {"contender": "library", "preset": "tiny", "seed": 0, "minutes": 1}
    add_part(path, "quality", {"quick": False, "runs": [{**run, "bits": 3}]})
    add_part(path, "quality", {"quick": False, "runs": [{**run, "seed": 1, "bits": 4}]})
    add_part(path, "quality", {"quick": False, "runs": [{**run, "bits": 2}]})
    assert [run["bits"] for run in read_results(path)["quality"]["runs"]] == [2, 4]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(sharnn.InputError, match="has results of a full run"):
        require_same_kind(path, quick=True)


@pytest.mark.parametrize(
    "given",
    [
        ["--only", "nothing"],
        ["--minutes", "0"],
        ["--threads", "0"],
        ["--seed", "-1"],
        ["--split", "1,2"],
        ["--threads", "2", "--clock", "cpu"],
        ["--out", "/nowhere/results.json"],
        ["--quick", "--only", "quality", "--data", "/nowhere/text"],
    ],
    ids=" ".join,
)
def test_bad_input_gives_one_line_and_exit_code_2(given, capsys):
    assert main(given) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("benchmarks: ")
    assert all(line.startswith(("benchmarks: ", "measuring ")) for line in lines)


@pytest.mark.parametrize(
    ("name", "program", "given"),
    [
        ("cpu_step", partial(exit_code, "cpu_step", cpu_step.run), ["--preset", "paper"]),
        ("pair", pair_main, ["score", "--data", "/nowhere/text"]),
        ("sizes", partial(exit_code, "sizes", sizes.run), ["/nowhere/file"]),
    ],
)
def test_other_programs_report_bad_input_likewise(name, program, given, capsys):
    assert program(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (sharnn.InputError("no such file"), 2, "name: no such file\n"),
        (KeyboardInterrupt(), 130, "name: interrupted\n"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_a_program_ends_without_a_traceback(error, code, line, capsys, monkeypatch):
    abandoned = []
    monkeypatch.setattr("benchmarks.entry.abandon_output", lambda: abandoned.append(True))

    def program(words):
        raise error

    assert exit_code("name", program, []) == code
    assert capsys.readouterr().err == line
    assert bool(abandoned) == isinstance(error, BrokenPipeError)


@pytest.mark.slow
def test_cases_are_measured_in_other_processes(capfd):
    config = small_config().to_dict()
    settings = {"kind": "step", "model": config, "batch": 2, "min_seconds": 0.01}
    numbers, facts = measure_cases({"step": ("write", settings)}, threads=1, quick=False)
    assert len(numbers["step"]) == 7
    assert min(numbers["step"]) > 0
    assert facts["step"]["peak"]["bytes"] >= facts["step"]["peak"]["before"] > 0
    with pytest.raises(RuntimeError, match="'write step' failed"):
        measure_cases({"step": ("write", {**settings, "batch": -1})}, threads=1, quick=False)
    assert "RuntimeError" in capfd.readouterr().err


@pytest.mark.slow
def test_an_output_that_nobody_reads_is_not_an_error():
    command = f"{sys.executable} -m benchmarks race --status | true"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=True)
    assert result.stderr == b""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Returns the parts of a results file that a quick run of everything writes."""
    path = tmp_path_factory.mktemp("benchmarks") / "results.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--threads", "1", "--out", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(ROOT) not in path.read_text()
    return json.loads(path.read_text())["parts"]


@pytest.mark.slow
def test_the_harness_measures_everything(parts):
    assert set(parts) == {"hardware", "speed", "curves", "quality"}
    for name in ("hardware", "speed", "curves"):
        assert parts[name]["quick"] is True
        assert parts[name]["machine"]["threads"] == 1
    for name in ("matrix_products", "memory"):
        assert_compared(parts["hardware"][name])
    speed = parts["speed"]
    for result in [*speed["training"].values(), *speed["scoring"].values()]:
        assert_compared(result["speed"])
    for result in [*speed["writing"], *speed["writing_side_by_side"]]:
        assert_compared(result["speed"])
        assert result["peak_memory"]["cases"]["plain"]["bytes"] > 0
    assert_compared(speed["import"])
    training = speed["training"]["small"]
    for case in training["speed"]["cases"].values():
        assert 0 < case["share_of_matrix_rate"]["median"] < 1
    curves = parts["curves"]
    for curve in (
        curves["over_memory"]["training_step"],
        curves["over_memory"]["written_byte"],
        curves["over_file"]["training_step"],
    ):
        assert len(curve["lengths"]) == len(curve["seconds"]) == len(curve["peak_bytes"]) == 2
        assert set(curve["time_line"]) == {"slope", "intercept", "residual", "explained"}
    runs = {run["contender"]: run for run in parts["quality"]["runs"]}
    assert set(runs) == {
        name for name in CONTENDERS if HAS_TRANSFORMER or not name.startswith("transformer")
    }
    for run in runs.values():
        assert 0 < run["test_bits_per_byte"] < 20
        assert run["validation"]
        assert run["machine"]["threads"] == 1


def assert_compared(result):
    assert set(result) == {"unit", "better", "baseline", "cases"}
    baseline = result["cases"][result["baseline"]]
    assert baseline["ratio"]["lowest"] == baseline["ratio"]["highest"] == 1
    for case in result["cases"].values():
        for kind in ("measured", "ratio"):
            numbers = case[kind]
            assert set(numbers) == {"median", "lowest", "highest", "repeats"}
            assert 0 < numbers["lowest"] <= numbers["median"] <= numbers["highest"]


@pytest.mark.slow
@pytest.mark.parametrize("names", ["", "hardware", "speed", "curves", "quality", "all"])
def test_the_page_shows_the_parts_that_were_measured(names, parts, tmp_path, monkeypatch, capsys):
    shown = {name: part for name, part in parts.items() if names in (name, "all")}
    monkeypatch.setattr(sharnn, "__file__", str(tmp_path / "sharnn" / "__init__.py"))
    if shown:
        (tmp_path / "benchmarks").mkdir()
        (tmp_path / "benchmarks" / "results.json").write_text(json.dumps({"parts": shown}))
    namespace = {}
    for cell in jupytext.read(ROOT / "book" / "benchmarks.md").cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
    plt.close("all")
    lines = capsys.readouterr().out.splitlines()
    if not shown:
        missing = "benchmarks/results.json is missing: make bench writes it."
        assert lines == [missing, "<IPython.core.display.Markdown object>"]
    assert any("Not measured" in line for line in lines) == (names not in ("", "all"))
