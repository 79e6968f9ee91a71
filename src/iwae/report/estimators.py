"""The page of `iwae estimators`: its table and its pictures in one file."""

from collections.abc import Sequence
from pathlib import Path

from iwae.io.files import read_bounded, write_atomically
from iwae.report.embedding import MAX_BYTES, picture
from iwae.report.page import style, template
from iwae.runs.estimators import draw_likelihoods
from iwae.runs.sweep import Sweep
from iwae.version import __version__

NAME = "estimators.html"
CAPTIONS = {
    "signal_to_noise.png": (
        "Signal-to-noise ratio",
        "The norm of the gradient's expectation over the root of its total variance: encoder above, decoder below.",
    ),
    "bias.png": (
        "Bias",
        "Of the encoder, the distance of the expectation from the gradient of the same objective at that k; of the"
        " decoder, that from the gradient with many samples.",
    ),
}


def write_page(sweep: Sweep, heading: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> Path:
    """Writes `estimators.html` into the sweep's directory: the table's cells and the pictures that are there.

    Raises IWAEError where an extra is not installed, and OSError where it can't be written.
    """
    pictures = []
    nll = draw_likelihoods(sweep)
    if nll is not None:
        caption = "The mean over seeds of the test NLL after the same steps."
        pictures.append(picture(nll, "Test NLL over k", caption, "Test NLL over the number of samples"))
    for name, (title, caption) in CAPTIONS.items():
        if (path := sweep.path / name).is_file():
            pictures.append(
                picture(read_bounded(path, MAX_BYTES), title, caption, f"{title} over the number of samples")
            )
    page = {"heading": heading, "rows": rows, "notes": notes, "pictures": pictures, "version": __version__}
    html = template("estimators.html").render(page=page, css=style())
    write_atomically(path := sweep.path / NAME, html.encode())
    return path
