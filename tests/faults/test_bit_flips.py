"""A flipped bit anywhere in a cache is noticed, by `cache verify` and before training."""

import random

import pytest
from bit_flips import Damage, try_damages, write_small_cache
from fault_extractions import fresh_seed

SEED = 20260103
FLIPS = 500
DTYPES = ("float16", "float32")


@pytest.fixture(scope="module", params=DTYPES)
def original(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("flips") / f"{request.param}.h5"
    return write_small_cache(path, request.param)


def assert_noticed(original, figures, title, damages, fitting=True):
    """All are noticed, by `verify` and, where it is asked, by the reading before training."""
    found = try_damages(original, damages, fitting)
    figures(title, **found)
    names = ["tried", "noticed by verify", *["noticed by fit-lstm"] * fitting]
    assert dict(found) == dict.fromkeys(names, len(damages))


def random_flips(original, seed, count):
    chance = random.Random(f"{seed} {original.stem}")
    return [Damage(bit) for bit in chance.sample(range(8 * original.stat().st_size), count)]


@pytest.mark.slow
def test_every_one_of_a_thousand_flipped_bits_is_noticed(original, figures):
    """500 in each of two caches."""
    flips = random_flips(original, SEED, FLIPS)
    assert_noticed(original, figures, "single bits flipped anywhere", flips)


@pytest.mark.slow
def test_every_flipped_bit_of_the_first_bytes_is_noticed(original, figures):
    """The seal and the superblock of HDF5; of the next bytes, a bit of each."""
    chance = random.Random(SEED)
    flips = [Damage(bit) for bit in range(8 * 560)]
    flips += [Damage(8 * byte + chance.randrange(8)) for byte in range(560, 2048)]
    assert_noticed(original, figures, "bits of the first 2,048 bytes flipped", flips, False)


@pytest.mark.slow
def test_a_file_cut_short_anywhere_or_longer_than_it_was_is_noticed(original, figures):
    data = original.read_bytes()
    chance = random.Random(SEED)
    lengths = [0, 1, 511, 512, 520, len(data) - 1, *chance.sample(range(len(data)), 94)]
    tails = [b"\0", b"\0" * 4096, data[:1], data[-512:], data, chance.randbytes(1000)]
    damages = [Damage(length=length) for length in lengths]
    damages += [Damage(tail=tail) for tail in tails]
    assert_noticed(original, figures, "files cut short or longer", damages)


@pytest.mark.exhaustive
def test_every_flipped_bit_of_a_whole_cache_is_noticed(original, figures):
    flips = [Damage(bit) for bit in range(8 * original.stat().st_size)]
    assert_noticed(original, figures, "every bit of a cache flipped", flips, False)


@pytest.mark.exhaustive
def test_every_one_of_ten_thousand_other_flipped_bits_is_noticed(original, figures):
    seed = fresh_seed()
    flips = random_flips(original, seed, 10 * FLIPS)
    assert_noticed(original, figures, f"single bits flipped anywhere, seed {seed}", flips)
