"""CONTRIBUTING.md describes every module of the package."""

from module_table import modules, table, table_on_page


def test_the_table_of_modules_is_up_to_date():
    assert table_on_page() == table(), "run make modules"


def test_the_table_includes_the_wings():
    names = {path.as_posix() for path in modules()}
    assert {"sharnn/model.py", "sharnn/optim/muon.py", "sharnn/cli/__init__.py"} <= names
    assert "sharnn/analysis/explorer.py" in table_on_page()
