"""A page in a real browser without a window, spoken to through the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PROGRAM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
# Containers have a small /dev/shm, and their only user is root.
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions", "--no-first-run",
    "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip


def needed() -> None:
    """Skips a test where no browser is; fails it where the tests were told that they have to run (.ci/run does)."""
    if PROGRAM is None and os.environ.get("MEDPAIR_CHROMIUM") == "required":
        pytest.fail("MEDPAIR_CHROMIUM=required, but there is no chromium: apt-get install chromium")
    if PROGRAM is None:
        pytest.skip("no chromium on this machine")


class Browser:
    def __init__(self, to: int, back: int):
        self.to, self.back, self.last, self.rest = to, back, 0, b""
        self.session = ""
        self.events: list[dict[str, Any]] = []

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = os.read(self.back, 1 << 20)
            assert more, "the browser has ended"
            self.rest += more
        one, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(one))

    def ask(self, method: str, **words: Any) -> dict[str, Any]:
        self.last += 1
        said = {"id": self.last, "method": method, "params": words} | (
            {"sessionId": self.session} if self.session else {}
        )
        os.write(self.to, json.dumps(said).encode() + b"\0")
        while True:
            m = self._message()
            if m.get("id") == self.last:
                assert "error" not in m, m
                return dict(m["result"])
            self.events.append(m)

    def wait(self, event: str) -> None:
        while not any(m.get("method") == event for m in self.events):
            self.events.append(self._message())

    def open(self, page: Path | str, width: int, height: int = 800) -> None:
        """A file, or an address."""
        if not self.session:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                self.ask(f"{domain}.enable")
        phone = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.events.clear()
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self.wait("Page.loadEventFired")

    def run(self, expression: str, waits: bool = False) -> Any:
        """The value of an expression in the page, or of its promise."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=waits)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def asked_for(self) -> list[str]:
        """Addresses of everything that the page wanted since it was opened."""
        return [m["params"]["request"]["url"] for m in self.events if m.get("method") == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Errors of scripts, and what the page's policy forbade."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(m["params"]) for m in self.events if m.get("method") in kinds]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """`profile`: an empty folder that is the browser's own."""
    assert PROGRAM is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # The protocol is spoken on descriptors 3 and 4.
    command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", command, PROGRAM, *OPTIONS, f"--user-data-dir={profile}"],
        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    page = Browser(ours_out, ours_in)
    try:
        yield page
        page.session = ""
        page.ask("Browser.close")
        with suppress(subprocess.TimeoutExpired):  # on a busy machine; it is ended either way
            process.wait(20)
    finally:
        process.kill()
        process.wait()
        os.close(ours_out)
        os.close(ours_in)
