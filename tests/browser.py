"""A headless Chromium, driven over its debugging pipe: tests look at pages as people do. Skips where there is none."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium or google-chrome on PATH")
FLAGS = ("--headless=new", "--no-sandbox", "--mute-audio", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
PATIENCE_SECONDS = 20


class Browser:
    """One page in one browser. `requests` are the addresses outside it that it asked for, `errors` what scripts threw."""

    def __init__(self, profile: Path) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4; the shell puts the pipes there.
        line = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$0" "$@"'
        command = ["bash", "-c", line, PROGRAM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), **quiet)
        for end in (theirs_in, theirs_out):
            os.close(end)
        self.commands, self.answers = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb", 0)
        self.numbers, self.unread, self.session = itertools.count(1), b"", None
        self.requests: list[str] = []
        self.errors: list[str] = []
        page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self.commands.close()
        self.process.kill()
        self.process.wait()
        self.answers.close()

    def ask(self, method: str, **values: Any) -> dict:
        """Send one command of the DevTools protocol and return its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        while (answer := self.next_message()).get("id") != number:
            self.keep(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def next_message(self) -> dict:
        while b"\0" not in self.unread:
            received = os.read(self.answers.fileno(), 1 << 16)
            assert received, "the browser has ended"
            self.unread += received
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def keep(self, event: dict) -> None:
        if event.get("method") == "Network.requestWillBeSent":
            address = event["params"]["request"]["url"]
            self.requests += [address] * (not address.startswith("data:"))
        elif event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(event["params"]["exceptionDetails"]["text"])

    def open(self, address: str, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Show a page in a window of this size, and wait until it is loaded."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=address)
        self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; a promise is awaited."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Return the value of an expression as soon as it is true."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not (value := self.run(script)):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.05)
        return value

    def scrolls_sideways(self) -> bool:
        """Return whether the page is wider than its window."""
        return self.run("document.documentElement.scrollWidth > document.documentElement.clientWidth")

    def click(self, selector: str, share: float = 0.5) -> None:
        """Click the first such element with the mouse, at this share of its width."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = self.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        place = {"x": box["x"] + share * box["width"], "y": box["y"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                text=text * (kind == "keyDown"),
            )

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """Write a picture of the page."""
        picture = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(picture["data"]))
