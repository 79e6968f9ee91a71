"""The web application of `iwae explore` in process: every route, and everything that it refuses."""

import asyncio
import base64
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from helpers.toy import toy_dataset
from iwae import Architecture, HierarchicalVAE, IWAEError, active_units
from iwae.explore.model_view import ModelView

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette", reason="needs the extra iwae[explore]")
pytest.importorskip("uvicorn", reason="needs the extra iwae[explore]")

from iwae.explore import server  # noqa: E402
from iwae.explore.guard import MAX_BODY, SECURITY_HEADERS, Guard  # noqa: E402

PORT = 8300
JSON = {"content-type": "application/json"}
POSTS = {"/api/decode": {"values": [0.5, -1, 0.0]}, "/api/prior": {"draw": 7}, "/api/encode": {"index": 3, "k": 20}}
GETS = ["/", "/page.css", "/page.js", "/api/model"]


@pytest.fixture(scope="module")
def view() -> ModelView:
    model, dataset = HierarchicalVAE.create(Architecture(6, (3,), ((5,),)), jax.random.key(0)), toy_dataset()
    return ModelView(model, dataset, active_units(model, dataset))


@pytest.fixture(scope="module")
def app(view: ModelView) -> Guard:
    return server.create_app(view, PORT, "a run", [("Data", "toy")])


def call(app: Guard, method: str, path: str, **options: Any):
    """One request, in its own event loop: the application keeps nothing between requests."""

    async def go():
        transport = httpx.ASGITransport(app)  # pyright: ignore[reportArgumentType]
        async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as client:
            return await client.request(method, path, **options)

    return asyncio.run(go())


def post(app: Guard, path: str, body: Any, **options: Any):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return call(app, "POST", path, **{"content": content, "headers": JSON, **options})


def is_refused(response: Any, status: int, words: str = "") -> None:
    """Asserts a one-line JSON error with every header, and that nothing of Python is in it."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert "\n" not in response.text
    assert not re.search(r"Traceback|File \"|\.py", response.text)
    assert words in response.json()["error"]
    has_security_headers(response)


def has_security_headers(response: Any) -> None:
    for name, value in SECURITY_HEADERS.items():
        assert response.headers[name] == value
    assert not any(name.startswith("access-control") for name in response.headers)


def read_uri(uri: str) -> np.ndarray:
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


# What it answers


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")]
)
def test_the_page_and_its_parts(app, path, kind):
    response = call(app, "GET", path)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{kind}; charset=utf-8"
    has_security_headers(response)


def test_the_page_loads_nothing_from_elsewhere_and_has_no_inline_script_or_style(app):
    texts = [call(app, "GET", path).text for path in ("/", "/page.css", "/page.js")]
    assert not re.search(r"https?://|url\(|@import", "".join(texts))
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", texts[0])


def test_the_model_is_described(app, view):
    about = call(app, "GET", "/api/model").json()
    assert about["title"] == "a run"
    assert about["facts"] == [{"name": "Data", "text": "toy"}]
    assert [unit["index"] for unit in about["units"]] == [unit.index for unit in view.units]
    assert about["num_examples"] == 12
    assert (about["visible"], about["latent"], about["layers"]) == (6, 3, 1)


def test_decoding_gives_the_picture_of_the_values(app, view):
    one, other = (post(app, "/api/decode", {"values": v}).json()["image"] for v in ([0, 0, 0], [3, -3, 3.5]))
    assert read_uri(one).shape[1] == view.model.visible
    assert one != other


def test_a_draw_from_the_prior_gives_values_and_their_picture(app):
    answer = post(app, "/api/prior", {"draw": 7}).json()
    assert answer == post(app, "/api/prior", {"draw": 7}).json()
    assert answer["values"] != post(app, "/api/prior", {"draw": 8}).json()["values"]
    assert answer["image"] == post(app, "/api/decode", {"values": answer["values"]}).json()["image"]


def test_encoding_gives_pictures_figures_and_the_sliders_values(app, view):
    answer = post(app, "/api/encode", {"index": 3, "k": 20}).json()
    expected = view.encode(3, 20)
    assert answer["log_likelihood"] == expected.log_likelihood
    assert answer["effective_sample_size"] == expected.effective_sample_size
    assert answer["values"] == pytest.approx(list(expected.values))
    assert (answer["index"], answer["k"]) == (3, 20)
    assert len({answer[name] for name in ("original", "encoded", "reconstruction")}) == 3


def test_a_figure_that_is_no_number_is_null(app, view, monkeypatch):
    broken = view.encode(0, 1)
    object.__setattr__(broken, "log_likelihood", float("nan"))
    monkeypatch.setattr(view, "encode", lambda *_: broken)
    assert post(app, "/api/encode", {"index": 0, "k": 1}).json()["log_likelihood"] is None


# What it refuses


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""])
@pytest.mark.parametrize("path", ["/", "/api/model", "/nothing"])
def test_another_host_is_refused(app, host, path):
    is_refused(call(app, "GET", path, headers={"host": host}), 403, "Host")


def test_two_hosts_or_none_are_refused(app):
    own = f"localhost:{PORT}"
    assert call(app, "GET", "/", headers={"host": own}).status_code == 200
    is_refused(call(app, "GET", "/", headers=[("host", own), ("host", own)]), 403, "Host")


def test_on_port_80_a_browser_names_no_port(view):
    app = server.create_app(view, 80, "a run", [])
    assert call(app, "GET", "/", headers={"host": "localhost"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1"])
def test_another_origin_is_refused(app, origin):
    response = post(app, "/api/prior", {"draw": 1}, headers={**JSON, "origin": origin})
    is_refused(response, 403, "another page")


def test_its_own_origin_is_not_refused(app):
    headers = {**JSON, "origin": f"http://127.0.0.1:{PORT}"}
    assert post(app, "/api/prior", {"draw": 1}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize("path", POSTS)
def test_what_a_foreign_form_could_send_is_refused(app, path, kind):
    is_refused(post(app, path, POSTS[path], headers={"content-type": kind}), 415, "application/json")


@pytest.mark.parametrize("path", POSTS)
def test_a_content_type_with_a_charset_is_taken(app, path):
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert post(app, path, POSTS[path], headers=headers).status_code == 200


BAD_JSON = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 60_000,
    b'{"values": [NaN, 0, 0]}',
    b'{"values": [Infinity, 0, 0]}',
    b'{"values": [-Infinity, 0, 0]}',
    b'{"draw": ' + b"9" * 50_000 + b"}",
]


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
@pytest.mark.parametrize("path", POSTS)
def test_what_is_no_json_is_refused(app, path, body):
    is_refused(post(app, path, body), 400)


@pytest.mark.parametrize("body", [[], None, 3, "values", {}, {"values": [0, 0, 0], "more": 1}, {"value": [0, 0, 0]}])
@pytest.mark.parametrize("path", POSTS)
def test_other_json_is_refused(app, path, body):
    is_refused(post(app, path, body), 400, "object")


@pytest.mark.parametrize(
    "values",
    [[], [0, 0], [0, 0, 0, 0], [0, 0, "1"], [0, 0, None], [0, 0, True], [0, [0], 0], "000", {"0": 0}, None, 5],
)
def test_values_of_another_length_or_type_are_refused(app, values):
    is_refused(post(app, "/api/decode", {"values": values}), 400, "number")


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1e300", "1001", "9" * 4000])
def test_values_beyond_all_bounds_are_refused(app, text):
    is_refused(post(app, "/api/decode", f'{{"values": [{text}, 0, 0]}}'.encode()), 400, "-1000 to 1000")


@pytest.mark.parametrize("value", [-1, 1.0, "1", None, True, [1], 10**12, 10**4000])
@pytest.mark.parametrize(("path", "field"), [("/api/prior", "draw"), ("/api/encode", "index"), ("/api/encode", "k")])
def test_numbers_out_of_range_are_refused(app, path, field, value):
    is_refused(post(app, path, {**POSTS[path], field: value}), 400, f"{field} must be a whole number from")


def test_k_and_the_index_are_bounded(app):
    assert post(app, "/api/encode", {"index": 11, "k": 500}).status_code == 200
    is_refused(post(app, "/api/encode", {"index": 12, "k": 500}), 400, "from 0 to 11")
    is_refused(post(app, "/api/encode", {"index": 11, "k": 501}), 400, "from 1 to 500")
    is_refused(post(app, "/api/encode", {"index": 11, "k": 0}), 400, "from 1 to 500")


@pytest.mark.parametrize("path", [*POSTS, *GETS, "/nothing"])
def test_a_huge_body_is_refused(app, path):
    is_refused(post(app, path, b" " * (MAX_BODY + 1)), 413, "64 KiB")


def test_a_body_of_the_largest_size_is_read(app):
    body = json.dumps({"draw": 1}).encode()
    assert post(app, "/api/prior", body + b" " * (MAX_BODY - len(body))).status_code == 200


async def pieces(count: int, size: int, sent: list[int]) -> AsyncIterator[bytes]:
    for _ in range(count):
        sent.append(size)
        yield b" " * size


def test_a_huge_body_without_a_length_is_refused_before_it_has_all_come(app):
    sent: list[int] = []
    is_refused(call(app, "POST", "/api/prior", content=pieces(1000, 1000, sent), headers=JSON), 413, "64 KiB")
    assert sum(sent) < 2 * MAX_BODY


def test_a_small_body_without_a_length_is_read(app):
    async def body() -> AsyncIterator[bytes]:
        yield b'{"dra'
        yield b'w": 1}'

    assert call(app, "POST", "/api/prior", content=body(), headers=JSON).status_code == 200


def test_a_body_that_never_ends_is_given_up(app, monkeypatch):
    monkeypatch.setattr("iwae.explore.guard.BODY_SECONDS", 0.05)

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    is_refused(call(app, "POST", "/api/prior", content=body(), headers=JSON), 408, "too long")


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999"])
def test_a_length_that_is_no_size_is_refused(app, length):
    is_refused(post(app, "/api/prior", {"draw": 1}, headers={**JSON, "content-length": length}), 413)


TRAVERSALS = [
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/page.html",
    "/server.py",
    "/static/",
    "/api",
    "/api/",
    "/api/model/",
    "/favicon.ico",
    "/.git/config",
    "/docs",
    "/openapi.json",
    "/page.js%00.css",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_nothing_else_is_served(app, path):
    is_refused(call(app, "GET", f"http://127.0.0.1:{PORT}{path}"), 404, "no such page")


@pytest.mark.parametrize("path", [*GETS, *POSTS])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_the_methods_that_are_meant(app, path, method):
    if method != ("GET" if path in GETS else "POST"):
        response = call(app, method, path)
        is_refused(response, 405, "method")
        assert response.headers["allow"]


def test_a_failure_in_the_model_is_one_line(app, view, monkeypatch, caplog):
    def fail(_: Any) -> None:
        raise RuntimeError("of two\nlines")

    monkeypatch.setattr(view, "decode", fail)
    is_refused(post(app, "/api/decode", POSTS["/api/decode"]), 500, "could not compute")
    assert [record.getMessage() for record in caplog.records if record.name == "iwae.explore"] == [
        "/api/decode: RuntimeError: of two lines"
    ]


def test_data_without_test_examples_have_nothing_to_encode(view, monkeypatch):
    monkeypatch.setattr(view, "num_examples", 0)
    is_refused(
        post(server.create_app(view, PORT, "", []), "/api/encode", {"index": 0, "k": 1}), 400, "no test examples"
    )


# The socket


def test_the_socket_is_on_the_loopback_address_and_a_taken_port_is_one_line():
    with server.listen(0) as taken:
        host, port = taken.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(IWAEError, match=f"port {port} .*--port") as raised:
            server.listen(port)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(IWAEError, match=r"0 .*65535"):
        server.listen(port)
