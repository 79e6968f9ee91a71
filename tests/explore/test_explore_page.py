"""`iwae explore` as a user meets it: a real process, raw requests to it, and its page in a real Chromium."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.small_runs import COMMAND, environment, go, small_config, write_data

pytest.importorskip("starlette", reason="needs the extra iwae[explore]")
pytest.importorskip("uvicorn", reason="needs the extra iwae[explore]")

from iwae.explore.server import HEAD_SECONDS

DEADLINE = 120
BROWSER_OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
]


class Served:
    """A trained run and the commands that serve it."""

    def __init__(self, directory: Path):
        self.directory = directory
        data = write_data(directory / "d.npz", shape=(5, 6), num_train=200)
        go(directory / "run", small_config(data, model="iwae", k=5, latent=(4,)), stages=3)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(COMMAND), "explore", str(self.directory / "run"), "--no-browser", *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextlib.contextmanager
    def process(self, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """A server and its port, once it says that it serves."""
        with self.start(*arguments) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert "http://127.0.0.1:" in line, line
                yield process, int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
            finally:
                process.kill()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("explore"))


@pytest.fixture(scope="module")
def port(served: Served) -> Iterator[int]:
    with served.process("--port", "0") as (_, port):
        yield port


# The process


def exchange(port: int, *parts: bytes) -> bytes:
    """What the server answers to bytes as they are, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def request(line: str, host: str, *headers: str) -> bytes:
    return "\r\n".join([line, f"Host: {host}", "Connection: close", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("GET /api/model HTTP/1.1", "localhost", 200),
        ("GET /../../../../etc/passwd HTTP/1.1", "127.0.0.1", 404),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", "127.0.0.1", 404),
        ("GET http://evil.example/ HTTP/1.1", "127.0.0.1", 404),
        ("GET /api/model HTTP/1.1", "evil.example", 403),
        ("CONNECT evil.example:80 HTTP/1.1", "evil.example", 403),
        ("nonsense", "127.0.0.1", 400),
    ],
)
def test_raw_requests(port, line, host, status):
    answer = exchange(port, request(line, f"{host}:{port}"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"Traceback" not in answer
    assert b"root:" not in answer


def test_a_request_without_a_host_is_refused(port):
    assert exchange(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_a_chunked_flood_is_cut_off(port):
    head = request("POST /api/decode HTTP/1.1", f"127.0.0.1:{port}", "Content-Type: application/json")
    head = head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    # The chunks never end: the answer comes all the same, and the connection is closed.
    answer = exchange(port, head, *[chunk] * 6)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 "), answer
    assert exchange(port, request("GET / HTTP/1.1", f"127.0.0.1:{port}")).startswith(b"HTTP/1.1 200 ")


def test_half_requests_do_not_take_all_places_for_long(port):
    """More connections than the server answers at once, each of which sends a line of a head now and then, for ever;
    half of them after one whole request, with which Uvicorn's own limit would end.
    """
    with contextlib.ExitStack() as opened:
        halves = []
        for number in range(80):
            half = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE))
            whole = f"GET /page.css HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n" if number % 2 else ""
            half.sendall(f"{whole}GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
            halves.append(half)
        answers = []
        end = time.monotonic() + 6 * HEAD_SECONDS
        while not answers or not answers[-1].startswith(b"HTTP/1.1 200 "):
            assert time.monotonic() < end, answers[-1]
            answers.append(exchange(port, request("GET / HTTP/1.1", f"127.0.0.1:{port}")))
            for half in halves:
                with contextlib.suppress(ConnectionError):
                    half.sendall(b"X: y\r\n")
            time.sleep(0.5)
        # At first there was no place: that is what must not last.
        assert answers[0].startswith(b"HTTP/1.1 503 "), answers[0]


def test_a_web_socket_is_refused(port):
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    head = request("GET /api/model HTTP/1.1", f"127.0.0.1:{port}", *upgrade).replace(b": close", b": Upgrade, close")
    assert not exchange(port, head).startswith(b"HTTP/1.1 101 ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")
def test_only_the_one_address_is_served(port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=DEADLINE)


def test_ctrl_c_ends_it_with_one_line(served):
    with served.process("--port", "0", "--checkpoint", "1") as (process, port):
        # A connection that stays open keeps nothing up.
        with socket.create_connection(("127.0.0.1", port)):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
        assert out == "Stopped.\n"
        assert err == "Measuring the active units, compiling ...\n"


def test_another_signal_than_ctrl_c_has_its_own_status(served):
    with served.process("--port", "0", "--checkpoint", "1") as (process, _):
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 143
        assert out == ""
        assert err.splitlines()[1:] == ["iwae: error: interrupted"]


def test_a_taken_port_is_one_line(served, port):
    with served.start("--port", str(port)) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"iwae: error: port {port} of 127.0.0.1 can't be had")
    assert err.count("\n") == 1


# The page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in [*BROWSER_OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    instance = webdriver.Chrome(options=options, service=Service(driver))
    yield instance
    instance.quit()


class Page:
    """The open page, with what a user does and sees."""

    def __init__(self, browser: Any, port: int):
        self.browser = browser
        browser.get_log("browser")
        browser.get(f"http://127.0.0.1:{port}/")
        self.wait(lambda: self.picture("decoded"))
        self.start = self.picture("decoded")

    def element(self, name: str) -> Any:
        return self.browser.find_element("id", name)

    def elements(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def click(self, name: str) -> None:
        self.element(name).click()

    def picture(self, name: str) -> str | None:
        """The address of a picture that has loaded, else None."""
        image = self.element(name)
        return image.get_attribute("src") if int(image.get_property("naturalWidth")) > 0 else None

    def values(self) -> list[float]:
        return [float(slider.get_property("value")) for slider in self.elements("#sliders input")]

    def fill(self, name: str, text: str) -> None:
        self.element(name).clear()
        self.element(name).send_keys(text)

    def wait(self, condition: Any) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, DEADLINE).until(lambda _: condition())

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture
def page(browser: Any, port: int) -> Iterator[Page]:
    opened = Page(browser, port)
    yield opened
    assert opened.console() == []


def test_it_opens_with_a_labelled_slider_for_each_unit(page):
    assert page.element("title").text == "run"
    labels = [label.text for label in page.elements("#sliders label")]
    assert labels
    assert all(label.startswith("Unit ") and "variance" in label for label in labels)
    variances = [float(label.split()[-1]) for label in labels]
    assert variances == sorted(variances, reverse=True)
    for control in page.elements("input, button"):
        assert control.accessible_name or not control.is_displayed()
    assert page.values() == [0.0] * len(labels)
    assert not page.element("error").is_displayed()
    assert not page.element("encoded-results").is_displayed()


def test_moving_a_slider_changes_the_picture(page):
    slider = page.elements("#sliders input")[0]
    # The keyboard moves it: to its end.
    slider.send_keys("\ue010")
    page.wait(lambda: page.picture("decoded") not in (None, page.start))
    assert page.values()[0] == 4.0
    assert page.elements("#sliders output")[0].text == "+4.00"
    assert page.values()[1:] == [0.0] * (len(page.values()) - 1)


def test_the_prior_sets_the_sliders_and_reset_sets_them_back(page):
    page.click("prior")
    page.wait(lambda: page.picture("decoded") not in (None, page.start))
    # A slider rounds to tenths, so that one draw in twenty-five stands at zero there; the text beside it does not.
    at_zero = [output.text for output in page.elements("#sliders output")].count("0.00")
    assert at_zero <= 1
    assert page.element("status").text == "A draw from the prior."
    page.click("reset")
    page.wait(lambda: page.picture("decoded") == page.start)
    assert not any(page.values())


def test_encoding_shows_the_reconstruction_and_the_effective_sample_size(page):
    page.fill("index", "7")
    page.fill("k", "30")
    page.click("encode")
    page.wait(lambda: page.picture("reconstruction") and page.picture("original"))
    size, _, samples = page.element("ess").text.partition(" of ")
    assert 1.0 <= float(size) <= 30.0
    assert samples == "30"
    assert page.element("log-likelihood").text.startswith("−")
    assert page.picture("reconstruction") != page.picture("original")
    assert page.element("reconstruction").get_attribute("alt").endswith("test image 7")
    # These data are binary: a binarized picture would be the stored one again.
    assert not page.element("binarized-figure").is_displayed()
    page.click("to-posterior")
    page.wait(lambda: page.picture("decoded") not in (None, page.start))
    assert any(page.values())


def test_a_random_image_is_encoded(page):
    page.click("random")
    page.wait(lambda: page.picture("reconstruction"))
    assert page.element("index").get_property("value") in page.element("original").get_attribute("alt")


def test_only_the_latest_of_many_moves_is_sent(page):
    calls = "performance.getEntriesByType('resource').filter(e => e.name.endsWith('decode')).length"
    before = page.browser.execute_script(f"return {calls}")
    page.browser.execute_script("""
        const slider = document.querySelector("#sliders input");
        for (let i = 1; i <= 60; i++) {
            slider.value = i / 20;
            slider.dispatchEvent(new Event("input"));
        }
    """)
    decoded = """
        const [values, done] = arguments;
        const options = {method: "POST", headers: {"Content-Type": "application/json"}};
        fetch("api/decode", {...options, body: JSON.stringify({values})}).then(r => r.json()).then(a => done(a.image));
    """
    expected = page.browser.execute_async_script(decoded, page.values())
    page.wait(lambda: page.picture("decoded") == expected)
    # The first, the last, and this test's own.
    assert page.browser.execute_script(f"return {calls}") - before == 3


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(page, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.click("random")
    page.wait(lambda: page.picture("reconstruction"))
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
    color = page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(json.loads(color.removeprefix("rgb").replace("(", "[").replace(")", "]"))) / 3
    assert (brightness < 128) == (scheme == "dark")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("field", "value"), [("index", "99999"), ("index", "1.5"), ("index", ""), ("k", "0")])
def test_what_is_out_of_range_is_said_before_the_server_is_asked(page, field, value):
    ends = {"index": ("Index", "0 to 29"), "k": ("Samples k", "1 to 500")}[field]
    page.browser.execute_script(
        "window.asked = 0; const f = fetch; window.fetch = (...a) => { asked++; return f(...a); }"
    )
    page.fill("index", "3")
    page.fill(field, value)
    page.click("encode")
    page.wait(lambda: page.element("error").is_displayed())
    assert page.element("error").text == f"{ends[0]} must be a whole number from {ends[1]}."
    assert page.element(field).get_attribute("aria-invalid") == "true"
    assert page.browser.execute_script("return asked") == 0


def test_no_part_of_the_page_hides_its_end_in_a_scrollbar_of_its_own(page):
    size = {"width": 1400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.click("encode")
    page.wait(lambda: page.picture("reconstruction"))
    inner = (
        "return [...document.querySelectorAll('main *')].filter(e => e.clientHeight && getComputedStyle(e).overflowY"
    )
    assert page.browser.execute_script(inner + " === 'auto').length") == 0
    page.browser.execute_script("window.scrollTo(0, document.documentElement.scrollHeight)")
    bottom = "return document.getElementById('encode-panel').getBoundingClientRect().bottom"
    assert page.browser.execute_script(bottom) <= 800
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_what_the_server_refuses_is_said_in_words_until_something_succeeds(page):
    page.browser.execute_script("about.num_examples = 1e6; document.getElementById('index').max = 1e6")
    page.fill("index", "99999")
    page.click("encode")
    page.wait(lambda: page.element("error").is_displayed())
    assert page.element("error").text == "Index must be a whole number from 0 to 29"
    assert page.element("error").get_attribute("role") == "alert"
    page.fill("index", "3")
    page.click("encode")
    page.wait(lambda: page.picture("reconstruction"))
    assert not page.element("error").is_displayed()
    assert all("status of 400" in message for message in page.console())


def test_a_server_that_is_gone_is_said_in_words(page):
    page.browser.execute_script("window.fetch = () => Promise.reject(new TypeError('failed'))")
    page.click("prior")
    page.wait(lambda: page.element("error").is_displayed())
    assert "iwae explore" in page.element("error").text
