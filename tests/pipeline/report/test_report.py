"""`pipeline report`: one file, whose numbers are those of the files beside it."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from small_runs import PATCH, make_run

from cache import CacheError
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.extraction.recipe import PatchOptions
from pipeline.report.report import report


@pytest.fixture(scope="module")
def page(small_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    report(small_run.folder, out)
    return out.read_text(encoding="utf-8")


@pytest.fixture
def copied(small_run, tmp_path):
    shutil.copytree(small_run.folder, tmp_path / "run")
    return tmp_path / "run"


def text_of(page):
    return html.unescape(
        re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S))
    )


def test_the_headline_numbers_are_those_of_the_metrics(small_run, page):
    metrics = json.loads((small_run.folder / "metrics.json").read_text())
    for name in ("accuracy", "balanced_accuracy", "roc_auc", "patient_recognition_rate"):
        low, high = metrics["intervals"][name]
        card = rf'{metrics["pooled"][name]:.3f}</p><p class="interval">\({low:.2f} to {high:.2f}\)'
        assert re.search(card, page), name
    assert "Protocol: case-disjoint, 3 folds" in page
    assert "made to test with" in page


def test_the_page_says_what_was_run(small_run, page):
    text = text_of(page)
    for expected in (
        "24 (12 benign, 12 malignant)",
        "random(seed=0) weights",
        "case-disjoint, 3 folds; kept together: case",
        "hidden=4",
        "ncnn",
        json.loads((small_run.folder / "metrics.json").read_text())["fingerprint"],
    ):
        assert expected in text, expected


def test_confusion_counts_and_patients_are_those_of_the_predictions(small_run, page):
    import csv

    rows = []
    for fold in range(3):
        with (small_run.fits / f"fold{fold}/predictions.csv").open() as file:
            rows += [row for row in csv.DictReader(file) if row["role"] == "test"]
    counts = [
        str(sum(r["truth"] == truth and r["called"] == called for r in rows))
        for truth in ("benign", "malignant")
        for called in ("benign", "malignant")
    ]
    table = re.search(r"<caption>Images</caption>.*?</table>", page, re.S)[0]
    assert re.findall(r"<td>(\d+)</td>", table) == counts
    patients = re.search(r"Patients, the worst first</caption>.*?</table>", page, re.S)[0]
    assert set(re.findall(r'scope="row">(c\d+)<', patients)) == {f"c{k}" for k in range(12)}


def test_it_needs_no_script_no_network_and_no_other_file(page):
    assert "<script" not in page
    assert "Content-Security-Policy" in page
    assert "default-src 'none'" in page
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r'(src|href)="(?!data:|#)', without_names)
    assert "url(" not in re.sub(r"url\(#", "", without_names)
    assert "@import" not in page


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_figures_take_their_colours_from_the_page(page):
    assert page.count("<svg") == 5
    for placeholder in ("#010203", "#040506", "#070809", "#0a0b0c"):
        assert placeholder not in page
    assert "var(--ink)" in page
    assert "prefers-color-scheme: dark" in page


def test_the_gallery_shows_mistakes_only_the_surest_first(page):
    figures = re.findall(
        r"<figcaption><b>(.*?)</b><br>is (\w+).*?called (\w+) at probability ([\d.]+)", page
    )
    assert all(truth != called for _, truth, called, _ in figures)
    probabilities = [float(found) for *_, found in figures]
    assert probabilities == sorted(probabilities, reverse=True)
    assert page.count("data:image/jpeg") == len(figures)


def test_equal_runs_give_equal_reports(small_run, page, tmp_path):
    report(small_run.folder, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_metrics_of_other_fits_are_refused(copied, tmp_path):
    metrics = json.loads((copied / "metrics.json").read_text())
    metrics["pooled"]["accuracy"] += 0.01
    (copied / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UsageError, match=r"not of the fits beside it \(pooled.accuracy differs\)"):
        report(copied, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.slow
def test_features_of_other_images_are_refused(copied, weights_file, tmp_path):
    patches = PatchOptions(patch_size=PATCH, stride=16, layers=("conv2_2",))
    other = make_run(tmp_path / "other", weights_file, patches=patches, companions=False)
    shutil.copy(other.folder / "features.h5", copied / "features.h5")
    with pytest.raises(UsageError, match=r"features\.h5: of the recipe"):
        report(copied, tmp_path / "r.html")


def test_damaged_features_are_refused(copied, tmp_path):
    data = bytearray((copied / "features.h5").read_bytes())
    data[len(data) // 2] ^= 1
    (copied / "features.h5").write_bytes(data)
    with pytest.raises(CacheError):
        report(copied, tmp_path / "r.html")


@pytest.mark.parametrize("name", ["fits", "metrics.json", "features.h5"])
def test_what_is_missing_is_named(copied, tmp_path, name):
    (copied / name).rename(tmp_path / "away")
    done = CliRunner().invoke(main, ["report", str(copied), "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 2
    assert f"no {name}" in done.output


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"note": 3}', "[" * 99999, '{"note": ""}'])
def test_metrics_that_are_none_are_refused(copied, tmp_path, text):
    (copied / "metrics.json").write_text(text)
    with pytest.raises(UsageError, match=r"metrics\.json: not "):
        report(copied, tmp_path / "r.html")


def test_an_image_that_is_not_there_any_more_leaves_its_numbers(copied, tmp_path):
    shutil.rmtree(copied / "images")
    report(copied, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No picture: cannot be read" in page
    assert "called" in page


def test_a_changed_image_is_not_shown_with_old_features(copied, tmp_path):
    for image in (copied / "images").iterdir():
        image.write_bytes(image.read_bytes() + b" ")
    report(copied, tmp_path / "r.html")
    assert "content changed since it was indexed" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.slow
def test_names_are_text_and_never_markup(weights_file, tmp_path):
    labels = ("<b>benign", '"malignant"&amp;')
    run = make_run(tmp_path / "<i>run", weights_file, labels=labels, companions=False)
    report(run.folder, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<b>benign" not in page.replace("<b>image", "")
    assert "&lt;b&gt;benign" in page
    assert "<i>run" not in page


@pytest.mark.slow
def test_several_classes_and_views_have_a_report(weights_file, tmp_path):
    patches = PatchOptions(
        patch_size=PATCH, stride=PATCH, layers=("conv2_2",), views=("identity", "rot90")
    )
    run = make_run(tmp_path / "run", weights_file, ("a", "b", "c"), patches, companions=True)
    report(run.folder, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for name in "abc":
        assert f"{name}, pooled" in page
    assert np.all([word in page for word in ("By subtype", "views: identity, rot90")])
