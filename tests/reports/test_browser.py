"""The page in a real browser: it fits a phone, follows the scheme asked for, and sorts. In `make test-long` alone."""

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape

import numpy as np
import pytest

import onnxprune
from onnxprune.reports.page import page
from tests.builders import cnn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = 400
# Writes what it finds in the page, which is in the frame, into the element that the test reads.
PROBE = """<pre id="found"></pre><script>
const frame=document.querySelector('iframe');frame.addEventListener('load',()=>{
const page=frame.contentDocument,view=frame.contentWindow;
const button=[...page.querySelectorAll('th button')].find(one=>one.textContent==='removed');
const column=()=>[...button.closest('table').tBodies[0].rows]
.map(row=>+row.cells[button.parentElement.cellIndex].dataset.value);
button.click();const rising=column();button.click();const falling=column();
document.querySelector('#found').textContent=JSON.stringify({
width:page.documentElement.scrollWidth,rising,falling,sort:button.parentElement.ariaSort,
ground:view.getComputedStyle(page.body).backgroundColor,ink:view.getComputedStyle(page.querySelector('svg')).color,
empty:[...page.querySelectorAll('svg')].filter(one=>one.getBoundingClientRect().height<100).length})})</script>"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or "ONNXPRUNE_LONG" not in os.environ, reason="needs chromium and ONNXPRUNE_LONG=1"
)


def found_by_browser(content: str, folder, *flags: str) -> dict:
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<!doctype html><meta name="color-scheme" content="light dark">'
        f'<iframe srcdoc="{escape(content)}" style="width:{PHONE}px;height:800px;border:0"></iframe>{PROBE}'
    )
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
    ]
    done = subprocess.run(
        [*command, *flags, "--dump-dom", wrapper.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[1]))


@pytest.fixture(scope="module")
def content():
    x = np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32)
    settings = {"allocation": "sensitivity", "epochs": 2, "data": {"x": x, "labels": np.arange(60) % 4}}
    return page(onnxprune.prune(cnn(), rate=0.7, **settings).report.to_dict())


def test_the_page_fits_a_phone_draws_its_charts_and_sorts_by_a_click(content, tmp_path):
    found = found_by_browser(content, tmp_path)
    assert found["width"] <= PHONE and not found["empty"]
    assert found["rising"] == sorted(found["rising"]) and len(set(found["rising"])) > 1
    assert found["falling"] == found["rising"][::-1] and found["sort"] == "descending"


def test_the_page_is_dark_where_the_reader_asks_for_dark(content, tmp_path):
    light = found_by_browser(content, tmp_path, "--blink-settings=preferredColorScheme=1")
    dark = found_by_browser(content, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert (light["ground"], dark["ground"]) == ("rgb(255, 255, 255)", "rgb(22, 22, 22)")
    assert light["ink"] != dark["ink"]
