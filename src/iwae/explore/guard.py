"""What every request passes before the page's own code sees it, and the headers that every answer gets.

A page on the loopback address is within reach of every other page that the user's browser has open: those may send
requests to it, and with a name that they let point to 127.0.0.1 (DNS rebinding) also read the answers. So the Host
and the Origin must be this server's own, which no foreign page can arrange.
"""

import asyncio
import json

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
MAX_BODY = 64 * 1024
BODY_SECONDS = 10.0
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class RequestError(Exception):
    """A request that is refused: a status from 400 on and one line for the user."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def json_response(value: object, status: int = 200) -> Response:
    """JSON without NaN or infinity."""
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")


def error_response(status: int, message: str) -> Response:
    """`{"error": message}` on one line."""
    return json_response({"error": " ".join(message.split())}, status)


class Guard:
    """Passes on only this server's own requests, of bounded size, read whole."""

    def __init__(self, app: ASGIApp, port: int):
        self._app = app
        names = [HOST, "localhost"]
        # A browser leaves out the port of plain HTTP.
        self._hosts = {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        send = _with_security_headers(send)
        try:
            self._check_addressee(scope)
            body = await asyncio.wait_for(_read_body(scope, receive), BODY_SECONDS)
        except TimeoutError:
            await _refuse(RequestError(408, "the request took too long to arrive"), scope, receive, send)
        except RequestError as error:
            await _refuse(error, scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    def _check_addressee(self, scope: Scope) -> None:
        hosts, origins = _header(scope, b"host"), _header(scope, b"origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise RequestError(403, "this page answers only to its own address (the Host header is another)")
        if any(origin.lower() not in {f"http://{host}" for host in self._hosts} for origin in origins):
            raise RequestError(403, "this page answers only to itself (the request comes from another page)")


def _header(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None when the client went away. Raises RequestError as soon as it is too large."""
    too_large = RequestError(413, f"the request is larger than {MAX_BODY // 1024} KiB")
    for length in _header(scope, b"content-length"):
        if not length.isdecimal() or len(length) > 10 or int(length) > MAX_BODY:
            raise too_large
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise too_large
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body that was read, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    response = error_response(error.status, str(error))
    # The rest of the request, if there is one, is not read.
    response.headers["Connection"] = "close"
    await response(scope, receive, send)


def _with_security_headers(send: Send) -> Send:
    extra = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return sender
