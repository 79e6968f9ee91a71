"""The page as one file that loads nothing, and the link to it."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from iwae.errors import IWAEError
from iwae.io.files import write_atomically

NAME = "explore.html"


def check_output(output: Path, name: str = "output") -> None:
    """Raises IWAEError, naming the argument `name`, where no page can be written: before minutes of measuring, not
    after.
    """
    if output.is_dir() or not output.parent.is_dir():
        what = "is a directory" if output.is_dir() else f"can't be written: there is no directory {output.parent}"
        raise IWAEError(f"{output} {what}; choose another `{name}`")


def write_page(output: Path, title: str, facts: Sequence[tuple[str, str]], content: Mapping[str, Any]) -> None:
    """Writes the page whole or not at all.

    `content` is what `page_content` gives; `title` and `facts` (name and text) say on the page what is shown.

    Raises OSError, naming the file.
    """
    write_atomically(output, render(title, facts, content).encode())


def render(title: str, facts: Sequence[tuple[str, str]], content: Mapping[str, Any]) -> str:
    """The page's HTML. Texts from files are escaped, or are data that the script shows as text."""
    title = as_utf8(title)
    about = {
        **content,
        "title": title,
        "facts": [{"name": as_utf8(name), "text": as_utf8(text)} for name, text in facts],
    }
    style, model, page = (_asset(name) for name in ("page.css", "model.js", "page.js"))
    return Template(_asset("page.html")).substitute(
        title=html.escape(title),
        policy=f"default-src 'none'; script-src {_digest(model)} {_digest(page)}; style-src {_digest(style)};"
        " img-src data:; base-uri 'none'; form-action 'none'",
        style=style,
        model=model,
        page=page,
        # No tag can end or begin inside of the data.
        data=json.dumps(about, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )


def as_utf8(text: str) -> str:
    """Bytes of file names that are no UTF-8, which Python keeps as lone surrogates, become escapes."""
    return text.encode(errors="backslashreplace").decode()


def _asset(name: str) -> str:
    return files("iwae.explore").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """By which the page's policy knows its own scripts and style from any other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def explorer_link(run: Path, beside: Path) -> str | None:
    """The address of a run's explorer page, relative to the directory `beside`, for the `href` of a page that lies
    there; None where the run has no such page.
    """
    page = run / NAME
    if not page.is_file() or page.is_symlink():
        return None
    try:
        relative = os.path.relpath(page.resolve(), beside.resolve())
    except ValueError:  # Another drive of Windows.
        return page.resolve().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))
