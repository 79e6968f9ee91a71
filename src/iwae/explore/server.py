"""The web application, and the loopback socket it is served on."""

import asyncio
import json
import logging
import math
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from iwae.errors import IWAEError
from iwae.explore.guard import HOST, Guard, RequestError, error_response, json_response
from iwae.explore.model_view import MAX_SAMPLES, ModelView
from iwae.explore.pictures import data_uri, picture

# Far outside of any posterior; beyond it float32 squares overflow and the picture means nothing.
MAX_VALUE = 1000.0
MAX_DRAW = 2**31 - 1
PAGES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
# Until a request's head has arrived; the guard bounds its body.
HEAD_SECONDS = 5.0
LOGGER = logging.getLogger("iwae.explore")

Compute = Callable[[ModelView, dict[str, Any]], dict[str, Any]]
Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(view: ModelView, port: int, title: str, facts: list[tuple[str, str]]) -> Guard:
    """The application for one model, which answers only to 127.0.0.1:`port` and localhost:`port`.

    `title` and `facts` (name and text) say on the page what is shown.
    """
    about = describe(view, title, facts)
    app = Starlette(
        routes=[
            *(Route(path, _page(name, kind), methods=["GET"]) for path, (name, kind) in PAGES.items()),
            Route("/api/model", _constant(about), methods=["GET"]),
            Route("/api/decode", _compute(view, decode), methods=["POST"]),
            Route("/api/prior", _compute(view, prior), methods=["POST"]),
            Route("/api/encode", _compute(view, encode), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _http_error},
    )
    # A redirect would be built from the Host header, and there is nothing to redirect to.
    app.router.redirect_slashes = False
    return Guard(app, port)


# The interface: each takes the request's fields, already known to be a JSON object.


def describe(view: ModelView, title: str, facts: list[tuple[str, str]]) -> dict[str, Any]:
    """GET /api/model: what the page needs to build itself."""
    return {
        "title": title,
        "facts": [{"name": name, "text": text} for name, text in facts],
        "units": [
            {"index": u.index, "variance": _finite(u.variance), "resting": rest}
            for u, rest in zip(view.units, _list(view.resting()), strict=True)
        ],
        "binary_units": view.units_are_binary,
        "num_active": view.num_active,
        "layers": len(view.model.latent),
        "latent": view.model.latent[-1],
        "visible": view.model.visible,
        "image_shape": list(view.image_shape) if view.image_shape else None,
        "binary": view.binary,
        "num_examples": view.num_examples,
        "max_samples": MAX_SAMPLES,
    }


def decode(view: ModelView, fields: dict[str, Any]) -> dict[str, Any]:
    """POST /api/decode {values}: the picture at the sliders' values."""
    _expect(fields, "values")
    return {"image": _uri(view, view.decode(_values(fields["values"], len(view.units))))}


def prior(view: ModelView, fields: dict[str, Any]) -> dict[str, Any]:
    """POST /api/prior {draw}: values from the prior and their picture; `draw` numbers the draws."""
    _expect(fields, "draw")
    values = view.prior(_integer("draw", fields["draw"], 0, MAX_DRAW))
    return {"values": _list(values), "image": _uri(view, view.decode(values))}


def encode(view: ModelView, fields: dict[str, Any]) -> dict[str, Any]:
    """POST /api/encode {index, k}: a test example, its weighted reconstruction and its figures.

    `encoded` is null where the data are binary: it would be `original` again. A figure that is no finite number
    is null.
    """
    _expect(fields, "index", "k")
    if not view.num_examples:
        raise RequestError(400, "this dataset has no test examples to encode")
    index = _integer("index", fields["index"], 0, view.num_examples - 1)
    samples = _integer("k", fields["k"], 1, MAX_SAMPLES)
    result = view.encode(index, samples)
    return {
        "index": index,
        "k": samples,
        "original": _uri(view, result.original),
        "encoded": None if view.binary else _uri(view, result.encoded),
        "reconstruction": _uri(view, result.reconstruction),
        "log_likelihood": _finite(result.log_likelihood),
        "effective_sample_size": _finite(result.effective_sample_size),
        "values": _list(result.values),
    }


# Checks


def _expect(fields: dict[str, Any], *names: str) -> None:
    if set(fields) != set(names):
        raise RequestError(400, f"expected an object with exactly: {', '.join(names)}")


def _integer(name: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RequestError(400, f"{name} must be a whole number from {low} to {high}")
    return value


def _values(value: Any, count: int) -> np.ndarray:
    if not isinstance(value, list) or len(value) != count:
        raise RequestError(400, f"values must be a list of {count} numbers, one for each slider")
    for number in value:
        # Written so that NaN fails too.
        if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) <= MAX_VALUE:
            raise RequestError(400, f"every value must be a number from {-MAX_VALUE:g} to {MAX_VALUE:g}")
    return np.array(value, np.float32)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _list(values: np.ndarray) -> list[float]:
    """Values for the sliders, inside of what `decode` takes back."""
    return np.clip(np.nan_to_num(values.astype(np.float64)), -MAX_VALUE, MAX_VALUE).tolist()


def _uri(view: ModelView, values: np.ndarray) -> str:
    return data_uri(picture(values, view.image_shape))


# Endpoints


def _page(name: str, kind: str) -> Endpoint:
    content = files("iwae.explore").joinpath(name).read_bytes()

    async def page(_: Request) -> Response:
        return Response(content, media_type=kind)

    return page


def _constant(value: dict[str, Any]) -> Endpoint:
    async def constant(_: Request) -> Response:
        return json_response(value)

    return constant


def _compute(view: ModelView, function: Compute) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            fields = _json_object(request.headers.get("content-type", ""), await request.body())
            return json_response(await run_in_threadpool(function, view, fields))
        except RequestError as error:
            return error_response(error.status, str(error))
        except Exception as error:
            # The user reads one line, on the page and in the terminal, and the page goes on.
            LOGGER.error("%s: %s: %s", request.url.path, type(error).__name__, " ".join(str(error).split()))
            return error_response(500, f"the model could not compute this ({type(error).__name__})")

    return endpoint


def _json_object(content_type: str, body: bytes) -> dict[str, Any]:
    # No form of another site can send this type without asking first, and that is not answered.
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "the request must be application/json")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RequestError(400, "the request is not valid JSON") from None
    if not isinstance(value, dict):
        raise RequestError(400, "the request must be a JSON object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: "there is no such page", 405: "this address does not take that method"}
    response = error_response(error.status_code, texts.get(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


# Serving


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1, already accepting; port 0 is any free one. Raises IWAEError when it can't be had."""
    if not 0 <= port <= 65535:
        raise IWAEError(f"--port must be from 0 (any free one) to 65535, got {port}")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":
        # A port that was served a moment ago can be had again; elsewhere this option means sharing it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise IWAEError(
            f"port {port} of {HOST} can't be had ({error.strerror}): choose another with --port, or --port 0 for any"
        ) from None
    return listener


class ImpatientProtocol(H11Protocol):
    """Uvicorn's HTTP, but a connection that sends no whole head of a request within HEAD_SECONDS is closed: some
    dozens that never do would otherwise take all the places there are.
    """

    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Between two requests on one connection Uvicorn's own limit holds, but only until the next byte.
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_longer()
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._end is None:
            self._end = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _wait_no_longer(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None


def serve(app: Guard, listener: socket.socket) -> None:
    """Answers until SIGINT or SIGTERM; the latter ends the process. For the main thread."""
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="error",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # Uvicorn takes SIGINT over only once it runs, and hands it on when it ends: a KeyboardInterrupt before or after
    # would strike inside the event loop.
    previous = signal.signal(signal.SIGINT, stop)
    try:
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        signal.signal(signal.SIGINT, previous)
