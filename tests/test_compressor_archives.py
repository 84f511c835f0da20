"""Archives of the compressor's page: those of the command line, in both directions."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import HOSTILE, start, type_text, until
from sharnn import compress, decompress
from sharnn.compression.container import CODED, STORED, Header
from sharnn.web.compressor import CompressorPage
from sharnn.web.page import frame
from small import favour, small_model

pytestmark = [pytest.mark.slow, *needs_browser]

TEXT = "abcabd abcabd abcabd <b>&amp;</b> café\n" * 5


@pytest.fixture(scope="module")
def model():
    """A model whose head is not collapsed."""
    return favour(small_model(shifted_keys=True), TEXT.encode())


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("compressor") / "page.html"
    return CompressorPage(model, "small", TEXT).save(path)


def file(name, content):
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def save(page, button="#save"):
    """Presses a button and returns the name and the content of the file that is saved."""
    with page.expect_download(timeout=60_000) as download:
        page.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def open_archive(page, name, archive):
    page.set_input_files("#archive", file(name, archive))
    until(page, "document.getElementById('outcome').textContent !== ''")
    return page.locator("#outcome").inner_text()


def drop(page, name, content):
    files = page.evaluate_handle(
        """([name, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], name));
          return data;
        }""",
        [name, list(content)],
    )
    page.dispatch_event("#text", "drop", {"dataTransfer": files})


def test_the_archive_of_a_text(page, model):
    start(page)
    type_text(page, TEXT + "changed")
    expect(page.locator("#to-save")).to_contain_text("in an archive of")
    content = (TEXT + "changed").encode()
    expected = compress(model, content, num_streams=1)
    assert save(page) == ("text.txt.sha", expected)
    size = f"{len(content)} bytes became {len(expected)}"
    expect(page.locator("#outcome")).to_contain_text(f"text.txt.sha saved: {size}")
    expect(page.locator("#bars")).to_contain_text(f"small{len(expected)} bytes,")
    assert decompress(model, expected) == content


def test_saving_starts_the_model(page, model):
    assert save(page) == ("text.txt.sha", compress(model, TEXT.encode(), num_streams=1))


def test_the_archive_of_a_file_that_is_longer_than_what_is_shown(page, model):
    content = bytes(range(256)) + TEXT.encode() * 20
    page.set_input_files("#file", file("long.bin", content))
    expect(page.locator("#status")).to_contain_text("the first 4,000 bytes read", timeout=60_000)
    expect(page.locator("#to-save")).to_have_text(f"long.bin: {len(content):,} bytes.")
    name, archive = save(page)
    assert name == "long.bin.sha"
    assert archive == compress(model, content, num_streams=1)
    assert save(page) == (name, archive)
    type_text(page, "short")
    expect(page.locator("#to-save")).to_contain_text("text.txt: 5 bytes")


def test_an_archive_of_several_lanes(page, model):
    text = HOSTILE.replace("\0", "") + TEXT
    archive = compress(model, text.encode(), num_streams=7)
    assert (
        open_archive(page, "a.txt.sha", archive) == f"a.txt restored: {len(text.encode())} bytes."
    )
    assert "window.hacked=1" in page.locator("#opened").inner_text()
    assert page.evaluate("window.hacked") is None
    assert save(page, "#save-file") == ("a.txt", text.encode())


def test_a_dropped_archive_of_something_else_than_text(page, model):
    content = bytes(range(200)) + TEXT.encode() * 3
    drop(page, "b.bin.sha", compress(model, content))
    expect(page.locator("#outcome")).to_have_text(
        f"b.bin restored: {len(content)} bytes. It is not text.", timeout=60_000
    )
    expect(page.locator("#opened")).to_be_hidden()
    assert save(page, "#save-file") == ("b.bin", content)


def test_a_damaged_archive_shows_what_comes_before(page, model):
    content = (TEXT * 350)[:70_000].encode()
    archive = compress(model, content, num_streams=32)
    found = open_archive(page, "c.sha", archive[:-1])
    assert "is truncated or damaged at byte" in found
    assert f"2,048 of {len(content):,} bytes before that restored." in found
    assert page.locator("#opened").inner_text().startswith("abcabd abcabd")
    name, saved = save(page, "#save-file")
    assert name == "c"
    assert saved[:2048] == content[:2048]

    assert "at byte 32. Nothing before that restored." in open_archive(page, "c.sha", archive[:99])
    expect(page.locator("#opened")).to_be_hidden()
    expect(page.locator("#save-file")).to_be_hidden()


def test_files_that_are_no_archive_of_this_model(page):
    assert open_archive(page, "d.sha", b"some text") == "This is not an archive of sharnn."
    other = favour(small_model(), b"a")
    for content, method in ((b"a" * 200, CODED), (bytes(range(256)), STORED)):
        archive = compress(other, content)
        assert Header.from_bytes(archive).method == method
        assert "another model" in open_archive(page, "d.sha", archive)
        expect(page.locator("#save-file")).to_be_hidden()


def test_work_can_be_cancelled_with_the_keyboard(page):
    start(page)
    page.set_input_files("#file", file("e.txt", b"abc " * 50_000))
    expect(page.locator("#to-save")).to_have_text("e.txt: 200,000 bytes.")
    page.focus("#save")
    page.keyboard.press("Enter")
    expect(page.locator("#done")).to_contain_text(" left")
    assert page.evaluate("document.activeElement.id") == "cancel"
    type_text(page, "it reads meanwhile")
    expect(page.locator("#done")).to_contain_text(" left")
    page.focus("#cancel")
    page.keyboard.press("Enter")
    expect(page.locator("#work")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "save"
    assert page.locator("#outcome").inner_text() == ""
    assert save(page)[0] == "text.txt.sha"


def test_an_archive_is_chosen_with_the_keyboard(page, model):
    asked = """() => {
      document.getElementById("archive").onclick = (event) => {
        event.preventDefault();
        document.body.dataset.asked = "yes";
      };
    }"""
    page.evaluate(asked)  # instead of the system's dialogue
    page.focus("#open")
    page.keyboard.press("Enter")
    assert page.get_attribute("body", "data-asked") == "yes"
    found = open_archive(page, "g.txt.sha", compress(model, TEXT.encode()))
    assert found.startswith("g.txt restored")
    page.focus("#save-file")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert Path(download.value.path()).read_bytes() == TEXT.encode()


def test_a_frame_in_another_page(browser, path, model, tmp_path):
    """As in a chapter of the book."""
    outer = tmp_path / "outer.html"
    outer.write_text(frame(path.read_text(encoding="utf-8"), "Compressor", 1100), encoding="utf-8")
    page = browser.new_page()
    page.goto(outer.as_uri())
    inside = page.locator("iframe").content_frame
    inside.locator("body[data-ready]").wait_for()
    with page.expect_download(timeout=60_000) as download:
        inside.locator("#save").click()
    archive = Path(download.value.path()).read_bytes()
    assert archive == compress(model, TEXT.encode(), num_streams=1)
    page.close()


def test_a_file_that_is_too_large(page):
    start(page)
    page.set_input_files("#file", file("f.txt", b"abc " * 60_000))
    words = "f.txt: 240,000 bytes. This page packs at most 200,000."
    expect(page.locator("#to-save")).to_have_text(words)
    expect(page.locator("#save")).to_be_disabled()
    type_text(page, "short")
    expect(page.locator("#save")).to_be_enabled()


def test_an_empty_text(page, model):
    start(page)
    type_text(page, "")
    name, archive = save(page)
    assert decompress(model, archive) == b""
    assert open_archive(page, name, archive) == "text.txt restored: 0 bytes."
