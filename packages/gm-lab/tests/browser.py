"""Chromium without a window, driven by the DevTools protocol: what a page looks like, asks for and answers."""

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET = ("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe")
SCREENS = {"phone": (390, 844, True), "desktop": (1280, 900, False)}
SECONDS = 90.0  # for one answer of the browser, on a machine that is busy


@contextlib.contextmanager
def opened(profile):
    """Yields the browser of this machine; without one the test is skipped, or fails where there has to be one."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing = f"expected one of {', '.join(PROGRAMS)} to look at pages with, got none"
        if os.environ.get("CI") and "NO_BROWSER" not in os.environ:
            pytest.fail(missing)
        pytest.skip(f"{missing}: {os.environ.get('NO_BROWSER', 'install one and this test runs')}")
    browser = Browser(program, profile)
    try:
        yield browser
    finally:
        browser.close()


class Browser:
    """A browser without a window, spoken to over two pipes."""

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
        self._calls, self._buffer, self.events = 0, b"", []

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
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def wait(self, method):
        """Waits until the browser has told of an event."""
        while not any(event["method"] == method for event in self.events):
            self.events.append(self._next())

    @contextlib.contextmanager
    def open(self, url, screen, dark=False):
        """Yields a page that is loaded, on a screen of that size."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self.call(f"{domain}.enable", session)
        width, height, mobile = SCREENS[screen]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", session, features=[scheme])
        self.events.clear()
        self.call("Page.navigate", session, url=url)
        self.wait("Page.loadEventFired")
        yield Tab(self, session)
        self.call("Target.closeTarget", targetId=target)

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


class Tab:
    """A page that is open."""

    def __init__(self, browser, session):
        self._browser, self._session = browser, session

    def call(self, method, **params):
        return self._browser.call(method, self._session, **params)

    def evaluate(self, script):
        """The value of an expression in the page, of its promise if it is one."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self):
        """Waits until what was asked for is drawn: two frames, and what they left for later."""
        later = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
        self.evaluate(later)

    def press(self, key, code, selector):
        """Presses a key in an element as a person would."""
        self.evaluate(f"document.querySelector({selector!r}).focus()")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        self.settle()

    @property
    def requests(self):
        """What was asked for, other than data that are in the page."""
        sent = [event["params"] for event in self._browser.events if event["method"] == "Network.requestWillBeSent"]
        return [url for params in sent if not (url := params["request"]["url"]).startswith(("data:", "blob:"))]

    @property
    def complaints(self):
        """Exceptions and errors that the page has had so far."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        told = [event for event in self._browser.events if event["method"] in kinds]
        return [event["params"] for event in told if event["params"].get("entry", {}).get("level", "error") == "error"]

    def picture(self):
        """The whole page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def printed(self):
        """The page on paper, as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])
