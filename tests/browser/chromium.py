"""A real Chromium, driven over its own protocol (Chrome DevTools): no driver and no library but a websocket."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Where it is: ``CHROMIUM`` or one of the usual names; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One tab. ``requests`` are the addresses that it asked for, ``complaints`` what it logged: errors of scripts,
    what the Content Security Policy stopped, answers that failed."""

    def __init__(self, binary: str) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        flags = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *("--remote-debugging-port=0", f"--user-data-dir={self._profile}"),
        ]
        self._process = subprocess.Popen([binary, *flags, "about:blank"], stderr=subprocess.DEVNULL)
        self._socket = connect(self._tab(), max_size=None)
        self._number = 0
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Until an expression is true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if self.run(f"Boolean({condition})"):
                    return
            except RuntimeError:  # between two pages
                pass
            time.sleep(0.05)
        raise AssertionError(f"never true: {condition}, at {self.run('location.href')}")

    def size(self, width: int, height: int) -> None:
        mobile = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    @contextmanager
    def leaving(self, until: str = "true") -> Iterator[None]:
        """For what leads to another page, the same address included: ends when that is there, and ``until`` is true.

        The page that is left is marked, for it answers until the other one has come.
        """
        self.run("window.left = true")
        yield
        self.wait(f"!window.left && document.readyState === 'complete' && {until}")

    def open(self, address: str) -> None:
        with self.leaving(f"location.href === {json.dumps(address)}"):
            self.send("Page.navigate", url=address)

    def follow(self, act: str) -> None:
        """Do something that leads to another page, and wait for it."""
        with self.leaving():
            self.run(act)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the first element that fits."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def key(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def write(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _tab(self) -> str:
        port_file, until = Path(self._profile) / "DevToolsActivePort", time.monotonic() + 60
        while not port_file.exists() or not port_file.read_text().strip():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError("Chromium does not start")
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            tabs = json.load(answer)
        address: str = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        return address

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
