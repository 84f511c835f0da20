"""The explorer and pages with a model in a real JupyterLab, some of them with a kernel."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest
from playwright.sync_api import FrameLocator, Page, expect

import sharnn
from browser import needs_browser, open_browser
from sharnn.analysis.live import describe
from sharnn.compression.codec import bits_in_archive
from small import small_model

pytestmark = [
    pytest.mark.slow,
    *needs_browser,
]

TEXT = "The café at the corner <b>opens</b> at nine.\n" * 6
FRAME = 'iframe[title="Attention explorer"]'
TIMEOUT = 60_000  # milliseconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, a text, and the notebooks that display them."""
    folder = tmp_path_factory.mktemp("lab")
    sharnn.save(small_model(memory=60), folder / "model.safetensors")
    (folder / "text").write_text(TEXT, encoding="utf-8")
    explore = 'import sharnn\nexplorer = sharnn.explore("model.safetensors", "text", targets=100)'
    write_notebook(folder / "shown.ipynb", f"{explore}\nexplorer")
    live = f"{explore}\nlive = sharnn.LiveExplorer(explorer)\nlive"
    write_notebook(folder / "live.ipynb", live)
    write_notebook(folder / "twice.ipynb", live, "live")
    write_notebook(
        folder / "pages.ipynb",
        "from sharnn.web.compressor import CompressorPage\n"
        'CompressorPage("model.safetensors", text=open("text").read())',
        "from sharnn.analysis.ablation_page import AblationPage\n"
        'AblationPage("model.safetensors", text=open("text").read())',
    )
    return folder


def load(folder):
    return sharnn.load(folder / "model.safetensors")


def write_notebook(path, *cells):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory):
    """The address of a running JupyterLab without any user settings."""
    home = tmp_path_factory.mktemp("home")
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = {**os.environ, **dict.fromkeys(own, str(home)), "OMP_NUM_THREADS": "1"}
    command = [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser"),
        "--ip=127.0.0.1",  # at the first free port, which it writes to a file
        *("--IdentityProvider.token=open", f"--ServerApp.root_dir={folder}"),
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.news_url=None",
    ]
    if os.geteuid() == 0:
        command.append("--allow-root")
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield wait_for_server(server, home)
    finally:
        server.terminate()
        server.wait(30)


def wait_for_server(server, home) -> str:
    """Waits until JupyterLab responds; returns its address."""
    while True:
        assert server.poll() is None, (home / "log").read_text()
        try:
            (file,) = home.glob("jpserver-*.json")
            address = f"http://127.0.0.1:{json.loads(file.read_text())['port']}"
            urllib.request.urlopen(f"{address}/api?token=open", timeout=5).close()
            return address
        except (ValueError, urllib.error.URLError, TimeoutError):  # not ready yet
            time.sleep(0.25)


@pytest.fixture(scope="module")
def browser():
    expect.set_options(timeout=TIMEOUT)
    with open_browser() as browser:
        yield browser
    expect.set_options(timeout=5000)  # Playwright's own


@pytest.fixture
def open_notebook(browser, lab):
    """Opens a notebook, runs all its cells, and waits for the last of the frames that appear."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(TIMEOUT)
    requests = []

    def route(route):
        if route.request.url.startswith((lab, "data:", "blob:", "ws://127.0.0.1")):
            route.continue_()
        else:
            requests.append(route.request.url)
            route.abort()

    context.route("**/*", route)
    page = context.new_page()

    def start(name: str, selector: str = FRAME) -> Page:
        page.goto(f"{lab}/lab/tree/{name}.ipynb?token=open&reset", wait_until="load")
        page.locator(".jp-Notebook-cell").first.wait_for()
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady")
        page.wait_for_function(
            "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status"
            " === 'idle'"
        )
        page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        frame = page.locator(f".jp-OutputArea-output {selector}").last.content_frame
        frame.locator("body[data-ready]").wait_for()
        return page

    yield start
    context.close()
    assert requests == [], "only JupyterLab receives requests"


def shown(page) -> FrameLocator:
    return page.locator(f".jp-OutputArea-output {FRAME}").content_frame


def inside(page, expression: str):
    """Evaluates an expression in the explorer's own page."""
    return shown(page).locator("body").evaluate(f"() => {expression}")


def test_an_explorer_is_displayed_in_an_output(open_notebook):
    page = open_notebook("shown")
    frame = shown(page)
    assert frame.locator("#live").is_hidden(), "there is no kernel"
    assert frame.locator("#ask").is_hidden()
    assert inside(page, "sharnn.trace.numTargets") == 100
    frame.locator("#targets .glyph").first.click()
    expect(frame.locator("#byte")).to_contain_text("é (byte")
    # The frame has the height of its page.
    heights = "[innerHeight, document.body.scrollHeight]"
    frame_height, page_height = inside(page, heights)
    assert page_height <= frame_height < page_height + 50
    # It follows the theme of JupyterLab.
    assert inside(page, "document.documentElement.dataset.theme") == "light"
    theme = (
        "void jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })"
    )
    page.evaluate(theme)
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    page.evaluate(theme.replace("Dark", "Light"))
    expect(frame.locator("html")).to_have_attribute("data-theme", "light")


def test_pages_run_the_model_without_the_kernel(open_notebook, folder, tmp_path):
    page = open_notebook("pages", 'iframe[title^="Explorer: remove"]')
    page.evaluate("void jupyterapp.commands.execute('notebook:shutdown-kernel')")
    model = load(folder)
    model.collapse()
    sharnn.save(model, tmp_path / "model.safetensors", storage="int8")
    text = TEXT + "The end."
    trace = sharnn.trace_attention(load(tmp_path), text.encode(), start=1, segment_length=1)
    in_archive = bits_in_archive(load(tmp_path), text.encode(), num_streams=1)
    pages = {"Compressor": in_archive, "Explorer: remove rows from the memory": trace.bits}
    for title, expected in pages.items():
        frame = page.locator(f'.jp-OutputArea-output iframe[title="{title}"]').content_frame
        frame.locator("#start").click()
        frame.locator("body[data-started]:not([data-reading])").wait_for()
        frame.locator("#text").fill(text)
        expect(frame.locator("#status")).to_have_text(f"{len(text.encode())} bytes read")
        body = frame.locator("body")
        found = body.evaluate("() => sharnn.known.bits")
        assert found[1:] == pytest.approx(expected[1:].tolist(), abs=1e-2)
        assert body.evaluate("() => document.documentElement.dataset.theme") == "light"
        heights = body.evaluate("() => [innerHeight, document.body.scrollHeight]")
        assert heights[1] <= heights[0] < heights[1] + 50


def test_a_live_explorer_responds(open_notebook, folder):
    page = open_notebook("live")
    frame = shown(page)
    explorer = sharnn.explore(folder / "model.safetensors", folder / "text", targets=100)

    # Remove positions.
    frame.locator("#ask").wait_for()
    frame.locator("#targets .glyph").first.click()
    chosen = inside(page, "sharnn.chosen")
    frame.locator("#ask-count").fill("5")
    frame.locator("button[name=count]").click()
    result = explorer.ablate(chosen, count=5)
    expect(frame.locator("#answer")).to_have_text(describe("the 5 most attended positions", result))
    frame.locator("#ask-near").fill("3")
    frame.locator("#ask-far").fill("20")
    frame.locator("button[name=range]").click()
    result = explorer.ablate(chosen, between=(3, 20))
    expect(frame.locator("#answer")).to_have_text(
        describe("the positions from 3 to 20 bytes back", result)
    )
    frame.locator("#ask-count").fill("0")
    frame.locator("#ask-count").press("Enter")
    expect(frame.locator("#answer")).to_have_text("count must be at least 1, got 0")
    frame.locator("#targets").press("ArrowRight")
    expect(frame.locator("#answer")).to_have_text("")

    # Trace another text.
    text = "Ein ganz anderer Text: schön & <i>gut</i>.\n" * 3
    frame.locator("#live-text").fill(text)
    frame.locator("#live-memory").fill("0")
    frame.locator("#live button").click()
    expect(frame.locator("#live-status")).to_have_text(
        "the memory limit must be an integer from 1 to 20,000"
    )
    frame.locator("#live-memory").fill("50")
    frame.locator("#live button").click()
    expect(frame.locator("#about")).to_contain_text("a memory of 50 positions")
    expect(frame.locator("#targets")).to_contain_text("n & <i>gut</i>.")
    expect(frame.locator("#live-status")).to_have_text("")
    assert inside(page, "[...sharnn.trace.bytes]") == list(text.encode())

    # Requests are about the new text now.
    frame.locator("#targets").press("Home")
    frame.locator("#targets").press("PageDown")
    frame.locator("#ask-count").fill("4")
    frame.locator("button[name=count]").click()
    new = sharnn.explore(load(folder), text.encode(), memory_limit=50)
    sentence = describe("the 4 most attended positions", new.ablate(64, count=4))
    expect(frame.locator("#answer")).to_have_text(sentence)

    # A page that is loaded again, as when JupyterLab moves a cell, shows the new text too.
    page.locator(FRAME).evaluate("frame => frame.after(frame)")
    expect(frame.locator("#live-text")).to_have_value("")
    expect(frame.locator("#about")).to_contain_text("a memory of 50 positions")
    expect(frame.locator("#targets")).to_contain_text("n & <i>gut</i>.")


def test_a_second_view_does_not_disturb_the_first(open_notebook):
    page = open_notebook("twice")
    first, second = page.locator(f".jp-OutputArea-output {FRAME}").all()
    for view in (first, second):
        view.content_frame.locator("#ask").wait_for()
    first.content_frame.locator("#live-text").fill("Both views show what was read.")
    first.content_frame.locator("#live button").click()
    for view in (first, second):
        expect(view.content_frame.locator("#targets")).to_contain_text("oth views show")
    assert first.content_frame.locator("#live-text").input_value() != ""
