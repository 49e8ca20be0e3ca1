"""Real servers on loopback for far data sets: HTTP with byte ranges, S3 by moto. Both count what they send."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class FileServer(ThreadingHTTPServer):
    """Serves a folder. `sent` counts bytes and `gets` requests by file name; faults are planted by file name.

    status   {name: status}           answered instead
    short    {name: n}                the file ends after n bytes
    moved    {name: address}          sent there by a 302
    page     {name}                   a web page comes instead
    latency  seconds that each answer waits
    cut      {name: [n, ...]}         the next answers end after n bytes of their body, the connection with them
    damage   {name: times}            the next so many answers have a flipped byte
    gate     {name: threading.Event}  an answer waits for it; `waiting` says that one does
    """

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.lock = folder, threading.Lock()
        self.sent: Counter[str] = Counter()
        self.gets: Counter[str] = Counter()
        self.status: dict[str, int] = {}
        self.short: dict[str, int] = {}
        self.moved: dict[str, str] = {}
        self.page: set[str] = set()
        self.latency = 0.0
        self.logins: set[str | None] = set()
        self.cut: dict[str, list[int]] = {}
        self.damage: dict[str, int] = {}
        self.gate: dict[str, threading.Event] = {}
        self.waiting = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, address: Any) -> None:
        """Clients that are killed are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"
    # Head and body are written one after the other: the second would wait 40 ms for the client's word on the first.
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        s, name = self.server, self.path.rsplit("/", 1)[-1]
        path = s.folder / urlsplit(self.path).path.lstrip("/")  # a proxy is asked for a whole address
        s.logins.add(self.headers.get("Authorization"))
        if s.latency:
            time.sleep(s.latency)
        status = 302 if name in s.moved else s.status.get(name) or (200 if path.is_file() else 404)
        if status != 200:
            self.send_response(status)
            if name in s.moved:
                self.send_header("Location", s.moved[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = b"<!DOCTYPE html><p>Log in" if name in s.page else path.read_bytes()[: s.short.get(name)]
        size = len(data)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found:
            start, last = int(found.group(1)), min(int(found.group(2)), size - 1)
            data = data[start : last + 1]
        with s.lock:
            s.gets[name] += 1
            flip = s.damage.get(name, 0) > 0
            s.damage[name] = s.damage.get(name, 0) - 1
            end = s.cut[name].pop(0) if s.cut.get(name) else len(data)
        if flip:
            data = bytes([data[0] ^ 1]) + data[1:]
        if name in s.gate and not s.gate[name].is_set():
            s.waiting.set()
            s.gate[name].wait()
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{last}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:end])
        with s.lock:
            s.sent[name] += len(data[:end])
        if end < len(data):
            self.close_connection = True


@contextlib.contextmanager
def http_server(folder: Path) -> Iterator[FileServer]:
    server = FileServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        for event in server.gate.values():
            event.set()
        server.shutdown()
        server.server_close()
        thread.join()


S3 = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
}


@contextlib.contextmanager
def s3_server(folder: Path, bucket: str) -> Iterator[dict[str, str]]:
    """A bucket that holds `folder`'s files under its name; gives the environment in which clients find it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {**S3, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {k: os.environ.get(k) for k in env}
    os.environ.update(env)
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        for path in filter(Path.is_file, folder.rglob("*")):
            client.upload_file(str(path), bucket, f"{folder.name}/{path.relative_to(folder)}")
        yield env
    finally:
        for k, v in before.items():
            os.environ.pop(k, None) if v is None else os.environ.update({k: v})
        server.stop()
