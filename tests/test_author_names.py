"""Parity with numbers from a run of the author's code: model, gradients, optimiser, counts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sharnn import SHARNN, InputError, Lamb, ModelConfig, from_reference
from sharnn.interop.author_names import author_parameter_count

FOLDER = Path(__file__).parent / "reference"
SIZE = {"vocab_size": 64, "dim": 32, "boom_dim": 128, "layers": 4, "memory": 40, "dropout": 0.0}


@pytest.fixture(scope="module")
def single():
    with np.load(FOLDER / "golden_single.npz") as file:
        return {name: file[name] for name in file.files}


def author_parameters(golden):
    return {
        name.removeprefix("param/"): torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith("param/")
    }


def test_model_gives_the_authors_logits_losses_gradients_and_memory(single):
    model = SHARNN(ModelConfig(**SIZE, attention_layers=(2,)))
    model.load_state_dict(from_reference(author_parameters(single)), strict=True)
    state, checked = None, 0
    for segment in range(5):
        x, y, logits = (
            torch.from_numpy(single[f"seg{segment}/{name}"]).transpose(0, 1)
            for name in ("x", "y", "logits")
        )
        ours, state = model(x, state)
        torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)
        loss = F.cross_entropy(ours.flatten(0, 1), y.flatten())
        assert loss.item() == pytest.approx(float(single[f"seg{segment}/loss_nats"]), abs=1e-6)
        # his number of rows for each block; blocks without a head remember nothing
        assert state.memory_rows == single[f"seg{segment}/memlen"].max()
        if f"seg{segment}/grad/encoder.weight" not in single:
            continue
        checked += 1
        model.zero_grad()
        loss.backward()
        prefix = f"seg{segment}/grad/"
        theirs = from_reference(
            {
                name.removeprefix(prefix): torch.from_numpy(array)
                for name, array in single.items()
                if name.startswith(prefix)
            }
        )
        for name, parameter in model.named_parameters():
            scale = theirs[name].abs().max().item()
            torch.testing.assert_close(
                parameter.grad, theirs[name], rtol=0, atol=1e-5 * scale, msg=name
            )
    assert checked > 0
    assert state.memory_rows == SIZE["memory"], "the reference run did not fill the memory"


def test_a_collapsed_model_of_the_author_stays_collapsed(single):
    parameters = author_parameters(single)
    full = SHARNN(ModelConfig(**SIZE, attention_layers=(2,))).eval()
    full.load_state_dict(from_reference(parameters), strict=True)
    full.collapse()
    gate = full.blocks[2].head.value_gate.detach().reshape(1, 1, -1)
    theirs = {n: t for n, t in parameters.items() if ".vq." not in n} | {"blocks.2.attn.vs": gate}
    model = SHARNN(ModelConfig(**SIZE, attention_layers=(2,), collapsed=True)).eval()
    model.load_state_dict(from_reference(theirs), strict=True)
    x = torch.randint(64, (2, 30))
    torch.testing.assert_close(model(x)[0], full(x)[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.weight": None}, "'encoder.weight' is missing"),
        ({"blocks.0.wheel.weight": torch.zeros(1)}, "'blocks.0.wheel.weight'"),
        ({"elsewhere": torch.zeros(1)}, "'elsewhere'"),
        ({"decoder.weight": torch.zeros(64, 32)}, "ties them"),
    ],
)
def test_unknown_or_missing_names_are_refused(single, change, message):
    parameters = author_parameters(single) | change
    parameters = {name: tensor for name, tensor in parameters.items() if tensor is not None}
    with pytest.raises(InputError, match=message):
        from_reference(parameters)


@pytest.mark.parametrize("setting", ["paper", "decay", "no_min"])
def test_lamb_takes_the_authors_steps(setting):
    with np.load(FOLDER / "golden_lamb.npz") as file:
        golden = {name: torch.from_numpy(file[name]) for name in file.files if "meta" not in name}
        meta = json.loads(str(file[f"{setting}/meta"]))
    names = ("lr", "betas", "eps", "weight_decay", "min_trust")
    weights = [torch.nn.Parameter(golden[f"{setting}/p{i}/init"].clone()) for i in range(5)]
    optimizer = Lamb(weights, **{name: meta[name] for name in names})
    for step in range(6):
        for i, weight in enumerate(weights):
            weight.grad = golden[f"{setting}/p{i}/grad{step}"]
        optimizer.step()
        for i, weight in enumerate(weights):
            after = golden[f"{setting}/p{i}/after{step}"]
            torch.testing.assert_close(weight.data, after, rtol=1e-6, atol=1e-6)
            trust = golden[f"{setting}/p{i}/trust{step}"].item()
            assert optimizer.state[weight]["trust"].item() == pytest.approx(trust, rel=1e-5)


@pytest.mark.parametrize(
    ("heads", "collapsed", "count"),
    [
        ((), False, 50_640_077),
        ((2,), False, 53_798_093),
        ((0, 1, 2, 3), False, 63_272_141),
        ((2,), True, 51_698_893),
        ((0, 1, 2, 3), True, 54_875_341),
    ],
)
def test_parameter_counts_are_the_papers(heads, collapsed, count):
    config = ModelConfig(vocab_size=205, attention_layers=heads, collapsed=collapsed)
    assert author_parameter_count(config) == count
    # The author's model also creates parameters that it never uses: one LayerNorm per block, four
    # vectors per head, and the head's two LayerNorms in blocks without a head.
    with torch.device("meta"):
        ours = SHARNN(config).parameter_count()
    dim, blocks, head_count = config.dim, config.layers, len(heads)
    unused = blocks * 2 * dim + head_count * 4 * dim + (blocks - head_count) * 4 * dim
    assert count - ours == unused
