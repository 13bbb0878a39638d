"""The audit's report in a real browser: at a desk's and a phone's width nothing is cut off."""

import json
import re
import shutil
import subprocess

import pytest
from owndata_forms import folder
from test_own_data_audit import arrays
from test_own_data_audit import few_networks as few_networks

from rdmdc.__main__ import main

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
LONG = "Lepidoptera_of_the_northern_hemisphere_2019, and whatever else was in the drawer"
PROBE = """
<script>addEventListener("load", () => {
  const images = [...document.images];
  images.forEach((image) => { image.loading = "eager"; });
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  Promise.all(images.map((image) => image.decode())).then(() => {
    const within = (node) => node.getBoundingClientRect().right <= innerWidth;
    parent.postMessage({
      page: document.documentElement.scrollWidth, width: innerWidth,
      images: images.filter((image) => image.naturalWidth > 0).length,
      thumbnail: Math.min(...images.map((image) => image.getBoundingClientRect().width)),
      verdicts: [...document.querySelectorAll("tbody td:nth-child(2)")].filter(within).length,
      letters: Math.min(...[...document.querySelectorAll("svg text")].map(
        (text) => text.getBoundingClientRect().height)),
    }, "*");
  });
});</script>
"""
FRAME = """
<body style="margin: 0"><iframe src="{page}" style="border: 0; width: {width}px; height: 900px">
</iframe><script>addEventListener("message", (event) => {{
  document.title = JSON.stringify(event.data);
}});</script>
"""  # a browser's own window cannot be as narrow as a phone


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(tmp_path, width):
    pixels, labels, bad = arrays()
    data = folder(tmp_path / "data", pixels, labels, ["ant", LONG, "cat"])
    (data / "ant" / f"{'x' * 100}.txt").write_text("no image")
    main(["audit", str(data), "-o", str(tmp_path / "audit"), "--skip-broken"])
    report = (tmp_path / "audit/report.html").read_text()
    (tmp_path / "page.html").write_text(report + PROBE)
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(page=(tmp_path / "page.html").as_uri(), width=width))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()]
    for _ in range(5):  # a browser's virtual time does not wait for the decoding of images
        run = subprocess.run([BROWSER, *words], capture_output=True, text=True, timeout=120)
        if title := re.search("<title>(.*?)</title>", run.stdout):
            break
    assert title, run.stdout + run.stderr
    seen = json.loads(title[1])
    assert seen["width"] == width >= seen["page"]
    assert seen["images"] >= bad.sum() + 16 and seen["thumbnail"] >= 60
    assert seen["verdicts"] == 3 and seen["letters"] >= 9
