"""A headless Chromium with one tab, over the DevTools protocol: chromedevtools.github.io/devtools-protocol.

The protocol's pipe (JSON with a NUL behind) needs no library and no port. Whoever waits, waits for a condition inside
the page, so a test is as fast as the page.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
PATIENCE_S = 60
_ENTER, _ESCAPE, _TAB = ("Enter", 13, "\r"), ("Escape", 27, ""), ("Tab", 9, "")
KEYS = {key[0]: key for key in (_ENTER, _ESCAPE, _TAB)}


def find_browser() -> str:
    """Raises FileNotFoundError if there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        raise FileNotFoundError(f"no browser; one of {', '.join(PROGRAMS)} is wanted")
    return found


class Browser:
    """The browser and its tab.

    Attributes:
        complaints: what the tab's console would show: exceptions, violations of the Content-Security-Policy, …
        requested: the URLs that the page asked for.
    """

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        options = ["--headless", "--remote-debugging-pipe", "--disable-gpu", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # Chromium's sandbox refuses to run as root
        # The browser reads commands from file 3 and answers on file 4.
        wired = f'exec "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", wired, "bash", find_browser(), *options],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._last_id = 0
        self._session = ""
        self._forget()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _forget(self) -> None:
        self.complaints: list[str] = []
        self.requested: list[str] = []

    def close(self) -> None:
        self._session = ""
        self.call("Browser.close")
        self._process.wait(PATIENCE_S)
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> Any:
        """Raises AssertionError if the browser refuses."""
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": parameters}
        command |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (answer := self._read()).get("id") != self._last_id:
            self._notice(answer["method"], answer["params"])
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _read(self) -> Any:
        while b"\0" not in self._buffer:
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser has ended"
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _notice(self, method: str, event: Any) -> None:
        if method == "Log.entryAdded":
            self.complaints.append(event["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(event["exceptionDetails"]["exception"]["description"])
        elif method == "Network.requestWillBeSent":
            self.requested.append(event["request"]["url"])

    def open(self, url: str) -> None:
        """Nothing of the page before is left."""
        self._navigate("about:blank")
        self._forget()
        self.resize(1280, 800)
        self.prefer("light")
        self._navigate(url)

    def _navigate(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """`dark` or `light`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, a promise's included."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Waits until the expression is true, and returns its value."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := self.ask(condition)):
            assert time.monotonic() < deadline, (condition, self.text("body"), self.complaints)
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        """What is to be read in the last element that fits; empty if there is none."""
        found: str = self.ask(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1)?.innerText ?? ''")
        return found

    def type(self, text: str, into: str | None = None) -> None:
        """Types into the field, or where the focus is."""
        if into is not None:
            focus = "field => (field?.focus(), field === document.activeElement)"
            assert self.ask(f"({focus})(document.querySelector({json.dumps(into)}))"), into
        self.call("Input.insertText", text=text)

    def press(self, key: str, shift: bool = False) -> None:
        name, code, text = KEYS[key]
        event = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the last element that fits: what covers it gets the click."""
        x, y = self.ask(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2]; }})"
            f"([...document.querySelectorAll({json.dumps(selector)})].at(-1))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self) -> bytes:
        """The visible part as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
