"""File formats: what is read is what was written, and what lies about itself is refused in one line."""

import gzip
import io
import itertools
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from iwae.data import formats
from iwae.data.files import BadFileError, checksum, gunzip, read_content
from iwae.data.formats import idx_bytes, parse_amat, parse_idx, read_npy, read_npz
from iwae.data.matlab import parse_mat
from iwae.io.files import write_atomically

SHAPES = {"data": (4, 3), "testdata": (4, 2)}


def mat_bytes(**variables):
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, do_compression=True)
    return stream.getvalue()


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)))
def test_idx_round_trip(images):
    np.testing.assert_array_equal(parse_idx(idx_bytes(images)), images)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no whole header"),
        (b"\0\0\x08\x03\0\0", "no whole header"),
        (struct.pack(">4I", 0x801, 1, 1, 1) + b"\0", "0x00000801"),
        (struct.pack(">4I", 0x803, 1, 28, 28) + bytes(783), "783 are there"),
        (struct.pack(">4I", 0x803, 1, 28, 28) + bytes(785), "785 are there"),
        (struct.pack(">4I", 0x803, 4_000_000_000, 50_000, 50_000) + bytes(9), "claims"),
    ],
)
def test_a_wrong_idx_file_is_refused(content, reason):
    with pytest.raises(BadFileError, match=reason):
        parse_idx(content)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(6)), elements=st.integers(0, 1)))
def test_amat_round_trip(values):
    text = "".join(" ".join(map(str, row)) + "\n" for row in values).encode()
    np.testing.assert_array_equal(parse_amat(text, 6), values)


@pytest.mark.parametrize("text", [b"", b"0 1", b"0 1\n0 1 ", b"0 2\n", b"0,1\n", b"0 1\n0 /\n", b"01 \n", b"0\n1 "])
def test_a_wrong_amat_file_is_refused(text):
    with pytest.raises(BadFileError):
        parse_amat(text, 2)


def test_a_checksum_of_git_is_git_s():
    # `printf hello | git hash-object --stdin`
    assert checksum(b"hello", "git-blob") == "git-blob:b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"


def test_a_gzip_bomb_is_refused_without_unpacking_it(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(200 << 20), 1))
    tracemalloc.start()
    try:
        with pytest.raises(BadFileError, match="more than the 1000 bytes"):
            read_content(path, 1000)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_plain_file_is_read_no_further_than_expected(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(bytes(2000))
    with pytest.raises(BadFileError, match="larger than the 1000 bytes"):
        read_content(path, 1000)
    assert read_content(path, 2000) == bytes(2000)


@pytest.mark.parametrize("damage", [lambda g: g[:-9], lambda g: g[:40] + b"xxxx" + g[44:], lambda g: b"<html>"])
def test_damaged_gzip_data_is_refused(damage):
    packed = gzip.compress(np.random.default_rng(0).bytes(5000))
    assert len(gunzip(io.BytesIO(packed), 5000)) == 5000
    with pytest.raises(BadFileError, match="damaged gzip"):
        gunzip(io.BytesIO(damage(packed)), 10_000)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_mat_reads_only_what_is_asked_for():
    data, testdata = np.arange(12.0).reshape(4, 3), np.ones((4, 2))
    content = mat_bytes(data=data, testdata=testdata, other=np.array([[{"a": 1}]], dtype=object))
    matrices = parse_mat(content, SHAPES)
    assert list(matrices) == ["data", "testdata"]
    np.testing.assert_array_equal(matrices["data"], data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a MATLAB 5.0 file"),
        (b"\x89HDF\r\n", "not a MATLAB 5.0 file"),
        (mat_bytes(data=np.ones((4, 3))), "no variable 'testdata'"),
        (mat_bytes(data=np.ones((3, 4)), testdata=np.ones((4, 2))), r"shape \(3, 4\), expected \(4, 3\)"),
        (mat_bytes(data=np.array([["x"] * 3] * 4), testdata=np.ones((4, 2))), "is a char"),
    ],
)
def test_a_wrong_mat_file_is_refused(content, reason):
    with pytest.raises(BadFileError, match=reason):
        parse_mat(content, SHAPES)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.uint8, bool])
def test_a_mat_file_gives_the_numbers_that_were_saved(kind, compressed):
    rng = np.random.default_rng(0)
    # MATLAB and SciPy store whole numbers in fewer bytes where they fit.
    for scale in (1, 1000, 0.1):
        saved = {name: (rng.integers(0, 2, shape) * scale).astype(kind) for name, shape in SHAPES.items()}
        stream = io.BytesIO()
        scipy.io.savemat(stream, saved, do_compression=compressed)
        for name, matrix in parse_mat(stream.getvalue(), SHAPES).items():
            np.testing.assert_array_equal(matrix, saved[name])
            assert matrix.dtype == (np.uint8 if kind is bool else kind)


def mat_element(code, content, *, pad=True):
    return struct.pack("<2I", code, len(content)) + content + bytes(-len(content) % 8 if pad else 0)


def mat_matrix(name, shape, numbers, *, flags=6, code=9):
    description = mat_element(6, struct.pack("<2I", flags, 0)) + mat_element(5, struct.pack("<2i", *shape))
    return mat_element(14, description + mat_element(1, name.encode()) + mat_element(code, numbers))


EYE = np.eye(4, 3).tobytes(order="F")
HEADER = mat_bytes()[:128]


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (mat_matrix("data", (4, 3), EYE[:-8]), "88 bytes for 12 numbers"),
        (mat_matrix("data", (4, 3), EYE, code=14), "its numbers are of type 14"),
        (mat_matrix("data", (4, 3), EYE, flags=0x0806), "is a complex double"),
        (mat_matrix("data", (-4, -3), EYE), r"shape \(-4, -3\), expected \(4, 3\)"),
        (mat_matrix("data", (4, 3), EYE, flags=5), "is a sparse"),
        (mat_matrix("data", (4, 3), EYE, flags=17), "is a matrix of class 17"),
        (mat_matrix("data", (4, 3), EYE)[:-9], r"damaged MATLAB file \(\d+ bytes claimed where \d+ are left"),
        (mat_element(14, mat_element(6, b"")), "a matrix without flags"),
        (mat_element(15, b"no zlib", pad=False), "damaged MATLAB file"),
        (mat_element(15, zlib.compress(mat_matrix("data", (4, 3), EYE))[:-2], pad=False), "cut off"),
        (struct.pack("<I", 5 << 16 | 6) + b"12345", "a small element of 5 bytes"),
    ],
)
def test_mat_elements_that_contradict_themselves_are_refused(matrix, reason):
    with pytest.raises(BadFileError, match=reason):
        parse_mat(HEADER + matrix, {"data": (4, 3)})


def test_a_mat_file_may_hold_what_nobody_asks_for():
    odd = mat_element(14, mat_element(6, b"")) + mat_element(15, b"no zlib", pad=False)
    found = parse_mat(HEADER + odd + mat_matrix("data", (4, 3), EYE), {"data": (4, 3)})
    np.testing.assert_array_equal(found["data"], np.eye(4, 3))


def test_of_a_mat_bomb_no_more_is_unpacked_than_its_shape_needs():
    bomb = zlib.compress(mat_matrix("data", (4, 3), EYE) + bytes(64 << 20))
    other = zlib.compress(mat_matrix("other", (4, 3), EYE) + bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(BadFileError, match="unpacks to more than"):
        parse_mat(HEADER + mat_element(15, bomb, pad=False), {"data": (4, 3)})
    parse_mat(HEADER + mat_element(15, other, pad=False) + mat_matrix("data", (4, 3), EYE), {"data": (4, 3)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_mat_file_is_refused_or_read(data):
    content = bytearray(mat_bytes(data=np.eye(4, 3), testdata=np.ones((4, 2))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    matrices, refusal = {}, None
    try:
        matrices = parse_mat(bytes(content[: data.draw(st.integers(0, len(content)))]), SHAPES)
    except BadFileError as error:
        refusal = str(error)
    shapes = {name: matrix.shape for name, matrix in matrices.items()}
    assert shapes == SHAPES if refusal is None else "\n" not in refusal


def npy_bytes(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def npy_header(shape, descr="<f4", order=False):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": order, "shape": shape})
    return stream.getvalue()


def npz(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("version", "order", "dtype"),
    list(itertools.product([(1, 0), (2, 0)], "CF", ["<f4", ">f8", "u1", "?", "<i8"])),
)
def test_npy_round_trip(tmp_path, version, order, dtype):
    array = np.asarray(np.arange(12).reshape(4, 3) % 2, dtype=dtype, order=order)
    path = tmp_path / "a.npy"
    path.write_bytes(npy_bytes(array, version=version))
    found = read_npy(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not in the .npy format"),
        (b"PK\x03\x04 something else", "not in the .npy format"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "not in the .npy format"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "not in the .npy format"),
        (b"\x93NUMPY\x03\x00\x10\x00\x00\x00{", "version"),
        (npy_header((10**9, 10**9)), "claims shape"),
        (npy_header((10**30, 784)), "claims shape"),
        (npy_header((-1, 784)), "claims shape"),
        (npy_header((-2, -2)) + bytes(16), "claims shape"),
        (npy_bytes(np.ones((3, 4)))[:-1], "claims shape"),
        (npy_bytes(np.ones((3, 4))) + b"\0", "claims shape"),
        (npy_bytes(np.array([{"a": 1}]), allow_pickle=True), "expected numbers"),
        (npy_bytes(np.array(["text"])), "expected numbers"),
        (npy_bytes(np.ones(3, complex)), "expected numbers"),
        (npy_bytes(np.zeros(3, [("x", "f4")])), "expected numbers"),
    ],
)
def test_a_wrong_npy_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=reason) as raised:
        read_npy(path)
    assert "\n" not in str(raised.value)


def test_npz_reads_only_what_is_asked_for(tmp_path):
    array = np.arange(12.0).reshape(4, 3)
    labels = npy_bytes(np.array([{"never": "unpickled"}]), allow_pickle=True)
    path = npz(tmp_path / "a.npz", {"train.npy": npy_bytes(array), "labels.npy": labels})
    found = read_npz(path, ("train", "valid"))
    assert list(found) == ["train"]
    np.testing.assert_array_equal(found["train"], array)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy_header((10**9, 10**9)) + bytes(100), "claims shape"),
        (npy_bytes(np.array([{"a": 1}]), allow_pickle=True), "expected numbers"),
        (b"not an array", "not in the .npy format"),
    ],
)
def test_a_wrong_member_of_an_npz_file_is_refused(tmp_path, content, reason):
    path = npz(tmp_path / "a.npz", {"train.npy": content})
    with pytest.raises(BadFileError, match=reason):
        read_npz(path, ("train",))


def test_an_npz_bomb_is_refused(tmp_path, monkeypatch):
    path = npz(tmp_path / "a.npz", {"train.npy": npy_bytes(np.zeros((1 << 10, 1 << 10), np.uint8))})
    assert read_npz(path, ("train",))["train"].shape == (1 << 10, 1 << 10)
    monkeypatch.setattr(formats, "MAX_ARRAY_BYTES", 1 << 20)
    with pytest.raises(BadFileError, match="more than"):
        read_npz(path, ("train",))


def test_an_npz_that_claims_an_impossible_ratio_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz", {"train.npy": npy_bytes(np.zeros((100, 100), np.uint8))})
    content = bytearray(path.read_bytes())
    # The uncompressed size in the central directory: 24 bytes after its signature.
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<I", 3_000_000_000)
    path.write_bytes(content)
    with pytest.raises(BadFileError, match="impossible"):
        read_npz(path, ("train",))


def test_an_npz_that_points_before_its_beginning_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz", {"train.npy": npy_bytes(np.zeros(9))})
    content = bytearray(path.read_bytes())
    # Where the central directory begins, 16 bytes after its end's signature; all other offsets are relative to it.
    at = content.index(b"PK\x05\x06") + 16
    content[at : at + 4] = struct.pack("<I", struct.unpack("<I", content[at : at + 4])[0] + 100)
    path.write_bytes(content)
    with pytest.raises(BadFileError, match="before the beginning of the file"):
        read_npz(path, ("train",))


def test_other_compressions_are_refused(tmp_path):
    path = npz(tmp_path / "a.npz", {"train.npy": npy_bytes(np.zeros(9))}, zipfile.ZIP_LZMA)
    with pytest.raises(BadFileError, match="compressed in a way"):
        read_npz(path, ("train",))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_npz_file_is_refused_or_read(tmp_path, data):
    path = npz(tmp_path / "a.npz", {"train.npy": npy_bytes(np.eye(5, dtype=np.float32))})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    arrays, refusal = {}, ""
    try:
        arrays = read_npz(path, ("train",))
    except BadFileError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert all(array.nbytes <= 1 << 20 for array in arrays.values())
