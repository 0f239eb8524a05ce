"""What the app answers: the same as `pipeline predict`, with neighbours and pictures."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_runs import SIZE

from cache import FeatureCache
from pipeline.app.service import AppOptions, Service
from pipeline.dataset.images import ImageError
from pipeline.errors import UsageError
from pipeline.prediction.predict import PredictOptions, predict, table_row


@pytest.fixture(scope="module")
def service(small_run):
    options = AppOptions(weights=small_run.weights, device="cpu", threads=1, most_pixels=100_000)
    return Service.load(small_run.folder, options)


def picture(address):
    kind, _, content = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_it_answers_what_predict_says(service, small_run, tmp_path):
    image = small_run.folder / "images/image05.png"
    options = PredictOptions(weights=small_run.weights, device="cpu", threads=1)
    models = [small_run.model(fold) for fold in range(3)]
    (said,) = predict(models, [image], tmp_path / "p.csv", options).predictions
    answer = service.answer(str(image), image.read_bytes())
    assert answer["row"] == table_row(said)[:-1]
    assert answer["called"] == said.verdict.called
    assert answer["probabilities"] == said.verdict.probabilities
    assert len(answer["row"]) == len(service.about()["columns"])


def test_patches_come_in_scan_order_with_what_they_contribute(service, small_run):
    answer = service.answer("a", (small_run.folder / "images/image05.png").read_bytes())
    places = [(patch["y"], patch["x"]) for patch in answer["patches"]]
    assert places == sorted(places)
    assert len(places) == 6
    assert any(abs(patch["contribution"]) > 1e-4 for patch in answer["patches"])


def test_the_nearest_training_image_of_a_training_image_is_itself(service, small_run):
    with FeatureCache(small_run.folder / "features.h5") as cache:
        rows = cache.images.rows()
    for row in rows[:3]:
        answer = service.answer("a", (small_run.folder / row.path).read_bytes())
        nearest = answer["nearest"]
        assert nearest[0]["image"] == row.image_id
        assert nearest[0]["distance"] == pytest.approx(0, abs=1e-4)
        assert [near["distance"] for near in nearest] == sorted(
            near["distance"] for near in nearest
        )
        assert picture(nearest[0]["picture"]).size == (row.width, row.height)
        assert "fitted to this image" in answer["warning"]


def test_pictures_are_of_the_image_and_everything_is_json(service, small_run):
    image = small_run.folder / "images/image05.png"
    answer = service.answer("a", image.read_bytes())
    assert picture(answer["picture"]).size == SIZE
    assert picture(answer["overlay"]).format == "PNG"
    json.dumps(answer, allow_nan=False)


def test_an_image_of_one_patch_is_answered(service):
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(buffer, "PNG")
    (patch,) = service.answer("a", buffer.getvalue())["patches"]
    assert patch["contribution"] is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"just text", "not a PNG, JPEG, TIFF or BMP image"),
        (None, "expected at most 100,000"),
    ],
)
def test_what_is_no_image_or_too_large_a_one_is_refused_with_a_reason(service, data, reason):
    if data is None:
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((400, 300, 3), np.uint8)).save(buffer, "PNG")
        data = buffer.getvalue()
    with pytest.raises(ImageError, match=reason):
        service.answer("a.png", data)


def test_without_a_cache_there_are_no_neighbours(small_run, tmp_path):
    shutil.copytree(small_run.fits, tmp_path / "deep/er/fits")
    options = AppOptions(weights=small_run.weights, device="cpu", threads=1)
    alone = Service.load(tmp_path / "deep/er/fits", options)
    assert alone.about()["training_images"] is None
    image = (small_run.folder / "images/image00.png").read_bytes()
    assert alone.answer("a", image)["nearest"] == []


def test_a_cache_that_the_models_were_not_fitted_to_is_refused(small_run, weights_file, tmp_path):
    from small_runs import PATCH, make_run

    from pipeline.extraction.recipe import PatchOptions

    patches = PatchOptions(patch_size=PATCH, stride=16, layers=("conv2_2",))
    other = make_run(tmp_path / "other", weights_file, patches=patches, companions=False)
    options = AppOptions(
        cache=other.folder / "features.h5", weights=small_run.weights, device="cpu", threads=1
    )
    with pytest.raises(
        UsageError, match=r"not the features that the models were fitted to.*stride"
    ):
        Service.load(small_run.folder, options)


def test_a_folder_without_models_is_named(tmp_path):
    with pytest.raises(UsageError, match="no models: give a folder"):
        Service.load(tmp_path, AppOptions())
