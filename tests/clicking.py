"""A headless Chromium that a test clicks in, over the browser's own debugging protocol."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from docs import screenshots
from tests.servers import free_port

DEADLINE = 180.0
"""Seconds that a page may take to show what is waited for; a busy machine needs many."""
LEAF = "[...document.querySelectorAll('*')].filter(one => !one.children.length && (one.innerText || '').trim() == {text}).pop()"
"""The last thing that says exactly this."""
MIDDLE = """(one => {{
  if (!one || one.closest('[disabled]')) return null;
  const box = one.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
  const there = document.elementFromPoint(x, y);
  return there && (one.contains(there) || there.contains(one)) ? [x, y] : null;
}})({one})"""
"""Where to click: the middle of a thing that is not switched off, and that no menu covers."""


class Page:
    """One page under way."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._asked = socket, 0

    async def open(self, url: str) -> None:
        """Go to an address."""
        await self._command("Page.navigate", url=url)

    async def words(self) -> str:
        """What the page says."""
        return str(await self._value("document.body.innerText"))

    async def click(self, text: str) -> None:
        """Click on the last thing that says exactly this, once it is there."""
        x, y = await self._until(MIDDLE.format(one=LEAF.format(text=json.dumps(text))))
        for kind in ("mousePressed", "mouseReleased"):
            await self._command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def wait_for(self, text: str) -> None:
        """Wait until the page says this."""
        await self._until(f"document.body.innerText.includes({json.dumps(text)})")

    async def wait_for_element(self, selector: str) -> None:
        """Wait until the page has an element that a CSS selector finds."""
        await self._until(f"document.querySelector({json.dumps(selector)}) !== null")

    async def shows(self, *texts: str) -> str:
        """The text of the page, its spaces single, once it holds all of these; elements the page hides are included."""
        deadline = time.monotonic() + DEADLINE
        while True:
            page = text_of(str(await self._value("document.documentElement.outerHTML")))
            missing = [text for text in texts if text not in page]
            if not missing:
                return page
            assert time.monotonic() < deadline, f"{missing} are never in a page that says {page}"
            await asyncio.sleep(0.2)

    async def _until(self, expression: str) -> Any:
        deadline = time.monotonic() + DEADLINE
        while not (found := await self._value(expression)):
            assert time.monotonic() < deadline, f"{expression} is never true of a page that says {await self.words()}"
            await asyncio.sleep(0.1)
        return found

    async def _value(self, expression: str) -> Any:
        found = await self._command("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def _command(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": parameters})
        while True:  # what the browser tells of its own accord is passed over
            told: dict[str, Any] = json.loads((await self._socket.receive(DEADLINE)).data)
            if told.get("id") == self._asked:
                found: dict[str, Any] = told["result"]
                return found


def text_of(page: str) -> str:
    """The text of a page's HTML, without styles and scripts, its spaces single."""
    bare = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(bare).split())


def seen(url: str, *texts: str, element: str = "body") -> str:
    """The text of a page, once a browser that opened it shows all of `texts` and has an element that this selector finds."""

    async def read() -> str:
        async with browser() as page:
            await page.open(url)
            await page.wait_for_element(element)
            return await page.shows(*texts)

    return asyncio.run(read())


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A browser that reaches this machine only, with one empty page."""
    port, program = free_port(), screenshots.browser()
    assert program is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        line = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--remote-debugging-port={port}"]
        line += [f"--host-resolver-rules=MAP {screenshots.HOST} 127.0.0.1, MAP * ~NOTFOUND", f"--user-data-dir={profile}"]
        line += [f"--window-size={screenshots.WIDTH},900", "about:blank"]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(await _page(session, port), max_msg_size=0) as socket,
            ):
                yield Page(socket)
        finally:
            process.terminate()
            process.wait()


async def _page(session: aiohttp.ClientSession, port: int) -> str:
    """Where the browser listens for what its page shall do."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"http://127.0.0.1:{port}/json") as reply:
                pages = [page for page in await reply.json() if page["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the browser does not listen on port {port}")
