"""A run is resumed elsewhere: other threads, another precision, with and without loss scaling."""

import pytest
import torch

from sharnn import InputError, resume, train
from sharnn.checkpoint import read_header
from sharnn.cli import main
from sharnn.corpora.sample import sample_bytes
from sharnn.paper.backup import RunBackup
from sharnn.training import _describe_changes
from small import small_config, small_recipe


@pytest.fixture
def folder(tmp_path, corpus):
    train(small_config(), corpus, small_recipe(steps=4), tmp_path / "r", progress_bar=False)
    return tmp_path / "r"


@pytest.fixture
def two_threads():
    """The number of threads that torch chooses on this test's machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def used_threads(folder, corpus, **settings):
    """Resumes a run; returns the number of threads it was trained with."""
    found = []

    def callback(line):
        found.append(torch.get_num_threads())

    resume(folder, corpus, {"steps": 6}, progress_bar=False, on_metrics=callback, **settings)
    return set(found)


def test_a_run_resumes_with_its_number_of_threads(folder, corpus, two_threads, capsys):
    assert used_threads(folder, corpus) == {1}
    assert torch.get_num_threads() == 2, "the caller's number is restored"
    assert capsys.readouterr().err == ""


def test_another_number_of_threads_is_used_and_reported(folder, corpus, capsys):
    assert used_threads(folder, corpus, threads=2) == {2}
    assert capsys.readouterr().err == (
        f"sharnn: {folder} was trained with 1 thread and continues with 2 threads: its results "
        "will differ a little from those of an uninterrupted run\n"
    )
    assert read_header(folder / "last.safetensors")["training"]["threads"] == 2


def test_the_command_line_resumes_with_the_same_threads(tmp_path, corpus, two_threads, capsys):
    (tmp_path / "text").write_bytes(sample_bytes(20_000))
    words = f"train --data {tmp_path}/text --out {tmp_path}/r --preset tiny --dim 16 --boom-dim 32"
    words += " --batch-size 2 --segment-length 16 --precision float32 --steps 2 --quiet"
    assert main([*words.split(), "--threads", "1"]) == 0
    torch.set_num_threads(2)
    again = f"train --resume {tmp_path}/r --quiet --steps"
    for flags, threads, message in (
        ("3", 1, ""),
        ("4 --threads 2", 2, "was trained with 1 thread and continues with 2 threads"),
        ("5", 2, ""),
    ):
        assert main([*again.split(), *flags.split()]) == 0
        assert read_header(tmp_path / "r" / "last.safetensors")["training"]["threads"] == threads
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == bool(message)


def test_a_run_resumes_in_another_precision(folder, corpus, capsys):
    changes = {"steps": 6, "precision": "bfloat16"}
    assert resume(folder, corpus, changes, progress_bar=False).reason == "done"
    assert "was trained in float32 and continues in bfloat16: " in capsys.readouterr().err
    assert resume(folder, corpus, {"steps": 8}, progress_bar=False).reason == "done"
    assert capsys.readouterr().err == ""


def test_a_run_without_loss_scaling_resumes_with_it_and_back(folder, corpus, monkeypatch):
    """As from the CPU to a GPU with float16, and back."""
    plain = torch.amp.GradScaler
    with monkeypatch.context() as patch:
        patch.setattr(
            "sharnn.trainer.torch.amp.GradScaler",
            lambda device, enabled: plain("cpu", enabled=True),
        )
        for steps in (6, 8):
            assert resume(folder, corpus, {"steps": steps}, progress_bar=False).reason == "done"
        assert read_header(folder / "last.safetensors")["training"]["scaler"]["scale"] > 1
    assert resume(folder, corpus, {"steps": 10}, progress_bar=False).reason == "done"
    assert read_header(folder / "last.safetensors")["training"]["scaler"] == {}


def test_all_changes_are_described_in_one_line(corpus):
    class FakeTrainer:
        def snapshot_values(self):
            return {"world_size": 2, "device": "cuda", "precision": "float16", "threads": 4}

    before = {"world_size": 2, "device": "cpu", "precision": "float32", "threads": 1}
    assert _describe_changes(FakeTrainer(), before) == (
        "on cpu in float32 and continues on cuda in float16: its results will differ a little "
        "from those of an uninterrupted run"
    )
    before["world_size"] = 1
    assert _describe_changes(FakeTrainer(), before) == (
        "by 1 process on cpu in float32 and continues with 2 processes on cuda in float16: its "
        "streams are redistributed, and dropout will use other random numbers"
    )


@pytest.mark.parametrize(
    "changes", [{"optimizer": "lamb"}, {"optimizer": "muon"}, {"batch_size": 2}], ids=str
)
def test_settings_that_the_state_belongs_to_cannot_change(folder, corpus, changes):
    before = (folder / "last.safetensors").read_bytes()
    (name,) = changes
    with pytest.raises(InputError, match=f"^{name} can't change when a run is resumed"):
        resume(folder, corpus, {"steps": 6, **changes}, progress_bar=False)
    assert (folder / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize("minutes", [float("nan"), float("inf"), -1])
def test_the_time_between_backups_is_checked(tmp_path, minutes):
    with pytest.raises(InputError, match="keep-minutes"):
        RunBackup(tmp_path / "r", tmp_path / "k", minutes=minutes)
