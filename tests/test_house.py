"""The repository is in order: pins, environments, workflows, messages, and the README."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import hypothesis
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from sharnn.data import CORPORA

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
EXTRAS = PROJECT["project"]["optional-dependencies"]


def test_continuous_integration_calls_make_test_and_nothing_else():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec make test"]


def test_the_lock_pins_every_line_and_names_no_host():
    lines = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.\[\]-]+==[^ ;]+( ; .+)?", line), line
    assert "://" not in LOCK


def test_the_lock_satisfies_all_requirements_of_the_package():
    pins = [Requirement(line) for line in LOCK.splitlines() if line and line[0] != "#"]
    locked = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    extras = [requirement for extra in EXTRAS.values() for requirement in extra]
    for requirement in map(Requirement, [*PROJECT["project"]["dependencies"], *extras]):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_packages_own_bounds_are_loose():
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", requirement), "Colab keeps its torch"


def test_the_book_needs_all_that_notebooks_need():
    parsed = {name: {Requirement(line).name for line in EXTRAS[name]} for name in EXTRAS}
    assert parsed["notebook"] <= parsed["book"]
    assert "constriction" not in str(PROJECT["project"]["dependencies"]), "it is optional"


def test_supported_versions_of_python_are_the_same_everywhere():
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    versions = [f"3.{minor}" for minor in range(30) if supported.contains(f"3.{minor}")]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert classifiers == versions
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert tests["jobs"]["test"]["strategy"]["matrix"]["python"] == versions
    assert f"Python {versions[0]} to {versions[-1]}" in (ROOT / "Makefile").read_text()
    assert f"Python {versions[0]} to {versions[-1]}" in (ROOT / "README.md").read_text()


def test_the_conda_environment_is_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["project"]["name"]
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['project']['requires-python']}", "pip"]
    constraint, package = pip["pip"]
    assert constraint == "-c requirements.lock"
    extras = re.fullmatch(r"-e \.\[(.+)\]", package)[1].split(",")
    assert set(extras) == {"book", "test"}
    assert set(extras) <= set(EXTRAS)


def tracked() -> list[Path]:
    result = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in result.stdout.split("\0") if name]


def test_no_large_file_is_tracked():
    for path in tracked():
        limit = 16e6 if path.parent.name == "pretrained" else 2 * 2**20
        assert not path.exists() or path.stat().st_size < limit, path


def test_no_corpus_is_tracked_or_can_be_added_by_accident():
    files = [f"data/{file}" for corpus in CORPORA.values() for file in corpus.files]
    assert len(files) == 4
    assert [path.name for path in tracked() if path.parent == ROOT / "data"] == ["README.md"]
    ignored = subprocess.run(
        ["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ignored.stdout.split() == files


def test_make_setup_fetches_text_once_and_does_not_fail_without_it(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "sharnn"
    command.write_text('#!/bin/sh\necho a corpus\necho "$@: no index" >&2\nexit 2\n')
    command.chmod(0o755)
    (tmp_path / ".locked").touch()
    (tmp_path / ".ready").touch()
    setup = ["make", f"VENV={os.path.relpath(tmp_path, ROOT)}", "setup"]
    shown = [
        subprocess.run(setup, cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [result.stderr for result in shown] == ["data enwiki2016: no index\n", ""]
    assert "a corpus" not in shown[0].stdout


def test_a_profile_applies_to_all_properties():
    for path in (ROOT / "tests").glob("test_*.py"):
        assert not re.search(r"^ *@settings", path.read_text(), re.MULTILINE), path
    if "HYPOTHESIS_PROFILE" not in os.environ:
        assert hypothesis.settings().derandomize, "the suite must not fail by chance"


def test_the_readme_names_commands_that_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", readme)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\]\(([^):#]+)\)", readme):
        assert (ROOT / path).exists(), path


# The first major versions that run on Node 24.
ACTIONS = {
    "actions/cache": 5,
    "actions/checkout": 6,
    "actions/deploy-pages": 5,
    "actions/setup-python": 6,
    "actions/upload-pages-artifact": 5,
}
WORKFLOWS = sorted((ROOT / ".github").rglob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_workflows_use_current_actions(path):
    used = re.findall(r"uses: ([\w/-]+)@v(\d+)", path.read_text())
    assert used
    for name, version in used:
        assert int(version) >= ACTIONS[name], name


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")))
def test_only_the_job_that_deploys_may_write(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        deploys = any("deploy-pages" in step.get("uses", "") for step in job["steps"])
        assert job.get("permissions", {}) == (
            {"pages": "write", "id-token": "write"} if deploys else {}
        )


def test_a_failed_book_does_not_hide_other_results_of_the_week():
    weekly = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text())
    steps = weekly["jobs"]["newest"]["steps"]
    later = [step for step in steps if step.get("run", "").startswith(("jupyter-book", "pytest"))]
    assert len(later) == 3
    assert all("!cancelled()" in step["if"] for step in later)
    oldest = weekly["jobs"]["oldest"]["steps"]
    assert any("--resolution lowest-direct" in step.get("run", "") for step in oldest)


def test_no_text_installs_the_package_by_a_name_that_is_not_registered():
    for path in tracked():
        if path.suffix not in (".py", ".md", ".ipynb", ".toml", ".yml", ".js", ".html", ".txt"):
            continue
        if not path.exists():
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r"pip install .*sharnn\b", line) and path != Path(__file__):
                assert "git+https://" in line, f"{path}: {line}"
