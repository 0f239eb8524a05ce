"""The app in a real browser: images in, patches, prediction, download."""

import csv
import io
import json

import numpy as np
import pytest
from app_process import running_app
from PIL import Image
from playwright.sync_api import expect
from screens import DESKTOP, PHONE

from pipeline.prediction.predict import PredictOptions, predict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(run):
    words = ["--models", run.folder, "--weights", run.weights, "--threads", 2]
    with running_app(*words) as address:
        yield address


@pytest.fixture(scope="module")
def images(run):
    return sorted((run.folder / "images").glob("*.png"))


def upload(page, *files, refused=0):
    page.set_input_files("#files", list(map(str, files)))
    done = len(files) - refused
    said = f"{done} {'image' if done == 1 else 'images'} answered"
    expect(page.locator("#status")).to_contain_text(said, timeout=60_000)


def expected(run, files, folder):
    options = PredictOptions(weights=run.weights, device="cpu", threads=1)
    models = [run.model(fold) for fold in range(3)]
    result = predict(models, files, folder / "expected.csv", options)
    return [one.verdict for one in result.predictions]


def test_one_image_from_upload_to_download(open_page, app, run, images, tmp_path):
    watched = open_page(app)
    page = watched.page
    upload(page, images[0])
    (verdict,) = expected(run, images[:1], tmp_path)
    shown = f"Called {verdict.called}: probability of malignant {verdict.probabilities[0]:.3f}"
    expect(page.locator("#called")).to_have_text(shown)
    expect(page.locator("#warning")).to_contain_text("fitted to this image")
    assert page.locator("#patches li").count() == 6
    numbers = [one.inner_text().split(":")[0] for one in page.locator("#patches li p").all()]
    assert numbers == list("123456")
    assert page.locator("#patched rect").count() == 6
    assert page.locator("#nearest li").count() == 4
    assert images[0].stem in page.locator("#nearest li").first.inner_text()
    with page.expect_download() as got:
        page.click("#csv")
    (row,) = csv.DictReader(io.StringIO(got.value.path().read_text("utf-8")))
    assert float(row["probability_malignant"]) == pytest.approx(verdict.probabilities[0], abs=1e-6)
    assert row["image"] == images[0].name
    with page.expect_download() as got:
        page.click("#overlay-link")
    with Image.open(got.value.path()) as picture:
        assert picture.format == "PNG"
    with page.expect_download() as got:
        page.click("#json-link")
    kept = json.loads(got.value.path().read_text("utf-8"))
    assert kept["called"] == verdict.called
    assert "not for diagnosis" in kept["note"]
    watched.check_quiet(app)


def test_five_images_give_a_table_whose_rows_open(open_page, app, run, images, tmp_path):
    watched = open_page(app)
    page = watched.page
    upload(page, *images[:5])
    verdicts = expected(run, images[:5], tmp_path)
    rows = page.locator("#rows tr")
    assert rows.count() == 5
    for number, verdict in enumerate(verdicts):
        cells = rows.nth(number).locator("td").all_inner_texts()
        assert cells[:3] == [images[number].name, verdict.called, f"{verdict.probabilities[0]:.3f}"]
    rows.nth(3).locator("button").click()
    expect(page.locator("#detail-title")).to_have_text(images[3].name)
    with page.expect_download() as got:
        page.click("#csv")
    table = list(csv.DictReader(io.StringIO(got.value.path().read_text("utf-8"))))
    assert [row["image"] for row in table] == [path.name for path in images[:5]]
    watched.check_quiet(app)


def test_what_is_no_image_and_what_is_too_large_get_a_polite_refusal(
    open_page, app, images, tmp_path
):
    (tmp_path / "notes.png").write_text("some notes, renamed")
    Image.fromarray(np.zeros((10_000, 20_000), np.uint8)).convert("RGB").save(
        tmp_path / "huge.png", compress_level=1
    )
    watched = open_page(app)
    page = watched.page
    upload(page, tmp_path / "notes.png", tmp_path / "huge.png", images[0], refused=2)
    expect(page.locator("#status")).to_contain_text("2 refused")
    notes, huge, good = (page.locator("#rows tr").nth(k).inner_text() for k in range(3))
    assert "not a PNG, JPEG, TIFF or BMP image, whatever its name says" in notes
    assert "20000×10000 pixels, expected at most 25,000,000" in huge
    assert images[0].name in good
    watched.check_quiet(app)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_fits_the_screen_and_has_no_barrier(open_page, app, images, size, dark):
    watched = open_page(app, size, dark)
    expect(watched.page.locator("#limits")).not_to_be_empty()
    watched.check_accessible()
    upload(watched.page, *images[:2])
    watched.check_accessible()
    watched.check_fits()
    watched.check_quiet(app)


def test_dropped_files_are_taken_and_clear_forgets_them(open_page, app, images):
    page = open_page(app).page
    content = list(images[1].read_bytes())
    page.evaluate(
        """([name, content]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], name));
            const drop = { dataTransfer: transfer, cancelable: true };
            document.dispatchEvent(new DragEvent("drop", drop));
        }""",
        [images[1].name, content],
    )
    expect(page.locator("#status")).to_contain_text("1 image answered", timeout=60_000)
    page.click("#clear")
    expect(page.locator("#results")).to_be_hidden()
    expect(page.locator("#detail")).to_be_hidden()


def test_images_that_come_before_the_page_knows_the_models_wait(browser, app, images):
    context = browser.new_context()
    page = context.new_page()
    waiting = []
    page.route("**/about", lambda route: waiting.append(route))
    page.goto(app)
    page.set_input_files("#files", str(images[0]))
    expect(page.locator("#rows")).to_contain_text("waiting")
    waiting[0].continue_()
    expect(page.locator("#status")).to_contain_text("1 image answered", timeout=60_000)
    context.close()


def test_the_keyboard_alone_suffices(open_page, app, images):
    page = open_page(app).page
    upload(page, *images[:2])
    second = page.locator("#rows tr").nth(1).locator("button")
    second.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_have_text(images[1].name)
    expect(page.locator("#detail-title")).to_be_focused()
