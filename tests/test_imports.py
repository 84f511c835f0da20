"""Imports run one way: core modules in order, then the subpackages, and last the command line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sharnn

PACKAGE = Path(sharnn.__file__).parent

# A core module may import those in earlier lines, and none in its own or later lines. `io`,
# `corpora` and `optim` are folders, but part of this order: other core modules need them.
CORE = """
errors
io optional
settings device corpora
config recipe distributed
layers
attention memory
model
weights
data
streams optim
evaluate checkpoint
run_checks
trainer
run
run_folder
training
plots
__init__
""".split("\n")
# Another subpackage may import the core modules, itself and these.
SUBPACKAGES = {
    "inference": set(),
    "exact": set(),
    "web": {"exact"},
    "notebook": {"web"},
    "analysis": {"web"},
    "compression": {"inference", "exact"},
    "interop": set(),
    "paper": set(),
    "cli": {"web", "inference", "analysis", "compression", "interop", "paper"},
}
ORDERED = ("io", "corpora", "optim")
LINE = {name: number for number, line in enumerate(CORE) for name in line.split()}
OPTIONAL = "constriction filelock IPython ipywidgets matplotlib onnx onnxruntime pooch tqdm".split()


def module_name(path: Path) -> str:
    """Returns ``optim.lamb`` for sharnn/optim/lamb.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "__init__"


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """Returns the modules of this package that a file imports, anywhere in it.

    Imports that only type checkers see are left out.
    """
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if (node.module or "").split(".")[0] == "sharnn":
                base = node.module.partition(".")[2]
                inner = {f"{base}.{alias.name}".strip(".") for alias in node.names}
                modules = inner & MODULES.keys()
                found.update(modules or {base or "__init__"})
        if isinstance(node, ast.Import):
            found.update(
                alias.name.partition(".")[2] or "__init__"
                for alias in node.names
                if alias.name.split(".")[0] == "sharnn"
            )
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def subpackage_of(name: str) -> str | None:
    first = name.split(".")[0]
    return first if first in (*SUBPACKAGES, *ORDERED) else None


def is_allowed(importer: str, imported: str) -> bool:
    if importer == "__main__":
        return imported == "cli"
    ours, theirs = (subpackage_of(name) or name for name in (importer, imported))
    if ours in LINE:
        return theirs == ours or (theirs in LINE and LINE[theirs] < LINE[ours])
    if theirs in LINE:
        return theirs not in ("__init__", "optim") or ours == "cli"
    return theirs in (ours, *SUBPACKAGES[ours])


def test_every_subpackage_and_every_core_module_is_listed():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == {*SUBPACKAGES, *ORDERED}
    core = {name for name in MODULES if subpackage_of(name) is None and name != "__main__"}
    assert core | set(ORDERED) == LINE.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_it_may(name):
    for imported in imports(MODULES[name]):
        assert is_allowed(name, imported), f"{name} imports {imported}"


def test_the_rule_notices_imports_in_folders_and_functions(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from sharnn import cli\n    import sharnn.run\n")
    assert imports(path) == {"cli", "run"}
    assert not is_allowed("optim.lamb", "cli")
    assert not is_allowed("inference.stepper", "analysis.trace")
    assert not is_allowed("model", "inference.stepper")
    assert not is_allowed("model", "trainer")
    assert not is_allowed("io.files", "settings")
    assert not is_allowed("io.files", "optim.lamb")
    assert is_allowed("compression.codec", "inference.stepper")


def test_no_modules_import_each_other():
    graph = {name: imports(path) & MODULES.keys() for name, path in MODULES.items()}
    done, open_ = set(), []

    def visit(name: str) -> None:
        assert name not in open_, f"cycle: {' -> '.join([*open_, name])}"
        if name not in done:
            open_.append(name)
            for imported in graph[name]:
                visit(imported)
            done.add(open_.pop())

    for name in graph:
        visit(name)


@pytest.mark.parametrize("name", [*SUBPACKAGES, *ORDERED])
def test_the_docstring_of_a_subpackage_names_its_imports(name):
    text = ast.get_docstring(ast.parse(MODULES[name].read_text()))
    assert text.count("\n") == 0
    assert "mport" in text


def test_no_module_or_folder_has_the_name_of_a_public_function():
    parts = {part for name in MODULES for part in name.split(".")}
    assert not parts & set(sharnn.__all__)


def test_every_public_name_exists_and_is_listed():
    for name in sharnn.__all__:
        assert getattr(sharnn, name).__module__.startswith("sharnn.")
        assert name in dir(sharnn)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sharnn.nothing


def run(script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_library_loads_core_modules_only():
    script = (
        "import sys, torch, numpy, safetensors.torch; before = set(sys.modules)\n"
        "import sharnn; print(*sorted(set(sys.modules) - before))"
    )
    loaded = run(script).split()
    ours = {name.partition(".")[2] or "__init__" for name in loaded if name.startswith("sharnn")}
    others = {name.split(".")[0] for name in loaded} - {"sharnn"} - sys.stdlib_module_names
    assert not others, "only torch, numpy and safetensors are needed"
    assert {subpackage_of(name) for name in ours} <= {None, *ORDERED}
    assert "plots" not in ours


def test_models_train_without_any_optional_package():
    blocker = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"  # import fails
    script = blocker + (
        "import sharnn, torch\n"
        "model = sharnn.SHARNN(sharnn.ModelConfig(dim=16, boom_dim=32, memory=20))\n"
        "model(torch.zeros(1, 5, dtype=torch.long))\n"
        "corpus = sharnn.load_corpus('sample', sample_size=10_000)\n"
        "recipe = sharnn.Recipe(steps=2, batch_size=2, segment_length=16, eval_bytes=50)\n"
        "sharnn.Trainer(model, corpus, recipe).step()\n"
        "result = sharnn.train(model.config, corpus, recipe, progress_bar=False)\n"
        "assert result.reason == 'done'\n"
        "print(len(sharnn.generate(model, b'a', 3)), 'bytes')\n"
        "from sharnn.cli import main\n"
        "assert main(['data', 'sample']) == 0\n"
    )
    assert "3 bytes" in run(script)
    script = blocker + "import constriction"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert result.returncode != 0, "the blocker blocks"
