"""What only a GPU can show; skipped where there is none."""

import copy

import pytest
import torch

from sharnn import (
    SHARNN,
    InputError,
    ModelConfig,
    Stepper,
    bits_per_byte,
    generate,
    generate_batch,
    read,
    resume,
    survey,
    train,
)
from sharnn.analysis.ablation import top_keys
from sharnn.analysis.replay import Replay
from sharnn.trainer import Trainer
from small import small_config, small_model, small_recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_gpu_gives_the_cpus_numbers():
    model = small_model()
    x = torch.randint(256, (2, 60))
    expected, _ = model(x)
    model.cuda()
    state, pieces = None, []
    for piece in x.cuda().split(13, dim=1):
        logits, state = model(piece, state)
        pieces.append(logits)
    whole = small_model(memory_window="segment")(x)[0]
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(pieces[0].cpu(), expected[:, :13], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float32"])
def test_it_trains_evaluates_and_writes(corpus, precision):
    config = ModelConfig(dim=128, boom_dim=512, layers=2, attention_layers=(0,), memory=256)
    recipe = small_recipe(
        steps=60,
        batch_size=8,
        segment_length=64,
        device="cuda",
        precision=precision,
        optimizer="muon",
        lr=1e-2,
        eval_every=1000,
        checkpoint_every=1000,
    )
    before = bits_per_byte(SHARNN(config).cuda(), corpus.valid)
    result = train(config, corpus, recipe, progress=False)
    assert result.reason == "done"
    assert bits_per_byte(result.model, corpus.valid) < before - 2
    assert len(generate(result.model, b"The ", 20, seed=1)) == 20


def test_loss_scaling_skips_its_first_overflows_and_recovers(corpus):
    recipe = small_recipe(steps=30, device="cuda", precision="float16", batch_size=8)
    result = train(small_config(dim=128, boom_dim=128), corpus, recipe, progress=False)
    assert result.reason == "done"


def test_a_run_resumes_on_the_gpu(tmp_path, corpus):
    recipe = small_recipe(steps=4, device="cuda")
    train(small_config(dropout=0.1), corpus, recipe, tmp_path / "r", progress=False)
    result = resume(tmp_path / "r", corpus, {"steps": 8}, progress=False)
    assert result.metrics[-1]["step"] == 8


def test_a_run_of_the_gpu_goes_on_without_one(tmp_path, corpus):
    recipe = small_recipe(steps=4, device="cuda")
    train(small_config(), corpus, recipe, tmp_path / "r", progress=False)
    changes = {"steps": 6, "device": "cpu", "precision": "auto"}
    assert resume(tmp_path / "r", corpus, changes, progress=False).reason == "done"


def test_readings_removals_and_surveys_are_the_same_on_the_gpu():
    model, text = small_model(), bytes(range(32, 127)) * 3
    on_gpu = copy.deepcopy(model).cuda()
    here, there = read(model, text, watched=60), read(on_gpu, text, watched=60)
    torch.testing.assert_close(there.bits, here.bits, rtol=1e-3, atol=1e-3, equal_nan=True)
    torch.testing.assert_close(there.weights[1], here.weights[1], rtol=1e-3, atol=1e-3)
    removed = top_keys(here.weights[1], here.visible, 5)
    without = Replay(on_gpu, there).bits_without(1, removed)
    torch.testing.assert_close(
        without, Replay(model, here).bits_without(1, removed), rtol=1e-3, atol=1e-3
    )
    theirs, ours = survey(on_gpu, text).head(), survey(model, text).head()
    torch.testing.assert_close(theirs.by_distance, ours.by_distance, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        theirs.by_class.value, ours.by_class.value, equal_nan=True, rtol=1e-2, atol=1e-2
    )


def test_folded_steps_are_the_same_on_the_gpu():
    model = small_model()
    here, there = Stepper(model, 2), Stepper(copy.deepcopy(model).cuda(), 2)
    for x in torch.randint(256, (40, 2)):
        steps = there.step(x.cuda()).cpu()
        torch.testing.assert_close(steps, here.step(x), rtol=1e-3, atol=1e-3)
    texts = generate_batch(copy.deepcopy(model).cuda(), [b"a", b"The "], 20, seed=1)
    assert [len(text) for text in texts] == [20, 20]
    with pytest.raises(InputError, match="int8 weights are for the CPU"):
        Stepper(copy.deepcopy(model).cuda(), weights="int8")


@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "muon"])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_a_bad_step_is_called_off_on_the_device(corpus, optimizer, precision):
    recipe = small_recipe(device="cuda", precision=precision, optimizer=optimizer, batch_size=8)
    trainer = Trainer(SHARNN(small_config(dim=128, boom_dim=128)), corpus, recipe)
    while trainer.step().skipped:
        pass  # loss scaling looks for its scale
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    poison = trainer.model.output_bias.register_hook(lambda gradient: gradient * torch.nan)
    assert trainer.step().skipped
    poison.remove()
    for parameter, old in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    assert not trainer.step().skipped
