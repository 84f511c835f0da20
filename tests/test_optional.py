"""Without an optional package, one line names it and how to install it."""

import sys

import pytest
import torch

import format1_writer
import sharnn
from sharnn import InputError
from sharnn.cli import main
from sharnn.optional import import_optional
from small import small_model


@pytest.fixture
def without_constriction(monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)


def test_only_coded_archives_of_format_1_need_its_coder(monkeypatch, tmp_path, capsys):
    pytest.importorskip("constriction")
    model = small_model()
    likely = sharnn.generate(model, b"a", 900, temperature=0)
    stored, coded = format1_writer.compress(model, b"x"), format1_writer.compress(model, likely)
    assert len(coded) < 900
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert sharnn.decompress(model, stored) == b"x"
    sharnn.save(model, tmp_path / "m.safetensors")
    (tmp_path / "coded").write_bytes(coded)
    model_path, path, out = (str(tmp_path / name) for name in ("m.safetensors", "coded", "out"))
    assert main(["decompress", model_path, path, out]) == 2
    assert capsys.readouterr().err == (
        f"sharnn: {path}: constriction, needed for archives of format 1, is not installed: "
        "pip install constriction\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_constriction")
def test_all_else_works_without_the_coder():
    assert len(sharnn.generate(small_model(), b"a", 3)) == 3
    assert sharnn.bits_per_byte(small_model(), b"some text") > 0
    assert sharnn.decompress(small_model(), sharnn.compress(small_model(), b"text")) == b"text"


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("anywidget", lambda: sharnn.LiveExplorer(None)),
        ("matplotlib", lambda: __import__("sharnn.plots").plots.panels()),
        ("onnx", lambda: sharnn.export(small_model(), "model.onnx")),
    ],
)
def test_a_missing_package_is_named(monkeypatch, tmp_path, package, use):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"{package}, needed for .*pip install {package}"):
        use()


def test_a_broken_package_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("import nothing_of_the_kind")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"broken_package is installed but broken .*nothing_of"):
        import_optional("broken_package", "tests")
    assert import_optional("torch.nn", "tests") is torch.nn
