"""The attention explorer without a browser: the data of its page and its kernel's responses."""

import base64
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import sharnn
import sharnn.analysis.explorer
import sharnn.analysis.page
from sharnn import InputError, LiveExplorer, explore
from sharnn.analysis.explorer import Explorer
from sharnn.analysis.live import describe
from sharnn.analysis.page import overview_edges
from sharnn.analysis.trace import trace_attention
from sharnn.cli import main
from sharnn.web.arrays import STEP, dequantise, pack, quantise, unpack
from small import OPTIONS, small_model

WITHIN = 0.0334  # the page states 3.3%
MARKS = b"</script><script>window.hacked=1</script><img src=x onerror=hack()>&lt;"
TEXT = (b"The caf\xc3\xa9 opens at nine. \xff\x00 " + MARKS) * 4  # 412 bytes


# Messages that JSON can represent, some of them close to the requests that the page sends.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)
FIELDS = st.integers(-2, 40) | VALUES
NAMES = ("block", "target", "count", "nearest", "farthest", "memory_limit", "text")
MESSAGES = VALUES | st.fixed_dictionaries(
    {"type": st.sampled_from(["page", "hello", "trace", "ablate"])},
    optional=dict.fromkeys(NAMES, FIELDS),
)


def content_of(page: str) -> dict:
    """Returns the payload, as the page's script reads it."""
    (data,) = re.findall(r'<script type="application/json" id="payload">(.*?)</script>', page)
    return json.loads(data)


def weights_of(content: dict, head: dict) -> torch.Tensor:
    """Returns the weights (targets, memory) as the page stores them."""
    codes = torch.from_numpy(unpack(head["codes"]))
    return dequantise(codes, head["log2_largest"]).view(
        content["num_targets"], content["memory_limit"]
    )


def text_of(content: dict) -> bytes:
    return unpack(content["text"]).tobytes()


class TestNumbers:
    @given(st.lists(st.floats(width=32, allow_nan=False)))
    def test_floats_survive_packing(self, values):
        array = np.array(values, np.float32)
        assert unpack(pack(torch.from_numpy(array), "float32")).tobytes() == array.tobytes()

    @given(st.lists(st.integers(-(2**31), 2**31 - 1)))
    def test_integers_survive_packing(self, values):
        assert unpack(pack(torch.tensor(values, dtype=torch.int64), "int32")).tolist() == values

    @given(st.binary())
    def test_bytes_survive_packing(self, data):
        packed = pack(torch.tensor(list(data), dtype=torch.uint8), "uint8")
        assert unpack(packed).tobytes() == data
        base64.b64decode(packed["data"], validate=True)

    @given(st.lists(st.floats(0, 1, width=32), min_size=1))
    def test_a_weight_is_within_half_a_step(self, values):
        weights = torch.tensor(values)
        codes, largest = quantise(weights)
        assert codes.dtype == torch.uint8
        stored = dequantise(codes, largest)
        normal = weights >= 2.0**-126  # the smallest normal float32
        kept = normal & (weights > weights.max() * 2.0**-23.9)
        assert torch.allclose(stored[kept], weights[kept], rtol=WITHIN, atol=0)
        assert (stored[normal & ~kept] <= weights[normal & ~kept] * (1 + WITHIN)).all()
        assert not normal.any() or (stored[weights == 0] == 0).all()

    def test_half_a_step_is_the_precision_on_the_page(self):
        assert 2 ** (STEP / 2) - 1 < WITHIN

    @given(st.integers(1, 30_000))
    def test_the_bands_of_the_overview_cover_each_distance_once(self, limit):
        edges = overview_edges(limit)
        assert edges[0] == 1
        assert edges[-1] == limit + 1
        assert all(a < b for a, b in pairwise(edges))


@pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
class TestNumbersOfThePage:
    @pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
    def test_weights_are_the_models(self, heads, options):
        model = small_model(attention_layers=heads, memory=24, **options)
        explorer = explore(model, TEXT, targets=50, start=100, segment_length=1)
        content = content_of(explorer.page())
        assert [head["block"] for head in content["heads"]] == list(heads)
        # One byte at a time, so that each query attends to a full memory.
        state, expected = None, {block: [] for block in heads}
        with torch.no_grad():
            for byte in TEXT[76:149]:
                x = torch.tensor([[byte]])
                _, state, weights = model.forward_with_attention(x, state)
                for block in heads:
                    expected[block].append(weights[block][0, 0].flip(0))  # the own key first
        for head in content["heads"]:
            stored = weights_of(content, head)
            for i, own in enumerate(expected[head["block"]][-50:]):
                assert len(own) == unpack(content["num_visible"])[i] == 24
                assert torch.allclose(stored[i], own, rtol=WITHIN, atol=1e-7)
            assert (stored.sum(-1) - 1).abs().max() < WITHIN

    def test_the_summaries_are_those_of_the_weights(self, heads):
        model = small_model(attention_layers=heads)
        explorer = explore(model, TEXT, targets=30)
        content = explorer.content
        for head in content["heads"]:
            weights = explorer.trace.weights[head["block"]]
            entropy = -torch.special.xlogy(weights, weights).sum(-1)
            assert unpack(head["effective"]) == pytest.approx(entropy.exp().numpy(), rel=1e-4)
            for i in range(30):
                within = weights[i].cumsum(0)
                assert within[unpack(head["median"])[i] - 1] >= 0.5 - 1e-6
                assert within[unpack(head["reach"])[i] - 1] >= 0.9 - 1e-6
            bands = len(content["overview_edges"]) - 1
            assert unpack(head["mass"]).reshape(30, bands).sum(-1) == pytest.approx(1, abs=1e-5)


class TestThePage:
    def test_it_names_no_host_and_contains_no_raw_text(self):
        explorer = explore(small_model(), TEXT, name="</title><script>alert(1)</script>")
        for page in (explorer.page(), explorer._repr_html_()):
            assert not re.search(r"https?:|src=[\"']?/|@import|url\(", page.replace("&quot;", '"'))
            for hostile in ("hacked", "onerror", "alert(1)</script>", "<img"):
                assert hostile not in page
        assert "<iframe" not in explorer.page()
        assert "<script>alert" not in html_around(explorer.page())

    def test_a_name_may_be_invalid_utf8(self, tmp_path):
        explorer = explore(small_model(), b"hello " * 5, name="caf\udce9")
        assert explorer.save(tmp_path / "page.html").read_text("utf-8")

    def test_bytes_bits_and_guesses(self):
        model = small_model()
        explorer = explore(model, TEXT, targets=40)
        content = content_of(explorer.page())
        assert text_of(content) == TEXT[:64]
        assert (content["first"], content["num_targets"]) == (24, 40)
        assert np.array_equal(unpack(content["bits"]), explorer.trace.bits, equal_nan=True)
        probabilities = unpack(content["guess_probabilities"]).reshape(40, -1)
        guesses = unpack(content["guesses"]).reshape(40, -1)
        for i in range(40):
            expected = explorer.trace.probabilities[i]
            assert guesses[i, 0] == expected.argmax()
            assert probabilities[i] == pytest.approx(expected[guesses[i].tolist()].numpy())

    @pytest.mark.parametrize("heads", [(1,), (0, 2)])
    def test_a_small_page_drops_the_first_targets_and_says_so(self, heads):
        model = small_model(memory=300, attention_layers=heads)
        text = torch.randint(256, (1000,), generator=torch.Generator().manual_seed(3))
        data = bytes(text.tolist())
        whole = explore(model, data, targets=600)
        size = len(whole.page().encode()) / 1e6
        limit = 0.6 * size
        small = explore(model, data, targets=600, megabytes=limit)
        assert 0.5 * size < len(small.page().encode()) / 1e6 <= limit
        kept = small.content["num_targets"]
        dropped = 600 - kept
        assert 0 < kept < 600
        assert any(
            f"first {dropped:,} of 600 target bytes" in note for note in small.content["notes"]
        )
        assert not any("dropped" in note for note in whole.content["notes"])
        # The remaining data belong to the last bytes.
        first = small.content["first"]
        assert 0 <= small.content["initial_target"] < kept
        assert text_of(small.content)[first:] == data[900 - kept : 900]
        assert text_of(small.content)[:first] == data[900 - kept - 300 : 900 - kept]
        assert np.array_equal(
            unpack(small.content["bits"])[first:], unpack(whole.content["bits"])[-kept:]
        )
        for new, old in zip(small.content["heads"], whole.content["heads"], strict=True):
            expected = weights_of(whole.content, old)[dropped:]
            assert torch.allclose(weights_of(small.content, new), expected, rtol=2.1 * WITHIN)
            for name in ("top", "random", "random_std", "by_band", "mass"):
                columns = len(unpack(old[name])) // 600
                expected = unpack(old[name]).reshape(600, columns)[dropped:]
                assert np.array_equal(unpack(new[name]).reshape(kept, columns), expected)

    @pytest.mark.parametrize("name", ["model", "</title>&<b>", "naïve 😀", "caf\udce9"])
    def test_its_size_is_known_without_building_it(self, monkeypatch, name):
        explorer = explore(small_model(), TEXT, targets=20, name=name)
        size = len(explorer.page().encode())
        monkeypatch.setattr(sharnn.analysis.page, "page", None)
        monkeypatch.setattr(sharnn.analysis.explorer, "page", None)
        assert explorer.size == size
        assert repr(explorer).endswith(f"20 targets, memory_limit 24, {size / 1e6:.1f} MB)")

    def test_the_shell_is_built_once_however_many_sizes_are_tried(self, monkeypatch):
        model = small_model(memory=300)
        data = bytes(
            torch.randint(256, (1000,), generator=torch.Generator().manual_seed(3)).tolist()
        )
        trace = trace_attention(model, data, targets=600)
        shells, sizes = [], []
        shell, to_json = sharnn.analysis.page._shell, sharnn.analysis.page.to_json
        monkeypatch.setattr(
            sharnn.analysis.page, "_shell", lambda title: shells.append(title) or shell(title)
        )
        monkeypatch.setattr(
            sharnn.analysis.page, "to_json", lambda c: sizes.append(c) or to_json(c)
        )
        explorer = Explorer(model, trace, megabytes=0.12)
        assert len(sizes) > 2
        assert len(shells) == 1
        monkeypatch.undo()
        assert len(explorer.page().encode()) <= 120_000

    def test_a_maximum_size_below_one_target(self):
        with pytest.raises(InputError, match=r"needs 0\.\d+ MB for a single target"):
            explore(small_model(), TEXT, megabytes=0.01)

    def test_it_is_saved_whole_or_not_at_all(self, tmp_path):
        explorer = explore(small_model(), b"hello " * 5)
        path = explorer.save(tmp_path / "page.html")
        assert path.read_text("utf-8") == explorer.page()
        for bad in (tmp_path, tmp_path / "no" / "page.html", path / "page.html"):
            with pytest.raises(InputError, match="can't write"):
                explorer.save(bad)
        assert list(tmp_path.iterdir()) == [path]

    def test_a_text_of_two_bytes(self):
        explorer = explore(small_model(), b"ab")
        content = explorer.content
        assert (content["num_targets"], content["first"], content["initial_target"]) == (1, 1, 0)
        assert unpack(content["num_visible"]).tolist() == [1]
        assert weights_of(content, content["heads"][0])[0].tolist() == [1.0] + 23 * [0.0]
        assert explorer.ablate(0, count=5).removed == 1

    def test_a_memory_limit_of_one(self):
        content = explore(small_model(), b"abcd", memory_limit=1).content
        assert content["overview_edges"] == [1, 2]
        assert weights_of(content, content["heads"][0]).flatten().tolist() == [1.0, 1.0, 1.0]

    def test_a_text_shorter_than_the_memory(self):
        content = explore(small_model(memory=200), TEXT[:50]).content
        assert text_of(content) == TEXT[:50]
        assert (content["memory_limit"], content["num_targets"]) == (200, 49)
        assert unpack(content["num_visible"]).tolist() == list(range(1, 50))
        assert content["band_edges"][-1] == 201

    def test_a_model_without_a_head_is_an_error(self):
        with pytest.raises(InputError, match="no head"):
            explore(small_model(attention_layers=()), b"hello")


def html_around(page: str) -> str:
    """Returns the page without its payload."""
    return re.sub(r'id="payload">.*?</script>', "", page)


@pytest.fixture(scope="module")
def explorer():
    return explore(small_model(attention_layers=(0, 2)), TEXT, targets=30)


class TestAblate:
    def test_by_count_and_by_distance(self, explorer):
        weights = explorer.trace.weights[2][4]
        result = explorer.ablate(4, count=3, block=2)
        assert (result.removed, result.weight) == (3, pytest.approx(weights.topk(3).values.sum()))
        result = explorer.ablate(4, between=(2, 5))
        assert (result.removed, explorer.ablate(4, between=(2, 5), block=0)) == (4, result)
        everything = explorer.ablate(4, count=10**30)
        assert everything == explorer.ablate(4, between=(1, 10**30))
        assert everything.weight == pytest.approx(1)
        assert everything.bits == pytest.approx(everything.random)

    def test_the_page_holds_the_same_numbers(self, explorer):
        content = explorer.content
        for head in content["heads"]:
            top = unpack(head["top"]).reshape(30, -1)
            for column, count in enumerate(content["counts"]):
                result = explorer.ablate(4, count=count, block=head["block"])
                assert result.bits == pytest.approx(top[4, column], abs=1e-4)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"target": 30, "count": 1},
            {"target": -1, "count": 1},
            {"count": 1, "block": 1},
            {},
            {"count": 1, "between": (1, 2)},
            {"count": 0},
            {"between": (0, 3)},
            {"between": (5, 3)},
            {"between": (25, 30)},
            {"count": 1, "draws": 1},
        ],
    )
    def test_invalid_arguments_get_one_line(self, explorer, wrong):
        with pytest.raises(InputError) as caught:
            explorer.ablate(wrong.pop("target", 3), **wrong)
        assert "\n" not in str(caught.value)


class TestLive:
    @pytest.fixture
    def live(self):
        return LiveExplorer(explore(small_model(attention_layers=(0, 2)), TEXT, targets=30))

    def test_the_first_requests(self, live):
        assert live.respond({"type": "page"}) == {"type": "page", "page": live.explorer.page()}
        hello = live.respond({"type": "hello", "sharnn": "request"})
        assert (hello["type"], hello["memory_limit"]) == ("hello", 24)

    def test_it_traces_a_new_text(self, live):
        text = "naïve café\n" * 4
        response = live.respond({"type": "trace", "text": text, "memory_limit": 10})
        assert (response["type"], response["text"]) == ("trace", "")
        content = json.loads(json.dumps(response["payload"]))
        assert text_of(content) == text.encode()
        assert (content["memory_limit"], content["num_targets"]) == (10, len(text.encode()) - 1)
        assert live.explorer.content == content, "the next requests are about this text"
        expected = trace_attention(live.explorer.model, text.encode(), memory_limit=10).weights[2]
        assert torch.allclose(weights_of(content, content["heads"][1]), expected, rtol=WITHIN)

    def test_the_end_of_a_long_text_can_be_selected(self, live):
        response = live.respond({"type": "trace", "text": "abcdefg" * 200, "memory_limit": 10})
        content = response["payload"]
        assert (content["first"], content["num_targets"]) == (10, 1024)
        assert text_of(content) == (b"abcdefg" * 200)[-1034:]
        assert response["text"] == "Of 1,400 bytes, the last 1,024 can be selected."

    def test_half_a_surrogate_pair_is_read_as_its_bytes(self, live):
        response = live.respond({"type": "trace", "text": "a\ud83d", "memory_limit": 10})
        assert text_of(response["payload"]) == b"a\xed\xa0\xbd"

    def test_it_removes_the_requested_positions(self, live):
        request = {"type": "ablate", "block": 2, "target": 7}
        response = live.respond({**request, "count": 5, "nearest": None, "farthest": None})
        result = live.explorer.ablate(7, count=5, block=2)
        assert (response["type"], response["block"], response["target"]) == ("ablation", 2, 7)
        assert response["text"] == describe("the 5 most attended positions", result)
        assert f"{result.bits:+.3f} bits" in response["text"]
        response = live.respond({**request, "count": None, "nearest": 2, "farthest": 9})
        result = live.explorer.ablate(7, between=(2, 9), block=2)
        assert response["text"] == describe("the positions from 2 to 9 bytes back", result)

    def test_targets_are_counted_from_the_first_one_on_the_page(self):
        model = small_model(memory=300)
        data = bytes(torch.randint(256, (1000,)).tolist())
        trace = trace_attention(model, data, targets=600)
        explorer = Explorer(model, trace, megabytes=0.2)
        dropped = 600 - explorer.content["num_targets"]
        assert dropped > 0
        live = LiveExplorer(explorer)
        response = live.respond({"type": "ablate", "block": 1, "target": 3, "count": 4})
        result = explorer.ablate(dropped + 3, count=4)
        assert (
            f"{result.bits:+.3f} bits. Without 4 random positions: {result.random:+.3f}"
            in response["text"]
        )
        beyond = {"type": "ablate", "block": 1, "target": 600 - dropped, "count": 4}
        assert live.respond(beyond)["type"] == "error"
        assert live.respond({**beyond, "target": -1})["type"] == "error"

    @pytest.mark.parametrize(
        "invalid",
        [
            {},
            {"type": None},
            {"type": "dance"},
            {"type": ["page"]},
            {"type": "trace"},
            {"type": "trace", "text": "hello"},
            {"type": "trace", "text": "hello", "memory_limit": 0},
            {"type": "trace", "text": "hello", "memory_limit": -5},
            {"type": "trace", "text": "hello", "memory_limit": 1.5},
            {"type": "trace", "text": "hello", "memory_limit": "9"},
            {"type": "trace", "text": "hello", "memory_limit": True},
            {"type": "trace", "text": "hello", "memory_limit": None},
            {"type": "trace", "text": "hello", "memory_limit": 10**9},
            {"type": "trace", "text": "", "memory_limit": 9},
            {"type": "trace", "text": "a", "memory_limit": 9},
            {"type": "trace", "text": 7, "memory_limit": 9},
            {"type": "trace", "memory_limit": 9},
            {"type": "trace", "text": "a" * 1_000_001, "memory_limit": 9},
            {"type": "ablate"},
            {"type": "ablate", "block": 0, "target": 3},
            {"type": "ablate", "block": 1, "target": 3, "count": 1},
            {"type": "ablate", "block": None, "target": 3, "count": 1},
            {"type": "ablate", "block": 0, "target": 30, "count": 1},
            {"type": "ablate", "block": 0, "target": -1, "count": 1},
            {"type": "ablate", "block": 0, "target": None, "count": 1},
            {"type": "ablate", "block": 0, "target": 3, "count": 0},
            {"type": "ablate", "block": 0, "target": 3, "count": 1.5},
            {"type": "ablate", "block": 0, "target": 3, "count": "many"},
            {"type": "ablate", "block": 0, "target": 3, "nearest": 1},
            {"type": "ablate", "block": 0, "target": 3, "nearest": 5, "farthest": 2},
            {"type": "ablate", "block": 0, "target": 3, "nearest": 0, "farthest": 2},
            {"type": "ablate", "block": 0, "target": 3, "nearest": 100, "farthest": 200},
        ],
        ids=str,
    )
    def test_an_invalid_request_gets_a_line(self, live, invalid):
        before = live.explorer
        response = live.respond(invalid)
        kind = invalid.get("type")
        assert (response["type"], response["request"]) == (
            "error",
            kind if kind in ("trace", "ablate") else None,
        )
        assert response["text"]
        assert "\n" not in response["text"]
        assert live.explorer is before

    def test_a_failure_is_sent_and_raised(self, live, monkeypatch):
        sent = []
        monkeypatch.setattr(live.widget, "send", sent.append)
        live._receive({"type": "hello"})
        monkeypatch.setattr(live, "respond", lambda request: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            live._receive({"type": "trace"})
        assert [response["type"] for response in sent] == ["hello", "error"]
        assert sent[1]["request"] == "trace"

    def test_an_interrupted_kernel_responds(self, live, monkeypatch):
        def interrupt(request):
            raise KeyboardInterrupt

        sent = []
        monkeypatch.setattr(live.widget, "send", sent.append)
        monkeypatch.setattr(live, "_trace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            live._receive({"type": "trace"})
        assert [response["type"] for response in sent] == ["error"]

    @given(message=MESSAGES)
    @example(message=None)
    @example(message=[{"type": "page"}])
    @example(message={"type": ["page"]})
    @example(message={"type": {}})
    @example(message={"type": float("nan")})
    @example(message={"type": "\ud800"})
    @example(message={"type": "ablate", "block": 0, "target": 10**5000, "count": 1})
    @example(message={"type": "ablate", "block": 0, "target": 3, "count": 2**63})
    @example(message={"type": "ablate", "block": 0, "target": 3, "nearest": 1, "farthest": 2**63})
    def test_every_message_gets_exactly_one_response(self, live, monkeypatch, message):
        sent = []
        monkeypatch.setattr(live.widget, "send", sent.append)
        live._receive(message)
        (response,) = sent
        json.dumps(response, allow_nan=False).encode()
        if response["type"] == "error":
            assert response["text"]
            assert len(response["text"]) < 200
            assert "\n" not in response["text"]

    def test_it_displays_itself_with_and_without_a_kernel(self, live):
        data, _ = live._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in data
        assert data["text/html"] == live.explorer._repr_html_()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    sharnn.save(small_model(), folder / "model.safetensors")
    sharnn.save(small_model(attention_layers=()), folder / "headless.safetensors")
    (folder / "text").write_bytes(TEXT)
    (folder / "one").write_bytes(b"x")
    (folder / "empty").write_bytes(b"")
    return folder


class TestCommand:
    def test_it_writes_the_page(self, folder, tmp_path, capsys):
        out = tmp_path / "page.html"
        words = f"attention {folder}/model.safetensors --data {folder}/text --out {out}"
        assert main([*words.split(), "--watched", "60", "--start", "100", "--memory", "20"]) == 0
        content = content_of(out.read_text("utf-8"))
        assert (content["memory_limit"], content["num_targets"]) == (20, 60)
        assert text_of(content) == TEXT[80:160]
        printed = capsys.readouterr().out.splitlines()
        assert printed == [f"{out}: {out.stat().st_size / 1e6:.1f} MB", *content["notes"]]
        assert list(tmp_path.iterdir()) == [out]

    def test_it_also_writes_the_statistics(self, folder, tmp_path, capsys):
        out, figure = tmp_path / "page.html", tmp_path / "survey.png"
        words = f"attention {folder}/model.safetensors --data {folder}/text --out {out}"
        assert main([*words.split(), "--survey", str(figure)]) == 0
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert capsys.readouterr().out.splitlines()[-1] == str(figure)
        assert sorted(tmp_path.iterdir()) == [out, figure]

    @pytest.mark.parametrize(
        "line",
        [
            "nowhere.safetensors --data text --out x.html",
            "text --data text --out x.html",
            "headless.safetensors --data text --out x.html",
            "model.safetensors --data nowhere --out x.html",
            "model.safetensors --data empty --out x.html",
            "model.safetensors --data one --out x.html",
            "model.safetensors --out x.html",
            "model.safetensors --data text",
            "model.safetensors --data text --out .",
            "model.safetensors --data text --out no/x.html",
            "model.safetensors --data text --out text/x.html",
            "model.safetensors --data text --out x.html --start 412",
            "model.safetensors --data text --out x.html --start 0",
            "model.safetensors --data text --out x.html --start 9999999999999999999999",
            "model.safetensors --data text --out x.html --watched 0",
            "model.safetensors --data text --out x.html --memory 0",
            "model.safetensors --data text --out x.html --megabytes 0.001",
            "model.safetensors --data text --out x.html --megabytes -1",
            "model.safetensors --data text --out x.html --megabytes nan",
            "model.safetensors --data text --out x.html --megabytes much",
            "model.safetensors --data text --out x.html --survey no/x.png",
            "model.safetensors --data text --out x.html --survey .",
            "model.safetensors --data text --out x.html --survey x.doc",
            "model.safetensors --data text --out x.html --survey x",
            "model.safetensors --data text --out x.html --device mars",
        ],
    )
    def test_invalid_input_gets_one_line_and_leaves_nothing(self, folder, monkeypatch, capfd, line):
        monkeypatch.chdir(folder)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        assert main(["attention", *line.split()]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("sharnn: ")
        assert err.count("\n") == 1
        assert len(err) < 500
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
