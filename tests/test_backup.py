"""A run is restored after the loss of the run folder, with damaged or incomplete copies too."""

import json

import pytest

from sharnn import InputError
from sharnn.paper.backup import RunBackup

FILES = ("config.json", "metrics.jsonl", "best.safetensors", "last.safetensors")


def write_run(folder, text):
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text(f"{name} {text}")


def read_run(folder):
    return {name: (folder / name).read_text() for name in FILES}


@pytest.fixture
def places(tmp_path):
    return tmp_path / "run", tmp_path / "drive" / "sharnn"


def number(slot):
    return json.loads((slot / "contents.json").read_text())["number"]


def delete(run):
    for path in run.iterdir():
        path.unlink()
    run.rmdir()


def test_a_lost_run_is_restored_from_its_last_copy(places):
    run, drive = places
    for text in ("first", "second", "third"):
        write_run(run, text)
        RunBackup(run, drive).save()
    expected = read_run(run)
    delete(run)
    assert RunBackup(run, drive).restore()
    assert read_run(run) == expected
    assert sorted(path.name for path in run.iterdir()) == sorted((*FILES, ".backup-id"))


def test_the_backup_of_another_run_is_not_overwritten(places):
    run, drive = places
    other = run.with_name("other")
    write_run(run, "first")
    write_run(other, "second")
    RunBackup(run, drive).save()
    content = read_run(drive / "a")
    with pytest.raises(InputError, match=r"the backup of another run than .*other: name"):
        RunBackup(other, drive).save()
    assert read_run(drive / "a") == content
    assert not (drive / "b").exists()
    RunBackup(other, drive.with_name("others")).save()
    with pytest.raises(InputError, match="is the backup of another run"):
        RunBackup(other, drive).save()
    RunBackup(run, drive.with_name("second copy")).save()  # one run may have several backups
    RunBackup(run, drive).save()
    assert number(drive / "b") == 2


def test_a_restored_run_is_backed_up_again(places):
    run, drive = places
    write_run(run, "first")
    RunBackup(run, drive).save()
    delete(run)
    RunBackup(run, drive).restore()
    RunBackup(run, drive).save()
    assert number(drive / "b") == 2


def test_a_backup_without_the_identity_of_its_run_is_still_used(places):
    run, drive = places
    write_run(run, "first")
    RunBackup(run, drive).save()
    contents = json.loads((drive / "a" / "contents.json").read_text())
    del contents["run"]
    (drive / "a" / "contents.json").write_text(json.dumps(contents))
    delete(run)
    assert RunBackup(run, drive).restore()
    RunBackup(run, drive).save()
    assert number(drive / "b") == 2


def test_an_existing_run_is_not_overwritten(places):
    run, drive = places
    write_run(run, "older")
    RunBackup(run, drive).save()
    write_run(run, "newer")
    assert not RunBackup(run, drive).restore()
    assert read_run(run)["last.safetensors"] == "last.safetensors newer"


def test_without_a_copy_nothing_is_restored(places):
    run, drive = places
    assert not RunBackup(run, drive).restore()
    assert not run.exists()


@pytest.mark.parametrize("damage", ["truncated", "altered", "incomplete", "missing"])
def test_the_older_copy_is_used_if_the_newer_one_is_damaged(places, damage):
    run, drive = places
    write_run(run, "first")
    RunBackup(run, drive).save()
    older = read_run(run)
    write_run(run, "second")
    RunBackup(run, drive).save()
    newest = max(drive.iterdir(), key=number)
    victim = newest / ("contents.json" if damage == "incomplete" else "last.safetensors")
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_text("" if damage != "altered" else "last.safetensors sEcond")
    delete(run)
    assert RunBackup(run, drive).restore()
    assert read_run(run) == older
    # A new copy of the restored run can be restored too.
    RunBackup(run, drive).save()
    delete(run)
    assert RunBackup(run, drive).restore()
    assert read_run(run) == older


def test_restoring_fails_if_no_copy_is_intact(places):
    run, drive = places
    write_run(run, "first")
    RunBackup(run, drive).save()
    (drive / "a" / "last.safetensors").write_text("")
    delete(run)
    with pytest.raises(InputError, match=r"no copy in .* is intact"):
        RunBackup(run, drive).restore()
    assert not (run / "last.safetensors").exists()


@pytest.mark.parametrize("content", ["", "null", "[" * 10_000, '{"number": 1, "files": {}}'])
@pytest.mark.parametrize("lost", [True, False])
def test_copies_without_valid_contents_are_not_overwritten(places, content, lost):
    run, drive = places
    for text in ("first", "second"):
        write_run(run, text)
        RunBackup(run, drive).save()
    copies = [read_run(drive / slot) for slot in "ab"]
    for slot in "ab":
        (drive / slot / "contents.json").write_text(content)
    if lost:
        delete(run)
    backup = RunBackup(run, drive)
    for action in (backup.restore, backup.save):
        with pytest.raises(InputError, match=r"no copy in .* is intact"):
            action()
    assert [read_run(drive / slot) for slot in "ab"] == copies


def test_a_slot_without_valid_contents_is_overwritten_last(places):
    run, drive = places
    write_run(run, "first")
    RunBackup(run, drive).save()
    (drive / "a" / "contents.json").write_text("")
    RunBackup(run, drive).save()
    assert number(drive / "b") == 1
    delete(run)
    (drive / "b" / "contents.json").unlink()
    (drive / "b" / "last.safetensors").unlink()
    with pytest.raises(InputError, match=r"no copy in .* is intact"):
        RunBackup(run, drive).restore()


def test_restoring_overwrites_no_file_of_another_run(places):
    run, drive = places
    write_run(run, "first")
    RunBackup(run, drive).save()
    (run / "last.safetensors").unlink()
    # Files of the same copy are replaced, as after a restoration that was killed.
    assert RunBackup(run, drive).restore()
    (run / "last.safetensors").unlink()
    (run / "best.safetensors").write_text("better")
    before = {path.name: path.read_text() for path in run.iterdir()}
    with pytest.raises(InputError, match=r"best\.safetensors, which is not that of the backup"):
        RunBackup(run, drive).restore()
    assert {path.name: path.read_text() for path in run.iterdir()} == before


def test_files_are_overwritten_in_place(places):
    run, drive = places
    write_run(run, "first")
    for _ in range(2):
        RunBackup(run, drive).save()
    before = {path: path.stat().st_ino for path in drive.rglob("*") if path.is_file()}
    write_run(run, "second")
    for _ in range(2):
        RunBackup(run, drive).save()
    assert before == {path: path.stat().st_ino for path in drive.rglob("*") if path.is_file()}


def test_a_folder_that_cannot_be_written_is_an_error(places):
    run, drive = places
    write_run(run, "first")
    drive.parent.mkdir()
    drive.write_text("a file")
    with pytest.raises(InputError, match=r"can't use .*: .* is not a folder"):
        RunBackup(run, drive).save()


def test_a_copy_is_due_after_the_interval(places):
    assert RunBackup(*places, minutes=0).is_due()
    assert not RunBackup(*places, minutes=1).is_due()


def test_save_if_due_copies_only_after_the_interval(places):
    run, drive = places
    write_run(run, "first")
    RunBackup(run, drive, minutes=1).save_if_due()
    assert not drive.exists()
    RunBackup(run, drive, minutes=0).save_if_due()
    assert number(drive / "a") == 1
    frequent = RunBackup(run, drive, minutes=1)
    frequent.save()
    frequent.save_if_due()
    assert number(drive / "b") == 2
    assert number(drive / "a") == 1
