"""Sentences that summarise the results of the steps, one for each section of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sharnn
from benchmarks.gpu.goal import RATE, SPEEDUP
from benchmarks.gpu.training import PLAIN
from benchmarks.gpu.validation import VALIDATION_BYTES, validations
from benchmarks.report import amount

Results = Mapping[str, dict[str, Any]]  # by step; a step that has not run or has failed is missing


def times_as_fast(result: dict[str, Any], ratio: dict[str, float]) -> str:
    """Formats a ratio and its spread; more than 1 is faster than the baseline.

    Args:
        result: what `benchmarks.gpu.training.compared` returned.
        ratio: of one of its cases.
    """
    values = [ratio[key] for key in ("median", "lowest", "highest")]
    if result["better"] == "less":  # seconds: the largest ratio is the slowest
        values = [1 / value for value in (values[0], values[2], values[1])]
    return "{:.2f} ({:.2f} to {:.2f})".format(*values)


def found_of_goal(found: Results) -> str | None:
    """Returns how fast a step could be if only the LSTMs took time; None if that is not known."""
    profile, training = found.get("profile"), found.get("training")
    if profile is None or training is None or not training["ways"]:
        return None
    plain = training["ways"]["cases"].get(PLAIN)
    lstm = profile["kinds"].get("LSTM", 0) * profile["device_seconds"]
    if plain is None or not lstm:
        return None
    most = training["step_bytes"] / lstm
    ratio = most / plain["measured"]["median"]
    text = (
        f"cuDNN's LSTM alone takes {amount(lstm, 's')} of a step of "
        f"{amount(profile['step']['median'], 's')}, and {PLAIN} calls it, too. Even if everything "
        f"else took no time, a step would read {most:,.0f} bytes a second, {ratio:.1f} times as "
        f"many as in {PLAIN}."
    )
    if most < RATE and ratio < SPEEDUP:
        streams = sharnn.Recipe.preset("paper").batch_size
        text += (
            f" So with this LSTM and the recipe's {streams} streams both goals are out of reach."
        )
    return text


def found_of_correctness(found: Results) -> str | None:
    """Returns how many comparisons passed; None if none was made."""
    checks = found.get("correctness", {"checks": []})["checks"]
    passed = sum(check["passed"] for check in checks)
    return f"{passed} of {len(checks)} comparisons passed." if checks else None


def found_of_training(found: Results) -> str | None:
    """Returns how fast the ways to compute a step are; None if nothing can be compared."""
    training = found.get("training")
    if training is None:
        return None
    parts, ways, batches = [], training["ways"], training["batches"]
    if ways and ways["baseline"] == PLAIN and training["library"] in ways["cases"]:
        ratio = ways["cases"][training["library"]]["ratio"]
        shown = ": no difference was shown" if ratio["lowest"] < 1 < ratio["highest"] else ""
        speed = times_as_fast(ways, ratio)
        parts.append(f"the library's step is {speed} times as fast as {PLAIN}{shown}.")
        if "compiled" in ways["cases"]:
            speed = times_as_fast(ways, ways["cases"]["compiled"]["ratio"])
            parts.append(
                "With everything but the LSTMs compiled, which the library does not do, it is "
                f"{speed} times as fast."
            )
    if batches and len(batches["cases"]) > 1:
        first, *_, last = batches["cases"]
        speed = times_as_fast(batches, batches["cases"][last]["ratio"])
        parts.append(f"With {last} it reads {speed} times as many bytes a second as with {first}.")
    return " ".join(parts) or None


def found_of_writing(result: dict[str, Any]) -> str | None:
    """Returns how fast the captured `Stepper` writes; None if that was not measured.

    Args:
        result: of one number of texts, what `benchmarks.gpu.training.compared` returned.
    """
    case = result["cases"].get("Stepper, captured")
    if case is None or result["baseline"] not in result["cases"]:
        return None
    speed = times_as_fast(result, case["ratio"])
    return f"captured, `Stepper` writes {speed} times as fast as `{result['baseline']}`."


def found_of_validation(found: Results) -> str | None:
    """Returns the time of the paper's validations; None if it is not known."""
    validation = found.get("validation")
    if validation is None or validation["hours"] is None:
        return None
    bits = validation["bits"].values()
    return (
        f"the {validations():.0f} validations of the paper's run, of "
        f"{VALIDATION_BYTES / 1e6:.0f} MB each, take {validation['hours']:.1f} hours. After three "
        f"steps of training, the two scores of the same weights differ by "
        f"{max(bits) - min(bits):.1g} bits per byte; a trained model's may differ more."
    )


def found_of_paper(found: Results) -> str | None:
    """Returns the time of the paper's run with its validations; None if it is not known."""
    hours = found.get("paper", {}).get("hours")
    validation_hours = found.get("validation", {}).get("hours")
    if hours is None or validation_hours is None:
        return None
    return (
        f"at this rate the paper's run takes {hours + validation_hours:.1f} hours on this card, "
        "validations included. Nobody has made the whole run yet."
    )


def found_of_memory(found: Results) -> str | None:
    """Returns how the measured memory compares with the projected one; None if not measured."""
    batches = found.get("memory", {"batches": {}})["batches"].values()
    ratios = [batch["measured"] / batch["total"] for batch in batches if batch["measured"]]
    if not ratios:
        return None
    text = f"a step needs {min(ratios):.2f} to {max(ratios):.2f} times the projected memory"
    return f"{text}, so the projection is too high." if max(ratios) < 1 else f"{text}."
