"""The attention explorer without a browser: what its page holds, what its kernel answers."""

import base64
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sharnn
from sharnn import InputError, LiveExplorer, explore
from sharnn.analysis.explorer import Explorer
from sharnn.analysis.live import in_words
from sharnn.analysis.page import STEP, dequantise, overview_edges, pack, quantise, unpack
from sharnn.analysis.trace import read
from sharnn.cli import main
from small import small_model

WITHIN = 0.0334  # the page says 3.3 %
MARKS = b"</script><script>window.hacked=1</script><img src=x onerror=hack()>&lt;"
TEXT = (b"The caf\xc3\xa9 opens at nine. \xff\x00 " + MARKS) * 4  # 412 bytes


def content_of(page: str) -> dict:
    """The payload, as the page's script finds it."""
    (data,) = re.findall(r'<script type="application/json" id="payload">(.*?)</script>', page)
    return json.loads(data)


def weights_of(content: dict, head: dict) -> torch.Tensor:
    """(watched, memory) as the page stores them."""
    codes = torch.from_numpy(unpack(head["codes"]))
    return dequantise(codes, head["largest"]).view(content["watched"], content["memory"])


def text_of(content: dict) -> bytes:
    return unpack(content["text"]).tobytes()


class TestNumbers:
    @settings(deadline=None)
    @given(st.lists(st.floats(width=32, allow_nan=False)))
    def test_floats_come_back_as_they_were(self, values):
        array = np.array(values, np.float32)
        assert unpack(pack(torch.from_numpy(array), "float32")).tobytes() == array.tobytes()

    @settings(deadline=None)
    @given(st.lists(st.integers(-(2**31), 2**31 - 1)))
    def test_so_do_whole_numbers(self, values):
        assert unpack(pack(torch.tensor(values, dtype=torch.int64), "int32")).tolist() == values

    @settings(deadline=None)
    @given(st.binary())
    def test_so_do_bytes(self, data):
        packed = pack(torch.tensor(list(data), dtype=torch.uint8), "uint8")
        assert unpack(packed).tobytes() == data
        base64.b64decode(packed["data"], validate=True)

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 1, width=32), min_size=1))
    def test_a_weight_is_right_within_half_a_step(self, values):
        weights = torch.tensor(values)
        codes, largest = quantise(weights)
        assert codes.dtype == torch.uint8
        stored = dequantise(codes, largest)
        normal = weights >= 2.0**-126  # the faintest that floats hold in full
        kept = normal & (weights > weights.max() * 2.0**-23.9)
        assert torch.allclose(stored[kept], weights[kept], rtol=WITHIN, atol=0)
        assert (stored[normal & ~kept] <= weights[normal & ~kept] * (1 + WITHIN)).all()
        assert not normal.any() or (stored[weights == 0] == 0).all()

    def test_the_promise_on_the_page_is_kept(self):
        assert 2 ** (STEP / 2) - 1 < WITHIN

    @settings(deadline=None)
    @given(st.integers(1, 30_000))
    def test_the_bands_of_the_overview_cover_each_distance_once(self, memory):
        edges = overview_edges(memory)
        assert edges[0] == 1
        assert edges[-1] == memory + 1
        assert all(a < b for a, b in pairwise(edges))


@pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
class TestThePagesNumbers:
    def test_weights_are_the_models(self, heads):
        model = small_model(attention_layers=heads, memory=24)
        explorer = explore(model, TEXT, watched=50, start=100, segment_length=1)
        content = content_of(explorer.page())
        assert [head["block"] for head in content["heads"]] == list(heads)
        # The model alone: one byte at a time, so that each query sees a full memory.
        state, rows = None, {block: [] for block in heads}
        with torch.no_grad():
            for byte in TEXT[76:149]:
                _, state, weights = model(torch.tensor([[byte]]), state, return_attention=True)
                for block in heads:
                    rows[block].append(weights[block][0, 0].flip(0))  # the own key comes first
        for head in content["heads"]:
            stored = weights_of(content, head)
            for i, row in enumerate(rows[head["block"]][-50:]):
                assert len(row) == unpack(content["visible"])[i] == 24
                assert torch.allclose(stored[i], row, rtol=WITHIN, atol=1e-7)
            assert (stored.sum(-1) - 1).abs().max() < WITHIN

    def test_what_is_said_of_the_weights_is_so(self, heads):
        model = small_model(attention_layers=heads)
        explorer = explore(model, TEXT, watched=30)
        content = explorer.content
        for head in content["heads"]:
            weights = explorer.reading.weights[head["block"]]
            entropy = -torch.special.xlogy(weights, weights).sum(-1)
            assert unpack(head["effective"]) == pytest.approx(entropy.exp().numpy(), rel=1e-4)
            for i in range(30):
                row = weights[i].cumsum(0)
                assert row[unpack(head["median"])[i] - 1] >= 0.5 - 1e-6
                assert row[unpack(head["reach"])[i] - 1] >= 0.9 - 1e-6
            bands = len(content["edges"]) - 1
            assert unpack(head["mass"]).reshape(30, bands).sum(-1) == pytest.approx(1, abs=1e-5)


class TestThePage:
    def test_it_names_no_host_and_holds_no_raw_text(self):
        explorer = explore(small_model(), TEXT, name="</title><script>alert(1)</script>")
        for page in (explorer.page(), explorer._repr_html_()):
            assert not re.search(r"https?:|src=[\"']?/|@import|url\(", page.replace("&quot;", '"'))
            for hostile in ("hacked", "onerror", "alert(1)</script>", "<img"):
                assert hostile not in page
        assert "<iframe" not in explorer.page()
        assert "<script>alert" not in html_around(explorer.page())

    def test_a_name_that_is_no_utf8_is_no_trouble(self, tmp_path):
        explorer = explore(small_model(), b"hello " * 5, name="caf\udce9")
        assert explorer.save(tmp_path / "page.html").read_text("utf-8")

    def test_bytes_bits_and_guesses(self):
        model = small_model()
        explorer = explore(model, TEXT, watched=40)
        content = content_of(explorer.page())
        assert text_of(content) == TEXT[:64]
        assert (content["first"], content["watched"]) == (24, 40)
        assert np.array_equal(unpack(content["bits"]), explorer.reading.bits, equal_nan=True)
        chances = unpack(content["chances"]).reshape(40, -1)
        likely = unpack(content["likely"]).reshape(40, -1)
        for i in range(40):
            expected = explorer.reading.probabilities[i]
            assert likely[i, 0] == expected.argmax()
            assert chances[i] == pytest.approx(expected[likely[i].tolist()].numpy())

    @pytest.mark.parametrize("heads", [(1,), (0, 2)])
    def test_a_small_page_holds_the_last_bytes_and_says_so(self, heads):
        model = small_model(memory=300, attention_layers=heads)
        text = torch.randint(256, (1000,), generator=torch.Generator().manual_seed(3))
        data = bytes(text.tolist())
        whole = explore(model, data, watched=600)
        size = len(whole.page().encode()) / 1e6
        limit = 0.6 * size
        small = explore(model, data, watched=600, megabytes=limit)
        assert 0.5 * size < len(small.page().encode()) / 1e6 <= limit
        kept = small.content["watched"]
        dropped = 600 - kept
        assert 0 < kept < 600
        assert any(f"first {dropped:,} of 600 watched" in note for note in small.content["notes"])
        assert not any("dropped" in note for note in whole.content["notes"])
        # What is left belongs to the last bytes.
        first, begin = small.content["first"], small.content["begin"]
        assert 0 <= begin < kept
        assert text_of(small.content)[first:] == data[900 - kept : 900]
        assert text_of(small.content)[:first] == data[900 - kept - 300 : 900 - kept]
        assert np.array_equal(
            unpack(small.content["bits"])[first:], unpack(whole.content["bits"])[-kept:]
        )
        for new, old in zip(small.content["heads"], whole.content["heads"], strict=True):
            expected = weights_of(whole.content, old)[dropped:]
            assert torch.allclose(weights_of(small.content, new), expected, rtol=2.1 * WITHIN)
            for name in ("top", "chance", "spread", "bands", "mass"):
                columns = len(unpack(old[name])) // 600
                expected = unpack(old[name]).reshape(600, columns)[dropped:]
                assert np.array_equal(unpack(new[name]).reshape(kept, columns), expected)

    def test_too_small_a_page(self):
        with pytest.raises(InputError, match=r"needs 0\.\d+ MB for a single byte"):
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
        assert (content["watched"], content["first"], content["begin"]) == (1, 1, 0)
        assert unpack(content["visible"]).tolist() == [1]
        assert weights_of(content, content["heads"][0])[0].tolist() == [1.0] + 23 * [0.0]
        assert explorer.bits_lost(0, count=5).removed == 1

    def test_a_memory_of_one(self):
        content = explore(small_model(), b"abcd", memory=1).content
        assert content["edges"] == [1, 2]
        assert weights_of(content, content["heads"][0]).flatten().tolist() == [1.0, 1.0, 1.0]

    def test_a_text_shorter_than_the_memory(self):
        content = explore(small_model(memory=200), TEXT[:50]).content
        assert text_of(content) == TEXT[:50]
        assert (content["memory"], content["watched"]) == (200, 49)
        assert unpack(content["visible"]).tolist() == list(range(1, 50))
        assert content["cuts"][-1] == 201

    def test_without_a_head_there_is_nothing_to_show(self):
        with pytest.raises(InputError, match="no head"):
            explore(small_model(attention_layers=()), b"hello")


def html_around(page: str) -> str:
    """The page without its payload."""
    return re.sub(r'id="payload">.*?</script>', "", page)


@pytest.fixture(scope="module")
def explorer():
    return explore(small_model(attention_layers=(0, 2)), TEXT, watched=30)


class TestBitsLost:
    def test_by_count_and_by_distance(self, explorer):
        weights = explorer.reading.weights[2][4]
        loss = explorer.bits_lost(4, count=3, block=2)
        assert (loss.removed, loss.weight) == (3, pytest.approx(weights.topk(3).values.sum()))
        loss = explorer.bits_lost(4, between=(2, 5))
        assert (loss.removed, explorer.bits_lost(4, between=(2, 5), block=0)) == (4, loss)
        everything = explorer.bits_lost(4, count=10**30)
        assert everything == explorer.bits_lost(4, between=(1, 10**30))
        assert everything.weight == pytest.approx(1)
        assert everything.bits == pytest.approx(everything.random)

    def test_the_page_says_the_same(self, explorer):
        content = explorer.content
        for head in content["heads"]:
            top = unpack(head["top"]).reshape(30, -1)
            for place, count in enumerate(content["counts"]):
                loss = explorer.bits_lost(4, count=count, block=head["block"])
                assert loss.bits == pytest.approx(top[4, place], abs=1e-4)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"byte": 30, "count": 1},
            {"byte": -1, "count": 1},
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
    def test_bad_questions_get_one_line(self, explorer, wrong):
        with pytest.raises(InputError) as caught:
            explorer.bits_lost(wrong.pop("byte", 3), **wrong)
        assert "\n" not in str(caught.value)


class TestLive:
    @pytest.fixture
    def live(self):
        return LiveExplorer(explore(small_model(attention_layers=(0, 2)), TEXT, watched=30))

    def test_the_page_comes_first(self, live):
        assert live.answer({"what": "page"}) == {"what": "page", "page": live.explorer.page()}
        hello = live.answer({"what": "hello", "sharnn": "ask"})
        assert (hello["what"], hello["memory"]) == ("hello", 24)

    def test_it_reads_what_was_typed(self, live):
        text = "naïve café\n" * 4
        answer = live.answer({"what": "read", "text": text, "memory": 10})
        assert (answer["what"], answer["text"]) == ("reading", "")
        content = json.loads(json.dumps(answer["payload"]))
        assert text_of(content) == text.encode()
        assert (content["memory"], content["watched"]) == (10, len(text.encode()) - 1)
        assert live.explorer.content == content, "the next questions are about this text"
        expected = read(live.explorer.model, text.encode(), memory=10).weights[2]
        assert torch.allclose(weights_of(content, content["heads"][1]), expected, rtol=WITHIN)

    def test_of_a_long_text_the_end(self, live):
        answer = live.answer({"what": "read", "text": "abcdefg" * 200, "memory": 10})
        content = answer["payload"]
        assert (content["first"], content["watched"]) == (10, 1024)
        assert text_of(content) == (b"abcdefg" * 200)[-1034:]
        assert answer["text"] == "Of 1,400 bytes the last 1,024 can be chosen."

    def test_half_a_character_is_read_as_its_bytes(self, live):
        answer = live.answer({"what": "read", "text": "a\ud83d", "memory": 10})
        assert text_of(answer["payload"]) == b"a\xed\xa0\xbd"

    def test_it_removes_what_it_is_told(self, live):
        question = {"what": "remove", "block": 2, "chosen": 7}
        answer = live.answer({**question, "count": 5, "nearest": None, "farthest": None})
        loss = live.explorer.bits_lost(7, count=5, block=2)
        assert (answer["what"], answer["block"], answer["chosen"]) == ("removed", 2, 7)
        assert answer["text"] == in_words("the 5 most attended", loss)
        assert f"{loss.bits:+.3f} bits" in answer["text"]
        answer = live.answer({**question, "count": None, "nearest": 2, "farthest": 9})
        loss = live.explorer.bits_lost(7, between=(2, 9), block=2)
        assert answer["text"] == in_words("the 8 from 2 to 9 back", loss)

    def test_where_the_page_dropped_bytes_its_own_count(self):
        model = small_model(memory=300)
        data = bytes(torch.randint(256, (1000,)).tolist())
        reading = read(model, data, watched=600)
        explorer = Explorer(model, reading, megabytes=0.2)
        dropped = 600 - explorer.content["watched"]
        assert dropped > 0
        live = LiveExplorer(explorer)
        answer = live.answer({"what": "remove", "block": 1, "chosen": 3, "count": 4})
        loss = explorer.bits_lost(dropped + 3, count=4)
        assert (
            f"{loss.bits:+.3f} bits; without as many at random: {loss.random:+.3f}"
            in answer["text"]
        )
        beyond = {"what": "remove", "block": 1, "chosen": 600 - dropped, "count": 4}
        assert live.answer(beyond)["what"] == "problem"
        assert live.answer({**beyond, "chosen": -1})["what"] == "problem"

    @pytest.mark.parametrize(
        "question",
        [
            {},
            {"what": None},
            {"what": "dance"},
            {"what": ["page"]},
            {"what": "read"},
            {"what": "read", "text": "hello"},
            {"what": "read", "text": "hello", "memory": 0},
            {"what": "read", "text": "hello", "memory": -5},
            {"what": "read", "text": "hello", "memory": 1.5},
            {"what": "read", "text": "hello", "memory": "9"},
            {"what": "read", "text": "hello", "memory": True},
            {"what": "read", "text": "hello", "memory": None},
            {"what": "read", "text": "hello", "memory": 10**9},
            {"what": "read", "text": "", "memory": 9},
            {"what": "read", "text": "a", "memory": 9},
            {"what": "read", "text": 7, "memory": 9},
            {"what": "read", "memory": 9},
            {"what": "read", "text": "a" * 1_000_001, "memory": 9},
            {"what": "remove"},
            {"what": "remove", "block": 0, "chosen": 3},
            {"what": "remove", "block": 1, "chosen": 3, "count": 1},
            {"what": "remove", "block": None, "chosen": 3, "count": 1},
            {"what": "remove", "block": 0, "chosen": 30, "count": 1},
            {"what": "remove", "block": 0, "chosen": -1, "count": 1},
            {"what": "remove", "block": 0, "chosen": None, "count": 1},
            {"what": "remove", "block": 0, "chosen": 3, "count": 0},
            {"what": "remove", "block": 0, "chosen": 3, "count": 1.5},
            {"what": "remove", "block": 0, "chosen": 3, "count": "many"},
            {"what": "remove", "block": 0, "chosen": 3, "nearest": 1},
            {"what": "remove", "block": 0, "chosen": 3, "nearest": 5, "farthest": 2},
            {"what": "remove", "block": 0, "chosen": 3, "nearest": 0, "farthest": 2},
            {"what": "remove", "block": 0, "chosen": 3, "nearest": 100, "farthest": 200},
        ],
        ids=str,
    )
    def test_a_bad_question_gets_a_line(self, live, question):
        before = live.explorer
        answer = live.answer(question)
        assert (answer["what"], answer["about"]) == ("problem", question.get("what"))
        assert answer["text"]
        assert "\n" not in answer["text"]
        assert live.explorer is before

    def test_what_fails_within_is_told_and_raised(self, live, monkeypatch):
        sent = []
        monkeypatch.setattr(live.widget, "send", sent.append)
        live._receive({"what": "hello"})
        monkeypatch.setattr(live, "answer", lambda question: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            live._receive({"what": "read"})
        assert [answer["what"] for answer in sent] == ["hello", "problem"]
        assert sent[1]["about"] == "read"

    def test_it_shows_itself_with_and_without_a_kernel(self, live):
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
        assert (content["memory"], content["watched"]) == (20, 60)
        assert text_of(content) == TEXT[80:160]
        printed = capsys.readouterr().out.splitlines()
        assert printed == [f"{out}: {out.stat().st_size / 1e6:.1f} MB", *content["notes"]]
        assert list(tmp_path.iterdir()) == [out]

    def test_and_a_survey(self, folder, tmp_path, capsys):
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
    def test_bad_input_gets_one_line_and_leaves_nothing(self, folder, monkeypatch, capfd, line):
        monkeypatch.chdir(folder)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        assert main(["attention", *line.split()]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("sharnn: ")
        assert err.count("\n") == 1
        assert len(err) < 500
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
