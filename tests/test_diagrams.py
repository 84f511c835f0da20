"""The book's diagrams: one style, nothing from outside, described, and right where they compute."""

import io
import math
import re
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import jupytext
import pytest
from docutils import nodes
from docutils.utils import new_document
from matplotlib.image import imread

from browser import needs_browser, open_browser
from sharnn.web.captions import _make_figures, _number_chapters_only

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"
DIAGRAMS = sorted((BOOK / "diagrams").glob("*.svg"))
PAGES = sorted({*BOOK.glob("*.md"), *BOOK.glob("*.ipynb")})
SVG = "{http://www.w3.org/2000/svg}"
WIDTH = 408
PHONE = 342  # pixels of text beside the margins of a page that is 390 wide

each = pytest.mark.parametrize("path", DIAGRAMS, ids=lambda path: path.stem)


def parse(path):
    return ET.parse(path).getroot()


def style(path):
    return parse(path).find(f"{SVG}style").text


def colours():
    """Returns the palette of each mode: names of colours and their values."""
    light, dark = style(DIAGRAMS[0]).split("@media (prefers-color-scheme: dark)")
    pairs = r"--([a-z-]+): (#[0-9a-f]{6});"
    return [dict(re.findall(pairs, mode)) for mode in (light, dark)]


def contrast(one, other):
    """Returns the contrast of two colours by the rule of WCAG, 1 to 21."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(share * p for share, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@each
def test_a_diagram_is_described_and_takes_nothing_from_outside(path):
    root = parse(path)
    assert root.get("viewBox").split()[2] == root.get("width") == str(WIDTH)
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title").text
    assert len(root.find(f"{SVG}desc").text) > 80
    allowed = set("svg title desc style defs marker path rect circle text tspan".split())
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= allowed
    assert "url(" not in re.sub(r"url\(#(cell-)?tip\)", "", path.read_text())
    assert "@import" not in style(path)


@each
def test_a_diagram_has_only_the_common_style(path):
    assert style(path) == style(DIAGRAMS[0])
    defs = [ET.tostring(parse(file).find(f"{SVG}defs")) for file in (path, DIAGRAMS[0])]
    assert defs[0] == defs[1]
    defined = set(re.findall(r"\.([a-z-]+)\b", style(path)))
    geometry = set("class x y dx dy width height rx cx cy r d".split())
    root = parse(path)
    for element in [e for child in root for e in child.iter() if child.tag != f"{SVG}defs"]:
        if element.tag not in (f"{SVG}title", f"{SVG}desc", f"{SVG}style"):
            assert set(element.keys()) <= geometry
            assert set((element.get("class") or "").split()) <= defined


def test_the_smallest_text_is_legible_on_a_phone():
    sizes = re.findall(r"font(?:-size)?: (?:italic )?([0-9.]+)px", style(DIAGRAMS[0]))
    assert min(map(float, sizes)) * PHONE / WIDTH > 10.8


@pytest.mark.parametrize("palette", colours(), ids=["light", "dark"])
def test_text_and_edges_have_enough_contrast(palette):
    fills = ["page", "hidden", "cell", "memory", "learned", "gate"]
    for fill in fills:
        assert contrast(palette["ink"], palette[fill]) >= 7
        if fill != "page":
            assert contrast(palette[f"{fill}-edge"], palette["page"]) >= 3
    assert contrast(palette["soft"], palette["page"]) >= 4.5
    assert contrast(palette["line"], palette["page"]) >= 4.5
    for one, other in combinations(fills[1:], 2):
        assert palette[f"{one}-edge"] != palette[f"{other}-edge"]


def uses(path):
    """Yields alternative text, file and the paragraph below, for each diagram in a page."""
    cells = jupytext.read(path).cells if path.suffix == ".ipynb" else None
    texts = [path.read_text()] if cells is None else [c.source for c in cells]
    for text in texts:
        for match in re.finditer(r"^!\[(.*)\]\((diagrams/.*)\)$", text, re.MULTILINE):
            yield match[1], match[2], text[match.end() :].strip("\n").split("\n\n")[0]


def test_every_use_of_a_diagram_has_alternative_text_and_a_caption():
    used = set()
    for path in PAGES:
        found = list(uses(path))
        assert len(found) == path.read_text().count("](diagrams/"), path.name
        for description, file, below in found:
            assert len(description) > 80, (path.name, file)
            assert re.fullmatch(r"\*[^*]+\*", below), (path.name, file)
            used.add(BOOK / file)
    assert used == set(DIAGRAMS)


def rows_of_numbers(name):
    """Returns the numbers of a diagram from top to bottom, each line from left to right."""
    lines = {}
    for text in parse(BOOK / "diagrams" / f"{name}.svg").iter(f"{SVG}text"):
        content = "".join(text.itertext()).replace("\u2212", "-")
        if re.fullmatch(r"-?\d+\.\d+", content):
            lines.setdefault(float(text.get("y")), []).append((float(text.get("x")), content))
    return [[float(n) for _, n in sorted(lines[y])] for y in sorted(lines)]


def test_the_chunks_of_the_diagram_add_up():
    *chunks, total = rows_of_numbers("boom")
    assert len(chunks) == len(total) == 4
    assert [round(sum(column), 6) for column in zip(*chunks, strict=True)] == total


def test_the_weights_of_the_diagram_are_the_softmax_of_its_scores():
    scores, weights = zip(*rows_of_numbers("head"), strict=True)
    powers = [math.exp(score) for score in scores]
    assert [round(power / sum(powers), 2) for power in powers] == list(weights)


def test_the_story_names_every_chapter_and_its_bits_are_right():
    texts = [
        "".join(t.itertext()) for t in parse(BOOK / "diagrams" / "story.svg").iter(f"{SVG}text")
    ]
    numbers = set()
    for text in texts:
        if number := re.fullmatch(r"\((\d+)\)", text):
            numbers.add(int(number[1]))
    chapters = [path.name for path in sorted(BOOK.glob("[0-9]*.ipynb"))]
    assert numbers == set(range(1, len(chapters) + 1))
    caption = next(below for _, file, below in uses(BOOK / "index.md") if "story" in file)
    links = {address: int(n) for n, address in re.findall(r"\[(\d+)\]\(([^)]+)\)", caption)}
    assert links == {name: int(name[:2]) for name in chapters}
    ((p, bits),) = [
        re.findall(r"\d\.\d+", text) for text in texts if "bits" in text and "=" in text
    ]
    assert round(-math.log2(float(p)), 2) == float(bits)


def paragraph(*children):
    return nodes.paragraph("", "", *children)


def test_only_the_figures_of_chapters_are_numbered():
    numbers = {"figure": {"figure-head": (1,)}}
    pages = {"01-five-minutes": dict(numbers), "index": dict(numbers), "glossary": dict(numbers)}
    _number_chapters_only(None, SimpleNamespace(toc_fignumbers=pages))
    assert pages == {"01-five-minutes": numbers, "index": {}, "glossary": {}}


def test_a_picture_and_italics_below_it_become_a_figure():
    page = new_document("page")
    picture = nodes.image(uri="diagrams/head.svg", alt="a head")
    page += [paragraph(picture), paragraph(nodes.emphasis("", "", nodes.Text("One head.")))]
    page += paragraph(nodes.Text("More."))
    _make_figures(None, page)
    figure, rest = page.children
    assert isinstance(figure, nodes.figure)
    assert figure["ids"] == ["figure-head"]
    image, caption = figure.children
    assert (image["alt"], "dark-light" in image["classes"]) == ("a head", True)
    assert isinstance(caption, nodes.caption)
    assert (caption.astext(), rest.astext()) == ("One head.", "More.")


@pytest.mark.parametrize(
    "below",
    [
        [],
        [nodes.Text("A sentence.")],
        [nodes.emphasis("", "Italics"), nodes.Text(" and more.")],
    ],
    ids=["nothing", "text", "italics and text"],
)
def test_other_pictures_stay_as_they_are(below):
    page = new_document("page")
    page += paragraph(nodes.image(uri="a.svg"))
    if below:
        page += paragraph(*[node.deepcopy() for node in below])
    badge = nodes.reference("", "", nodes.image(uri="b.svg"), refuri="c")
    page += [paragraph(badge), paragraph(nodes.emphasis("", "Italics"))]
    before = page.pformat()
    _make_figures(None, page)
    assert page.pformat() == before


@pytest.fixture(scope="module")
def tab():
    with open_browser() as browser:
        yield browser.new_page(viewport={"width": 500, "height": 900})


@pytest.mark.slow
class TestInABrowser:
    pytestmark = needs_browser

    @each
    def test_no_text_leaves_the_picture(self, tab, path):
        tab.goto(path.as_uri())
        outside = tab.evaluate(
            """() => {
                const all = document.documentElement.viewBox.baseVal;
                return [...document.querySelectorAll("text")].filter(text => {
                    const box = text.getBBox();
                    return box.x < all.x || box.x + box.width > all.x + all.width
                        || box.y < all.y || box.y + box.height > all.y + all.height;
                }).map(text => text.textContent);
            }"""
        )
        assert outside == []

    def test_a_picture_follows_the_theme_of_its_page(self, tab, tmp_path):
        page = tmp_path / "page.html"
        page.write_text(
            "<style>html[data-theme=dark] { color-scheme: dark } body { margin: 0 }</style>"
            f'<html data-theme="light"><img src="{DIAGRAMS[0].as_uri()}">'
        )
        tab.goto(page.as_uri(), wait_until="load")
        light, dark = (
            [int(mode["page"][i : i + 2], 16) / 255 for i in (1, 3, 5)] for mode in colours()
        )
        for theme, expected in (("light", light), ("dark", dark), ("light", light)):
            tab.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
            for _ in range(50):
                corner = imread(io.BytesIO(tab.screenshot()))[2, 2, :3]
                if max(abs(corner - expected)) < 0.01:
                    break
                tab.wait_for_timeout(100)
            else:
                raise AssertionError(f"not {theme}: {corner}")
