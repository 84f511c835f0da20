"""The first cell of a notebook installs sharnn if it is missing, as on Colab, and keeps torch."""

import os
import shutil
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_first_cell_installs_the_package_and_keeps_torch(tmp_path):
    # A new environment that can import this one's packages, but not the sharnn installed in it.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    (place,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (place / "image.pth").write_text("\n".join(site.getsitepackages()))
    # A copy of the package replaces the repository.
    source = tmp_path / "clone"
    shutil.copytree(ROOT / "sharnn", source / "sharnn")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    cell = next(
        cell.source
        for cell in jupytext.read(ROOT / "book" / "01-five-minutes.ipynb").cells
        if cell.cell_type == "code"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = f"git+{project['urls']['Repository']}"
    assert address in cell
    script = tmp_path / "cell.py"
    script.write_text(
        f"{cell.replace(address, source.as_uri())}\n"
        "importlib.invalidate_caches()\n"
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
