"""The steps for a first GPU run on the CPU at tiny sizes, notice what is wrong, and go on."""

import copy
import dataclasses
import json
import subprocess
import sys
import textwrap
import time
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sharnn
from benchmarks.__main__ import main
from benchmarks.gpu import correctness as correctness_module
from benchmarks.gpu import findings, paper, runner
from benchmarks.gpu.captured import CapturedStepper
from benchmarks.gpu.correctness import Check, correctness, cpu_numbers
from benchmarks.gpu.goal import goal_lines
from benchmarks.gpu.memory import peak_of_step, projected
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.profile import OTHER, kind_of
from benchmarks.gpu.results import DEFAULT, add_step, read_results, result_of, start_file
from benchmarks.gpu.steps import STEPS
from benchmarks.gpu.training import PLAIN, in_pairs, in_turns_or_left_out, step_rate, trainer
from benchmarks.gpu.variants import compiled, with_fused_attention
from benchmarks.page_blocks import ROOT
from benchmarks.writers import random_state
from sharnn import InputError, Stepper
from sharnn.corpora.corpus_files import DownloadError
from sharnn.trainer import Trainer
from small import ALL_OPTIONS, small_model, small_recipe

GPU = {"device": "A GPU"}


@pytest.fixture
def plan(tmp_path):
    return Plan(device="cpu", tiny=True, data="sample", earlier=tmp_path / "gpu.json")


# The steps


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_step_runs_on_the_cpu(plan, name):
    start_file(plan.earlier, True, GPU)
    if name == "profile":
        add_step(plan.earlier, "limits", {"result": STEPS["limits"].run(plan)})
    entry = runner.entry_of(
        name, STEPS[name], {**dataclasses.asdict(plan), "earlier": str(plan.earlier)}
    )
    assert entry["status"] == "done", entry["line"]
    result = json.loads(json.dumps(entry["result"]))
    assert result.get("passed", True)
    assert not result.get("left_out"), "every way works on the CPU"
    assert entry["line"] == STEPS[name].line(result)
    assert "\n" not in entry["line"]


def test_a_failed_step_is_one_line_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(runner, "STEPS", {name: STEPS[name] for name in ("paper", "limits")})
    missing = str(tmp_path / "missing")
    assert main(["gpu", "--tiny", "--data", missing, "--out", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("missing" in line and line.startswith("paper (") for line in lines)
    assert any(line.startswith("limits (") for line in lines)
    assert "failed: paper" in lines
    steps = read_results(out)["steps"]
    assert [steps[name]["status"] for name in ("paper", "limits")] == ["failed", "done"]
    assert result_of(out, "paper") is None


def test_a_trial_has_a_results_file_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "STEPS", {})
    monkeypatch.setattr(runner, "DEFAULT", tmp_path / "gpu.json")
    monkeypatch.setattr(runner, "TRIAL", tmp_path / "_build" / "trial.json")
    assert main(["gpu", "--tiny"]) == 0
    assert read_results(runner.TRIAL)["tiny"]
    assert not runner.DEFAULT.exists()
    assert str(runner.TRIAL) in capsys.readouterr().out


def test_the_pages_quote_the_times_of_the_measured_gpu():
    results = read_results(DEFAULT)
    assert not results["tiny"]
    paper = result_of(DEFAULT, "paper")
    validation = result_of(DEFAULT, "validation")
    hours = f"{paper['hours'] + validation['hours']:.1f} hours"
    for page in ("README.md", "book/18-the-papers-run.md"):
        text = " ".join((ROOT / page).read_text().split())
        assert "H100" in results["machine"]["device"]
        assert "H100" in text
        assert hours in text, page


def test_the_findings_need_only_what_was_measured():
    results = {name: step["result"] for name, step in read_results(DEFAULT)["steps"].items()}
    sections = [
        findings.found_of_goal,
        findings.found_of_correctness,
        findings.found_of_training,
        findings.found_of_validation,
        findings.found_of_paper,
        findings.found_of_memory,
    ]
    assert all(found(results) for found in sections)
    assert not any(found({}) for found in sections)
    partial_results = copy.deepcopy(results)
    del partial_results["training"]["ways"]["cases"][PLAIN]
    partial_results["training"]["ways"]["baseline"] = results["training"]["library"]
    partial_results["training"]["batches"] = None
    partial_results["validation"]["hours"] = None
    for batch in partial_results["memory"]["batches"].values():
        batch["measured"] = None
    texts = [found(partial_results) for found in sections]
    assert texts == [None, texts[1], None, None, None, None]
    assert "are out of reach" in findings.found_of_goal(results)
    fast = copy.deepcopy(results)
    fast["profile"]["kinds"]["LSTM"] /= 2
    assert "are out of reach" not in findings.found_of_goal(fast)


def test_a_step_that_takes_too_long_is_ended(plan):
    step = dataclasses.replace(STEPS["limits"], minutes=0.001)
    settings = {**dataclasses.asdict(plan), "earlier": str(plan.earlier)}
    entry = runner.entry_of("limits", step, settings)
    assert (entry["status"], entry["line"]) == ("failed", "not ended after 0.001 minutes")


def test_a_step_that_takes_too_long_leaves_no_process_behind(plan, monkeypatch):
    left = plan.earlier.with_name("left")
    code = f"""
        import subprocess, sys
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(left)!r}, "w").write(str(started.pid))
        print("an error", file=sys.stderr)
        started.wait()
    """
    real = subprocess.Popen

    def start(command, **options):
        return real([sys.executable, "-c", textwrap.dedent(code)], **options)

    monkeypatch.setattr(runner.subprocess, "Popen", start)
    assert runner.run_child({}, 3.0) == (None, "", "an error\n")
    number = int(left.read_text())
    for _ in range(100):
        if not is_running(number):
            return
        time.sleep(0.1)
    raise AssertionError("the process still runs")


def is_running(number):
    try:
        return " Z " not in Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_gpu_that_torch_cannot_use_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu", "--out", str(tmp_path / "gpu.json")]) == 2
    assert "can't use the GPU of this machine" in capsys.readouterr().err


def test_the_goal_is_compared_with_what_was_found():
    case = {"measured": {"median": 700_000.0}, "ratio": {"median": 2.5}}
    ways = {"baseline": PLAIN, "cases": {PLAIN: {}, "library, float16": case}}
    training = {"ways": ways, "library": "library, float16"}
    steps = {"training": {"result": training}, "paper": {"result": {"rate": 700_000.0}}}
    speed, ratio = goal_lines(steps)
    assert speed.endswith("at least 650,000: 700,000, reached")
    assert ratio.endswith("at least 3: 2.5, missed")
    assert all(line.endswith("not measured") for line in goal_lines({"paper": {}}))


# The results


def test_a_trial_does_not_replace_the_results_of_a_gpu(tmp_path):
    out = tmp_path / "gpu.json"
    start_file(out, False, GPU)
    add_step(out, "limits", {"result": {"x": 1}})
    before = out.read_bytes()
    with pytest.raises(InputError, match="a trial would replace them"):
        start_file(out, True, GPU)
    assert out.read_bytes() == before
    start_file(out, False, GPU)
    assert result_of(out, "limits") == {"x": 1}, "the same GPU continues"
    start_file(out, False, {"device": "Another GPU"})
    assert result_of(out, "limits") is None


def test_a_gpu_replaces_the_results_of_a_trial(tmp_path):
    out = tmp_path / "gpu.json"
    start_file(out, True, GPU)
    add_step(out, "limits", {"result": {"x": 1}})
    start_file(out, False, GPU)
    assert read_results(out)["steps"] == {}


@pytest.mark.parametrize("content", ["", "[]", '{"steps": [], "tiny": true}', '{"steps": {}}'])
def test_another_file_is_not_overwritten(tmp_path, capsys, content):
    out = tmp_path / "other.json"
    out.write_text(content)
    assert main(["gpu", "--tiny", "--only", "limits", "--out", str(out)]) == 2
    assert "can't be read as results of the GPU steps" in capsys.readouterr().err
    assert out.read_text() == content


# Training


def test_a_case_that_fails_while_it_is_measured_is_left_out(plan):
    def fail():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    left_out = {}
    found = in_turns_or_left_out(plan, {"a": lambda: 1.0, "b": fail}, left_out)
    assert found == {"a": [1.0, 1.0]}
    assert left_out == {"b": "out of memory"}


class Recorded:
    """A trainer whose steps may fail, also if another has been made since."""

    recipe = SimpleNamespace(batch_size=1, segment_length=1)

    def __init__(self, name, makes, fails):
        self.name, self.makes, self.fails = name, makes, fails
        makes.append(name)

    def step(self):
        if self.fails(self.name, self.makes[-1]):
            raise torch.cuda.OutOfMemoryError


@pytest.mark.parametrize(
    ("fails", "baseline", "cases", "missing"),
    [
        (lambda name, newest: False, "plain", {"plain", "own", "other", "third"}, set()),
        (lambda name, newest: name == "other", "plain", {"plain", "own", "third"}, {"other"}),
        (lambda name, newest: name == "plain", "own", {"own", "other", "third"}, {"plain"}),
        (
            lambda name, newest: name == "plain" and newest == "other",
            "plain",
            {"plain", "own", "third"},
            {"other"},
        ),
        (lambda name, newest: True, None, set(), {"plain", "own", "other", "third"}),
    ],
)
def test_ways_are_measured_in_pairs(plan, fails, baseline, cases, missing):
    makes, left_out = [], {}
    ways = {
        name: partial(Recorded, name, makes, fails) for name in ("plain", "own", "other", "third")
    }
    found = in_pairs(plan, ways, left_out)
    assert (found and found["baseline"]) == baseline
    assert set(found["cases"] if found else ()) == cases
    assert left_out.keys() == missing


def test_a_model_that_refers_to_itself_is_released(plan):
    model = with_fused_attention(small_model())
    reference = weakref.ref(model.blocks[1].head)
    del model
    plan.release()
    assert reference() is None


def test_a_measurement_never_reaches_the_end_of_the_text(plan):
    each = trainer(plan, "float32")
    rate = step_rate(plan, each)
    for _ in range(3):
        each.offset = each.streams.length - 3
        rate()
        assert each.epoch == 0


# The paper's run


def test_a_missing_corpus_is_replaced(monkeypatch):
    def load(name, stand_in):
        assert not stand_in
        if name in ("enwik8", "enwiki2016"):
            raise DownloadError(name)

    monkeypatch.setattr(paper.sharnn, "load_corpus", load)
    assert paper.corpus_at_hand("enwik8") == "sample"
    assert paper.corpus_at_hand("sample") == "sample"
    monkeypatch.setattr(paper, "CORPORA", {"enwik8": SimpleNamespace(stand_in=None)})
    with pytest.raises(DownloadError):
        paper.corpus_at_hand("enwik8")


def test_checkpoints_fit_the_speed(plan):
    large = dataclasses.replace(plan, tiny=False)
    assert paper.checkpoint_steps(plan) == 10
    assert paper.checkpoint_steps(large) == paper.SAVED_STEPS
    start_file(plan.earlier, False, GPU)
    for rate, steps in ((650_000.0, 1190), (16_384.0, 30), (100.0, 10)):
        ways = {"cases": {"library": {"measured": {"median": rate}}}}
        result = {"library": "library", "ways": ways, "step_bytes": 16_384}
        add_step(plan.earlier, "training", {"result": result})
        assert paper.checkpoint_steps(large) == steps
    add_step(plan.earlier, "training", {"result": {**result, "ways": None}})
    assert paper.checkpoint_steps(large) == paper.SAVED_STEPS


# Correctness


def test_the_device_is_compared_with_its_own_lstm_and_without_tf32(plan, monkeypatch):
    seen = []

    def look(plan):
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
        return []

    for name in ("author_numbers", "cpu_numbers", "mixed_precision", "resumed_runs", "stepped"):
        monkeypatch.setattr(correctness_module, name, look)
    assert correctness(plan)["passed"]
    assert seen == [(True, False)] * 5


PARTS = [
    "embedding.weight",
    "output_bias",
    "blocks.0.lstm.weight_hh_l0",
    "blocks.1.lstm.bias_ih_l0",
    "blocks.0.head.query.weight",
    "blocks.1.head.key_scale",
    "blocks.0.head.query_norm.weight",
    "blocks.1.head.value_shape.weight",
    "blocks.0.memory_norm.weight",
    "blocks.1.boom.expand.weight",
    "blocks.0.skip_norm.bias",
]


@pytest.mark.parametrize("part", PARTS)
def test_a_device_that_computes_a_part_differently_is_noticed(plan, monkeypatch, part):
    def wrong_copy(model):
        changed = copy.deepcopy(model)
        with torch.no_grad():
            changed.get_parameter(part)[::2] += 0.3
        return changed

    monkeypatch.setattr(correctness_module, "copy", SimpleNamespace(deepcopy=wrong_copy))
    checks = list(cpu_numbers(plan))
    assert not any(check.passed for check in checks if "logits" in check.name)


def test_a_device_that_computes_the_same_passes(plan):
    assert all(check.passed for check in cpu_numbers(plan))


def test_a_difference_within_the_tolerance_passes():
    passed = [Check("x", difference, 1.0).passed for difference in (0.9, 1.1, float("nan"))]
    assert passed == [True, False, False]


@pytest.mark.slow
def test_an_error_in_one_comparison_does_not_stop_the_others(plan, monkeypatch):
    def fail(plan):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(correctness_module, "author_numbers", fail)
    for slow in ("mixed_precision", "resumed_runs"):
        monkeypatch.setattr(correctness_module, slow, lambda plan: [Check("x", 0.0, 1.0)])
    result = correctness(plan)
    assert result["errors"] == {"the author's numbers": "RuntimeError: no such kernel"}
    assert not result["passed"]
    assert len(result["checks"]) > 10


# Other ways to compute the same


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("change", [with_fused_attention, lambda model: compiled(model, "eager")])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile reads it
def test_other_ways_give_the_same_logits_and_gradients(change, window):
    ours = small_model(memory_window=window)
    theirs = change(copy.deepcopy(ours))
    state = other_state = None
    for x in torch.randint(256, (2, 60)).split(12, dim=1):  # the memory of 24 rows overflows
        logits, state = ours(x, state)
        other_logits, other_state = theirs(x, other_state)
        torch.testing.assert_close(other_logits, logits, rtol=1e-4, atol=1e-5)
    for model, output in ((ours, logits), (theirs, other_logits)):
        model.zero_grad()
        output.square().mean().backward()
    for (name, ours_), (_, theirs_) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        torch.testing.assert_close(theirs_.grad, ours_.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_fused_attention_refuses_shifted_keys():
    with pytest.raises(InputError, match="no shifted keys"):
        with_fused_attention(small_model(shifted_keys=True))


@pytest.mark.parametrize("options", [{}, ALL_OPTIONS], ids=str)
def test_a_captured_stepper_gives_the_numbers_of_a_stepper(options):
    model = small_model(attention_layers=(0, 2), **options)
    state = random_state(model.config, 2, model.config.memory)
    steppers = [Stepper(model, 2) for _ in range(2)]
    for stepper in steppers:
        stepper.load_state(state)
    captured = CapturedStepper(steppers[1])
    for x in torch.randint(256, (60, 2)):  # the memory of 24 rows is overwritten twice
        torch.testing.assert_close(captured.step(x), steppers[0].step(x), rtol=1e-4, atol=1e-4)


def test_a_step_is_captured_only_with_a_full_memory():
    stepper = Stepper(small_model())
    with pytest.raises(InputError, match="once the memory is full"):
        CapturedStepper(stepper)


# What is known without a GPU

SHAPES = [
    {"dropout": 0.0},
    {"dropout": 0.1},
    {"dim": 64, "boom_dim": 256, "layers": 2, "attention_layers": (0, 1), "memory": 1000},
    {"dim": 96, "layers": 3, "attention_layers": ()},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_projected_memory_is_that_of_a_step_on_the_cpu(plan, shape):
    values = {"dim": 128, "boom_dim": 512, "memory": 512, "dropout": 0.1, **shape}
    config = sharnn.ModelConfig(**values)
    recipe = small_recipe(batch_size=4, segment_length=128, device="cpu", precision="float32")
    each = Trainer(sharnn.SHARNN(config), plan.corpus(), recipe)
    each.state = random_state(config, 4, config.memory - 128)
    each.step()
    measured = peak_of_step(plan, each)
    total = sum(projected(config, 4, 128, half=False).values())
    assert total == pytest.approx(measured, rel=0.15)


def test_kinds_of_work_are_recognised_by_name():
    names = {
        "ampere_fp16_s16816gemm_fp16_128x128_ldg8_f2f_stages_32x5_tn": "matrix products",
        "aten::addmm": "matrix products",
        "RNN_blockPersist_fp_LSTM": "LSTM",
        "void cunn_SoftMaxForward": "softmax and loss",
        "aten::native_layer_norm": "LayerNorm",
        "aten::bernoulli_": "dropout",
        "multi_tensor_apply_kernel": "optimiser",
        "something": OTHER,
    }
    assert {name: kind_of(name) for name in names} == names
