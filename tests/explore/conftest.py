"""A headless Chromium, and pages of the explorer made from models."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.explorer import OpenModel
from iwae import HierarchicalVAE
from iwae.data import Dataset
from iwae.explore.content import page_content
from iwae.explore.write import write_page

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


@pytest.fixture(scope="session")
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
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    instance = webdriver.Chrome(options=options, service=Service(driver))
    yield instance
    instance.quit()


@pytest.fixture
def open_model(browser: Any, tmp_path: Path) -> OpenModel:
    """Opens the page of a model, from the file system."""

    def opened(model: HierarchicalVAE, dataset: Dataset) -> Path:
        path = tmp_path / "explore.html"
        write_page(path, "a model", [], page_content(model, dataset))
        browser.get(path.as_uri())
        return path

    return opened
