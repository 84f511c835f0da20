"""The steps, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.correctness import correctness
from benchmarks.gpu.limits import limits
from benchmarks.gpu.memory import memory
from benchmarks.gpu.paper import paper
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.profile import profile
from benchmarks.gpu.training import training
from benchmarks.gpu.validation import validation
from benchmarks.gpu.writing import writing
from benchmarks.report import amount


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        run: does it and returns its result, as values that JSON can represent. If the result has
            ``"passed"``, it says whether what was checked is right.
        line: summarises the result in one line.
        minutes: the longest that it may take.
    """

    run: Callable[[Plan], dict[str, Any]]
    line: Callable[[dict[str, Any]], str]
    minutes: float


def limits_line(result: dict[str, Any]) -> str:
    """Returns the rates in one line."""
    rates = [f"{name} {amount(r['median'], 'FLOP/s')}" for name, r in result["products"].items()]
    return f"{result['software']['device']}: {', '.join(rates)}; copies {_rate(result['copy'])}"


def correctness_line(result: dict[str, Any]) -> str:
    """Returns how many comparisons passed, and those that did not."""
    checks = result["checks"]
    wrong = [f"{c['name']} differs by {c['difference']:.2g}" for c in checks if not c["passed"]]
    wrong += [f"{name}: {error}" for name, error in result["errors"].items()]
    passed = sum(check["passed"] for check in checks)
    return "; ".join([f"{passed} of {len(checks)} comparisons passed", *wrong])


def training_line(result: dict[str, Any]) -> str:
    """Returns how much faster the library is than the baseline, and the speed of each way."""
    ways = result["ways"]
    case = ways["cases"].get(result["library"]) if ways else None
    ratios = [f"{case['ratio']['median']:.2f} times {ways['baseline']}"] if case else []
    return "; ".join([*ratios, *_cases(ways), *_cases(result["batches"]), *_missing(result)])


def profile_line(result: dict[str, Any]) -> str:
    """Returns the time of a step and its largest parts."""
    parts = [f"{kind} {share:.0%}" for kind, share in list(result["kinds"].items())[:4]]
    floor = result["floor"]
    least = f", at least {_seconds(sum_of_floor(floor))}" if floor else ""
    return f"{_seconds(result['step']['median'])} a step{least}: {', '.join(parts)}"


def sum_of_floor(floor: dict[str, float]) -> float:
    """Returns the least seconds of a step: products and transfers, one after the other."""
    return floor["products"] + floor["transfers"]


def writing_line(result: dict[str, Any]) -> str:
    """Returns the speed of each way to write."""
    texts = result["texts"].items()
    parts = [f"{count} at a time: {', '.join(_cases(found))}" for count, found in texts]
    return "; ".join([*parts, *_missing(result)])


def paper_line(result: dict[str, Any]) -> str:
    """Returns what became of the sessions, and the projected time of the paper's run."""
    line = (
        f"killed at step {result['killed_at']}, resumed from {result['resumed_from']}, ended at "
        f"{result['steps']}; {amount(result['rate'], 'B/s')}"
    )
    if result["hours"] is None:
        return line
    return f"{line}, so 25 epochs of enwik8 take {result['hours']:.2f} hours without validations"


def validation_line(result: dict[str, Any]) -> str:
    """Returns the rates of scoring, and the projected time of the paper's validations."""
    bits, parts = result["bits"].values(), _cases(result["ways"])
    if bits:
        parts.append(f"bits per byte differ by {max(bits) - min(bits):.1g}")
    if result["hours"] is not None:
        parts.append(f"the paper's validations take {result['hours']:.2f} hours")
    return "; ".join([", ".join(parts), *_missing(result)])


def memory_line(result: dict[str, Any]) -> str:
    """Returns peak memory, measured and projected."""
    parts = [
        f"{batch} streams {amount(entry['measured'], 'B')} "
        f"({entry['measured'] / entry['total']:.2f} of the projection)"
        for batch, entry in result["batches"].items()
        if entry["measured"]
    ]
    return "; ".join([*parts, *_missing(result)])


def _cases(found: dict[str, Any] | None) -> list[str]:
    cases = found["cases"].items() if found else ()
    return [f"{name} {_rate(case['measured'])}" for name, case in cases]


def _missing(result: dict[str, Any]) -> Iterator[str]:
    return (f"{name}: {why}" for name, why in result["left_out"].items())


def _rate(found: dict[str, Any]) -> str:
    return amount(found["median"], "B/s")


def _seconds(value: float) -> str:
    return amount(value, "s")


STEPS = {
    "limits": Step(limits, limits_line, 3),
    "correctness": Step(correctness, correctness_line, 5),
    "training": Step(training, training_line, 8),
    "profile": Step(profile, profile_line, 3),
    "writing": Step(writing, writing_line, 3),
    "validation": Step(validation, validation_line, 3),
    "paper": Step(paper, paper_line, 12),
    "memory": Step(memory, memory_line, 3),
}
