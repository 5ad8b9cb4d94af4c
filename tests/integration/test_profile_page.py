"""The page of a profile in a headless browser."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pie_cli.profiles.model import build
from pie_cli.profiles.page import page
from pie_cli.profiles.read import read_trace
from tests import needs

RECORDED = Path(__file__).parents[1] / "unit" / "profiles" / "agent.json"
ZOOM = """<script>
const svg = document.querySelector("#timeline svg"), box = svg.getBoundingClientRect();
const wheel = () => svg.dispatchEvent(new WheelEvent("wheel", {deltaY: -1, clientX: box.left + box.width / 2}));
const seen = () => document.body.append(Object.assign(document.createElement("pre"),
  {className: "seen", textContent: svg.getAttribute("viewBox")}));
wheel(); wheel(); seen();
svg.dispatchEvent(new MouseEvent("dblclick")); seen();
</script></body>"""


@pytest.fixture
def browser(pytestconfig: pytest.Config) -> str:
    return needs.program(pytestconfig, "chromium", "chromium", "chromium-browser", "google-chrome")


def dumped(browser: str, text: str, folder: Path) -> str:
    """The document as it is when its scripts have run."""
    file = folder / "page.html"
    file.write_text(text)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    command = [browser, *flags, "--virtual-time-budget=2000", "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


@pytest.mark.slow
def test_the_timeline_can_be_looked_at_closer(browser: str, tmp_path: Path) -> None:
    profile = build(read_trace(RECORDED).entries())
    shown = dumped(browser, page(profile).replace("</body>", ZOOM), tmp_path)
    assert '<span id="help">' in shown, "the script has run to its end"
    assert re.search(r'id="axis".*?<span>0\.00 ms</span><span>[\d.]+ ms</span>', shown, re.S)
    closer, whole = re.findall(r'<pre class="seen">([^<]*)</pre>', shown)
    wall = profile.wall_us
    start, _, span, _ = map(float, closer.split())
    assert span == pytest.approx(0.64 * wall, rel=0.01)
    assert start == pytest.approx(0.18 * wall, rel=0.05), "around the pointer"
    assert [float(part) for part in whole.split()][:3] == [0, 0, wall]
