"""Run folders: one process trains a run, and nothing of a run or of its inputs is overwritten."""

import os
import subprocess
import sys

import pytest

import sharnn
from sharnn import InputError, generate, load, resume, train
from sharnn.io.files import partial_path
from sharnn.io.lock import LockedError, locked
from sharnn.paper.backup import RunBackup
from sharnn.paper.reproduce import reproduce, require_folders
from sharnn.run_folder import RUN_FILES, locked_run, require_new_folder, require_output
from small import small_config, small_recipe


@pytest.fixture
def run(tmp_path, corpus):
    """A complete run of two steps."""
    train(small_config(), corpus, small_recipe(steps=2), tmp_path / "run", progress_bar=False)
    return tmp_path / "run"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


HOLDER = """
import sys
from pathlib import Path
from sharnn.io.lock import locked
with locked(Path(sys.argv[1]), wait=False):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process():
    """Returns a function that starts a process that holds a lock until it is killed."""
    processes = []

    def hold(path):
        command = [sys.executable, "-c", HOLDER, str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline().strip() == b"locked"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_a_run_is_trained_by_one_process_and_read_by_others(run, corpus, tmp_path, other_process):
    holder = other_process(run / ".lock")
    before = contents(run)
    message = "in use by another training process"
    with pytest.raises(InputError, match=message):
        resume(run, corpus, {"steps": 3}, progress_bar=False)
    model = {**small_config().to_dict(), "attention_layers": (1,)}
    with pytest.raises(InputError, match=message):
        reproduce(run, corpus, model_changes=model, progress_bar=False)
    assert contents(run) == before
    assert len(generate(load(run), b"a", 3, seed=1)) == 3
    holder.kill()
    holder.wait()
    # The lock ended with its process.
    assert resume(run, corpus, {"steps": 3}, progress_bar=False).reason == "done"


def test_a_second_new_run_in_one_folder_is_refused(corpus, tmp_path, other_process):
    folder = tmp_path / "run"
    folder.mkdir()
    other_process(folder / ".lock")
    with pytest.raises(InputError, match="in use by another training process"):
        train(small_config(), corpus, small_recipe(), folder, progress_bar=False)
    assert set(contents(folder)) == {".lock"}


def test_a_lock_can_be_held_twice_by_one_block_and_is_released(tmp_path, other_process):
    path = tmp_path / "lock"
    with locked(path, wait=False), locked(path, wait=False):
        pass
    process = other_process(path)
    with pytest.raises(LockedError), locked(path, wait=False):
        pass
    process.kill()
    process.wait()
    with locked(path, wait=False):
        pass


def test_without_filelock_or_locks_a_run_is_trained_anyway(tmp_path, corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)  # importing it fails
    result = train(
        small_config(), corpus, small_recipe(steps=1), tmp_path / "run", progress_bar=False
    )
    assert result.reason == "done"
    assert ".lock" not in contents(tmp_path / "run")


def test_leftovers_of_a_killed_run_are_removed_when_it_is_resumed(run):
    leftovers = [partial_path(run / name) for name in RUN_FILES]
    others = [partial_path(run / "page.html"), run / "notes.partial"]
    for path in leftovers + others:
        path.write_bytes(b"half")
    with locked_run(run):
        pass
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in others)


def test_a_new_run_needs_a_new_or_empty_folder(tmp_path, corpus, run):
    recipe = small_recipe(steps=1)
    for name in ("config.json", "best.safetensors", "anything"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(b"mine")
        with pytest.raises(InputError, match=f"not empty.*{name}.*new or empty folder"):
            train(small_config(), corpus, recipe, folder, progress_bar=False)
        assert contents(folder) == {name: b"mine"}
    before = contents(run)
    with pytest.raises(InputError, match="already contains a run"):
        train(small_config(), corpus, recipe, run, progress_bar=False)
    assert contents(run) == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").write_bytes(b"")  # a hidden file that a system creates
    train(small_config(), corpus, recipe, tmp_path / "empty", progress_bar=False)


def test_a_folder_is_a_run_before_anything_else_is_written_to_it(tmp_path, corpus, monkeypatch):
    """So a run that is killed while it starts can be resumed, or its folder used again."""
    written = []
    write = sharnn.io.files.os.replace

    def replace(source, target):
        written.append(os.path.basename(target))
        write(source, target)

    monkeypatch.setattr(sharnn.io.files.os, "replace", replace)
    train(small_config(), corpus, small_recipe(steps=1), tmp_path / "run", progress_bar=False)
    assert written[:3] == ["last.safetensors", "config.json", "metrics.jsonl"]


def test_no_run_is_started_in_the_folder_of_its_data(tmp_path):
    folder, link = tmp_path / "data", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    for text in (folder / "config.json", folder / ".hidden", folder / "deep" / "text"):
        text.parent.mkdir(exist_ok=True)
        text.write_bytes(b"text")
        for out in (folder, link, folder / "deep" / ".."):
            with pytest.raises(InputError, match="is in the run folder"):
                require_new_folder(out, [text])
    require_new_folder(folder / "run", [folder / "config.json"])


@pytest.mark.parametrize("name", [*RUN_FILES, ".lock"])
def test_no_output_is_a_file_of_a_run(tmp_path, run, name):
    link, folder_link = tmp_path / "link", tmp_path / "folder_link"
    link.symlink_to(run / name)
    folder_link.symlink_to(run)
    for path in (run / name, link, folder_link / name, run / ".." / "run" / name):
        with pytest.raises(InputError, match="a file of a training run: name another file"):
            require_output(path, [])
    require_output(run / "page.html", [])
    (run / "last.safetensors").unlink()  # a run without it still has its best model
    with pytest.raises(InputError, match="a file of a training run"):
        require_output(run / name, [])
    (run / "best.safetensors").unlink()
    require_output(run / name, [])


def test_no_output_is_an_input_by_any_path(tmp_path):
    source, elsewhere = tmp_path / "in", tmp_path / "folder"
    source.write_bytes(b"text")
    elsewhere.symlink_to(tmp_path)
    (tmp_path / "symbolic").symlink_to(source)
    os.link(source, tmp_path / "hard")
    for path in (source, elsewhere / "in", tmp_path / "symbolic", tmp_path / "hard"):
        with pytest.raises(InputError, match="would overwrite"):
            require_output(path, ["nowhere", source])
    # Two outputs that don't exist yet must differ too.
    with pytest.raises(InputError, match="would overwrite"):
        require_output(tmp_path / "out", [elsewhere / "out"])


def test_a_run_does_not_read_its_own_files_or_those_of_its_backup(tmp_path, run):
    drive = tmp_path / "drive"
    backup = RunBackup(run, drive)
    backup.save()
    for path in (run / "metrics.jsonl", drive / "a" / "config.json"):
        with pytest.raises(InputError, match="is a file of the run"):
            require_folders(run, [path], backup)
    with pytest.raises(InputError, match="is a copy in the backup"):
        require_folders(drive / "a", [], RunBackup(drive / "a", drive))
