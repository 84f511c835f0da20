"""The results file of the matched pair, and what it holds of each run: facts and curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sharnn
from benchmarks.pair.runs import CONTENDERS, SESSIONS, contender_of, read_run
from sharnn.analysis.curves import thin
from sharnn.checkpoint import LAST, SHIPPED
from sharnn.io.files import read_file, write_atomically
from sharnn.run import METRICS
from sharnn.run_checks import kept_metrics

DEFAULT = SHIPPED / "pair.json"  # beside the models
TEXTS = ("enwik8", "enwiki2016")
# Names in a line of metrics, and in a curve.
COLUMNS = {
    "step": "step",
    "bytes_read": "bytes_read",
    "seconds": "seconds",
    "cpu_seconds": "cpu_seconds",
    "valid_bits_per_byte": "enwik8",
    "enwiki2016": "enwiki2016",
}
EVERYTHING = 2**62  # a step after the last


def read_curve(folder: Path) -> dict[str, list[float]]:
    """Returns the curve of a run: a column for each number of `COLUMNS`, one entry per validation.

    Raises:
        sharnn.InputError: the run has no metrics.
    """
    lines, _ = kept_metrics(read_file(folder / METRICS), EVERYTHING, EVERYTHING)
    records = [json.loads(line) for line in lines]
    scored = [record for record in records if COLUMNS.keys() <= record.keys()]
    return {column: [record[name] for record in scored] for name, column in COLUMNS.items()}


def cut_curve(curve: dict[str, list[float]], first: int, last: int) -> dict[str, list[float]]:
    """Returns the points of a curve from one step to another.

    Example:
        >>> cut_curve({"step": [1, 5, 9], "bits": [4, 3, 2]}, 5, 9)
        {'step': [5, 9], 'bits': [3, 2]}
    """
    kept = [i for i, step in enumerate(curve["step"]) if first <= step <= last]
    return {name: [values[i] for i in kept] for name, values in curve.items()}


def describe_run(folder: Path) -> dict[str, Any]:
    """Returns the facts of a run, as values that JSON can represent."""
    header = read_run(folder)
    training, recipe = header["training"], header["recipe"]
    decays = recipe["schedule"] != "constant"
    decay_start = round(recipe["decay_from"] * recipe["steps"]) if decays else None
    sessions = [json.loads(line) for line in read_file(folder / SESSIONS).splitlines()]
    return {
        "contender": contender_of(folder),
        "steps": training["step"],
        "decay_start": decay_start,  # step; None for a trunk
        "finished": decays and training["step"] >= recipe["steps"],
        "bytes_read": training["bytes_read"],
        "seconds": round(training["seconds"]),
        "cpu_seconds": round(training["cpu_seconds"]),
        "skipped": training["skipped"],
        "precision": training["precision"],
        "seed": recipe["seed"],
        "parameters": sharnn.load(folder / LAST).parameter_count(),
        "model": header["config"],
        "recipe": recipe,
        "fingerprint": header["fingerprint"],
        "sessions": sessions,
    }


def find_pair(folders: list[Path]) -> dict[str, Path]:
    """Returns the folders of two runs by contender.

    Raises:
        sharnn.InputError: they are not one run of each contender, on the same data, with the same
            seed and recipe apart from their limits.
    """
    pair = {contender_of(folder): folder for folder in folders}
    if len(folders) != 2 or pair.keys() != set(CONTENDERS):
        raise sharnn.InputError(f"a pair is one run of each contender: {', '.join(CONTENDERS)}")
    headers = [read_run(pair[contender]) for contender in CONTENDERS]
    free = ("steps", "epochs", "minutes", "decay_from")
    for name, first in {**headers[0]["recipe"], **headers[0]["config"]}.items():
        second = {**headers[1]["recipe"], **headers[1]["config"]}.get(name)
        if name not in (*free, "attention_layers") and first != second:
            raise sharnn.InputError(f"the runs differ in {name}: {first} and {second}")
    if headers[0]["fingerprint"] != headers[1]["fingerprint"]:
        raise sharnn.InputError("the runs were trained on different data")
    return {contender: pair[contender] for contender in CONTENDERS}


def read_results(path: Path | None) -> dict[str, Any]:
    """Returns the content of the results file; that of an empty one if there is none.

    Raises:
        sharnn.InputError: the file can't be read, or has other content.
    """
    if path is None or not path.exists():
        return {"runs": {}, "scores": []}
    try:
        results = json.loads(read_file(path))
        results["runs"], results["scores"]
    except (ValueError, KeyError, TypeError) as error:
        raise sharnn.InputError(f"{path} can't be read as results of the pair") from error
    return dict(results)


def with_curves(path: Path | None, pair: dict[str, Path]) -> dict[str, Any]:
    """Adds the trunks of a pair to the results, with their curves, and returns all results.

    Args:
        path: the results file, which is updated; its scores stay. None to write nothing.
        pair: run folders by contender. Of a branch, the curve of its trunk is taken.
    """
    results = read_results(path)
    for contender, folder in pair.items():
        facts = describe_run(folder)
        end = EVERYTHING if facts["decay_start"] is None else facts["decay_start"]
        curve = cut_curve(read_curve(folder), 0, end)
        known = results["runs"].get(contender, {"fingerprint": None, "curve": {"step": []}})
        longer = max(known["curve"]["step"], default=-1) > max(curve["step"], default=-1)
        if (
            facts["decay_start"] is None
            or known["fingerprint"] != facts["fingerprint"]
            or not longer
        ):
            # Otherwise the known trunk was continued after this branch left it.
            results["runs"][contender] = {**facts, "curve": thin(curve)}
    if path is not None:
        _write(path, results)
    return results


def add_score(path: Path, score: dict[str, Any]) -> dict[str, Any]:
    """Adds a score to the results file and returns its content.

    Args:
        path: the results file.
        score: from `benchmarks.pair.scores.score_pair`; it replaces one of the same steps.
    """
    results = read_results(path)
    others = [old for old in results["scores"] if _steps(old) != _steps(score)]
    results["scores"] = sorted([*others, score], key=_steps)
    _write(path, results)
    return results


def add_baselines(path: Path, baselines: dict[str, Any]) -> None:
    """Adds the results of classical compressors to the results file.

    Args:
        path: the results file.
        baselines: from `benchmarks.pair.baselines.measure_baselines`.
    """
    _write(path, {**read_results(path), "baselines": baselines})


def _steps(score: dict[str, Any]) -> list[int]:
    return [score["runs"][contender]["steps"] for contender in CONTENDERS]


def _write(path: Path, results: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(results, indent=1) + "\n").encode())
