"""The table of modules in CONTRIBUTING.md, generated from the first line of each docstring.

``python -m tests.module_table`` prints the table; with ``--write`` it updates CONTRIBUTING.md.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- modules -->", "<!-- /modules -->"


def modules() -> list[Path]:
    """Returns every module of the package, the core modules first, relative to the repository."""
    package = ROOT / "sharnn"
    core = sorted(package.glob("*.py"))
    others = sorted(path for path in package.rglob("*.py") if path.parent != package)
    return [path.relative_to(ROOT) for path in core + others]


def first_line(path: Path) -> str:
    """Returns the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text()))
    if docstring is None:
        raise ValueError(f"{path} has no docstring")
    return docstring.splitlines()[0].replace("``", "`").replace("|", r"\|")


def table() -> str:
    """Returns the table in Markdown, with a line for each module."""
    lines = ["| module | contents |", "|---|---|"]
    for path in modules():
        name = f"`{path.as_posix()}`"
        if path.name == "__init__.py":
            name = f"**`{path.parent.as_posix()}/`**"
        lines.append(f"| {name} | {first_line(path)} |")
    return "\n".join(lines) + "\n"


def table_on_page() -> str:
    """Returns the table that CONTRIBUTING.md contains."""
    return PAGE.read_text().split(START + "\n")[1].split(END)[0]


def write() -> None:
    """Replaces the table in CONTRIBUTING.md with the current one."""
    text = PAGE.read_text()
    before, after = text.split(START + "\n")[0], text.split(END)[1]
    PAGE.write_text(f"{before}{START}\n{table()}{END}{after}")


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write()
    else:
        print(table(), end="")
