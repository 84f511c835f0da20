"""Model configurations and recipes: invalid values are errors, and JSON preserves the rest."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest

from sharnn import InputError, ModelConfig, Recipe
from sharnn.config import PRESETS
from small import OPTIONS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be a positive integer"),
        ({"dim": 1.5}, "dim must be a positive integer"),
        ({"layers": True}, "layers must be"),
        ({"boom_dim": 10, "dim": 11}, "boom_dim must be at least dim"),
        ({"attention_layers": (4,)}, "numbered 0 to 3"),
        ({"attention_layers": (-1,)}, "numbered 0 to 3"),
        ({"attention_layers": "2"}, "block numbers"),
        ({"attention_layers": 2}, "block numbers"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"memory": 0}, "memory"),
        ({"memory_window": "endless"}, "segment, sliding"),
        ({"shifted_keys": 1}, "shifted_keys must be true or false"),
        ({"query_gain": 0}, "query_gain must be a positive number or none, got 0"),
        ({"query_gain": -4.0}, "query_gain must be a positive number"),
        ({"query_gain": float("nan")}, "query_gain must be a positive number"),
        ({"query_gain": float("inf")}, "query_gain is too large"),
        ({"query_gain": "4"}, "query_gain must be a number or None"),
        ({"lstm_skip": float("nan")}, "lstm_skip must be a number or none, got nan"),
        ({"lstm_skip": float("-inf")}, "lstm_skip is too large"),
        ({"lstm_skip": True}, "lstm_skip must be a number or None"),
    ],
)
def test_an_invalid_configuration_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(**change)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_json_round_trip(name):
    config, recipe = ModelConfig.preset(name), Recipe.preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert Recipe.from_dict(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_survive_a_json_round_trip_and_are_off_in_the_papers_models(options):
    config = ModelConfig(**options)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    for name in ("paper", "paper-no-head", "paper-every-head"):
        preset = ModelConfig.preset(name)
        assert dataclasses.replace(preset, **options) != preset
        for option in options:
            assert getattr(preset, option) in (None, False)


def test_unknown_presets_and_settings_are_errors():
    for settings in (ModelConfig, Recipe):
        with pytest.raises(InputError, match="preset must be one of paper, "):
            settings.preset("huge")
        with pytest.raises(InputError, match="'colour'"):
            settings.from_dict({"colour": 1})


def test_attention_layers_are_sorted_without_duplicates():
    assert ModelConfig(attention_layers=(3, 1, 3)).attention_layers == (1, 3)


def test_the_paper_preset_has_the_papers_settings():
    recipe = Recipe.preset("paper")
    assert dataclasses.asdict(recipe) | {
        "optimizer": "lamb",
        "lr": 2e-3,
        "eps": 1e-6,
        "weight_decay": 0.0,
        "min_trust": 0.25,
        "warmup_steps": 800,
        "schedule": "constant",
        "epochs": 25,
        "batch_size": 16,
        "segment_length": 1024,
        "short_segments": 0.05,
        "segment_jitter": 5.0,
        "clip": 0.25,
    } == dataclasses.asdict(recipe)
    assert recipe.learning_rate(0, 0.0) == pytest.approx(2e-3 / 800)
    assert recipe.learning_rate(5000, 22.9 / 25) == 2e-3
    assert recipe.learning_rate(5000, 23.1 / 25) == 1e-3
    every_head = Recipe.preset("paper-every-head")
    assert every_head.batch_size == 8
    assert every_head.learning_rate(5000, 16.1 / 19) == 1e-3


def test_segment_lengths_vary_as_in_the_authors_code():
    recipe = Recipe.preset("paper")
    lengths = np.array([recipe.segment_length_at(step) for step in range(4000)])
    assert lengths.max() == 1024
    assert lengths.min() >= 5
    short = lengths < 700
    assert short.mean() == pytest.approx(0.05, abs=0.015)
    assert lengths[short].mean() == pytest.approx(512, abs=2)
    assert lengths[short].std() == pytest.approx(5, abs=1)
    assert (lengths[~short] == 1024).mean() == pytest.approx(0.5, abs=0.06)
    assert recipe.segment_length_at(7) == lengths[7], (
        "a step's length depends only on the seed and the step"
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedules_warm_up_and_decay_to_0(schedule):
    recipe = Recipe(steps=100, warmup_steps=10, schedule=schedule, lr=1.0)
    rates = [recipe.learning_rate(step, step / 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) > 0.9
    assert recipe.learning_rate(100, 1.0) == pytest.approx(0, abs=1e-12)
    assert all(before > after for before, after in pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": None}, "needs a limit"),
        ({"steps": 0}, "steps must be more than 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": 0}, "lr must be a positive"),
        ({"lr": float("nan")}, "lr must be a positive"),
        ({"optimizer": "nonesuch"}, "lamb, adamw, muon"),
        ({"schedule": "step"}, "constant, cosine"),
        ({"precision": "float8"}, "precision"),
        ({"device": "tpu"}, "device"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"beta2": 1.0}, "beta2"),
        ({"short_segments": 2}, "short_segments"),
    ],
)
def test_an_invalid_recipe_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        Recipe(**change)
