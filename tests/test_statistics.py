"""Attention statistics equal those computed one query and one key at a time."""

import dataclasses
import math
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sharnn import InputError, attention_statistics
from sharnn.analysis.byte_facts import BYTE_CLASSES, byte_classes, earlier_ends, tokens
from sharnn.analysis.figures import (
    class_figure,
    distance_figure,
    induction_figure,
    recalled_figure,
    statistics_figure,
)
from sharnn.analysis.results import QUANTILES, Estimate
from sharnn.analysis.text_sums import STRETCHES
from sharnn.analysis.trace import trace_segments
from small import ALL_OPTIONS, small_model

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
    return attention_statistics(small_model(), TEXT)


def close(actual, expected, tolerance=1e-5):
    actual = torch.as_tensor(actual, dtype=torch.float64)
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def queries(model, block, skip, **settings):
    """Yields (position, {key position: weight}, bits) for each counted query."""
    for segment in trace_segments(model, TEXT, **settings):
        matrix = segment.weights[block]
        first = segment.start + matrix.shape[0] - matrix.shape[1]
        for i, (row, bits) in enumerate(zip(matrix.tolist(), segment.bits.tolist(), strict=True)):
            if segment.start + i >= skip:
                # The softmax gives every visible key a weight above 0.
                weights = {first + c: weight for c, weight in enumerate(row) if weight > 0}
                yield segment.start + i, weights, bits


def mean_of(pairs):
    """Returns the mean of the values of each key."""
    lists = defaultdict(list)
    for key, value in pairs:
        lists[key].append(value)
    return {key: sum(values) / len(values) for key, values in lists.items()}


WAYS = [
    ("segment", 0, 5, {}),
    ("segment", SKIP, 7, {}),
    ("sliding", 0, 30, {}),
    ("sliding", SKIP, 6, {}),
    ("segment", SKIP, 7, ALL_OPTIONS),
]


@pytest.mark.parametrize(("window", "skip", "length", "options"), WAYS)
class TestOneQueryAtATime:
    """Compares each statistic with a loop over queries and keys."""

    @pytest.fixture
    def both(self, window, skip, length, options):
        model = small_model(memory_window=window, **options)
        statistics = attention_statistics(model, TEXT, segment_length=length, skip=skip)
        return statistics, list(queries(model, 1, skip, segment_length=length))

    def test_distance(self, both):
        result, expected_queries = both
        head, count = result.head(), len(expected_queries)
        max_distance = len(head.by_distance)
        mean, even = [0.0] * (max_distance + 1), [0.0] * (max_distance + 1)
        for i, weights, _ in expected_queries:
            for j, weight in weights.items():
                mean[i - j + 1] += weight / count
                even[i - j + 1] += 1 / len(weights) / count
        close(head.by_distance, mean[1:])
        close(head.mass.value, [sum(mean[a : b + 1]) for a, b in result.bins])
        close(result.even_mass, [sum(even[a : b + 1]) for a, b in result.bins])
        close(head.distance.value, sum(d * m for d, m in enumerate(mean)))
        for share in (0.5, 0.9):
            within = head.within(share)
            assert sum(mean[: within + 1]) >= share - 1e-6 > sum(mean[:within]) - 1e-3
        assert (result.num_queries, result.mean_num_visible) == (
            count,
            pytest.approx(sum(len(weights) for _, weights, _ in expected_queries) / count),
        )

    def test_the_error_is_estimated_between_stretches(self, both):
        result, expected_queries = both
        parts = defaultdict(list)
        count = len(expected_queries)
        for n, (i, weights, _) in enumerate(expected_queries):
            parts[n * STRETCHES // count].append(weights[i])  # distance 1
        mean = sum(sum(part) for part in parts.values()) / count
        squares = sum((sum(part) - mean * len(part)) ** 2 for part in parts.values())
        error = math.sqrt(squares * len(parts) / (len(parts) - 1)) / count
        assert len(parts) == STRETCHES
        close(result.head().mass.error[0], error)

    def test_spread(self, both):
        result, expected_queries = both
        head = result.head()
        all_weights = [list(weights.values()) for _, weights, _ in expected_queries]
        entropies = [-sum(w * math.log2(w) for w in weights) for weights in all_weights]
        largest = [max(weights) for weights in all_weights]
        close(head.entropy.value, np.mean(entropies))
        close(head.effective_number.value, np.mean([2**h for h in entropies]))
        close(head.largest.value, np.mean(largest))
        close(head.largest_quantiles, np.quantile(largest, QUANTILES))

    def test_classes(self, both):
        result, expected_queries = both
        classes = byte_classes(TEXT).tolist()
        pairs = [
            ((classes[i], classes[j]), len(weights) * weight)
            for i, weights, _ in expected_queries
            for j, weight in weights.items()
        ]
        means = mean_of(pairs)
        count = len(BYTE_CLASSES)
        expected = [[means.get((q, k), math.nan) for k in range(count)] for q in range(count)]
        close(result.head().by_class.value, expected)
        assert int(result.class_pairs.sum()) == len(pairs)
        bits = mean_of((classes[i + 1], value) for i, _, value in expected_queries)
        close(result.class_bits.value, [bits.get(c, math.nan) for c in range(count)])
        close(result.bits.value, np.mean([value for *_, value in expected_queries]))
        of_query = np.bincount([classes[i] for i, *_ in expected_queries], minlength=count)
        of_target = np.bincount([classes[i + 1] for i, *_ in expected_queries], minlength=count)
        assert result.class_queries.tolist() == of_query.tolist()
        assert result.class_targets.tolist() == of_target.tolist()

    def test_strings(self, both):
        result, expected_queries = both
        received, even = defaultdict(float), defaultdict(float)
        for _, weights, _ in expected_queries:
            for j, weight in weights.items():
                received[j] += weight
                even[j] += 1 / len(weights)
        strings, which, first, last = tokens(TEXT)
        expected = {}
        for n, string in enumerate(strings):
            visible = [t for t in range(len(which)) if which[t] == n and even[last[t]] > 0]
            if len(visible) >= 3:
                ends = [last[t] for t in visible]
                inside = [j for t in visible for j in range(first[t], last[t] + 1)]
                ratio = sum(received[j] for j in ends) / sum(even[j] for j in ends)
                mean = sum(received[j] for j in inside) / sum(even[j] for j in inside)
                squares = sum((received[j] - ratio * even[j]) ** 2 for j in ends)
                spread = math.sqrt(squares * len(ends) / (len(ends) - 1))
                error = spread / sum(even[j] for j in ends)
                expected[string] = (len(visible), ratio, error, mean)
        recalled = result.head().recalled
        assert {string.text for string in recalled} == set(expected)
        assert b"cat" in expected
        for string in recalled:
            found = (string.count, string.ratio, string.error, string.mean_ratio)
            close(found, expected[string.text], 1e-4)
        ratios = [string.ratio for string in recalled]
        assert ratios == sorted(ratios, reverse=True)

    def test_induction(self, both):
        result, expected_queries = both
        for test in result.head().induction:
            n = test.length
            follower, correct, lead, same_byte = [], [], [], []
            for i, weights, _ in expected_queries:
                oldest, end = min(weights), i + 1
                gram = TEXT[max(0, end - n) : end]
                at = TEXT.rfind(gram, oldest, end - 1) if len(gram) == n else -1
                if at < 0:
                    continue
                j = at + n
                follower.append(weights[j] * len(weights))
                correct.append(TEXT[j] == TEXT[i + 1])
                same = [w for k, w in weights.items() if TEXT[k] == TEXT[j] and k != j]
                if same:
                    same_byte.append(np.mean(same) * len(weights))
                    lead.append(follower[-1] - same_byte[-1])
            assert test.num_queries == len(follower) > 0
            close(test.follower.value, np.mean(follower))
            close(test.accuracy.value, np.mean(correct))
            close(test.same_byte.value, np.mean(same_byte) if same_byte else math.nan, 1e-4)
            close(test.lead.value, np.mean(lead) if lead else math.nan, 1e-4)


def flat(value):
    """Returns all numbers of nested results, and the bytes of all strings."""
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, torch.Tensor):
        value = value.double().flatten().tolist()
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple, bytes)):
        return [number for part in value for number in flat(part)]
    return [value]


def test_the_segment_length_does_not_matter():
    model = small_model(memory_window="sliding")
    one, *others = (
        flat(attention_statistics(model, TEXT, segment_length=n)) for n in (4, 1, 50, 999)
    )
    assert len(one) > 300
    for other in others:
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4, nan_ok=True)


def test_the_weights_sum_to_1(result):
    head = result.head()
    close(head.by_distance.sum(), 1)
    close(head.mass.value.sum(), 1)
    close(result.even_mass.sum(), 1)


def test_a_head_with_even_weights():
    model = small_model()
    with torch.no_grad():
        model.blocks[1].head.query_scale.fill_(-1e4)  # a query of 0 weights all keys equally
    result = attention_statistics(model, TEXT)
    head = result.head()
    close(head.mass.value, result.even_mass)
    close(head.effective_number.value, result.mean_num_visible, 1e-4)
    known = head.by_class.value[result.class_pairs > 0]
    close(known, torch.ones_like(known), 1e-4)
    assert all(string.ratio == pytest.approx(1, abs=1e-4) for string in head.recalled)
    for test in head.induction:
        close(test.follower.value, 1, 1e-4)
        close(test.lead.value.nan_to_num(0), 0, 1e-4)


def test_by_default_every_query_has_a_full_memory():
    model = small_model(memory_window="sliding")
    long = attention_statistics(model, TEXT)
    assert (long.skip, long.mean_num_visible) == (24, 24)
    assert attention_statistics(model, TEXT[:48]).skip == 0
    longer_memory = attention_statistics(model, TEXT, memory_limit=60)
    assert (longer_memory.skip, longer_memory.memory_limit) == (60, 60)


def test_each_head_has_its_own_statistics():
    model = small_model(attention_layers=(0, 2))
    result = attention_statistics(model, TEXT, skip=0)
    assert list(result.heads) == [0, 2]
    assert result.head().block == 0
    for block in (0, 2):
        largest = [max(weights.values()) for _, weights, _ in queries(model, block, 0)]
        close(result.head(block).largest.value, np.mean(largest))
    assert flat(result.head(0)) != flat(result.head(2))
    with pytest.raises(InputError, match=r"block 1 has no head; blocks with a head: \[0, 2\]"):
        result.head(1)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(training):
    model = small_model(dropout=0.5).train(training)
    first, second = (flat(attention_statistics(model, TEXT)) for _ in range(2))
    assert first == pytest.approx(second, nan_ok=True)
    assert model.training == training


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (b"", {}, "at least 2 bytes"),
        (b"a", {}, "at least 2 bytes"),
        (b"abc", {"skip": 2}, "skip must be from 0 to 1 for 3 bytes, got 2"),
        (b"abc", {"skip": -1}, "skip must be from 0"),
        (b"abc", {"memory_limit": 0}, "memory_limit must be at least 1"),
        (b"abc", {"memory_limit": -5}, "memory_limit must be at least 1"),
        (b"abc", {"segment_length": 0}, "segment_length must be at least 1"),
        (b"abc", {"min_count": 0}, "min_count must be at least 1"),
        ("nowhere", {}, "does not exist"),
    ],
)
def test_invalid_arguments(data, settings, message):
    with pytest.raises(InputError, match=message):
        attention_statistics(small_model(), data, **settings)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="need a model with an attention head"):
        attention_statistics(small_model(attention_layers=()), TEXT)


def test_bytes_without_a_symbol_are_refused():
    with pytest.raises(InputError, match="byte 200, but the model has 100 symbols"):
        attention_statistics(small_model(vocab_size=100), b"abc\xc8")


def test_an_error_needs_two_stretches():
    equal = Estimate.of(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1, 1, 1]))
    close(equal.value, 3)
    close(equal.error, np.std([1, 2, 6], ddof=1) / math.sqrt(3))
    assert Estimate.of(torch.tensor([1.0, 0.0]), torch.tensor([2, 0])).error.isnan()
    assert Estimate.of(torch.tensor([0.0, 0.0]), torch.tensor([0, 0])).value.isnan()


def test_later_classes_take_precedence():
    text = b"a1 ;\xc3<b [[c]]>[[d<e]] <title>f [[g]]</title> < h\n> [[\n]]"
    expected = "ldwsl ggg kkkkk g kkkkkkk w ggggggg ttttttt gggggggg wswlw s wss w ss"
    marks = dict(zip(BYTE_CLASSES, "ldwsgkt", strict=True))
    found = "".join(marks[BYTE_CLASSES[c]] for c in byte_classes(text))
    assert found == expected.replace(" ", "")
    assert byte_classes(b"").tolist() == []


def test_every_byte_is_in_exactly_one_token():
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
def test_earlier_ends_are_the_latest(length):
    text = TEXT + bytes(torch.randint(97, 99, (200,)).tolist()) + TEXT
    expected = []
    for end in range(1, len(text) + 1):
        at = text.rfind(text[end - length : end], 0, end - 1) if end >= length else -1
        expected.append(at + length - 1 if at >= 0 else -1)
    assert earlier_ends(text, length).tolist() == expected


def y_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_distances_are_drawn_relative_to_an_even_share(result):
    axes = distance_figure(result)
    (container,) = axes.containers
    expected = (result.head().mass.value / result.even_mass).tolist()
    assert container.lines[0].get_ydata().tolist() == pytest.approx(expected)
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["1", "2", "3-4"]
    assert "bytes" in axes.get_xlabel()


def test_rare_classes_are_left_empty(result):
    axes = class_figure(result)
    image = axes.get_images()[0].get_array()
    rare = (result.class_queries < 20).numpy()
    assert rare.any()
    assert not rare.all()
    assert np.isnan(np.ma.filled(image, np.nan)[rare]).all()
    common = result.head().by_class.value[~torch.tensor(rare)]
    shown = [text.get_text() for text in axes.texts]
    assert len(shown) == int((~common.isnan()).sum())
    assert y_labels(axes)[0] == f"letter ({int(result.class_queries[0])})"


def test_strings_are_drawn_literally(result):
    head = result.head()
    hostile = [b"$x$", b"$$", b"_^", b"\\frac{", b"\xff\xfe", b"<ref>", b"\n", b"a" * 99, b"%"]
    hostile += [text.encode() for text in ("\u2013\u00e9", "\u4e2d", "\u0301")]
    strings = [dataclasses.replace(head.recalled[0], text=text) for text in hostile]
    changed = dataclasses.replace(result, heads={1: dataclasses.replace(head, recalled=strings)})
    axes = recalled_figure(changed, count=20)
    axes.figure.canvas.draw()  # warnings are errors
    assert y_labels(axes)[:7] == ["$x$", "$$", "_^", "\\frac{", r"\xff\xfe", "<ref>", "↵"]
    assert y_labels(axes)[9:11] == ["\u2013\u00e9", "U+4E2D"]
    assert len(y_labels(axes)[7]) == 16
    assert not any(label.get_parse_math() for label in axes.get_yticklabels())
    few = recalled_figure(changed, count=2)
    assert len(y_labels(few)) == 4


def test_followers_are_drawn_next_to_the_same_byte(result):
    axes = induction_figure(result)
    _, labels = axes.get_legend_handles_labels()
    assert set(labels) == {"even share", "follower", "same byte elsewhere"}
    ticks = [label.get_text().split("\n")[0] for label in axes.get_xticklabels()]
    assert ticks == ["3", "5", "8", "12"]


@pytest.mark.parametrize("text", [TEXT, b"ab", b"abc", b"$_<\xff" * 20, bytes(range(256))])
def test_the_whole_figure_of_any_text(text):
    model = small_model(attention_layers=(0, 2))
    figure = statistics_figure(attention_statistics(model, text), block=2)
    figure.canvas.draw()
    titles = [axes.get_title() for axes in figure.axes]
    assert len([title for title in titles if title]) == 4
    assert "block 2" in figure.get_suptitle()


def test_the_figure_of_a_sharp_head(result):
    head = result.head()
    steep = torch.logspace(2, -4, len(result.bins)).double()
    sharp = dataclasses.replace(
        head,
        mass=Estimate(result.even_mass * steep, result.even_mass * steep / 9),
        by_class=Estimate(head.by_class.value * 0, head.by_class.error),
        recalled=[dataclasses.replace(string, ratio=0.0) for string in head.recalled],
    )
    figure = statistics_figure(dataclasses.replace(result, heads={1: sharp}))
    figure.canvas.draw()
    assert figure.axes[0].get_yscale() == "log"


def test_figures_of_a_block_without_a_head(result):
    figures = (
        distance_figure,
        class_figure,
        recalled_figure,
        induction_figure,
        statistics_figure,
    )
    for draw in figures:
        with pytest.raises(InputError, match="block 0 has no head"):
            draw(result, 0)
    with pytest.raises(InputError, match="count must be at least 1"):
        recalled_figure(result, count=0)
