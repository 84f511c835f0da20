"""The house is in order: pins, environments, imports that run one way."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
EXTRAS = PROJECT["project"]["optional-dependencies"]


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")


def test_the_top_level_is_what_it_should_be():
    for name in ("book", "sharnn", "data", "tests", "environment.yml", "_config.yml"):
        assert (ROOT / name).exists()


def test_continuous_integration_calls_make_test_and_nothing_else():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec make test"]


def test_the_lock_pins_every_line_and_names_no_host():
    lines = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    assert len(lines) > 100
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.\[\]-]+==[^ ;]+( ; .+)?", line), line
    assert "torch==2.13.0" in lines
    assert "jupyter-book==1.0.4.post1" in lines
    assert "://" not in LOCK


def test_the_lock_holds_all_that_the_package_names():
    locked = {name_of(line) for line in LOCK.splitlines() if line and line[0] != "#"}
    wanted = [*PROJECT["project"]["dependencies"], *(r for e in EXTRAS.values() for r in e)]
    assert {name_of(requirement) for requirement in wanted} <= locked


def test_the_packages_own_bounds_are_loose():
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", requirement), "Colab keeps its torch"


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


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports when it is imported."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sharnn"):
            found.add(node.module.partition(".")[2] or "__init__")
        if isinstance(node, ast.Import):
            found |= {
                alias.name.partition(".")[2] or "__init__"
                for alias in node.names
                if alias.name.split(".")[0] == "sharnn"
            }
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "sharnn").rglob("*.py")), ids=lambda p: p.stem)
def test_only_the_command_line_imports_the_command_line(path):
    if path.parent.name != "cli" and path.stem != "__main__":
        assert not any(name.startswith("cli") for name in imports(path))


def test_importing_the_library_is_light():
    """No pictures, no notebook, no downloader: these wait until they are asked for."""
    script = "import sys, sharnn; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert "torch" in loaded
    assert not loaded & {
        "matplotlib",
        "IPython",
        "pooch",
        "requests",
        "tensorboard",
        "onnx",
        "onnxruntime",
    }
    assert result.stderr == ""


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


def test_the_readme_names_commands_that_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", readme)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\]\(([^):#]+)\)", readme):
        assert (ROOT / path).exists(), path
