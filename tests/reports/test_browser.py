"""The page in a real browser: offline, without errors, on a phone, in dark, sorted, filtered, without JavaScript."""

import shutil

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.commands.report import pictures_of
from onnxprune.reports.page import page
from onnxprune.reports.side_by_side import side_by_side
from tests.builders import cnn

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESKTOP = {"width": 390, "height": 800}, {"width": 1280, "height": 900}
LAYERS = 12
OFFLINE = ("file:", "data:")
COLUMN = """(heading) => {
const button = [...document.querySelectorAll('th button')].find(one => one.textContent === heading);
const at = button.parentElement.cellIndex;
return [...button.closest('table').tBodies[0].rows].filter(row => !row.hidden)
.map(row => row.cells[at].dataset.value ?? row.cells[at].textContent)}"""
# What is wider than its place, or than the window.
TOO_WIDE = """() => [...document.querySelectorAll('.wide, svg, img, pre, body')]
.filter(one => one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth + 1)
.map(one => one.outerHTML.slice(0, 80))"""
# The color of the first chart's texts.
INK = "getComputedStyle(document.querySelector('.js-plotly-plot .xtick text')).fill"
# Whether the first chart is wider.
WIDER = "least => document.querySelector('.js-plotly-plot .main-svg').getBoundingClientRect().width > least"
# Pairs of texts of a chart that overlap.
OVERLAPS = """() => [...document.querySelectorAll('svg')].filter(one => one.getBoundingClientRect().height)
.flatMap(svg => {
const boxes = [...svg.querySelectorAll('text:not([transform])')]
.map(one => [one.textContent, one.getBoundingClientRect()]);
return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([b, y]) => x.left < y.right - 1 && y.left < x.right - 1
&& x.top < y.bottom - 3 && y.top < x.bottom - 3).map(([b]) => [a, b]))})"""


def draw_all(shown):
    """Scroll over the page, so that its charts are drawn, and back."""
    height = shown.evaluate("document.documentElement.scrollHeight")
    for place in (*range(0, height, 400), 0):
        shown.evaluate(f"scrollTo(0, {place})")
        shown.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shown.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(one => one.matches('.js-plotly-plot') || !one.offsetHeight)"
    )


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report with everything that a page can have, and two side by side."""
    folder = tmp_path_factory.mktemp("pages")
    x = np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32)
    settings = {"allocation": "sensitivity", "epochs": 2, "data": {"x": x, "labels": np.arange(60) % 4}}
    record = onnxprune.prune(cnn(), folder / "out.onnx", rate=0.7, **settings).report.to_dict()
    onnx.save(cnn(), folder / "in.onnx")
    record |= pictures_of(folder / "out.onnx", folder / "in.onnx", record["layers"])
    record["trials"] = [
        {
            "rate": rate,
            "kept": 100,
            "size": 5000,
            "metric": "top-1",
            "value": 0.99 - rate / 50,
            "seconds": 9.0,
        }
        | {"model": f"{rate}.onnx", "chosen": rate == 0.9}
        for rate in (0.0, 0.5, 0.8, 0.9, 0.93)
    ]
    layer = record["layers"][0]
    record["layers"] = [
        *record["layers"],
        *(layer | {"name": f"encoder.{each}", "kept": (each * 7 + 3) % LAYERS} for each in range(LAYERS)),
    ]
    (folder / "page.html").write_text(page(record))
    (folder / "two.html").write_text(side_by_side([record, record]))
    return folder


@pytest.fixture
def opened(browser, folder):
    """A function that opens a page; its console messages and requests to the net are in `problems`."""
    contexts = []

    def open_page(name="page.html", viewport=DESKTOP, **options):
        contexts.append(browser.new_context(viewport=viewport, **options))
        shown = contexts[-1].new_page()
        shown.problems = []
        shown.on("console", lambda message: shown.problems.append(message.text))
        shown.on("pageerror", lambda error: shown.problems.append(str(error)))
        shown.on(
            "request",
            lambda request: shown.problems.append(request.url) if "://" in request.url[:8] else None,
        )
        shown.goto((folder / name).as_uri())
        shown.problems = [each for each in shown.problems if not each.startswith("file:")]
        if options.get("java_script_enabled", True):
            draw_all(shown)
        return shown

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["page.html", "two.html"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP])
def test_the_page_fits_without_errors_and_asks_nothing_of_the_net(opened, name, viewport):
    shown = opened(name, viewport)
    assert shown.problems == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert shown.evaluate(TOO_WIDE) == []
    assert shown.evaluate(OVERLAPS) == []


def test_a_click_sorts_numbers_by_their_value_and_another_one_reverses(opened):
    shown = opened()
    button = shown.get_by_role("button", name="kept", exact=True)
    button.click()
    rising = [float(each) for each in shown.evaluate(COLUMN, "kept")]
    assert rising == sorted(rising) and len(set(rising)) > LAYERS
    button.click()
    assert [float(each) for each in shown.evaluate(COLUMN, "kept")] == rising[::-1]
    assert shown.problems == []


def test_the_filter_keeps_the_rows_that_have_all_words(opened):
    shown = opened()
    names = shown.evaluate(COLUMN, "weight")
    shown.get_by_role("searchbox").fill("ENCODER. 1 conv")
    kept = shown.evaluate(COLUMN, "weight")
    assert "encoder.1" in kept and kept != names and all(name.startswith("encoder.") for name in kept)
    assert shown.locator(".filter output").inner_text() == f"{len(kept)} of {len(names)}"
    shown.get_by_role("searchbox").fill("")
    assert shown.evaluate(COLUMN, "weight") == names


def test_a_chart_shows_its_values_under_the_pointer_and_becomes_larger_by_a_click(opened):
    shown = opened()
    chart = shown.locator(".js-plotly-plot").first
    chart.hover()
    values = shown.locator(".hoverlayer").first
    values.locator("text").first.wait_for()
    assert "trial" in values.text_content() and "%" in values.text_content()
    width = chart.locator(".main-svg").first.bounding_box()["width"]
    shown.locator(".zoom").first.click()
    shown.wait_for_function(WIDER, arg=1.5 * width)
    assert shown.problems == []


def test_a_drag_zooms_into_a_chart_and_a_double_click_out_again(opened):
    shown = opened()
    chart = shown.locator(".js-plotly-plot").first
    chart.scroll_into_view_if_needed()
    ends = "() => document.querySelector('.js-plotly-plot').layout.xaxis.range"
    whole = shown.evaluate(ends)
    box = chart.locator(".nsewdrag").bounding_box()
    left, middle = box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2
    shown.mouse.move(left, middle)
    shown.mouse.down()
    shown.mouse.move(left + box["width"] * 0.3, middle, steps=5)
    shown.mouse.up()
    shown.wait_for_function(f"whole => ({ends})()[0] > whole[0]", arg=whole)
    part = shown.evaluate(ends)
    assert whole[0] < part[0] < part[1] < whole[1]
    shown.mouse.dblclick(left, middle)
    shown.wait_for_function(f"whole => ({ends})()[0] === whole[0]", arg=whole)
    assert shown.problems == []


def test_the_page_is_dark_where_the_reader_asks_for_dark(opened):
    grounds, inks = [], []
    for scheme in ("light", "dark"):
        shown = opened(color_scheme=scheme)
        grounds.append(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
        inks.append(shown.evaluate(INK))
        shown.emulate_media(color_scheme="dark")
        shown.wait_for_function(f"{INK} === 'rgb(228, 228, 228)'")
    assert grounds == ["rgb(255, 255, 255)", "rgb(22, 22, 22)"]
    assert inks == ["rgb(28, 28, 28)", "rgb(228, 228, 228)"]


def test_without_javascript_all_rows_charts_and_pictures_are_there(opened):
    shown = opened(java_script_enabled=False)
    layers = shown.locator("section", has_text="Layers").first
    assert layers.locator("tbody tr", has_text="encoder.").count() == LAYERS
    assert shown.locator("svg").first.is_visible() and shown.locator(".graph svg").is_visible()
    assert shown.locator("img.pixels").first.is_visible()
    assert not shown.locator(".filter").first.is_visible()
