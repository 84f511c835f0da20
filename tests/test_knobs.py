"""Figures with controls: widgets in a live notebook, pictures in a page without a kernel."""

import os
from unittest.mock import MagicMock

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch
from docutils import nodes
from playwright.sync_api import expect

from browser import needs_browser
from sharnn import InputError
from sharnn.notebook import Knobs
from sharnn.notebook.positions import page_control
from sharnn.plots import panels
from sharnn.web import pictures
from sharnn.web.arrays import unpack
from sharnn.web.pictures import TITLE, pack_lines

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def drawn(monkeypatch):
    """A list for the values that figures are drawn with, while nothing is displayed."""
    monkeypatch.setattr("IPython.display.display", lambda figure: None)
    monkeypatch.delenv("SHARNN_KNOBS", raising=False)
    return []


@pytest.fixture
def draw(drawn):
    """A function that draws a figure and adds its arguments to ``drawn``."""

    def draw(n, kind="a"):
        drawn.append((n, kind))
        return panels()[0].figure

    return draw


class TestInALiveNotebook:
    def test_they_are_widgets_and_an_image(self, drawn, draw):
        knobs = Knobs(draw, n=ipywidgets.IntSlider(3, 1, 5), kind=["a", "b"])
        assert drawn == [], "nothing is drawn before it is displayed"
        before = plt.get_fignums()
        bundle = knobs._repr_mimebundle_()
        assert bundle["image/png"].startswith(b"\x89PNG")
        assert WIDGET in bundle
        assert "text/html" not in bundle, "front ends must choose the widgets"
        assert set(drawn) == {(3, "a")}, "the image shows the initial values"
        assert plt.get_fignums() == before, "displayed figures are closed"

    def test_they_work_with_ipywidgets_7(self, drawn, draw, monkeypatch):
        class Interactive(ipywidgets.interactive):
            """Has no values before it displays itself, and builds no MIME bundle."""

            _repr_mimebundle_ = None

            def __init__(self, function, **controls):
                super().__init__(function, **controls)
                self.kwargs = {}
                drawn.clear()

        monkeypatch.setattr(ipywidgets, "interactive", Interactive)
        bundle = Knobs(draw, n=(1, 5))._repr_mimebundle_()
        assert drawn == [(3, "a")] * 2, "for the widget and for the image"
        assert bundle[WIDGET]["model_id"]
        assert bundle["image/png"].startswith(b"\x89PNG")


class TestInAPage:
    @pytest.fixture(autouse=True)
    def build(self, drawn, monkeypatch):
        monkeypatch.setenv("SHARNN_KNOBS", "pictures")

    def test_every_position_is_drawn_beforehand(self, drawn, draw):
        before = plt.get_fignums()
        knobs = Knobs(draw, {"n": [1, 5]}, n=ipywidgets.IntSlider(3, 1, 5), kind=["a", "b"])
        assert drawn[-6:] == [(n, kind) for n in (1, 3, 5) for kind in ("a", "b")]
        assert plt.get_fignums() == before
        bundle = knobs._repr_mimebundle_()
        assert len(drawn) == 7, "and the initial one as an image; nothing when it is displayed"
        assert bundle["text/html"].startswith("<iframe")
        assert bundle["image/png"].startswith(b"\x89PNG")
        assert WIDGET not in bundle, "a widget needs a kernel and a script from another host"

    def test_the_same_figures_give_the_same_page(self, draw):
        assert Knobs(draw, n=(1, 3)).page() == Knobs(draw, n=(1, 3)).page()

    def test_too_many_pictures_are_refused_before_any_is_drawn(self, drawn, draw):
        message = "n, kind needs 102 pictures, but 100 are the maximum: list fewer values"
        with pytest.raises(InputError, match=message):
            Knobs(draw, n=(0, 50), kind=["a", "b"]).page()
        assert len(drawn) <= 1

    def test_an_error_in_a_later_picture_ends_the_cell(self, draw):
        # IPython would print an error of a display method, and the build would succeed.
        with pytest.raises(ZeroDivisionError):
            Knobs(lambda n: draw(1 / (n - 2)), n=ipywidgets.IntSlider(1, 1, 3))

    def test_mistakes_are_one_line(self, draw, monkeypatch):
        with pytest.raises(InputError, match="a name in positions must be one of n, got 'm'"):
            Knobs(draw, {"m": [1]}, n=(1, 3))
        monkeypatch.setenv("SHARNN_KNOBS", "yes")
        with pytest.raises(InputError, match="SHARNN_KNOBS must be one of widgets, pictures"):
            Knobs(draw, n=(1, 3))


@pytest.mark.parametrize(
    ("widget", "listed", "labels", "initial"),
    [
        (ipywidgets.IntSlider(3, 1, 5), None, ["1", "2", "3", "4", "5"], 2),
        (ipywidgets.IntSlider(3, 1, 5), [5, 4], ["3", "4", "5"], 0),
        (ipywidgets.FloatSlider(0.3, min=0, max=0.5, step=0.1), [0.1 * 3], ["0.30"], 0),
        (ipywidgets.FloatSlider(0.5, min=0, max=0.5, step=0.25), None, ["0.00", "0.25", "0.50"], 2),
        (ipywidgets.FloatLogSlider(0.1, min=-2, max=0, step=1), None, ["0.01", "0.1", "1"], 1),
        (ipywidgets.Dropdown(options=[("one", 1), ("two", 2)], value=2), None, ["one", "two"], 1),
        (ipywidgets.Dropdown(options=["a", "b", "c"]), ["c", "b"], ["c", "b", "a"], 2),
        (ipywidgets.Checkbox(True), None, ["False", "True"], 1),
        (ipywidgets.Text("written"), None, ["written"], 0),
    ],
)
def test_the_positions_of_a_widget(widget, listed, labels, initial):
    control, values = page_control("name", widget, listed)
    assert control.labels == labels
    assert control.initial == initial
    assert len(values) == len(labels)
    assert control.slider == ("Slider" in type(widget).__name__)


def test_pictures_share_their_lines():
    texts = ["a\nb\nc", "a\nd", "b"]
    packed = pack_lines(texts)
    lines = bytes(unpack(packed["lines"])).decode().split("\n")
    assert lines == ["a", "b", "c", "d"]
    restored = [lines[number] for number in unpack(packed["numbers"])]
    sizes = packed["lengths"]
    assert ["\n".join(part) for part in _split(restored, sizes)] == texts


def _split(items, sizes):
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [items[end - size : end] for size, end in zip(sizes, ends, strict=True)]


class TestInTheBook:
    def test_the_build_draws_pictures(self, monkeypatch):
        monkeypatch.setenv("SHARNN_KNOBS", "")  # so that it is restored after the test
        monkeypatch.delenv("SHARNN_KNOBS")
        pictures.setup(MagicMock())
        assert os.environ["SHARNN_KNOBS"] == "pictures"
        monkeypatch.setenv("SHARNN_KNOBS", "widgets")
        pictures.setup(MagicMock())
        assert os.environ["SHARNN_KNOBS"] == "widgets", "a choice of the reader's is kept"

    def test_a_frame_has_the_alternative_text_of_its_cell(self, draw, monkeypatch):
        monkeypatch.setenv("SHARNN_KNOBS", "pictures")
        frame = Knobs(draw, n=(1, 2))._repr_mimebundle_()["text/html"]
        document = nodes.container()
        for alt in ({"image": {"alt": 'Two "bars" & a line'}}, {}):
            cell = nodes.container(nb_element="cell_code", cell_metadata={"mystnb": alt})
            cell += nodes.raw(text=frame, format="html")
            document += cell
        events = {}
        app = MagicMock()
        app.connect = events.__setitem__
        pictures.setup(app)
        events["doctree-read"](app, document)
        described, other = (cell.astext() for cell in document)
        assert ' title="Two &quot;bars&quot; &amp; a line" srcdoc=' in described
        assert other == frame


COLOURS = {
    (n, kind): (40 * n, 200 - 40 * n, 255 * (kind == "b")) for n in (1, 3, 5) for kind in "ab"
}
DESCRIPTION = "A white square on a colour."


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    @pytest.fixture(params=["light", "dark"])
    def page(self, browser, tmp_path, monkeypatch, request):
        """Yields a page around a frame whose pictures are one colour for each position."""

        def draw(n, kind):
            (axes,) = panels()
            axes.figure.set_facecolor([part / 255 for part in COLOURS[n, kind]])
            return axes.figure

        monkeypatch.setenv("SHARNN_KNOBS", "pictures")
        slider = ipywidgets.IntSlider(3, 1, 5, step=2)
        frame = Knobs(draw, n=slider, kind=["a", "b"])._repr_mimebundle_()["text/html"]
        frame = frame.replace(TITLE, DESCRIPTION, 1)
        path = tmp_path / "page.html"
        path.write_text(f'<html data-theme="{request.param}"><body>{frame}<p id="below">below</p>')
        context = browser.new_context(offline=True, viewport={"width": 900, "height": 800})
        page = context.new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda message: page.problems.append(message.text))
        page.goto(path.as_uri())
        page.inside = page.frame_locator("iframe")
        page.inside.locator("body[data-ready]").wait_for()
        page.theme = request.param
        yield page
        assert page.problems == []
        context.close()

    def shown(self, page):
        """Returns the position whose picture is shown, by its colour."""
        colour = page.inside.locator("#picture").evaluate(
            """async (image) => {
                await image.decode();
                const context = document.createElement("canvas").getContext("2d");
                context.drawImage(image, 0, 0);
                return [...context.getImageData(2, 2, 1, 1).data].slice(0, 3);
            }"""
        )
        distance = {
            position: sum(abs(a - b) for a, b in zip(colour, expected, strict=True))
            for position, expected in COLOURS.items()
        }
        nearest = min(distance, key=distance.get)
        assert distance[nearest] < 5
        return nearest

    def test_the_keyboard_moves_from_picture_to_picture(self, page):
        slider, choice = (
            page.inside.get_by_role("slider", name="n"),
            page.inside.get_by_role("combobox", name="kind"),
        )
        assert self.shown(page) == (3, "a")
        page.keyboard.press("Tab")
        expect(slider).to_be_focused()
        for key, n in (("ArrowRight", 5), ("Home", 1), ("ArrowRight", 3), ("End", 5)):
            page.keyboard.press(key)
            assert self.shown(page) == (n, "a")
            expect(page.inside.locator("output")).to_have_text(str(n))
            expect(slider).to_have_attribute("aria-valuetext", str(n))
        page.keyboard.press("Tab")
        expect(choice).to_be_focused()
        page.keyboard.press("b")
        assert self.shown(page) == (5, "b")
        picture = page.inside.locator("#picture")
        expect(picture).to_have_attribute("alt", f"{DESCRIPTION} Shown: n 5, kind b.")

    def test_nothing_else_moves(self, page):
        expect(page.locator("iframe")).not_to_have_css("height", "0px")
        page.wait_for_timeout(300)
        places = [
            lambda: page.locator("#below").bounding_box(),
            lambda: page.inside.locator("#picture").bounding_box(),
            lambda: page.inside.get_by_role("slider", name="n").bounding_box(),
        ]
        before = [place() for place in places]
        page.inside.get_by_role("slider", name="n").fill("0")
        page.inside.get_by_role("combobox", name="kind").select_option("b")
        assert self.shown(page) == (1, "b")
        assert [place() for place in places] == before

    def test_it_fits_a_phone_and_has_the_theme_of_the_page(self, page):
        page.set_viewport_size({"width": 390, "height": 800})
        inside = page.locator("iframe").element_handle().content_frame()
        for frame in (page, inside):
            frame.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        excess = "innerHeight - document.body.scrollHeight"
        inside.wait_for_function(f"{excess} >= 0 && {excess} < 20")
        assert inside.evaluate("document.documentElement.dataset.theme") == page.theme
        back = inside.locator("main").evaluate("main => getComputedStyle(main).backgroundColor")
        assert back == {"light": "rgb(246, 247, 249)", "dark": "rgb(29, 33, 39)"}[page.theme]
