"""Notebooks on Colab: the first cell changes no package of its image, and chapters run with it."""

import io
import json
import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import ipywidgets
import jupytext
import nbformat
import pytest
import torch
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sharnn import LiveExplorer, explore
from sharnn.cli import main
from small import small_model

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS = f"git+{PROJECT['urls']['Repository']}"
LINES = (ROOT / "tests" / "reference" / "colab-packages.txt").read_text().splitlines()
IMAGE = {
    canonicalize_name(name): version
    for name, version in (line.split("==") for line in LINES if not line.startswith("#"))
}
NEW = {"sharnn", "jedi"}  # all that an installation may add to the image
NOT_CHANGED = ("ipython", "ipykernel", "ipywidgets", "jupyter_client", "traitlets", "numpy")


def first_cell() -> str:
    cells = jupytext.read(ROOT / "book" / "01-five-minutes.ipynb").cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def copy_package(folder: Path) -> Path:
    """Copies what an installation needs of the repository to a folder."""
    shutil.copytree(
        ROOT / "sharnn", folder / "sharnn", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def make_environment(folder: Path, *paths: str | Path) -> tuple[Path, Path]:
    """Creates an environment without pip; returns its Python and its folder of packages.

    Args:
        folder: the environment.
        paths: folders behind its own on ``sys.path``.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (place,) = (folder / "lib").glob("python*/site-packages")
    (place / "image.pth").write_text("\n".join(map(str, paths)))
    return folder / "bin" / "python", place


def pip(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs this environment's pip for another Python."""
    command = [sys.executable, "-m", "pip", "--python", python, "install", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def _index(tmp_path_factory):
    """Skips tests of new installations if there is no package index."""
    target = tmp_path_factory.mktemp("download")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", target, "jedi"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a package index")


# The image's packages


def test_the_bounds_of_the_notebook_extra_fit_the_image():
    def unmet(requirements: list[str]) -> set[str]:
        parsed = [Requirement(line) for line in requirements]
        return {
            requirement.name
            for requirement in parsed
            if not requirement.specifier.contains(
                IMAGE.get(canonicalize_name(requirement.name), "0"), prereleases=True
            )
        }

    extras = PROJECT["optional-dependencies"]
    assert unmet(PROJECT["dependencies"] + extras["notebook"]) <= NEW
    assert {"ipykernel", "ipywidgets"} <= unmet(extras["book"]), "what the test must notice"


@pytest.mark.slow
@pytest.mark.usefixtures("_index")
def test_pip_changes_no_package_of_the_image(tmp_path):
    python, place = make_environment(tmp_path / "env")
    for name, version in IMAGE.items():
        stub = place / f"{name.replace('-', '_')}-{version}.dist-info"
        stub.mkdir()
        (stub / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (stub / "INSTALLER").write_text("stub\n")
        (stub / "RECORD").write_text("")
    report = tmp_path / "report.json"
    (package,) = re.findall(r'"(sharnn\[.+\] @ )', first_cell())
    source = copy_package(tmp_path / "clone").as_uri()
    result = pip(python, "--quiet", "--dry-run", "--report", report, package + source)
    assert result.returncode == 0, result.stderr
    installed = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    names = {canonicalize_name(package["name"]) for package in installed}
    assert "sharnn" in names
    assert not names & IMAGE.keys(), "pip would change packages of the image"
    assert names <= NEW


# The first cell


@pytest.mark.slow
def test_the_first_cell_installs_the_package_and_keeps_torch(tmp_path):
    # An environment that can import this one's packages, but not the sharnn installed in it.
    python, place = make_environment(tmp_path / "env", *site.getsitepackages())
    source = copy_package(tmp_path / "source").as_uri()  # instead of the repository
    script = tmp_path / "cell.py"
    script.write_text(
        f"{first_cell().replace(ADDRESS, source)}\n"
        "import sharnn, torch\n"
        "print(sharnn.__file__, torch.__file__, sep='\\n')\n"
    )
    # Without an index, pip fails if the cell needs more than the package.
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    result = subprocess.run(
        [python, script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    ours, theirs = result.stdout.split()[-2:]
    assert Path(ours).is_relative_to(place)
    assert theirs == torch.__file__


def run_first_cell(folder: Path, pip_code: str = "") -> tuple[str | None, str]:
    """Runs the first cell in a folder, without any packages and with a pip that installs nothing.

    Args:
        folder: the working folder.
        pip_code: what this pip does in addition.

    Returns:
        The package that pip got, or None if it was not called; and standard error.
    """
    record = "import sys\nopen('asked', 'w').write(sys.argv[-1])\n"
    (folder / "pip.py").write_text(record + pip_code)
    (folder / "cell.py").write_text(first_cell())
    result = subprocess.run(
        [sys.executable, "-S", "cell.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    asked = folder / "asked"
    assert (result.returncode == 0) == (not pip_code), result.stderr
    return (asked.read_text() if asked.exists() else None), result.stderr


def make_clone(folder: Path) -> Path:
    (folder / "sharnn").mkdir(parents=True)
    (folder / "sharnn" / "__init__.py").write_text("")
    return folder


def test_without_a_clone_the_first_cell_installs_from_the_repository(tmp_path):
    assert run_first_cell(tmp_path)[0] == f"sharnn[notebook] @ {ADDRESS}"


def test_a_clone_next_to_the_notebook_is_installed(tmp_path):
    clone = make_clone(tmp_path / "sharnn")
    assert run_first_cell(tmp_path)[0] == f"sharnn[notebook] @ {clone.as_uri()}"


def test_a_clone_that_contains_the_notebook_is_installed(tmp_path):
    clone = make_clone(tmp_path / "anything")
    (clone / "book").mkdir()
    assert run_first_cell(clone / "book")[0] == f"sharnn[notebook] @ {clone.as_uri()}"


def test_a_folder_named_sharnn_is_not_an_installation(tmp_path):
    (tmp_path / "sharnn").mkdir()
    assert run_first_cell(tmp_path)[0] == f"sharnn[notebook] @ {ADDRESS}"


def test_nothing_is_installed_if_the_package_can_be_imported(tmp_path):
    make_clone(tmp_path)
    assert run_first_cell(tmp_path)[0] is None


def test_the_first_cell_says_what_to_do_without_a_connection(tmp_path):
    printed = run_first_cell(tmp_path, "sys.exit('git: could not resolve host')")[1]
    assert "git: could not resolve host" in printed
    assert f"could not be installed from {ADDRESS}" in printed
    assert "as the folder sharnn next to this notebook" in printed.splitlines()[-1]


# Colab's kernel


@pytest.mark.usefixtures("_data_folder")
def test_commands_run_without_a_binary_standard_output(monkeypatch, tmp_path, capsys):
    (tmp_path / "text").write_bytes(b"some text")
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # a notebook's has no buffer either
    assert main(["generate", "wiki-small", "--prompt", "The ", "--length", "9", "--seed", "1"]) == 0
    assert sys.stdout.getvalue().startswith("The ")
    assert main(["compress", "wiki-small", str(tmp_path / "text"), "-"]) == 2
    assert "name a file" in capsys.readouterr().err


def test_the_live_explorer_enables_colabs_manager_of_widgets(monkeypatch):
    enabled = []
    output = types.ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: enabled.append(True)
    output._widgets = types.SimpleNamespace(_installed_url="https://manager")
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    _, metadata = LiveExplorer(explore(small_model(), b"text " * 9, targets=9))._repr_mimebundle_()
    assert enabled
    view = metadata["application/vnd.jupyter.widget-view+json"]
    assert view["colab"]["custom_widget_manager"]["url"] == "https://manager"


@pytest.fixture(scope="module")
def kernel(_index, tmp_path_factory):
    """A folder for JUPYTER_PATH with a kernel that has Colab's versions of what notebooks need."""
    if sys.version_info >= (3, 14):
        pytest.skip("numpy 2.1 has no wheel for Python 3.14")
    folder = tmp_path_factory.mktemp("colab")
    python, _ = make_environment(folder / "env", *site.getsitepackages(), ROOT)
    result = pip(python, *(f"{name}=={IMAGE[canonicalize_name(name)]}" for name in NOT_CHANGED))
    assert result.returncode == 0, result.stderr
    spec = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Colab",
        "language": "python",
    }
    (folder / "kernels" / "colab").mkdir(parents=True)
    (folder / "kernels" / "colab" / "kernel.json").write_text(json.dumps(spec))
    return folder


STRICT = """import warnings, IPython, ipywidgets
assert (IPython.__version__, ipywidgets.__version__) == {versions}
warnings.filterwarnings("error", category=DeprecationWarning, module="__main__")"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", ["01", "06"])
def test_a_chapter_runs_with_colabs_versions(kernel, monkeypatch, number):
    monkeypatch.setenv("JUPYTER_PATH", str(kernel))
    monkeypatch.setenv("SHARNN_SIZE", "small")
    (path,) = (ROOT / "book").glob(f"{number}-*.ipynb")
    notebook = jupytext.read(path)
    versions = IMAGE["ipython"], IMAGE["ipywidgets"]
    assert ipywidgets.__version__ != versions[1], "otherwise nothing new is tested"
    notebook.cells[0] = nbformat.v4.new_code_cell(STRICT.format(versions=versions))
    client = NotebookClient(
        notebook, timeout=600, kernel_name="colab", resources={"metadata": {"path": path.parent}}
    )
    client.execute()
    shown = [
        output
        for cell in notebook.cells
        if "Knobs(" in cell.source and cell.cell_type == "code"
        for output in cell.outputs
    ]
    views = [output.data for output in shown if output.output_type == "execute_result"]
    assert all("application/vnd.jupyter.widget-view+json" in view for view in views)
    assert all("image/png" in view for view in views)
    assert bool(views) == (number == "06"), "chapter 6 has sliders"
