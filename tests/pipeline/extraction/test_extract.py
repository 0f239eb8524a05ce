"""Stage one: right features, in order, each image once, whatever happens to a run."""

import logging
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import describe_image, write_image, write_study

from cache import CacheError, FeatureCache, PublishError, check
from pipeline.dataset.manifest import read_manifest, write_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import extract as stage
from pipeline.extraction.engines import choose
from pipeline.extraction.engines.ncnn_encoder import NcnnEncoder
from pipeline.extraction.extract import ExtractOptions, clamp_threads, extract
from pipeline.extraction.recipe import PatchOptions
from pipeline.interrupts import StoppedError
from pipeline.torchvision_shim import import_torchvision
from pipeline.weights.weights_file import load_weights

SMALL = PatchOptions(patch_size=32, stride=32, dtype="float32")
MEAN = torch.tensor([123.68, 116.779, 103.939])

POOL5 = slice(128 + 256, 128 + 256 + 512)
"""The means of the last layer among the features of the default layers."""


def options(**changes) -> ExtractOptions:
    return ExtractOptions(
        **{"patches": SMALL, "device": "cpu", "images_per_shard": 3, "threads": 1, **changes}
    )


def reference(weights_file, image_file, side: int) -> np.ndarray:
    """Features as one would write them down: torchvision's layers, one patch after another."""
    layers = import_torchvision().models.vgg16(weights=None).features.eval()
    arrays = load_weights(weights_file).arrays
    layers.load_state_dict(
        {k.removeprefix("features."): torch.tensor(v) for k, v in arrays.items()}
    )
    pixels = torch.tensor(np.asarray(Image.open(image_file)).astype(np.float32))
    features = []
    with torch.inference_mode():
        for y in range(0, pixels.shape[0] - side + 1, side):
            for x in range(0, pixels.shape[1] - side + 1, side):
                patch = (pixels[y : y + side, x : x + side] - MEAN).permute(2, 0, 1)[None]
                features.append(layers(patch).mean(dim=(2, 3))[0].numpy())
    return np.stack(features)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path, images=8)
    return tmp_path


@pytest.mark.slow
def test_features_equal_plain_torchvision_image_by_image(study, weights_file):
    result = extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert (result.images, result.patches, result.encoded) == (8, 32, 8)
    check(study / "f.h5")
    with FeatureCache(study / "f.h5") as cache:
        assert cache.images.rows() == read_manifest(study / "manifest.csv")
        assert cache.recipe.weights == "random(seed=0)"
        for i in (0, 7):
            expected = reference(weights_file, study / f"image{i:03}.png", 32)
            assert relative_error(cache.sequence(f"image{i:03}")[:, POOL5], expected) < 1e-5
        assert cache.coords(0).tolist() == [[0, 0], [32, 0], [0, 32], [32, 32]]


@pytest.mark.slow
def test_real_images_and_weights_equal_plain_torchvision(tmp_path, shared):
    files = sorted((shared / "data/BreaKHis_v1").rglob("*.png"))[::200]
    rows = [describe_image(file) for file in files]
    write_manifest(tmp_path / "manifest.csv", rows)
    weights = shared / "weights/vgg16_imagenet_features.safetensors"
    expected = {row.image_id: reference(weights, row.path, 224) for row in rows}
    for dtype, tolerance in (("float32", 1e-5), ("float16", 1e-3)):
        out = tmp_path / f"{dtype}.h5"
        chosen = ExtractOptions(PatchOptions(dtype=dtype), device="cpu")
        assert extract(tmp_path / "manifest.csv", weights, out, chosen).weights == "imagenet"
        with FeatureCache(out) as cache:
            for image_id, features in expected.items():
                found = cache.sequence(image_id)
                assert found.shape == (6, 1792)
                assert relative_error(found[:, POOL5], features) < tolerance


class Counting(NcnnEncoder):
    """Counts the patches that it encodes, and stops the run or sends it a signal after some."""

    encoded = 0
    limit = 10**9
    signal_at = 10**9

    def encode(self, patches):
        if Counting.encoded >= Counting.signal_at:
            Counting.signal_at = 10**9
            os.kill(os.getpid(), signal.SIGTERM)
        if Counting.encoded + len(patches) > Counting.limit:
            raise KeyboardInterrupt
        Counting.encoded += len(patches)
        return super().encode(patches)


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setattr(choose, "NcnnEncoder", Counting)
    Counting.encoded, Counting.limit, Counting.signal_at = 0, 10**9, 10**9
    return Counting


def content(path) -> dict[str, bytes]:
    with FeatureCache(path) as cache:
        table = repr(cache.images.rows()).encode()
        parts = (cache.features(), cache.all_coords(), cache.offsets)
        return dict(zip("fco", (part.tobytes() for part in parts), strict=True)) | {"t": table}


def test_an_interrupted_run_resumes_and_gives_the_same_bytes(study, weights_file, counting):
    extract(study / "manifest.csv", weights_file, study / "whole.h5", options())
    counting.encoded, counting.limit = 0, 16
    with pytest.raises(KeyboardInterrupt):
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert not (study / "f.h5").exists()
    counting.encoded, counting.limit = 0, 10**9
    result = extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert counting.encoded == 32 - 12, "one shard of three images was finished before"
    assert result.encoded == 5
    assert content(study / "f.h5") == content(study / "whole.h5")
    (kept,) = (study / "f.h5.shards").rglob("*.h5")
    assert kept.samefile(study / "f.h5"), "the shards take space twice"


@pytest.fixture
def handlers():
    """Puts the handlers of signals back, which stay at their default after a signal."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for caught, handler in before.items():
        signal.signal(caught, handler)


def test_a_terminated_run_keeps_every_image_that_was_encoded(
    study, weights_file, counting, handlers
):
    extract(study / "manifest.csv", weights_file, study / "whole.h5", options())
    counting.encoded, counting.signal_at = 0, 17
    with pytest.raises(
        StoppedError, match=r"SIGTERM: [5-7] of 8 images are encoded and kept"
    ) as raised:
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert raised.value.exit_code == 128 + signal.SIGTERM
    assert not (study / "f.h5").exists()
    first = counting.encoded
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert counting.encoded == 32, f"{counting.encoded - 32} patches twice, {first} at first"
    assert content(study / "f.h5") == content(study / "whole.h5")


def test_a_run_killed_before_it_had_tidied_up_is_tidied_by_the_next(
    study, weights_file, monkeypatch
):
    def die(self, shards):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage.ShardFolder, "keep_only_output", die)
        with pytest.raises(KeyboardInterrupt):
            extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    (study / ".f.h5.abc.part").touch()
    assert extract(study / "manifest.csv", weights_file, study / "f.h5", options()).encoded == 0
    (kept,) = (study / "f.h5.shards").rglob("*.h5")
    assert kept.samefile(study / "f.h5")
    assert not list(study.rglob("*.part"))


def test_a_complete_output_in_a_folder_without_write_permission_is_accepted(
    study, weights_file, monkeypatch
):
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())

    def refuse(*arguments):
        raise AssertionError("the folder is written")

    monkeypatch.setattr(stage, "locked", refuse)
    assert extract(study / "manifest.csv", weights_file, study / "f.h5", options()).images == 8


def test_a_replaced_image_is_the_only_one_encoded_again_and_is_named(
    study, weights_file, counting, caplog
):
    """By content: the date of the file says the opposite here."""
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    old = (study / "image002.png").stat()
    new = write_image(study / "image002.png", 99)
    os.utime(study / "image002.png", ns=(old.st_atime_ns, old.st_mtime_ns))
    os.utime(study / "image005.png")
    rows = read_manifest(study / "manifest.csv")
    rows[2] = rows[2]._replace(sha256=new.sha256)
    write_manifest(study / "manifest.csv", rows)
    with pytest.raises(UsageError, match=r"sha256 of image002: '\w+', '\w+'"):
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    counting.encoded = 0
    with caplog.at_level(logging.INFO):
        replacing = options(overwrite=True)
        extract(study / "manifest.csv", weights_file, study / "f.h5", replacing)
    assert counting.encoded == 4
    assert "1 images have changed and are encoded again: image002" in caplog.text


def test_an_output_of_other_images_is_refused_with_each_difference(study, weights_file):
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    rows = read_manifest(study / "manifest.csv")
    new = write_image(study / "new.png", 99)
    relabelled = [row._replace(label="x") for row in rows]
    for changed, message in (
        ([*rows[1:], new], r"1 images only in the manifest \(new\); 1 images only in the cache"),
        (rows[::-1], "images: in another order"),
        (relabelled, r"label of image000: 'x', 'benign' and in 7 more images \(`pipeline cache re"),
    ):
        write_manifest(study / "manifest.csv", changed)
        with pytest.raises(UsageError, match=message):
            extract(study / "manifest.csv", weights_file, study / "f.h5", options())


def test_a_finished_run_is_not_repeated(study, weights_file, counting):
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    before = (study / "f.h5").read_bytes()
    counting.encoded = 0
    assert extract(study / "manifest.csv", weights_file, study / "f.h5", options()).encoded == 0
    assert counting.encoded == 0
    assert (study / "f.h5").read_bytes() == before


def test_an_output_made_from_something_else_is_refused_field_by_field(study, weights_file):
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    before = (study / "f.h5").read_bytes()
    other = options(patches=PatchOptions(patch_size=32, stride=16, dtype="float32"))
    with pytest.raises(UsageError, match=r"stride: 16, 32.*--overwrite"):
        extract(study / "manifest.csv", weights_file, study / "f.h5", other)
    write_manifest(study / "less.csv", read_manifest(study / "manifest.csv")[:5])
    with pytest.raises(UsageError, match="images"):
        extract(study / "less.csv", weights_file, study / "f.h5", options())
    assert (study / "f.h5").read_bytes() == before
    replacing = options(overwrite=True)
    assert extract(study / "less.csv", weights_file, study / "f.h5", replacing).images == 5


def test_images_added_after_an_interruption_cost_themselves_only(study, weights_file, counting):
    counting.limit = 16
    with pytest.raises(KeyboardInterrupt):
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    rows = read_manifest(study / "manifest.csv")
    new = write_image(study / "aaa.png", 99)
    write_manifest(study / "manifest.csv", [new._replace(case="c9", slide="s9"), *rows])
    counting.encoded, counting.limit = 0, 10**9
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert counting.encoded == 36 - 12
    with FeatureCache(study / "f.h5") as cache:
        assert cache.images["image_id"].tolist()[:2] == ["aaa", "image000"]


def test_after_its_output_is_deleted_a_run_encodes_only_what_is_new(study, weights_file, counting):
    """Snakemake deletes the output before it runs the job again."""
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    before = content(study / "f.h5")
    (study / "f.h5").unlink()
    counting.encoded = 0
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert counting.encoded == 0
    assert content(study / "f.h5") == before
    (study / "f.h5").unlink()
    new = write_image(study / "new.png", 99)._replace(case="c9", slide="s9")
    rows = read_manifest(study / "manifest.csv")
    write_manifest(study / "manifest.csv", [*rows[:3], new, *rows[4:]])
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert counting.encoded == 4
    with FeatureCache(study / "f.h5") as cache:
        assert cache.images["image_id"].tolist()[3] == "new"


@pytest.mark.slow
def test_features_of_another_recipe_are_never_taken_over(study, weights_file, counting):
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    (study / "f.h5").unlink()
    counting.encoded = 0
    other = options(patches=PatchOptions(32, 32, "pad", "float32"))
    extract(study / "manifest.csv", weights_file, study / "f.h5", other)
    assert counting.encoded == 8 * 6


@pytest.mark.slow
def test_a_finished_run_leaves_the_unfinished_shards_of_another_recipe(
    study, weights_file, counting
):
    counting.limit = 16
    with pytest.raises(KeyboardInterrupt):
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    counting.limit = 10**9
    mistyped = options(patches=PatchOptions(32, 64, "drop", "float32"))
    extract(study / "manifest.csv", weights_file, study / "f.h5", mistyped)
    (study / "f.h5").unlink()
    counting.encoded = 0
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert counting.encoded == 32 - 12
    (kept,) = (study / "f.h5.shards").rglob("*.h5")
    assert kept.samefile(study / "f.h5"), "an output that was replaced still takes space"


@pytest.mark.slow
def test_a_file_system_without_hard_links_keeps_the_shards(
    study, weights_file, counting, monkeypatch
):
    def refuse(self, target):
        raise OSError("not supported")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    before = content(study / "f.h5")
    (study / "f.h5").unlink()
    counting.encoded = 0
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert counting.encoded == 0
    assert content(study / "f.h5") == before
    assert len(list((study / "f.h5.shards").rglob("*.h5"))) == 3
    new = write_image(study / "new.png", 99)._replace(case="c9", slide="s9")
    write_manifest(study / "manifest.csv", [*read_manifest(study / "manifest.csv"), new])
    replacing = options(overwrite=True)
    assert extract(study / "manifest.csv", weights_file, study / "f.h5", replacing).encoded == 1
    assert len(list((study / "f.h5.shards").rglob("*.h5"))) == 3, "shards of the old plan stayed"


def test_an_output_that_is_damaged_is_not_taken_for_done(study, weights_file):
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    data = bytearray((study / "f.h5").read_bytes())
    with FeatureCache(study / "f.h5") as cache:
        at = bytes(data).find(cache.sequence(5).tobytes())
    data[at] ^= 1
    (study / "f.h5").write_bytes(data)
    with pytest.raises(UsageError, match=r"f\.h5.*--overwrite"):
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    mended = options(overwrite=True)
    assert extract(study / "manifest.csv", weights_file, study / "f.h5", mended).encoded == 1
    check(study / "f.h5")


@pytest.mark.slow
def test_a_shard_of_another_recipe_in_the_folder_is_not_used(study, weights_file, counting):
    pad = options(patches=PatchOptions(32, 32, "pad", "float32"))
    extract(study / "manifest.csv", weights_file, study / "other.h5", pad)
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    (kept,) = (study / "f.h5.shards").rglob("*.h5")
    before = content(study / "f.h5")
    (study / "f.h5").unlink()
    kept.unlink()
    shutil.copy(study / "other.h5", kept)
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert content(study / "f.h5") == before


def test_a_damaged_shard_is_encoded_again(study, weights_file, counting):
    counting.limit = 28
    with pytest.raises(KeyboardInterrupt):
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    shard = min((study / "f.h5.shards").rglob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-100])
    counting.encoded, counting.limit = 0, 10**9
    extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert counting.encoded == 32 - 12
    check(study / "f.h5")


def test_bad_images_cost_themselves_and_are_listed(study, weights_file, counting):
    (study / "image001.png").write_bytes((study / "image001.png").read_bytes()[:2000])
    (study / "image004.png").unlink()
    with pytest.raises(PipelineError, match="2 of 8 images") as raised:
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    assert "image001.png: content changed" in str(raised.value)
    assert "image004.png: cannot be read (No such file" in str(raised.value)
    assert "--allow-failures 2" in str(raised.value)
    assert not (study / "f.h5").exists()
    listing = (study / "f.failures.csv").read_text().splitlines()
    assert listing[0] == "image_id,path,reason"
    assert [line.split(",")[0] for line in listing[1:]] == ["image001", "image004"]

    counting.encoded = 0
    allowed = options(allow_failures=2)
    result = extract(study / "manifest.csv", weights_file, study / "f.h5", allowed)
    assert counting.encoded == 0, "what was computed was not kept"
    assert (result.images, len(result.failures)) == (6, 2)
    with FeatureCache(study / "f.h5") as cache:
        assert [failure.image_id for failure in cache.failures] == ["image001", "image004"]
    assert extract(study / "manifest.csv", weights_file, study / "f.h5", allowed).encoded == 0
    with pytest.raises(UsageError, match="images without features: at most 1, 2"):
        one = options(allow_failures=1)
        extract(study / "manifest.csv", weights_file, study / "f.h5", one)


def test_a_mended_image_is_the_only_one_encoded_and_clears_the_list(study, weights_file, counting):
    hidden = study / "hidden"
    shutil.move(study / "image004.png", hidden)
    with pytest.raises(PipelineError):
        extract(study / "manifest.csv", weights_file, study / "f.h5", options())
    shutil.move(hidden, study / "image004.png")
    counting.encoded = 0
    assert extract(study / "manifest.csv", weights_file, study / "f.h5", options()).images == 8
    assert counting.encoded == 4
    assert not (study / "f.failures.csv").exists()


def test_all_images_failing_is_an_error_even_if_allowed(study, weights_file):
    for path in study.glob("*.png"):
        path.unlink()
    with pytest.raises(PipelineError, match="8 of 8"):
        extract(study / "manifest.csv", weights_file, study / "f.h5", options(allow_failures=8))


def test_an_output_that_cannot_be_written_is_named(study, weights_file):
    with pytest.raises((PublishError, CacheError), match=r"manifest\.csv"):
        out = study / "manifest.csv" / "f.h5"
        extract(study / "manifest.csv", weights_file, out, options())


@pytest.mark.slow
def test_float16_stores_what_float32_computes(study, weights_file):
    extract(study / "manifest.csv", weights_file, study / "a.h5", options())
    half = options(patches=PatchOptions(32, 32, "drop", "float16"))
    extract(study / "manifest.csv", weights_file, study / "b.h5", half)
    with FeatureCache(study / "a.h5") as full, FeatureCache(study / "b.h5") as halved:
        np.testing.assert_array_equal(full.load().astype(np.float16), halved.load())
        assert full.fingerprint != halved.fingerprint


def test_threads_are_those_of_the_machine_at_most():
    assert clamp_threads(10_000) == clamp_threads(None) >= 1
    assert clamp_threads(1) == 1
