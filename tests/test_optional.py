"""Without an optional package, one line names it and how to install it."""

import sys

import pytest
import torch

import sharnn
from sharnn import InputError
from sharnn.cli import main
from sharnn.optional import import_optional
from small import small_model


@pytest.fixture
def without_constriction(monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)


@pytest.mark.usefixtures("without_constriction")
def test_commands_report_a_missing_coder_in_one_line(tmp_path, capsys):
    sharnn.save(small_model(), tmp_path / "m.safetensors")
    (tmp_path / "text").write_bytes(b"some text " * 50)
    model, text, out = (str(tmp_path / name) for name in ("m.safetensors", "text", "out"))
    assert main(["compress", model, text, out]) == 2
    error = capsys.readouterr().err
    assert error == (
        "sharnn: constriction, needed for compression, is not installed: pip install constriction\n"
    )
    assert not (tmp_path / "out").exists()


def test_only_coded_archives_need_the_coder(monkeypatch):
    pytest.importorskip("constriction")
    model = small_model()
    likely = sharnn.generate(model, b"a", 900, temperature=0)
    stored, coded = sharnn.compress(model, b"x"), sharnn.compress(model, likely)
    assert len(coded) < 900
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert sharnn.decompress(model, stored) == b"x"
    with pytest.raises(InputError, match="pip install constriction"):
        sharnn.decompress(model, coded)


@pytest.mark.usefixtures("without_constriction")
def test_all_else_works_without_the_coder():
    assert len(sharnn.generate(small_model(), b"a", 3)) == 3
    assert sharnn.bits_per_byte(small_model(), b"some text") > 0


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
