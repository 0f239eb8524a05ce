"""Files made to cost far more than they weigh are decoded or refused, cheaply."""

import hashlib
import os

import pytest
from hostile_images import HOSTILE, black_png, plain_tiff
from measured import GROWTH, SECONDS, run_measured

from cache import ImageRow
from pipeline.dataset import images
from pipeline.dataset.index import examine_dataset
from pipeline.extraction.recipe import PatchOptions
from pipeline.extraction.stream import load_image


@pytest.fixture(scope="module")
def costs():
    return run_measured("hostile_images", "decoding", list(HOSTILE))


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_costs_little_time_and_memory_and_is_refused_clearly(costs, name):
    cost = costs[name]
    assert cost.seconds < SECONDS
    assert cost.growth < GROWTH
    reason = HOSTILE[name][1]
    assert reason in cost.outcome
    assert not reason or cost.outcome.startswith("refused")


def test_an_index_lists_hostile_images_and_keeps_the_others(tmp_path):
    names = [name for name, (_, reason) in HOSTILE.items() if reason and "million" not in name]
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "b").mkdir()
    for i, name in enumerate(names):
        (tmp_path / "data" / "a" / f"{i}.tif").write_bytes(HOSTILE[name][0]())
    (tmp_path / "data" / "a" / "good.png").write_bytes(black_png(64, 64))
    (tmp_path / "data" / "b" / "good.tif").write_bytes(plain_tiff(65))
    result = examine_dataset(tmp_path / "data", tmp_path / "manifest.csv")
    assert [row.image_id for row in result.rows] == ["a__good", "b__good"]
    assert len(result.problems) == len(names)
    assert {problem.kind for problem in result.problems} == {"unreadable"}


def test_an_image_whose_row_is_forged_is_refused_from_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_pixels", None)  # what decodes
    data = black_png(9000, 9000)
    (tmp_path / "a.png").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    row = ImageRow("a", "a.png", "benign", "", "", "", 0, 64, 64, digest)
    failure = load_image(tmp_path / "a.png", row, PatchOptions(32, 32))
    assert "9000×9000 pixels, but 64×64 in the manifest" in failure.reason


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/tty", "/proc/self/mem"])
def test_a_link_to_a_device_is_never_opened(tmp_path, target):
    if not os.path.exists(target):  # noqa: PTH110 - what a link leads to may not be readable
        pytest.skip(f"{target} is not there")
    (tmp_path / "a.png").symlink_to(target)
    row = ImageRow("a", "a.png", "benign", "", "", "", 0, 64, 64, "0" * 64)
    failure = load_image(tmp_path / "a.png", row, PatchOptions(32, 32))
    assert failure.image_id == "a"
