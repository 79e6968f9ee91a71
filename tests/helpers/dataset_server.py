"""A server of one small file of images that misbehaves as the first folder of a path says."""

import contextlib
import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from iwae.data.formats import idx_bytes

IMAGES = np.random.default_rng(3).integers(0, 256, (500, 28, 28)).astype(np.uint8)
CONTENT = idx_bytes(IMAGES)
PACKED = gzip.compress(CONTENT)


class Server(ThreadingHTTPServer):
    """Remembers the paths it was asked for; `closing` ends its answers that would go on."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.closing = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """The first folder of the path says how to misbehave."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format, *args):
        pass

    def answer(self, body, *, status=200, length=None, kind="application/octet-stream", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length != 0:
            self.send_header("Content-Length", str(length or len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.requests.append(self.path)
        with contextlib.suppress(ConnectionError):
            getattr(self, self.path.split("/")[1])()

    def good(self):
        self.answer(PACKED)

    def plain(self):
        self.answer(CONTENT)

    def slow_but_good(self):
        time.sleep(0.2)
        self.answer(PACKED)

    def cut(self):
        self.answer(PACKED[:1000], length=len(PACKED))

    def cut_unannounced(self):
        self.answer(PACKED[:1000], length=0)

    def html(self):
        self.answer(b"<html>log in first</html>", kind="text/html; charset=utf-8")

    def wrong(self):
        self.answer(gzip.compress(CONTENT[:-1] + b"x"))

    def huge(self):
        self.answer(gzip.compress(bytes(8 << 20)))

    def endless(self):
        self.answer(b"", length=0)
        while True:
            self.wfile.write(bytes(1 << 16))

    def loop(self):
        self.answer(b"", status=302, Location=self.path)

    def moved(self):
        self.answer(b"", status=302, Location=self.path.replace("moved", "good"))

    def error(self):
        self.answer(b"sorry", status=500)

    def absent(self):
        self.answer(b"sorry", status=404)

    def stall(self):
        self.answer(PACKED[:1000], length=len(PACKED))
        self.server.closing.wait(20)

    def silence(self):
        self.server.closing.wait(20)

    def trickle(self):
        self.answer(PACKED[:1000], length=len(PACKED))
        while not self.server.closing.wait(0.05):
            self.wfile.write(b"x")

    def trickling_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not self.server.closing.wait(0.05):
            self.wfile.write(b"x")
