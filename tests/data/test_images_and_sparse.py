"""Images in folders and idx files, sparse matrices and .h5ad: what is read, how it is split, what is refused."""

import gzip
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import sparse

import iwae
from iwae.data import canonical_name, load_dataset
from iwae.data.catalog import PUBLISHED
from iwae.data.columns import Reading
from iwae.data.files import find
from iwae.data.formats import idx_bytes
from iwae.errors import IWAEError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 3, 4)).astype(np.uint8)
COUNTS = (RNG.negative_binomial(1, 0.1, (30, 5)) * (RNG.random((30, 5)) < 0.5)).astype(np.float32)
CELLS = "gene"
FILE_ORDER = Reading(shuffled=False)


def refused(path: Path | str, words: str, **options: Any) -> None:
    with pytest.raises(IWAEError, match=words) as raised:
        load_dataset(str(path), **options)
    assert "\n" not in str(raised.value)


def draw(folder: Path, images: np.ndarray, mode: str = "L") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03}.png")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_folder_of_images_is_split_like_an_array(tmp_path: Path, mode: str) -> None:
    draw(tmp_path / "pictures", GREY, mode)
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    data = load_dataset(f"{tmp_path}/pictures/")
    assert (len(data.train), len(data.valid), len(data.test), data.image_shape) == (16, 2, 2, (3, 4))
    joined = np.concatenate([data.train, data.valid, data.test])
    assert {row.tobytes() for row in joined} == {image.tobytes() for image in GREY}
    assert (data.likelihood, data.scale, data.mark) == ("bernoulli", 1 / 255, "own")
    before = data.files[0].checksum
    draw(tmp_path / "pictures", GREY[::-1], mode)
    assert load_dataset(f"{tmp_path}/pictures").files[0].checksum != before


def test_folders_say_what_the_splits_are(tmp_path: Path) -> None:
    for name, images in (("train", GREY[:12]), ("test", GREY[12:])):
        draw(tmp_path / name / "class", images)
    data = load_dataset(str(tmp_path))
    np.testing.assert_array_equal(data.train, GREY[:12].reshape(12, 12))
    np.testing.assert_array_equal(data.test, GREY[12:].reshape(8, 12))
    Image.fromarray(GREY[0, :2]).save(tmp_path / "train" / "odd.png")
    refused(tmp_path, "odd.png has 2 x 4 pixels, 000.png 3 x 4: give all one size")
    (tmp_path / "train" / "odd.png").write_bytes(b"no image")
    refused(tmp_path, "odd.png is no readable image")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "there are no PNG, JPEG or idx images in it")


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"),
        ("train-images.idx3-ubyte", "t10k-images.idx3-ubyte"),
        ("emnist-letters-train-images-idx3-ubyte.gz", "emnist-letters-test-images-idx3-ubyte.gz"),
    ],
)
def test_a_folder_of_idx_files_has_train_and_test(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, images in zip(names, (GREY[:12], GREY[12:]), strict=True):
        content = idx_bytes(images)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"labels are not read")
    data = load_dataset(str(tmp_path))
    np.testing.assert_array_equal(data.train, GREY[:12].reshape(12, 12))
    np.testing.assert_array_equal(data.test, GREY[12:].reshape(8, 12))
    alone = load_dataset(str(tmp_path / names[0]))
    assert (len(alone.train), len(alone.valid), len(alone.test)) == (10, 1, 1)
    (tmp_path / names[1]).unlink()
    refused(tmp_path, "it has idx images for train, but needs some for train and for test")


def test_the_archive_of_keras_has_train_and_test(tmp_path: Path) -> None:
    labels = np.zeros(12, np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=GREY[:12], y_train=labels, x_test=GREY[12:], y_test=labels[:8])
    data = load_dataset(str(tmp_path / "mnist.npz"))
    np.testing.assert_array_equal(data.train, GREY[:12].reshape(12, 12))
    assert (len(data.test), data.image_shape) == (8, (3, 4))


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_a_sparse_matrix_is_filled_with_its_zeros(tmp_path: Path, layout: str) -> None:
    square = COUNTS[:5].repeat(3, axis=1).repeat(3, axis=0).astype(np.int32)
    matrix = sparse.csr_matrix(square).asformat(layout)
    sparse.save_npz(tmp_path / "d.npz", matrix)
    data = load_dataset(str(tmp_path / "d.npz"), reading=FILE_ORDER)
    np.testing.assert_array_equal(np.concatenate([data.train, data.valid, data.test]), square)
    assert data.likelihood == "negative-binomial"
    np.testing.assert_array_equal(iwae.Dataset.from_arrays(matrix, likelihood="poisson").train, square)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_whole_numbers_of_a_sparse_matrix_are_counts_whatever_their_type(tmp_path: Path, dtype: Any) -> None:
    matrix = sparse.csr_matrix(COUNTS.astype(dtype))
    sparse.save_npz(tmp_path / "d.npz", matrix)
    data = load_dataset(str(tmp_path / "d.npz"))
    assert data.likelihood == iwae.Dataset.from_arrays(matrix, likelihood="auto").likelihood == "negative-binomial"
    assert data.description() == ["5 columns: integer -> negative-binomial"]
    for change in (matrix * 0.5, -matrix):
        assert iwae.Dataset.from_arrays(sparse.csr_matrix(change), likelihood="auto").likelihood == "gaussian"


def test_a_sparse_matrix_of_triples_says_what_to_save(tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "d.npz", sparse.coo_matrix(COUNTS))
    refused(tmp_path / "d.npz", r"neither csr nor csc: save matrix.tocsr\(\)")


def test_a_folder_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "pictures", GREY)
    draw(tmp_path / "mnist", GREY)
    monkeypatch.chdir(tmp_path)
    assert canonical_name("pictures") == str(tmp_path / "pictures")
    assert len(load_dataset("pictures").train) == 16
    # A name of the paper's data is theirs.
    assert canonical_name("mnist") == "mnist"
    refused("picture", "unknown dataset 'picture'")


def test_sparse_matrices_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    whole = sparse.csr_matrix(COUNTS)
    parts = {name: getattr(whole, name) for name in ("data", "indices", "indptr")}
    for wrong, words in (
        ({"indices": whole.indices + 1000}, "not a sparse matrix"),
        ({"indptr": whole.indptr[::-1]}, "not a sparse matrix"),
        ({"shape": (2**40, 2**40)}, "takes more than 16 GiB"),
        ({"format": b"bsr"}, "format 'bsr', expected csr or csc"),
    ):
        np.savez(tmp_path / "d.npz", **{"shape": whole.shape, "format": b"csr", **parts, **wrong})
        refused(tmp_path / "d.npz", words)


def write_h5ad(path: Path, matrix: Any, layer: Any = None) -> None:
    """The parts of an AnnData file that are read, as AnnData 0.12 lays them out."""
    with h5py.File(path, "w") as file:
        for name, found in (("X", matrix), ("layers/counts", layer)):
            if sparse.issparse(found):
                group = file.create_group(name)
                group.attrs.update({"encoding-type": f"{found.format}_matrix", "shape": found.shape})
                for part in ("data", "indices", "indptr"):
                    group[part] = getattr(found, part)
            elif found is not None:
                file[name] = found
        file.create_group("var").attrs["_index"] = CELLS
        file[f"var/{CELLS}"] = [f"g{number}" for number in range(5)]


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_counts_of_genes_are_read(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "d.h5ad"
    write_h5ad(path, make(COUNTS))
    data = load_dataset(str(path), reading=FILE_ORDER)
    assert data.likelihood == "negative-binomial"
    assert [column.name for column in data.columns] == ["g0", "g1", "g2", "g3", "g4"]
    np.testing.assert_array_equal(np.concatenate([data.train, data.valid, data.test]), COUNTS)
    write_h5ad(path, np.log1p(COUNTS), make(COUNTS))
    np.testing.assert_array_equal(
        load_dataset(str(path), reading=Reading(columns=("g3",), shuffled=False)).train, COUNTS[:24, [3]]
    )
    said = load_dataset(str(path), reading=Reading("zero-inflated-negative-binomial", target=("g0",)))
    assert (said.likelihood, said.dim) == ("zero-inflated-negative-binomial", 4)
    write_h5ad(path, np.log1p(COUNTS))
    assert load_dataset(str(path)).likelihood == "gaussian"
    refused(path, "there is no column 'g9'", reading=Reading(columns=("g9",)))
    path.write_bytes(b"no file of HDF5")
    refused(path, "not an .h5ad file")


@pytest.mark.parametrize("name", ["MNIST/raw/train-images-idx3-ubyte", "MNIST/train-images.idx3-ubyte.gz"])
def test_a_published_file_may_lie_in_the_layout_of_another_program(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"")
    assert find(PUBLISHED["mnist"].files[0], [tmp_path]) == tmp_path / name
