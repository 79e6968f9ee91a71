"""The user's own data: what is accepted, how it is stored and split, and what is refused in one line."""

import hashlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from iwae.data import load_dataset
from iwae.data.columns import Reading
from iwae.data.values import TOLERANCE, pack
from iwae.errors import IWAEError

GREY = np.random.default_rng(1).integers(0, 256, (30, 4, 5)).astype(np.uint8)
BITS = (GREY > 127).astype(np.uint8)


def save(path, array=None, **arrays):
    if array is None:
        np.savez(path, **arrays)
    else:
        np.save(path, array)
    return str(path)


def refusal(path):
    with pytest.raises(IWAEError) as raised:
        load_dataset(str(path))
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int64, np.float16, np.float32, ">f8"])
def test_bits_of_any_type_are_binary(tmp_path, dtype):
    path = save(tmp_path / "d.npz", train=BITS.astype(dtype), test=BITS[:3].astype(dtype))
    dataset = load_dataset(path)
    assert (dataset.binary, dataset.scale, dataset.train.dtype) == (True, 1.0, np.uint8)
    assert (dataset.dim, dataset.image_shape, dataset.mark) == (20, (4, 5), "own")
    assert dataset.valid.shape == (0, 20)
    np.testing.assert_array_equal(dataset.train, BITS.reshape(30, 20))


@pytest.mark.parametrize("convert", [lambda g: g, lambda g: g / 255, lambda g: g.astype(np.float32) / 255])
def test_grey_values_are_stored_as_bytes(tmp_path, convert):
    path = save(
        tmp_path / "d.npz",
        train=convert(GREY)[..., None],
        valid=convert(GREY[:2])[..., None],
        test=convert(GREY[2:9])[..., None],
    )
    dataset = load_dataset(path)
    assert (dataset.binary, dataset.scale, dataset.train.dtype) == (False, 1 / 255, np.uint8)
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (30, 2, 7)
    assert dataset.image_shape == (4, 5)
    np.testing.assert_array_equal(dataset.test, GREY[2:9].reshape(7, 20))


def test_other_numbers_are_stored_as_float32(tmp_path):
    vectors = np.random.default_rng(2).random((12, 7))
    dataset = load_dataset(save(tmp_path / "d.npz", train=vectors, test=BITS.reshape(30, 20)[:, :7]))
    assert (dataset.binary, dataset.scale, dataset.image_shape) == (False, 1.0, None)
    assert dataset.train.dtype == dataset.test.dtype == np.float32
    np.testing.assert_array_equal(dataset.train, vectors.astype(np.float32))


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=4),
        elements=st.one_of(
            st.floats(0, 1, width=32), st.integers(0, 255).map(lambda grey: float(np.float32(grey / 255)))
        ),
    )
)
def test_what_is_stored_is_what_was_given(values):
    packed, scale, binary = pack({"train": values})
    stored = packed["train"]
    np.testing.assert_allclose(stored * np.float64(scale), values, rtol=0, atol=TOLERANCE)
    assert stored.dtype == (np.float32 if scale == 1 and not binary else np.uint8)
    assert binary == bool((np.abs(values - np.rint(values)) <= TOLERANCE).all())


def test_the_file_is_recorded(tmp_path):
    path = tmp_path / "d.npz"
    dataset = load_dataset(save(path, train=BITS, test=BITS))
    (file,) = dataset.files
    assert dataset.name == str(path)
    assert (file.name, file.verified) == ("d.npz", None)
    assert file.checksum == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_loaded_arrays_are_read_only(tmp_path):
    dataset = load_dataset(save(tmp_path / "d.npz", train=BITS, test=BITS))
    with pytest.raises(ValueError, match="read-only"):
        dataset.train[0, 0] = 1


@pytest.mark.parametrize(("rows", "held_out"), [(10, 1), (29, 2), (30, 3)])
def test_a_single_array_is_split_in_its_order_on_demand(tmp_path, rows, held_out):
    dataset = load_dataset(save(tmp_path / "d.npy", GREY[:rows]), reading=Reading(shuffled=False))
    assert len(dataset.test) == len(dataset.valid) == held_out
    joined = np.concatenate([dataset.train, dataset.valid, dataset.test])
    np.testing.assert_array_equal(joined, GREY[:rows].reshape(rows, 20))
    assert not dataset.shuffled


def test_a_single_array_is_split_by_seed(tmp_path):
    path = save(tmp_path / "d.npy", np.arange(200, dtype=np.uint8).reshape(100, 2))
    first, again, other = (load_dataset(path, reading=Reading(split_seed=seed)) for seed in (0, 0, 1))
    assert first.shuffled
    assert [len(first.train), len(first.valid), len(first.test)] == [80, 10, 10]
    joined = np.concatenate([first.train, first.valid, first.test])
    np.testing.assert_array_equal(joined, np.arange(200).reshape(100, 2)[np.random.RandomState(0).permutation(100)])
    np.testing.assert_array_equal(first.test, again.test)
    assert not np.array_equal(first.test, other.test)


def test_a_sorted_file_has_every_class_in_every_split(tmp_path):
    classes = np.repeat(np.eye(4, dtype=np.uint8), 100, axis=0)
    dataset = load_dataset(save(tmp_path / "d.npy", classes))
    for split in (dataset.train, dataset.valid, dataset.test):
        assert set(split.argmax(axis=1)) == {0, 1, 2, 3}


def with_value(value):
    array = np.full((12, 3), 0.3)
    array[7, 2] = value
    return array


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"train": BITS}, "no array 'test'"),
        ({"x": BITS}, "no array 'train' and no array 'test'"),
        ({"train": BITS, "test": BITS[:0]}, "'test' is empty"),
        ({"train": BITS, "test": BITS, "valid": BITS[:0]}, "'valid' is empty"),
        ({"train": BITS[:, :0], "test": BITS}, "'train' is empty"),
        ({"train": BITS, "test": BITS[:, :3]}, "shape (4, 5), those of `test` (3, 5)"),
        ({"train": BITS, "test": BITS.reshape(30, 20)}, "shape (4, 5), those of `test` (20,)"),
        ({"train": BITS[..., None, None], "test": BITS}, "expected [n, height, width]"),
        ({"train": np.stack([BITS, BITS], -1), "test": BITS}, "expected [n, height, width]"),
        ({"train": np.ones(5), "test": BITS}, "expected [n, height, width]"),
        ({"train": np.float32(1), "test": BITS}, "expected [n, height, width]"),
        ({"train": with_value(0), "test": with_value(np.inf)}, "'test' contains infinite"),
        ({"train": with_value(-np.inf), "test": with_value(7)}, "'train' contains infinite"),
        ({"train": with_value(2) * [1, 1, np.nan], "test": with_value(0)}, "column '2' has no value in the training"),
        ({"train": 1.7e9 + with_value(5), "test": with_value(0)}, "column '2' varies by"),
        ({"train": GREY // 16, "test": GREY // 16}, "reach to 15, those of grey images to 255: give `likelihood`"),
        ({"train": GREY, "test": GREY / 255}, "beside uint8 grey values"),
        ({"train": np.array([[{}]]), "test": BITS}, "expected numbers"),
        ({"train": np.array([["a"]]), "test": BITS}, "expected numbers"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path, arrays, reason):
    path = save(tmp_path / "d.npz", **arrays)
    message = refusal(path)
    assert reason in message
    assert path in message


def test_too_few_rows_are_refused(tmp_path):
    assert "9 rows are too few" in refusal(save(tmp_path / "d.npy", GREY[:9]))
    assert "expected [n, height, width]" in refusal(save(tmp_path / "e.npy", np.zeros(50)))


def test_what_is_no_data_file_is_refused(tmp_path):
    assert "there is no file" in refusal(tmp_path / "absent.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "no PNG, JPEG or idx images in it" in refusal(tmp_path / "folder.npz")
    (tmp_path / "text.npz").write_text("hello")
    assert "not a readable .npz archive" in refusal(tmp_path / "text.npz")
    (tmp_path / "text.npy").write_text("hello")
    assert "not in the .npy format" in refusal(tmp_path / "text.npy")
    os.mkfifo(tmp_path / "pipe.npy")
    assert "not an ordinary file" in refusal(tmp_path / "pipe.npy")
