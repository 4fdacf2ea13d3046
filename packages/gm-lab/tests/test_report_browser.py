"""The HTML report in a real browser, on a phone-sized and a desktop-sized screen: complete, and nothing sticks out."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time

import pytest

import gm_lab
from gm_lab.analysis.report import load, rendered

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET = ("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe")
SCREENS = {"phone": (390, 844, True), "desktop": (1280, 900, False)}
SECONDS = 90.0  # for one answer of the browser, on a machine that is busy
LOOK = """(() => {
    const page = document.documentElement, box = element => element.getBoundingClientRect();
    const pictures = [...document.images], drawings = [...document.querySelectorAll("svg")];
    return {pictures: pictures.length + drawings.length,
            broken: pictures.filter(i => !i.complete || !i.naturalWidth).length
                + drawings.filter(d => !box(d).width || !box(d).height).length,
            overflow: page.scrollWidth - page.clientWidth, width: page.clientWidth};
})()"""


class Browser:
    """A browser without a window, spoken to by the DevTools protocol over two pipes."""

    def __init__(self, program, profile):
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()
        # it reads from descriptor 3 and writes to 4
        start = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{answers}', "bash", program, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            [*start, *FLAGS, *QUIET], stderr=subprocess.DEVNULL, pass_fds=(theirs, answers), start_new_session=True
        )
        os.close(theirs)
        os.close(answers)
        self._calls, self._buffer, self._events = 0, b"", []

    def _next(self):
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0], "the browser says nothing"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, session=None, **params):
        """What a command of the protocol answers."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._calls:
            self._events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def look(self, url, screen):
        """What a page looks like on a screen, and what it has asked the network for."""
        width, height, mobile = SCREENS[screen]
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        tab = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page"):
            self.call(f"{domain}.enable", tab)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", tab, **size)
        self._events.clear()
        self.call("Page.navigate", tab, url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())
        seen = self.call("Runtime.evaluate", tab, returnByValue=True, expression=LOOK)["result"]["value"]
        sent = [event["params"] for event in self._events if event["method"] == "Network.requestWillBeSent"]
        self.call("Target.closeTarget", targetId=target)
        urls = [params["request"]["url"] for params in sent]
        return seen | {"requests": [asked for asked in urls if not asked.startswith("data:")]}

    def close(self):
        with contextlib.suppress(OSError):
            os.write(self._out, b'{"id": 0, "method": "Browser.close"}\0')
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        missing = f"expected one of {', '.join(BROWSERS)} to look at the report with, got none"
        if os.environ.get("CI") and "NO_BROWSER" not in os.environ:
            pytest.fail(missing)
        pytest.skip(f"{missing}: {os.environ.get('NO_BROWSER', 'install one and this test runs')}")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(toy, tmp_path_factory):
    """A report about one run twice."""
    folder = tmp_path_factory.mktemp("browsed")
    path = folder / ("a-run-whose-name-is-long-" * 6)
    assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(path), "--workers", "1", "--wandb", "disabled"]) == 0
    report = folder / "report.html"
    report.write_text(rendered([load(path)] * 2, f"uv run apps/report.py {path}"))
    return report


@pytest.mark.parametrize("screen", SCREENS)
def test_the_report_shows_every_figure_asks_for_nothing_and_fits(browser, page, screen):
    seen = browser.look(page.as_uri(), screen)
    assert seen["requests"] == [page.as_uri()]
    assert (seen["pictures"], seen["broken"]) == (4, 0)  # two figures, and two claims' comparisons
    assert seen["overflow"] == 0
    assert abs(seen["width"] - SCREENS[screen][0]) <= 20  # a scroll bar's width


@pytest.mark.parametrize("screen", SCREENS)
def test_a_page_with_every_fault_is_found_out(browser, page, tmp_path, screen):
    faults = '<img src="missing.png"><svg width="0" height="0"></svg><pre style="width: 1500px">wide</pre>'
    bad = tmp_path / "bad.html"
    bad.write_text(page.read_text().replace("</body>", faults + "</body>"))
    seen = browser.look(bad.as_uri(), screen)
    assert seen["requests"] == [bad.as_uri(), (tmp_path / "missing.png").as_uri()]
    assert (seen["pictures"], seen["broken"]) == (6, 2)
    assert seen["overflow"] > 0
