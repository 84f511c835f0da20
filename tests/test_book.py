"""The book's sources: pairs agree, nothing is executed in git, one address of the repository."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import jupytext
import pytest
import yaml

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def plain(notebook):
    """What makes a notebook: its cells, their kinds, their tags."""
    metadata = ("tags", "mystnb")
    return [
        (cell.cell_type, cell.source, {k: cell.metadata[k] for k in metadata if k in cell.metadata})
        for cell in notebook.cells
    ]


def test_there_are_chapters():
    assert len(NOTEBOOKS) == 17


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_halves_of_a_chapter_agree(path):
    assert plain(jupytext.read(path)) == plain(jupytext.read(path.with_suffix(".md")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_tracked(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_opens_in_colab_and_installs_what_it_needs(path):
    owner = REPOSITORY.removeprefix("https://github.com/")
    markdown, code = jupytext.read(path).cells[:2]
    link = f"https://colab.research.google.com/github/{owner}/blob/main/book/{path.name}"
    assert f"({link})" in markdown.source
    assert f"git+{REPOSITORY}" in code.source
    assert 'find_spec("sharnn") is None' in code.source


def test_the_book_names_the_same_repository():
    assert CONFIG["repository"]["url"] == REPOSITORY
    for path in [*BOOK.glob("*.md"), *NOTEBOOKS]:
        for found in re.findall(r"github\.com/[\w-]+/[\w-]+", path.read_text()):
            assert found == REPOSITORY.removeprefix("https://"), path.name


def test_the_table_of_contents_is_complete():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert all(
        (BOOK / f"{name}.ipynb").exists() or (BOOK / f"{name}.md").exists() for name in listed
    )
    assert {path.stem for path in NOTEBOOKS} <= set(listed)
    landing = (BOOK / f"{toc['root']}.md").read_text()
    for path in NOTEBOOKS:
        assert f"]({path.stem})" in landing


def test_the_text_halves_are_kept_out_of_the_build():
    for path in NOTEBOOKS:
        name = path.with_suffix(".md").name
        assert any(fnmatch(name, pattern) for pattern in CONFIG["exclude_patterns"])


def test_the_build_is_strict():
    assert CONFIG["sphinx"]["config"]["nb_execution_raise_on_error"] is True
    assert "jupyter-book build book/ -W --keep-going" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_has_its_parts(path):
    text = path.with_suffix(".md").read_text()
    for part in ("**The question.**", "**Proof.**", "## Summary", "## Exercises", "# Answer"):
        assert part in text, part
    assert text.count("# Answer") >= 3
    assert text.count("alt:") == text.count("caption:") > 0
