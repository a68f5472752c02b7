"""A headless Chromium driven over its debugging pipe: enough to open a page and run a line in it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = next((c for c in ("chromium", "chromium-browser", "google-chrome") if shutil.which(c)), None)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]

AS_EXPECTED = """
import os, sys
commands, answers = (os.dup(int(n)) for n in sys.argv[1:3])  # copies first: they may be 3 and 4 in the wrong order
os.dup2(commands, 3)
os.dup2(answers, 4)
os.set_inheritable(3, True)
os.set_inheritable(4, True)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""The browser reads commands from descriptor 3 and answers on 4."""


class Page:
    """A page in a browser of its own; a context manager."""

    def __init__(self, url: str, profile: Path) -> None:
        assert COMMAND is not None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        flags = [*FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", AS_EXPECTED, str(theirs_in), str(theirs_out), COMMAND, *flags],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._number = 0
        self._page: dict[str, str] = {}
        self.errors: list[str] = []
        """what the console said that is an error: exceptions, refused scripts and styles, addresses not found"""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._page = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the debugging protocol."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params, **self._page}
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                chunk = os.read(self._in, 1 << 16)
                assert chunk, "the browser ended"
                self._buffer += chunk
            line, _, self._buffer = self._buffer.partition(b"\0")
            said = json.loads(line)
            self._hear(said.get("method", ""), said.get("params", {}))
            if said.get("id") == self._number:
                assert "error" not in said, said
                return said["result"]

    def _hear(self, event: str, told: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(str(told["args"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """Show the page as on a screen of that size, to a reader who wishes it light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[wish])

    def press(self, key: str) -> None:
        """Press and release a key, such as `ArrowLeft`, where the focus is."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def shot(self, path: Path, whole: bool = True) -> None:
        """Write what is seen as PNG: the whole page, or what the window shows."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression in the page, awaited."""
        said = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true (at most 20 s)."""
        for _ in range(400):
            if self.run(condition):
                return
            self.run("new Promise((done) => setTimeout(done, 50))")
        raise AssertionError(f"never true: {condition}")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
