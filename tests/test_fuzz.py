"""Every reader takes its valid files, and refuses what the fuzzer found and what mutation makes of them."""

import random
from pathlib import Path

import pytest
from fuzz.readers import READERS, attempt
from fuzz.seeds import seeds

FOUND = Path(__file__).parent / "data" / "found_by_fuzzing"
VALID = seeds()
# Deep enough for every recursive reader.
INSERTED = (b"\xff" * 4, b"9" * 12, b"-1", b"[" * 100_000, b'{"x":' * 20_000, b"null", b"1e999", b"NaN")


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name):
    for content in VALID[name]:
        READERS[name](content)


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused_in_one_line(name):
    rng = random.Random(name)
    for content in VALID[name]:
        for _ in range(60):
            mutant = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                kind, at = rng.randrange(4), rng.randrange(len(mutant))
                if kind == 0:
                    mutant[at] = rng.choice((0, 1, 255, rng.randrange(256)))
                elif kind == 1:
                    mutant[at] ^= 1 << rng.randrange(8)
                elif kind == 2:
                    del mutant[at : at + rng.randint(1, 8)]
                else:
                    mutant[at:at] = rng.choice(INSERTED)
                if not mutant:
                    break
            attempt(name, bytes(mutant))


@pytest.mark.parametrize("path", sorted(FOUND.glob("*")) or [None], ids=lambda path: path.name if path else "none yet")
def test_what_the_fuzzer_found_stays_mended(path):
    if path is None:
        pytest.skip("the fuzzer has found nothing yet")
    attempt(path.name.partition("-")[0], path.read_bytes())
