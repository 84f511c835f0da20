"""Helpers for tests: a small configuration, model and recipe, and programs in other processes."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from sharnn import SHARNN, ModelConfig, Recipe

# Options of a model beyond the paper. Tests of promises about every model run with each of these.
OPTIONS = [
    {"shifted_keys": True},
    {"lstm_skip": 0.5},
    {"shifted_keys": True, "query_gain": 4.0, "lstm_skip": 0.5},
]
ALL_OPTIONS = OPTIONS[-1]  # for tests that would take long with each

# Environments in which libraries use other instructions and another number of threads.
OTHER_INSTRUCTIONS = [
    {
        "ATEN_CPU_CAPABILITY": "default",
        "OMP_NUM_THREADS": "2",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX2 FMA3",
    },
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "AVX", "OPENBLAS_CORETYPE": "Prescott"},
]


def run_with(settings: dict[str, str], program: str) -> str:
    """Runs a program that can import the tests, with settings of the environment.

    Returns:
        What it prints.
    """
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    # Warnings: numpy names the features that a processor does not have.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **settings, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def small_config(**changes) -> ModelConfig:
    values = {
        "vocab_size": 256,
        "dim": 16,
        "boom_dim": 40,
        "layers": 3,
        "attention_layers": (1,),
        "memory": 24,
        "dropout": 0.0,
    }
    return ModelConfig(**{**values, **changes})


def small_model(**changes) -> SHARNN:
    """Returns a model in evaluation mode, with noise added to its initial parameters."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model = SHARNN(small_config(**changes)).eval()
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return model


def favour(model, text) -> SHARNN:
    """Returns the model, whose predictions now prefer the bytes of a text."""
    counts = torch.tensor([text.count(symbol) for symbol in range(model.config.vocab_size)])
    with torch.no_grad():
        model.output_bias.copy_(2 * (counts + 0.01).log())
    return model


def coding_model(text: bytes, **changes) -> SHARNN:
    """Returns a small model that predicts a text well enough for it to be coded, not stored."""
    model = small_model(**changes)
    with torch.no_grad():
        counts = torch.bincount(torch.tensor(list(text)), minlength=256)
        model.output_bias.copy_((counts + 0.01).log())
        model.embedding.weight *= 0.5
    return model


def small_recipe(**changes) -> Recipe:
    values = {
        "steps": 12,
        "epochs": None,
        "batch_size": 3,
        "segment_length": 20,
        "optimizer": "adamw",
        "lr": 1e-3,
        "warmup_steps": 2,
        "log_every": 2,
        "eval_every": 5,
        "eval_bytes": 200,
        "checkpoint_every": 4,
        "eval_batch_size": None,
        "device": "cpu",
        "precision": "float32",
    }
    return Recipe(**{**values, **changes})


@contextlib.contextmanager
def unusual_torch_settings() -> Iterator[None]:
    """Context manager: other settings of torch in this process, which must be left unchanged."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_num_threads() == 2, "the settings are restored"
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
