"""A run's files are checked before it is resumed: each damage is one clear error."""

import copy
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sharnn import InputError, ModelConfig, Recipe, resume, train
from sharnn.optim import make_optimizer, state_shapes
from sharnn.recipe import OPTIMIZERS
from sharnn.run_checks import HEADER, check_header, kept_metrics, read_recorded_data
from sharnn.trainer import Trainer
from small import small_config, small_model, small_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpus):
    """A run with carried state, a head and an optimiser with several tensors per parameter."""
    folder = tmp_path_factory.mktemp("run") / "r"
    train(small_config(), corpus, small_recipe(steps=3), folder, progress_bar=False)
    return folder


def read(folder):
    with safe_open(folder / "last.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["sharnn"])


def write(folder, tensors, header):
    header = {name: value for name, value in header.items() if name != "checksum"}
    save_file(tensors, folder / "last.safetensors", {"sharnn": json.dumps(header)})


ODD_VALUES = [None, "x", -2, 2**63, 2**70, [1], {"a": 1}, float("nan"), float("inf"), True, 1.5]


def paths(schema, before=()):
    """Returns the path of every value in a schema, inner ones and whole objects."""
    found = [before] if before else []
    if isinstance(schema, dict):
        for name, inner in schema.items():
            found += paths(inner, (*before, name))
    return found


def is_valid(path, old, value):
    """Returns True if one of the odd values is a possible one."""
    if type(value) is str and value != "missing":
        return type(old) is str
    if type(value) is bool:
        return type(old) is bool
    if path == ("recipe",):
        return type(value) is dict  # its settings are checked later
    if path == ("training", "scaler"):
        return type(value) is dict
    if value is None:
        return path == ("run", "best")
    return value == 1.5 and (type(old) is float)


def test_every_odd_value_in_the_header_is_reported(run):
    _, header = read(run)
    check_header(header)
    for path in paths(HEADER):
        for value in [*ODD_VALUES, "missing"]:
            damaged = copy.deepcopy(header)
            place = damaged
            for name in path[:-1]:
                place = place[name]
            old = place.pop(path[-1])
            if value != "missing":
                place[path[-1]] = value
            if is_valid(path, old, value):
                check_header(damaged)
                continue
            with pytest.raises(InputError, match=rf"^{'.'.join(path)}[ .]") as caught:
                check_header(damaged)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 200


def test_a_run_of_an_earlier_version_resumes_to_the_same_weights(run, tmp_path, corpus):
    now, older = (shutil.copytree(run, tmp_path / name) for name in ("now", "older"))
    tensors, header = read(older)
    for name in ("cpu_seconds", "bytes_read"):
        del header["training"][name]
    write(older, tensors, header)
    whole = resume(now, corpus, {"steps": 6}, progress_bar=False)
    older = resume(older, corpus, {"steps": 6}, progress_bar=False)
    assert older.reason == "done"
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, older.model.state_dict()[name])


def first(tensors, *parts):
    return next(name for name in sorted(tensors) if all(part in name for part in parts))


def cut(tensors, name):
    tensors[name] = tensors[name].flatten()[:1].clone()


DAMAGES = {
    "no optimiser": lambda t: [t.pop(name) for name in list(t) if ".optimizer." in name],
    "one optimiser tensor missing": lambda t: t.pop(first(t, "exp_avg_sq")),
    "optimiser tensor cut": lambda t: cut(t, first(t, "exp_avg_sq")),
    "optimiser tensor of integers": lambda t: t.update(
        {first(t, "exp_avg_sq"): t[first(t, "exp_avg_sq")].to(torch.int32)}
    ),
    "unknown optimiser tensor": lambda t: t.update({"training.optimizer.x.y": torch.ones(1)}),
    "unknown parameter": lambda t: t.update({"training.optimizer.900.exp_avg": torch.ones(1)}),
    "no random state": lambda t: t.pop("training.random.cpu"),
    "random state cut": lambda t: cut(t, "training.random.cpu"),
    "random state of zeros": lambda t: t["training.random.cpu"].zero_(),
    "random state of floats": lambda t: t.update(
        {"training.random.cpu": t["training.random.cpu"].float()}
    ),
    "no LSTM state": lambda t: t.pop("training.state.lstm.1.cell"),
    "LSTM state cut": lambda t: cut(t, "training.state.lstm.1.cell"),
    "no memory": lambda t: t.pop("training.state.memory.1"),
    "memory without batch": lambda t: cut(t, "training.state.memory.1"),
    "memory of another width": lambda t: t.update(
        {"training.state.memory.1": torch.zeros(3, 24, 5)}
    ),
    "memory too long": lambda t: t.update({"training.state.memory.1": torch.zeros(3, 25, 16)}),
    "memory of a block without head": lambda t: t.update(
        {"training.state.memory.0": torch.zeros(3, 24, 16)}
    ),
    "no training state at all": lambda t: [t.pop(name) for name in list(t) if "training." in name],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_training_tensors_are_reported(run, tmp_path, corpus, damage):
    folder = tmp_path / "r"
    shutil.copytree(run, folder)
    tensors, header = read(folder)
    DAMAGES[damage](tensors)
    write(folder, tensors, header)
    before = (folder / "last.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"last\.safetensors is damaged: ") as caught:
        resume(folder, corpus, {"steps": 5}, progress_bar=False)
    assert "\n" not in str(caught.value)
    assert (folder / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["recipe", "config"])
@pytest.mark.parametrize("value", [None, [], "x", {"colour": 1}, {"dim": "x", "lr": "x"}])
def test_damaged_settings_are_reported(run, tmp_path, corpus, name, value):
    folder = tmp_path / "r"
    shutil.copytree(run, folder)
    tensors, header = read(folder)
    write(folder, tensors, {**header, name: value})
    with pytest.raises(InputError, match="is damaged: ") as caught:
        resume(folder, corpus, {"steps": 5}, progress_bar=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_listed_optimiser_state_is_the_real_one(corpus, optimizer):
    trainer = Trainer(small_model(), corpus, small_recipe(optimizer=optimizer))
    trainer.step()
    state = trainer.optimizer.state_dict()["state"]
    expected = state_shapes(make_optimizer(small_model(), trainer.recipe))
    found = [{n: tuple(t.shape) for n, t in state[i].items()} for i in range(len(expected))]
    assert found == expected


CONFIGS = """null|5|[]|"x"|{|{}|{"data": null, "split": null}|{"data": [], "split": null}
{"data": [5], "split": null}|{"data": "text", "split": null}|{"data": ["a"], "split": 5}
{"data": ["a"], "split": [1, 2]}|{"data": ["a"], "split": [NaN, 1, 1]}
{"data": ["a"], "split": [1, 2, "x"]}|{"data": ["a"], "split": [-1, 1, 1]}""".replace("\n", "|")


@pytest.mark.parametrize("text", [*CONFIGS.split("|"), "[" * 100_000, "\xff", "9" * 5000])
def test_damaged_recorded_data_are_reported(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="give --data"):
        read_recorded_data(path)


def test_recorded_data_are_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"data": ["a", "b"], "split": [0.8, 0.1, 0.1]}')
    assert read_recorded_data(path) == (["a", "b"], (0.8, 0.1, 0.1))
    with pytest.raises(InputError, match="give --data"):
        read_recorded_data(tmp_path / "nowhere")


DAMAGED_LINES = [b"[1]", b"{}", b"5", b'{"step": "x"}', b'{"step": -1}', b"\xff", b'{"step": 2']
DAMAGED_LINES += [b'{"step": 1, "x": NaN}', b'{"step": true}', b"[" * 100_000]


@pytest.mark.parametrize("damaged", DAMAGED_LINES)
def test_a_damaged_line_of_metrics_is_the_only_one_dropped(damaged):
    good = [b'{"step": 1, "lr": 0.5}', b'{"step": 2}', b'{"step": 4}']
    for place in range(3):
        lines = [*good[:place], damaged, *good[place:]]
        kept, count = kept_metrics(b"\n".join(lines) + b"\n", step=3, validated=-1)
        assert kept == ['{"step": 1, "lr": 0.5}', '{"step": 2}']
        assert count == 1


def test_resuming_reports_a_damaged_line(run, tmp_path, corpus, capsys):
    folder = tmp_path / "r"
    shutil.copytree(run, folder)
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text("{]\n" + lines)
    resume(folder, corpus, {"steps": 4}, progress_bar=False)
    message = capsys.readouterr().err
    assert message == f"sharnn: {folder / 'metrics.jsonl'}: damaged lines were removed, 1 in all\n"
    assert (folder / "metrics.jsonl").read_text().startswith(lines)


def test_a_validation_that_no_checkpoint_includes_leaves_one_line(run, tmp_path, corpus):
    """As if the run had been killed between its last validation and its last checkpoint."""
    folder = tmp_path / "r"
    shutil.copytree(run, folder)
    metrics = (folder / "metrics.jsonl").read_text()
    assert "valid_bits_per_byte" in metrics
    tensors, header = read(folder)
    header["run"] |= {"validated": -1, "best": None}
    write(folder, tensors, header)
    resume(folder, corpus, progress_bar=False)
    assert (folder / "metrics.jsonl").read_text() == metrics


FIELDS = [
    (settings, name)
    for settings in (Recipe(), ModelConfig())
    for name in vars(settings)
    if name != "attention_layers"
]


@pytest.mark.parametrize(("settings", "name"), FIELDS, ids=lambda value: str(value)[:20])
def test_settings_of_odd_types_and_sizes_are_refused(settings, name):
    values = vars(settings)
    for value in [float("nan"), float("inf"), -float("inf"), [1], {}, b"x", 10**400, -(10**400)]:
        with pytest.raises(InputError, match=name) as caught:
            type(settings)(**{**values, name: value})
        assert len(str(caught.value)) < 200
    type(settings)(**values)
