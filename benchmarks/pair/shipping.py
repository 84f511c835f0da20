"""The pair as it ships with the package: smaller files, with the weights that are scored."""

from __future__ import annotations

from pathlib import Path

import sharnn
from sharnn.checkpoint import LAST, SHIPPED, as_stored

NAMES = {"head": "wiki-small", "no-head": "wiki-small-no-head"}
STORAGE = "float16"


def load_final(folder: Path) -> sharnn.SHARNN:
    """Returns the last weights of a run as they ship: float16, the value gate collapsed.

    Args:
        folder: the run folder.
    """
    model = sharnn.load(folder / LAST)
    if model.config.attention_layers:
        model.collapse()
    return as_stored(model, STORAGE)


def ship(pair: dict[str, Path], folder: Path = SHIPPED) -> list[Path]:
    """Writes the files of both models, and returns their paths.

    Args:
        pair: run folders by contender.
        folder: the folder of the files.
    """
    paths = []
    for contender, run in pair.items():
        path = folder / f"{NAMES[contender]}.safetensors"
        sharnn.save(load_final(run), path, storage=STORAGE)
        paths.append(path)
    return paths
