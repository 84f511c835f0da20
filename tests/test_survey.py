"""A survey sums what every query did: the same numbers as one query and one key at a time."""

import dataclasses
import math
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sharnn import InputError
from sharnn.analysis.byte_facts import BYTE_CLASSES, byte_classes, earlier_ends, tokens
from sharnn.analysis.figures import (
    class_figure,
    distance_figure,
    induction_figure,
    recalled_figure,
    survey_figure,
)
from sharnn.analysis.results import Estimate
from sharnn.analysis.statistics import QUANTILES, STRETCHES, survey
from sharnn.analysis.trace import pieces
from small import small_model

TEXT = (
    b"<title>The $x_1$</title>\n[[cat]] and [[cat]] 42 && 42, the cat; the cat\n"
    b"\xff\xfe<ref>the cat and 42</ref> the cat and the cat aaaaaaaaaaaaaaaa\n"
)
SKIP = 10


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def result():
    return survey(small_model(), TEXT)


def close(actual, expected, tolerance=1e-5):
    actual = torch.as_tensor(actual, dtype=torch.float64)
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def queries(model, block, skip, **settings):
    """(query, {key: weight}, bits) for each counted query, the keys by their places."""
    for piece in pieces(model, TEXT, **settings):
        rows = piece.weights[block]
        first = piece.start + rows.shape[0] - rows.shape[1]
        for i, (row, bits) in enumerate(zip(rows.tolist(), piece.bits.tolist(), strict=True)):
            if piece.start + i >= skip:
                # A softmax gives every visible key more than 0.
                yield piece.start + i, {first + c: w for c, w in enumerate(row) if w > 0}, bits


def mean_of(pairs):
    """Mean of each key's values."""
    lists = defaultdict(list)
    for key, value in pairs:
        lists[key].append(value)
    return {key: sum(values) / len(values) for key, values in lists.items()}


WAYS = [("segment", 0, 5), ("segment", SKIP, 7), ("sliding", 0, 30), ("sliding", SKIP, 6)]


@pytest.mark.parametrize(("window", "skip", "length"), WAYS)
class TestOneQueryAtATime:
    """Each sum against a loop over queries and keys."""

    @pytest.fixture
    def both(self, window, skip, length):
        model = small_model(memory_window=window)
        found = survey(model, TEXT, segment_length=length, skip=skip)
        return found, list(queries(model, 1, skip, segment_length=length))

    def test_distance(self, both):
        result, rows = both
        head, count = result.head(), len(rows)
        reach = len(head.by_distance)
        mean, even = [0.0] * (reach + 1), [0.0] * (reach + 1)
        for i, row, _ in rows:
            for j, weight in row.items():
                mean[i - j + 1] += weight / count
                even[i - j + 1] += 1 / len(row) / count
        close(head.by_distance, mean[1:])
        close(head.mass.value, [sum(mean[a : b + 1]) for a, b in result.bins])
        close(result.even, [sum(even[a : b + 1]) for a, b in result.bins])
        close(head.distance.value, sum(d * m for d, m in enumerate(mean)))
        for share in (0.5, 0.9):
            upto = head.within(share)
            assert sum(mean[: upto + 1]) >= share - 1e-6 > sum(mean[:upto]) - 1e-3
        assert (result.queries, result.visible_keys) == (
            count,
            pytest.approx(sum(len(row) for _, row, _ in rows) / count),
        )

    def test_the_error_is_between_stretches(self, both):
        result, rows = both
        parts = defaultdict(list)
        for n, (i, row, _) in enumerate(rows):
            parts[n * STRETCHES // len(rows)].append(row[i])  # distance 1
        mean = sum(sum(part) for part in parts.values()) / len(rows)
        off = sum((sum(part) - mean * len(part)) ** 2 for part in parts.values())
        error = math.sqrt(off * len(parts) / (len(parts) - 1)) / len(rows)
        assert len(parts) == STRETCHES
        close(result.head().mass.error[0], error)

    def test_spread(self, both):
        result, rows = both
        head = result.head()
        entropies = [-sum(w * math.log2(w) for w in row.values()) for _, row, _ in rows]
        largest = [max(row.values()) for _, row, _ in rows]
        close(head.entropy.value, np.mean(entropies))
        close(head.effective_number.value, np.mean([2**h for h in entropies]))
        close(head.largest.value, np.mean(largest))
        close(head.largest_quantiles, np.quantile(largest, QUANTILES))

    def test_classes(self, both):
        result, rows = both
        classes = byte_classes(TEXT).tolist()
        pairs = [
            ((classes[i], classes[j]), len(row) * weight)
            for i, row, _ in rows
            for j, weight in row.items()
        ]
        means = mean_of(pairs)
        count = len(BYTE_CLASSES)
        expected = [[means.get((q, k), math.nan) for k in range(count)] for q in range(count)]
        close(result.head().by_class.value, expected)
        assert int(result.class_pairs.sum()) == len(pairs)
        bits = mean_of((classes[i + 1], value) for i, _, value in rows)
        close(result.class_bits.value, [bits.get(c, math.nan) for c in range(count)])
        close(result.bits.value, np.mean([value for *_, value in rows]))
        of_query = np.bincount([classes[i] for i, *_ in rows], minlength=count)
        of_target = np.bincount([classes[i + 1] for i, *_ in rows], minlength=count)
        assert result.class_queries.tolist() == of_query.tolist()
        assert result.class_targets.tolist() == of_target.tolist()

    def test_strings(self, both):
        result, rows = both
        got, due = defaultdict(float), defaultdict(float)
        for _, row, _ in rows:
            for j, weight in row.items():
                got[j] += weight
                due[j] += 1 / len(row)
        strings, which, first, last = tokens(TEXT)
        expected = {}
        for n, string in enumerate(strings):
            places = [t for t in range(len(which)) if which[t] == n and due[last[t]] > 0]
            if len(places) >= 3:
                ends = [last[t] for t in places]
                inside = [j for t in places for j in range(first[t], last[t] + 1)]
                ratio = sum(got[j] for j in ends) / sum(due[j] for j in ends)
                mean = sum(got[j] for j in inside) / sum(due[j] for j in inside)
                off = sum((got[j] - ratio * due[j]) ** 2 for j in ends)
                error = math.sqrt(off * len(ends) / (len(ends) - 1)) / sum(due[j] for j in ends)
                expected[string] = (len(places), ratio, error, mean)
        recalled = result.head().recalled
        assert {string.text for string in recalled} == set(expected)
        assert b"cat" in expected
        for string in recalled:
            found = (string.count, string.ratio, string.error, string.mean_ratio)
            close(found, expected[string.text], 1e-4)
        ratios = [string.ratio for string in recalled]
        assert ratios == sorted(ratios, reverse=True)

    def test_induction(self, both):
        result, rows = both
        for test in result.head().induction:
            n = test.length
            hits, right, lead, chance = [], [], [], []
            for i, row, _ in rows:
                oldest, end = min(row), i + 1
                gram = TEXT[max(0, end - n) : end]
                at = TEXT.rfind(gram, oldest, end - 1) if len(gram) == n else -1
                if at < 0:
                    continue
                j = at + n
                hits.append(row[j] * len(row))
                right.append(TEXT[j] == TEXT[i + 1])
                others = [w * len(row) for k, w in row.items() if TEXT[k] == TEXT[j] and k != j]
                if others:
                    chance.append(np.mean(others))
                    lead.append(hits[-1] - chance[-1])
            assert test.found == len(hits) > 0
            close(test.follower.value, np.mean(hits))
            close(test.right.value, np.mean(right))
            close(test.same_byte.value, np.mean(chance) if chance else math.nan, 1e-4)
            close(test.lead.value, np.mean(lead) if lead else math.nan, 1e-4)


def flat(value):
    """All numbers of nested results; a string is its bytes."""
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, torch.Tensor):
        value = value.double().flatten().tolist()
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple, bytes)):
        return [number for part in value for number in flat(part)]
    return [value]


def test_how_it_is_cut_changes_nothing():
    model = small_model(memory_window="sliding")
    one, *others = (flat(survey(model, TEXT, segment_length=n)) for n in (4, 1, 50, 999))
    assert len(one) > 300
    for other in others:
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4, nan_ok=True)


def test_all_of_the_weight_is_somewhere(result):
    head = result.head()
    close(head.by_distance.sum(), 1)
    close(head.mass.value.sum(), 1)
    close(result.even.sum(), 1)


def test_an_even_head_is_even_everywhere():
    model = small_model()
    with torch.no_grad():
        model.blocks[1].head.query_scale.fill_(-1e4)  # a query of 0 likes all keys the same
    result = survey(model, TEXT)
    head = result.head()
    close(head.mass.value, result.even)
    close(head.effective_number.value, result.visible_keys, 1e-4)
    known = head.by_class.value[result.class_pairs > 0]
    close(known, torch.ones_like(known), 1e-4)
    assert all(string.ratio == pytest.approx(1, abs=1e-4) for string in head.recalled)
    for test in head.induction:
        close(test.follower.value, 1, 1e-4)
        close(test.lead.value.nan_to_num(0), 0, 1e-4)


def test_by_default_every_query_has_a_full_memory():
    model = small_model(memory_window="sliding")
    long = survey(model, TEXT)
    assert (long.skip, long.visible_keys) == (24, 24)
    assert survey(model, TEXT[:48]).skip == 0
    assert survey(model, TEXT, memory=60).skip == 60
    assert survey(model, TEXT, memory=60).memory == 60


def test_heads_are_surveyed_apart():
    model = small_model(attention_layers=(0, 2))
    result = survey(model, TEXT, skip=0)
    assert list(result.heads) == [0, 2]
    assert result.head().block == 0
    for block in (0, 2):
        numbers = [max(row.values()) for _, row, _ in queries(model, block, 0)]
        close(result.head(block).largest.value, np.mean(numbers))
    assert flat(result.head(0)) != flat(result.head(2))
    with pytest.raises(InputError, match=r"block 1 has no head; those with one: \[0, 2\]"):
        result.head(1)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model = small_model(dropout=0.5).train(training)
    assert flat(survey(model, TEXT)) == pytest.approx(flat(survey(model, TEXT)), nan_ok=True)
    assert model.training == training


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        (b"", {}, "at least 2 bytes"),
        (b"a", {}, "at least 2 bytes"),
        (b"abc", {"skip": 2}, "skip must be from 0 to 1 for 3 bytes, got 2"),
        (b"abc", {"skip": -1}, "skip must be from 0"),
        (b"abc", {"memory": 0}, "at least 1 row"),
        (b"abc", {"segment_length": 0}, "segment_length must be at least 1"),
        (b"abc", {"least": 0}, "least must be at least 1"),
        ("nowhere", {}, "does not exist"),
    ],
)
def test_what_can_not_be_surveyed(data, settings, words):
    with pytest.raises(InputError, match=words):
        survey(small_model(), data, **settings)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="no head to survey"):
        survey(small_model(attention_layers=()), TEXT)


def test_bytes_without_a_symbol_are_refused():
    with pytest.raises(InputError, match="byte 200, but the model has 100 symbols"):
        survey(small_model(vocab_size=100), b"abc\xc8")


def test_an_error_needs_two_stretches():
    equal = Estimate.of(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1, 1, 1]))
    close(equal.value, 3)
    close(equal.error, np.std([1, 2, 6], ddof=1) / math.sqrt(3))
    assert Estimate.of(torch.tensor([1.0, 0.0]), torch.tensor([2, 0])).error.isnan()
    assert Estimate.of(torch.tensor([0.0, 0.0]), torch.tensor([0, 0])).value.isnan()


def test_later_classes_override():
    text = b"a1 ;\xc3<b [[c]]>[[d<e]] <title>f [[g]]</title> < h\n> [[\n]]"
    expected = "ldwsl ggg kkkkk g kkkkkkk w ggggggg ttttttt gggggggg wswlw s wss w ss"
    marks = dict(zip(BYTE_CLASSES, "ldwsgkt", strict=True))
    found = "".join(marks[BYTE_CLASSES[c]] for c in byte_classes(text))
    assert found == expected.replace(" ", "")
    assert byte_classes(b"").tolist() == []


def test_every_byte_is_in_one_token():
    noise = bytes(torch.randint(256, (3000,)).tolist())
    for text in (TEXT, noise, b"", b"a"):
        strings, which, first, last = tokens(text)
        assert b"".join(strings[n] for n in which) == text
        assert [text[a : b + 1] for a, b in zip(first, last, strict=True)] == [
            strings[n] for n in which
        ]
    assert tokens(b"''it''==A1==&lt;<br/><a b>")[0] == (
        [*b"'' it == A 1 &lt; <br/> < a".split(), b" ", b"b", b">"]
    )


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 12])
def test_earlier_ends_are_the_newest(length):
    text = TEXT + bytes(torch.randint(97, 99, (200,)).tolist()) + TEXT
    expected = []
    for end in range(1, len(text) + 1):
        at = text.rfind(text[end - length : end], 0, end - 1) if end >= length else -1
        expected.append(at + length - 1 if at >= 0 else -1)
    assert earlier_ends(text, length).tolist() == expected


def words_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_distances_are_drawn_relative_to_an_even_spread(result):
    axes = distance_figure(result)
    (container,) = axes.containers
    expected = (result.head().mass.value / result.even).tolist()
    assert container.lines[0].get_ydata().tolist() == pytest.approx(expected)
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["1", "2", "3-4"]
    assert "bytes" in axes.get_xlabel()


def test_classes_that_are_rare_stay_empty(result):
    axes = class_figure(result)
    image = axes.get_images()[0].get_array()
    rare = (result.class_queries < 20).numpy()
    assert rare.any()
    assert not rare.all()
    assert np.isnan(np.ma.filled(image, np.nan)[rare]).all()
    common = result.head().by_class.value[~torch.tensor(rare)]
    shown = [text.get_text() for text in axes.texts]
    assert len(shown) == int((~common.isnan()).sum())
    assert words_of(axes)[0] == f"letter ({int(result.class_queries[0])})"


def test_strings_are_drawn_as_they_are(result):
    head = result.head()
    hostile = [b"$x$", b"$$", b"_^", b"\\frac{", b"\xff\xfe", b"<ref>", b"\n", b"a" * 99, b"%"]
    strings = [dataclasses.replace(head.recalled[0], text=text) for text in hostile]
    changed = dataclasses.replace(result, heads={1: dataclasses.replace(head, recalled=strings)})
    axes = recalled_figure(changed, count=20)
    axes.figure.canvas.draw()  # warnings are errors
    assert words_of(axes)[:7] == ["$x$", "$$", "_^", "\\frac{", "□□", "<ref>", "↵"]
    assert len(words_of(axes)[7]) == 16
    assert not any(label.get_parse_math() for label in axes.get_yticklabels())
    few = recalled_figure(changed, count=2)
    assert len(words_of(few)) == 4


def test_followers_are_drawn_beside_the_same_byte(result):
    axes = induction_figure(result)
    _, labels = axes.get_legend_handles_labels()
    assert set(labels) == {"even share", "follower", "same byte elsewhere"}
    ticks = [label.get_text().split("\n")[0] for label in axes.get_xticklabels()]
    assert ticks == ["3", "5", "8", "12"]


@pytest.mark.parametrize("text", [TEXT, b"ab", b"abc", b"$_<\xff" * 20, bytes(range(256))])
def test_the_whole_figure_of_any_text(text):
    model = small_model(attention_layers=(0, 2))
    figure = survey_figure(survey(model, text), block=2)
    figure.canvas.draw()
    titles = [axes.get_title() for axes in figure.axes]
    assert len([title for title in titles if title]) == 4
    assert "block 2" in figure.get_suptitle()


def test_a_sharp_head_is_drawn_too(result):
    head = result.head()
    steep = torch.logspace(2, -4, len(result.bins)).double()
    sharp = dataclasses.replace(
        head,
        mass=Estimate(result.even * steep, result.even * steep / 9),
        by_class=Estimate(head.by_class.value * 0, head.by_class.error),
        recalled=[dataclasses.replace(string, ratio=0.0) for string in head.recalled],
    )
    figure = survey_figure(dataclasses.replace(result, heads={1: sharp}))
    figure.canvas.draw()
    assert figure.axes[0].get_yscale() == "log"


def test_pictures_of_a_block_without_a_head(result):
    for draw in (distance_figure, class_figure, recalled_figure, induction_figure, survey_figure):
        with pytest.raises(InputError, match="block 0 has no head"):
            draw(result, 0)
    with pytest.raises(InputError, match="count must be at least 1"):
        recalled_figure(result, count=0)
