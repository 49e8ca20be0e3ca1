"""A data set at an address: s3://, gs://, https:// (or a folder on a network file system), read by byte ranges through fsspec.

Credentials come from where the service's own tools look for them (environment, ~/.aws, metadata server), never from the address.
"""

from __future__ import annotations

import errno
import os
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from shards.errors import DataError, bad
from shards.tables.instead import LOOKED_AT, is_page

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")
EXTRAS = {"s3": "s3", "gs": "gs", "https": "http", "http": "http"}
TRIES = 8
FIRST_WAIT = 0.5
"""Seconds before the second try, at most; doubled before each further one."""
LONGEST_WAIT = 30.0
TOLD_FROM = 3
"""The first failed try that is told on stderr; all pauses together are 31 to 62 s, in which a server can be started anew."""
SILENCE = 60.0
"""Seconds without a byte after which a connection is taken for lost; a slow one that sends may take as long as it likes."""
ONCE_MORE = (408, 425, 429)
"""Refusals that another try may mend, as any of 500 and above."""


def is_url(path: object) -> bool:
    return "://" in str(path)


def shown(url: str) -> str:
    """The address without what may be a secret."""
    return re.sub(r"[?#].*$", "?...", re.sub(r"//[^/]*@", "//...@", url))


def check_url(url: str) -> None:
    """Refuses what cannot be read; the address is shown without its secrets.

    Raises:
        DataError: another protocol, no host or bucket, credentials inside.
    """
    parts = urlsplit(url)
    if parts.scheme not in EXTRAS:
        raise bad(
            f"'{parts.scheme}' is not a known protocol",
            shown(url),
            f"use one of {', '.join(f'{p}://' for p in EXTRAS)}",
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        fix = "leave them out of the address: give credentials as the service's own tools take them (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...)"
        raise bad("an address with a user, a password or a query", shown(url), fix)
    if not parts.netloc:
        raise bad("no bucket or host", shown(url), "write s3://BUCKET/FOLDER or https://HOST/FOLDER")


def inside(name: str) -> bool:
    """Whether a file's name stays in its data set."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and not {"..", "."} & set(path.parts) and "\\" not in name


class Remote:
    """The files of a data set at an address.

    Raises:
        DataError: see `check_url`; a missing extra.
    """

    def __init__(self, url: str):
        if is_url(url):
            check_url(url)
        self.url = url.rstrip("/") if is_url(url) else os.path.abspath(url)
        self.fs, self.root = self._open()

    def _open(self) -> tuple[AbstractFileSystem, str]:
        import fsspec

        scheme = urlsplit(self.url).scheme if is_url(self.url) else "file"
        try:
            return fsspec.core.url_to_fs(self.url, **_settings(scheme))
        except ImportError as e:
            raise bad(f"{scheme}:// needs a package ({e})", self.url, f"pip install 'medpair[{EXTRAS[scheme]}]'") from e
        except (ValueError, OSError) as e:
            raise bad(f"cannot be opened ({e})", self.url, "check the address") from e

    def __str__(self) -> str:
        return self.url

    def where(self, name: str) -> str:
        return f"{self.url}/{name}"

    def whole(self, name: str, start: int | None = None) -> bytes:
        """A small file. With `start=0`, which an empty file refuses, S3 is not asked for its size first.

        Raises:
            DataError: it is not there, may not be read, or the connection is lost for good.
        """

        def get() -> bytes:
            data = self.fs.cat_file(f"{self.root}/{name}", start=start)
            self._no_page(name, data)
            return data

        return self._try(name, get)

    def range(self, name: str, start: int, end: int) -> bytes:
        """Bytes start to end of a file, all of them."""

        def get() -> bytes:
            data = self.fs.cat_file(f"{self.root}/{name}", start=start, end=end)
            if len(data) > end - start:
                raise bad(
                    "the server sends whole files where ranges are asked for",
                    self.where(name),
                    "use one that knows byte ranges",
                )
            if len(data) != end - start:
                self._no_page(name, data)
                raise _Short(f"{len(data)} bytes came for a range of {end - start}")
            return data

        return self._try(name, get, end)

    def _try(self, name: str, get: Callable[[], T], end: int = 0) -> T:
        """With a few more tries where that can help; `end`: where the bytes that are asked for end."""
        wait = FIRST_WAIT
        for n in range(1, TRIES + 1):
            try:
                return get()
            except DataError:
                raise
            except Exception as e:
                refused = self._cut(name, e, end) or self._refused(name, e)
                if refused is not None:
                    raise refused from e
                if n == TRIES:
                    fix = "see whether the address answers from this machine, then give the same command again: it goes on from there"
                    raise bad(f"connection lost, {TRIES} tries ({_words(e)})", self.where(name), fix) from e
                if n >= TOLD_FROM:
                    words = f"{self.where(name)}: try {n} of {TRIES} failed ({_words(e)}), the next in {wait:.0f} s"
                    print(words, file=sys.stderr, flush=True)
            # Ranks that were refused together do not come back together.
            time.sleep(wait * _PAUSES.uniform(0.5, 1))
            wait = min(2 * wait, LONGEST_WAIT)
        raise AssertionError

    def _no_page(self, name: str, data: bytes) -> None:
        """Refuses what a server sends to people: a page to log in, a proxy's words."""
        if is_page(data[:LOOKED_AT]):
            fix = "open it in a browser: where it wants a login, put one that needs no page into ~/.netrc, or copy the set elsewhere"
            raise bad("a web page comes in place of the file", self.where(name), fix)

    def _cut(self, name: str, e: Exception, end: int) -> DataError | None:
        """A file that ends before the bytes that are asked for, which another try cannot mend."""
        said = isinstance(e, _Short) or getattr(e, "status", None) == 416 or getattr(e, "errno", None) == errno.EINVAL
        if not (said and end):
            return None
        try:
            size = self.fs.info(f"{self.root}/{name}")["size"]
        except Exception:  # it is lost, or does not tell: the tries will show
            return None
        if size is None or size >= end:
            return None
        fix = "upload the file again as it was sealed (python -m shards lint on the original finds what differs)"
        return bad(f"has {size:,} bytes, by dataset.json it goes on to {end:,} at least", self.where(name), fix)

    def _refused(self, name: str, e: Exception) -> DataError | None:
        """What another try cannot mend."""
        status = getattr(e, "status", None)
        where = self.where(name)
        if isinstance(e, FileNotFoundError) or status in (404, 410):
            fix = f"check data.path={self.url}: bucket, folder and name; a data set has dataset.json and its shards side by side"
            return bad(f"not there ({_words(e)})", where, fix)
        if isinstance(e, PermissionError) or status in (401, 403, 407) or type(e).__name__ == "NoCredentialsError":
            fix = "check the credentials of this machine (for https a line in ~/.netrc) and the rights of the bucket"
            return bad(f"may not be read ({_words(e)})", where, fix)
        if type(e).__name__ == "TooManyRedirects":
            return bad("the server sends from address to address without end", where, _SETTINGS)
        if status is not None and 400 <= status < 500 and status not in ONCE_MORE:
            return bad(f"refused ({_words(e)})", where, _SETTINGS)
        if isinstance(e, (_Short, OSError)) or status is not None or _of_connection(e):
            return None
        return bad(f"cannot be read ({_words(e)})", where, _SETTINGS)


_PAUSES = random.Random()
_SETTINGS = "check the address and the service's settings"


def _settings(scheme: str) -> dict[str, Any]:
    """How a client of HTTP behaves: proxies of the environment and logins of ~/.netrc, as other tools; no limit but on silence."""
    if scheme not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return {"client_kwargs": {"trust_env": True, "timeout": timeout}}


class _Short(Exception):
    """Less than was asked for: a cut connection."""


def _of_connection(e: Exception) -> bool:
    """Errors of the clients' own families; they are no OSErrors."""
    return any(
        c.__module__.split(".")[0] in ("aiohttp", "botocore", "aiobotocore", "gcsfs", "fsspec") for c in type(e).__mro__
    )


def _words(e: Exception) -> str:
    if not str(e) and isinstance(e, TimeoutError):
        return f"nothing came for {SILENCE:.0f} s"
    text = " ".join(str(e).split()) or type(e).__name__
    return re.sub(r"\w+://\S+", lambda m: shown(m.group()), text)[:300]
