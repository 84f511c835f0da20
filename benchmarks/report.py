"""Formats the results as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float, unit: str) -> str:
    """Formats a number with three digits, a unit prefix if it is large, and its unit.

    Args:
        value: the number.
        unit: ``"B"``, ``"B/s"``, ``"FLOP/s"`` or ``"s"``.
    """
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    for size, prefix in PREFIXES:
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def compared_lines(title: str, result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of one comparison.

    Args:
        title: heading of the comparison.
        result: returned by `benchmarks.timing.compare`.

    Yields:
        The heading, then for each case its median, and its ratio to the baseline with the spread.
    """
    yield f"{title} (ratio to {result['baseline']}; {result['better']} is better)"
    for name, case in result["cases"].items():
        m, r = case["measured"], case["ratio"]
        line = f"  {name:44} {amount(m['median'], result['unit']):>16}"
        line += f"   {r['median']:6.2f} ({r['lowest']:.2f} to {r['highest']:.2f})"
        if "share_of_matrix_rate" in case:
            line += f"   {case['share_of_matrix_rate']['median']:.0%} of the matrix rate"
        yield line


def peak_lines(title: str, result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of one comparison of peak memory.

    Args:
        title: heading of the comparison.
        result: returned by `benchmarks.speed.compare_peaks`.
    """
    yield f"{title}, peak memory (ratio to {result['baseline']})"
    for name, case in result["cases"].items():
        yield f"  {name:44} {amount(case['bytes'], 'B'):>16}   {case['ratio']:6.2f}"


def curve_lines(title: str, result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of one curve: a heading, one for each length, and one for the fits.

    Args:
        title: heading of the curve.
        result: returned by `benchmarks.curves.curve`.
    """
    yield f"{title} (ratio to {result['lengths'][0]:,})"
    for i, length in enumerate(result["lengths"]):
        m, r = result["seconds"][i], result["ratio_to_shortest"][i]
        yield (
            f"  {length:>12,} {amount(m['median'], 's'):>10}"
            f"   {r['median']:6.2f} ({r['lowest']:.2f} to {r['highest']:.2f})"
            f"   {amount(result['peak_bytes'][i], 'B'):>12}"
        )
    yield (
        f"  residual of a straight line: time {result['time_line']['residual']:.1%}, "
        f"peak memory {result['peak_line']['residual']:.1%} of the mean"
    )


def quality_lines(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of the comparison after equal training time.

    Args:
        runs: returned by `benchmarks.quality.compete`, one for each run.
    """
    yield "test bits per byte after equal training time (less is better)"
    for run in runs:
        yield (
            f"  {run['preset']:6} {run['minutes']:g} min  {run['contender']:12} seed {run['seed']}"
            f"  {run['test_bits_per_byte']:.4f}  {run['parameters']:>10,} parameters"
            f"  {run['steps']:>6} steps  {amount(run['bytes_per_second'], 'B/s'):>14}"
        )


def lines(parts: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of all results.

    Args:
        parts: the parts of the results file.
    """
    if "hardware" in parts:
        yield from compared_lines("matrix products", parts["hardware"]["matrix_products"])
        yield from compared_lines("memory", parts["hardware"]["memory"])
    if "speed" in parts:
        speed = parts["speed"]
        for name, result in speed["training"].items():
            yield from compared_lines(f"training, {name}", result["speed"])
            yield from peak_lines(f"training, {name}", result["peak_memory"])
        for name, result in speed["scoring"].items():
            yield from compared_lines(f"scoring, {name}", result["speed"])
        for result in [*speed["writing"], *speed["writing_side_by_side"]]:
            title = f"writing, d = {result['model']['dim']}, {result['batch']} in parallel"
            yield from compared_lines(title, result["speed"])
            yield from peak_lines(title, result["peak_memory"])
        yield from compared_lines("import", speed["import"])
    if "curves" in parts:
        rows, file = parts["curves"]["over_memory"], parts["curves"]["over_file"]
        yield from curve_lines("training step, by rows of memory", rows["training_step"])
        yield from curve_lines("written byte, by rows of memory", rows["written_byte"])
        yield from curve_lines("training step, by bytes of the file", file["training_step"])
    if "quality" in parts:
        yield from quality_lines(parts["quality"]["runs"])
