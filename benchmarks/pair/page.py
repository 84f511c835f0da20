"""The results of the matched pair for readers: sentences for any outcome, and a figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.pair.records import TEXTS
from benchmarks.pair.scores import from_json
from sharnn.analysis.comparison import describe_difference
from sharnn.analysis.curves import SCALES, curves_figure, describe_lead, find_lead

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD, NO_HEAD = "the model with a head", "the one without"


def curve_sentences(results: dict[str, Any]) -> Iterator[str]:
    """Yields a sentence for each text and scale: from when on the head pays, and by how much.

    Args:
        results: the content of the results file.
    """
    head, other = (results["runs"][name]["curve"] for name in ("head", "no-head"))
    for text in TEXTS:
        for column in SCALES:
            lead = find_lead(head, other, column, text)
            yield f"{text}, validation: {describe_lead(lead, column, HEAD, NO_HEAD)}"


def score_sentences(score: dict[str, Any]) -> Iterator[str]:
    """Yields a sentence for each test text, and one for each memory limit and for learning.

    Args:
        score: an entry of the results file's scores.
    """
    for text, result in score["texts"].items():
        for name, differences in result["differences"].items():
            whole = from_json(differences["all"][0])
            second = NO_HEAD if name == "no-head" else name.replace("head,", "itself with")
            yield f"{text}, test: {describe_difference(whole, HEAD, second)}"
        if "learn" in result:
            whole = from_json(result["learn"]["differences"]["no-head"]["all"][0])
            sentence = describe_difference(whole, HEAD, NO_HEAD)
            yield f"{text}, test, both keep training: {sentence}"


def pair_figure(results: dict[str, Any]) -> list[Axes]:
    """Draws the curves of both models, and of their branches with a falling rate.

    Args:
        results: the content of the results file.
    """
    models: list[tuple[str, Any, list[Any]]] = []
    for contender, name in (("head", "one head"), ("no-head", "no head")):
        decays = [score["runs"][contender]["decay"] for score in results["scores"]]
        decays = [curve for curve in decays if len(curve["step"]) > 1]
        models.append((name, results["runs"][contender]["curve"], decays))
    head, other = models
    return curves_figure(head, other, TEXTS)
