"""Copies of a run survive the loss of the run, of half a copy, and of everything but one copy."""

import json

import pytest

from sharnn import InputError
from sharnn.paper.backup import Keeper

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


def lose(run):
    for path in run.iterdir():
        path.unlink()
    run.rmdir()


def test_a_lost_run_comes_back_as_it_was_last_copied(places):
    run, drive = places
    for text in ("first", "second", "third"):
        write_run(run, text)
        Keeper(run, drive).save()
    expected = read_run(run)
    lose(run)
    assert Keeper(run, drive).restore()
    assert read_run(run) == expected
    assert sorted(path.name for path in run.iterdir()) == sorted(FILES)


def test_a_run_that_is_still_there_stays_as_it_is(places):
    run, drive = places
    write_run(run, "kept")
    Keeper(run, drive).save()
    write_run(run, "newer")
    assert not Keeper(run, drive).restore()
    assert read_run(run)["last.safetensors"] == "last.safetensors newer"


def test_where_nothing_was_kept_nothing_comes_back(places):
    run, drive = places
    assert not Keeper(run, drive).restore()
    assert not run.exists()


@pytest.mark.parametrize("harm", ["truncated", "altered", "unfinished", "missing"])
def test_a_damaged_copy_is_passed_over_for_the_older_one(places, harm):
    run, drive = places
    write_run(run, "first")
    Keeper(run, drive).save()
    older = read_run(run)
    write_run(run, "second")
    Keeper(run, drive).save()
    newest = max(
        drive.iterdir(), key=lambda s: json.loads((s / "contents.json").read_text())["number"]
    )
    victim = newest / ("contents.json" if harm == "unfinished" else "last.safetensors")
    if harm == "missing":
        victim.unlink()
    else:
        victim.write_text("" if harm != "altered" else "last.safetensors sEcond")
    lose(run)
    assert Keeper(run, drive).restore()
    assert read_run(run) == older
    # And the damaged one is the next to be overwritten.
    Keeper(run, drive).save()
    lose(run)
    assert Keeper(run, drive).restore()
    assert read_run(run) == older


def test_copies_that_are_all_damaged_are_said_to_be(places):
    run, drive = places
    write_run(run, "first")
    Keeper(run, drive).save()
    (drive / "a" / "last.safetensors").write_text("")
    lose(run)
    with pytest.raises(InputError, match=r"no copy in .* is whole"):
        Keeper(run, drive).restore()
    assert not (run / "last.safetensors").exists()


def test_files_are_overwritten_in_place_so_that_nothing_goes_to_a_bin(places):
    run, drive = places
    write_run(run, "first")
    for _ in range(2):
        Keeper(run, drive).save()
    before = {path: path.stat().st_ino for path in drive.rglob("*") if path.is_file()}
    write_run(run, "second")
    for _ in range(2):
        Keeper(run, drive).save()
    assert before == {path: path.stat().st_ino for path in drive.rglob("*") if path.is_file()}


def test_a_folder_that_cannot_be_written_is_told(places):
    run, drive = places
    write_run(run, "first")
    drive.parent.mkdir()
    drive.write_text("a file")
    with pytest.raises(InputError, match="can't keep a copy"):
        Keeper(run, drive).save()


def test_the_next_copy_is_due_when_the_last_is_old(places):
    assert Keeper(*places, minutes=0).due()
    assert not Keeper(*places, minutes=1).due()
