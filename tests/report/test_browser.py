"""The report in headless Chromium (Debian's package `chromium`): its text, and that it fits the width of a phone."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from resnext.run.directory import Run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
]
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000")
# The page in a frame of the width of a phone. A script outside of it reads what a person sees.
FRAME = """<!doctype html><iframe id="frame" width="390" height="800" srcdoc="{page}"></iframe><pre id="out"></pre>
<script>addEventListener("load", () => {{
  const page = document.getElementById("frame").contentDocument, root = page.documentElement;
  const broken = [...page.images].filter(each => !each.naturalWidth).length;
  const alerts = page.querySelectorAll("script, [onerror]").length;
  document.getElementById("out").textContent =
    [root.scrollWidth, page.images.length, broken, alerts, page.body.innerText].join("\\n");
}});</script>"""


def test_the_page_is_read_in_a_browser_of_the_width_of_a_phone(page: str, reported: Run, tmp_path: Path):
    path = tmp_path / "frame.html"
    path.write_text(FRAME.format(page=html.escape(page)))
    command = [str(BROWSER), *OPTIONS, f"--user-data-dir={tmp_path}/profile", "--dump-dom", path.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="out">(.*?)</pre>', result.stdout, re.DOTALL)
    assert found is not None, result.stderr
    width, images, broken, alerts, text = html.unescape(found[1]).split("\n", 4)
    assert int(width) <= 390
    assert (int(images), int(broken), int(alerts)) == (page.count("<img"), 0, 0)
    for name in reported.data_identity.classes:
        assert name.replace("\x1b", "\\x1b") in text
    assert text.startswith("test finished\n")
    assert f"{100 * reported.summary['val_ema/top1']:.2f} %" in text
