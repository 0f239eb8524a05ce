"""Stage one stores statistics of every image; a cache without them is not what it would make."""

import logging

import numpy as np
import pytest
from PIL import Image
from small_caches import strip_statistics
from small_data import write_study

from cache import FeatureCache, check
from pipeline.caches.info import describe, to_text
from pipeline.dataset.statistics import image_statistics
from pipeline.errors import UsageError
from pipeline.extraction.engines import choose
from pipeline.extraction.engines.ncnn_encoder import NcnnEncoder
from pipeline.extraction.extract import ExtractOptions, extract
from pipeline.extraction.recipe import PatchOptions


def options(**changes) -> ExtractOptions:
    patches = PatchOptions(32, 32, "pad", "float32", layers=("conv1_2",))
    return ExtractOptions(patches, "cpu", threads=2, images_per_shard=3, **changes)


class Counting(NcnnEncoder):
    encoded = 0
    limit = 10**9

    def encode(self, patches):
        if Counting.encoded + len(patches) > Counting.limit:
            raise KeyboardInterrupt
        Counting.encoded += len(patches)
        return super().encode(patches)


@pytest.fixture
def study(tmp_path, monkeypatch):
    write_study(tmp_path, images=7)
    monkeypatch.setattr(choose, "NcnnEncoder", Counting)
    Counting.encoded, Counting.limit = 0, 10**9
    return tmp_path


@pytest.fixture
def run(study, weights_file):
    def run(**changes):
        Counting.encoded = 0
        extract(study / "manifest.csv", weights_file, study / "f.h5", options(**changes))
        return Counting.encoded // 6

    return run


def test_every_image_has_the_statistics_of_its_pixels(study, run):
    assert run() == 7
    with FeatureCache(study / "f.h5") as cache:
        for i, row in enumerate(cache.images.rows()):
            expected = image_statistics(np.asarray(Image.open(study / row.path)))
            found = cache.statistics[i]
            assert found.colour.tobytes() == expected.colour.tobytes()
            assert found.perceptual_hash.tobytes() == expected.perceptual_hash.tobytes()
            assert found.pixels_sha256 == expected.pixels_sha256


def test_known_features_bring_their_statistics_along(study, run):
    run()
    with FeatureCache(study / "f.h5") as cache:
        before = cache.statistics
    (study / "f.h5").unlink()
    assert run() == 0
    with FeatureCache(study / "f.h5") as cache:
        assert cache.statistics.sha256() == before.sha256()


def test_an_output_without_statistics_is_refused_with_the_reason(study, run):
    run()
    strip_statistics(study / "f.h5")
    with pytest.raises(UsageError, match=r"statistics of the images: .*none.*--overwrite"):
        run()


def test_features_without_statistics_are_not_reused_and_the_log_says_so(study, run, caplog):
    run()
    strip_statistics(study / "f.h5")
    for file in (study / "f.h5.shards").rglob("*.h5"):
        file.unlink()
    with caplog.at_level(logging.WARNING):
        assert run(overwrite=True) == 7
    assert "f.h5: holds no statistics of its images" in caplog.text
    check(study / "f.h5")
    with FeatureCache(study / "f.h5") as cache:
        assert cache.statistics is not None


def test_a_finished_shard_without_statistics_is_made_again(study, run):
    Counting.limit = 6 * 5
    with pytest.raises(KeyboardInterrupt):
        run()
    (shard,) = (study / "f.h5.shards").rglob("*.h5")
    Counting.limit = 10**9
    strip_statistics(shard)
    assert run() == 7
    check(study / "f.h5")


def test_the_description_of_a_cache_tells_whether_there_are_statistics(study, run):
    run()
    assert describe(study / "f.h5")["statistics"] is True
    assert "of every image" in to_text(describe(study / "f.h5"))
    strip_statistics(study / "f.h5")
    assert describe(study / "f.h5")["statistics"] is False
