"""The book's sources: both halves of a chapter agree, no outputs in git, one repository URL."""

import json
import os
import re
import shutil
import subprocess
import sys
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


def content(notebook):
    """Returns type, source and tags of each cell of a notebook."""
    metadata = ("tags", "mystnb")
    return [
        (cell.cell_type, cell.source, {k: cell.metadata[k] for k in metadata if k in cell.metadata})
        for cell in notebook.cells
    ]


def test_chapters_are_numbered_without_gaps():
    assert NOTEBOOKS
    assert [path.stem[:3] for path in NOTEBOOKS] == [f"{i + 1:02}-" for i in range(len(NOTEBOOKS))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_halves_of_a_chapter_agree(path):
    assert content(jupytext.read(path)) == content(jupytext.read(path.with_suffix(".md")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs(path):
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
    assert code == jupytext.read(NOTEBOOKS[0]).cells[1], "tests/test_colab.py runs the first one"


def test_every_link_to_github_names_this_repository():
    assert CONFIG["repository"]["url"] == REPOSITORY
    for path in [*BOOK.glob("*.md"), *NOTEBOOKS]:
        for address in re.findall(r"github\.com/[\w-]+/[\w-]+", path.read_text()):
            assert address == REPOSITORY.removeprefix("https://"), path.name


def test_the_table_of_contents_lists_all_chapters_in_order():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert all(
        (BOOK / f"{name}.ipynb").exists() or (BOOK / f"{name}.md").exists() for name in listed
    )
    chapters = [path.stem for path in NOTEBOOKS]
    assert [name for name in listed if name[0].isdigit()] == chapters
    landing = (BOOK / f"{toc['root']}.md").read_text()
    for name in chapters:
        assert f"]({name}.ipynb)" in landing


def test_each_part_of_the_book_ends_with_a_project():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    parts = [[chapter["file"] for chapter in part["chapters"]] for part in toc["parts"]]
    for part in parts:
        if part[0][0].isdigit():
            assert "\n## Project" in (BOOK / f"{part[-1]}.md").read_text(), part[-1]


BIBLIOGRAPHY = re.findall(
    r"^  url = \{(.*)\},$", (BOOK / "references.bib").read_text(), re.MULTILINE
)
PAGES = sorted(BOOK.glob("*.md"))  # chapters and other pages


def links(path):
    """Returns text and address of each link in the Markdown of a page."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\[([^\[\]]*)\]\(([^()\s]+)\)", text)


def test_each_entry_of_the_bibliography_has_an_address():
    entries = re.findall(r"^@", (BOOK / "references.bib").read_text(), re.MULTILINE)
    assert len(BIBLIOGRAPHY) == len(set(BIBLIOGRAPHY)) == len(entries)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_citations_are_links_to_entries_of_the_bibliography(path):
    """Colab and GitHub show the roles of Sphinx as plain text."""
    assert "{cite" not in path.read_text()
    for text, address in links(path):
        is_paper = address.startswith(("https://arxiv.org/", "https://doi.org/"))
        if is_paper or re.search(r", (19|20)\d\d$| \((19|20)\d\d\)$", text):
            assert address in BIBLIOGRAPHY, text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_between_pages_name_a_file(path):
    """Colab, GitHub, JupyterLab and the built pages find a notebook under its file's name."""
    for text, address in links(path):
        name = address.partition("#")[0]
        if not name or "://" in name:
            continue
        assert name.endswith((".ipynb", ".md", ".svg", ".png")), text
        assert (BOOK / name).is_file(), address
        assert not (BOOK / name).with_suffix(".ipynb").exists() or name.endswith(".ipynb"), address


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_begins_with_the_time_it_takes_and_what_it_assumes(path):
    pattern = r"\n\nReading: (\d+) minutes\. Running: (.+) on a laptop\. You need: (.+)\.\n\n"
    (found,) = re.findall(pattern, jupytext.read(path).cells[0].source)
    assert 0.75 < int(found[0]) / reading_time(path) < 1.35


def reading_time(path):
    """Returns minutes: 130 words each; a word of open code is 0.6, an equation 40, a figure 100."""
    words = 0
    for cell in jupytext.read(path).cells:
        text, exercises, _ = cell.source.partition("## Exercises")
        if cell.cell_type == "markdown":
            words += len(re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL).split())
            words += 20 * text.count("$$")
            if exercises:
                break
            continue
        if not {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", [])):
            words += 0.6 * len(text.split())
        words += 100 * len(re.findall(r"\btable\(|caption|plt\.|panels\(|figure\(", text))
    return words / 130


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_that_only_draw_are_folded(path):
    for cell in jupytext.read(path).cells:
        if "## Exercises" in cell.source:
            break
        draws = re.match(r"\(?\w+(, \w+)*,?\)? = panels\(", cell.source)
        if cell.cell_type == "code" and draws and len(cell.source.splitlines()) > 3:
            assert "hide-input" in cell.metadata.get("tags", []), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_imports_and_checks_are_folded(path):
    """What stays open is what the chapter builds, so that no page becomes too long."""
    follows_check = False
    for i, cell in enumerate(jupytext.read(path).cells):
        folded = {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", []))
        is_long = len(cell.source.splitlines()) > 4
        if cell.cell_type == "code" and is_long and (i == 2 or follows_check):
            assert folded, cell.source
        follows_check = cell.cell_type == "markdown" and "**Check.**" in cell.source


def test_the_build_excludes_the_markdown_halves():
    for path in NOTEBOOKS:
        name = path.with_suffix(".md").name
        assert any(fnmatch(name, pattern) for pattern in CONFIG["exclude_patterns"])


def test_an_error_in_a_cell_fails_the_build():
    assert CONFIG["sphinx"]["config"]["nb_execution_raise_on_error"] is True


def shuffled(value):
    """Returns a JSON value with the keys of its objects in another order."""
    if isinstance(value, list):
        return [shuffled(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: shuffled(value[key]) for key in sorted(value, reverse=True)}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_sync_undoes_what_other_programs_change_in_a_notebook(tmp_path):
    source = next(path for path in NOTEBOOKS if "Knobs(" in path.read_text())
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "jupytext.toml", tmp_path)
    shutil.copy(source.with_suffix(".md"), tmp_path / "book")
    notebook = shuffled(json.loads(source.read_text()))
    notebook["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    notebook["metadata"]["language_info"] = {"name": "python", "version": "3.11.7"}
    ours = tmp_path / "book" / source.name
    ours.write_text(json.dumps(notebook, indent=2))
    os.utime(ours.with_suffix(".md"), (0, 0))  # the notebook is the newer half
    printed = subprocess.run(
        ["make", "--dry-run", "sync", f"NOTEBOOKS=book/{source.name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    commands = "".join(re.findall(r".*(?:jupytext|nbstripout) .*\n", printed))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, env=environment, check=True)
    assert ours.read_bytes() == source.read_bytes()
    assert ours.with_suffix(".md").read_bytes() == source.with_suffix(".md").read_bytes()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_book_treats_warnings_as_errors_and_draws_pictures():
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    printed = subprocess.run(
        ["make", "--dry-run", "book"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (build,) = re.findall(r"jupyter-book build (.*)", printed.stdout)
    assert {"-W", "--warningiserror"} & set(build.split())
    runs = re.findall(r".*(?:jcache project|jupyter-book build) .*", printed.stdout)
    assert len(runs) == 2
    assert all(" SHARNN_KNOBS=pictures " in run for run in runs), "both may run notebooks"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_book_removes_pages_of_removed_files(tmp_path):
    html = tmp_path / "_build" / "html"
    (html / "_static").mkdir(parents=True)
    kept = ["index.html", "03-lstm.html", "glossary.html", "genindex.html", "search.html"]
    kept.append("_static/page.html")
    (tmp_path / "book").mkdir()
    for name in ("index.md", "03-lstm.ipynb", "glossary.md"):
        (tmp_path / "book" / name).touch()
    for name in (*kept, "15-faster.html"):
        (html / name).touch()
    printed = subprocess.run(
        ["make", "--dry-run", "book"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.replace("\\\n", "")
    (command,) = re.findall(r"^find _build/html .*", printed, re.MULTILINE)
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    assert {str(p.relative_to(html)) for p in html.rglob("*.html")} == set(kept)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_has_the_common_sections(path):
    text = path.with_suffix(".md").read_text()
    for part in ("**The question.**", "## Summary", "## Exercises"):
        assert part in text, part
    assert "**Check.**" in text, "a comparison with the library"
    assert "**Proof" not in text, "a numeric test proves nothing"
    assert text.count("alt:") == text.count("caption:") > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_answers_are_prose_behind_a_button_and_are_checked(path):
    cells = jupytext.read(path).cells
    start = next(i for i, cell in enumerate(cells) if "## Exercises" in cell.source)
    end = next((i for i, c in enumerate(cells) if "## Project" in c.source), len(cells))
    cells = cells[start:end]
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = text.partition("## Project")[0]
    # With blank lines around it, an answer is Markdown everywhere.
    form = r"<details class=\"answer\">\n<summary>Show answer</summary>\n\n(.+?)\n\n</details>"
    answers = re.findall(form, text, re.DOTALL)
    assert len(answers) == text.count("<details") >= 3
    assert [answer[:5] for answer in answers] == [f"**{i + 1}.*" for i in range(len(answers))]
    code = [cell for cell in cells if cell.cell_type == "code"]
    checks = [cell for cell in code if "hide-cell" in cell.metadata.get("tags", [])]
    assert all(cell in checks for cell in code if "assert" in cell.source)
    numbers = [re.match(r"# Check of answer (\d+)\n", cell.source)[1] for cell in checks]
    assert set(map(int, numbers)) <= set(range(1, len(answers) + 1))
