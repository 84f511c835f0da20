"""The distributions: what they contain, and an editable install of a checkout named sharnn."""

import email
import os
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD = """
from setuptools import build_meta
build_meta.build_sdist("../dist")
build_meta.build_wheel("../dist")
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of all files that git tracks or would add, in a folder named sharnn."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("above") / "sharnn"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(checkout) -> tuple[set[str], Path]:
    """The names of the files in the checkout before the build, and the folder of distributions."""
    names = {
        path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if path.is_file()
    }
    subprocess.run([sys.executable, "-c", BUILD], cwd=checkout, capture_output=True, check=True)
    return names, checkout.parent / "dist"


def test_the_source_distribution_contains_every_tracked_file(built):
    names, folder = built
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert names - packed == set()


def test_the_wheel_contains_the_package_only(built):
    names, folder = built
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in names if name.startswith("sharnn/")}


def test_the_wheel_describes_itself(built):
    (path,) = built[1].glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# sharnn")
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    assert "constriction" not in str(
        [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    )


def test_a_checkout_named_sharnn_does_not_hide_the_package(checkout, tmp_path):
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (place,) = (environment / "lib").glob("python*/site-packages")
    (place / "others.pth").write_text("\n".join(site.getsitepackages()))
    python = environment / "bin" / "python"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--editable"]
    subprocess.run([python, "-m", "pip", "install", *options, checkout], check=True)
    result = subprocess.run(
        [python, "-c", "import sharnn; print(sharnn.SHARNN, sharnn.__file__)"],
        cwd=checkout.parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert str(checkout / "sharnn" / "__init__.py") in result.stdout
