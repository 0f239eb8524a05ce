"""Classifiers of one magnification are tested on another, from one cache, case-disjoint."""

import json

import numpy as np
import pytest
from small_caches import coords_of, make_recipe, make_row

from cache import write_cache
from pipeline.errors import UsageError
from pipeline.fitting.options import FitOptions
from pipeline.fitting.record import read_fits
from pipeline.magnifications.matrix import cross_magnification
from pipeline.splits.make import make_splits
from pipeline.splits.table import write_splits

QUICK = FitOptions(components=0, compression="none", hidden=4, steps=60, checks=1, members=2)


def write_study(folder, magnifications=(40, 100)):
    """Twelve cases; at 40X a feature tells the label, at 100X nothing does."""
    random = np.random.default_rng(0)
    rows = []
    with write_cache(folder / "f.h5", make_recipe(dtype="float32"), {"made": "by a test"}) as w:
        for case in range(12):
            label = ("benign", "malignant")[case % 2]
            for magnification in magnifications:
                for number in range(3):
                    name = f"c{case}-{magnification}-{number}"
                    features = random.normal(size=(2, 4)).astype(np.float32)
                    if magnification == 40:
                        features[:, 0] += 4 * (2 * (case % 2) - 1)
                    row = make_row(
                        name,
                        label=label,
                        slide=f"s{case}",
                        case=f"c{case}",
                        magnification=magnification,
                        sha256=f"{len(rows):064x}",
                    )
                    w.append(row, features, coords_of(2))
                    rows.append(row)
    write_splits(folder / "s.csv", make_splits(rows, folds=3))
    return folder


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("crossed"))
    return folder, cross_magnification(folder / "f.h5", folder / "s.csv", folder / "out", QUICK)


def test_the_matrix_shows_where_the_signal_is(crossed):
    _, matrix = crossed
    cells = {(cell.trained, cell.tested): cell for cell in matrix.cells}
    assert set(cells) == {(a, b) for a in ("40", "100", "all") for b in ("40", "100")}
    assert cells["40", "40"].roc_auc > 0.95
    assert cells["all", "40"].roc_auc > 0.9
    assert cells["40", "100"].roc_auc < 0.8
    assert cells["40", "40"].images == 36
    reach = cells["40", "100"].accuracy_interval
    assert reach.low < cells["40", "100"].accuracy < reach.high


def test_a_tested_case_trains_at_no_magnification(crossed):
    folder, _ = crossed
    for name in ("40", "100", "all"):
        fits = read_fits(folder / f"out/train_{name}")
        for fold in range(3):
            rows = [p for p in fits.predictions if p.fold == fold]
            tested = {p.case for p in rows if p.role == "test"}
            assert not tested & {p.case for p in rows if p.role != "test"}
        assert fits.records[0].train_magnification == (0 if name == "all" else int(name))


def test_the_file_holds_what_is_printed(crossed):
    folder, matrix = crossed
    assert json.loads((folder / "out/matrix.json").read_text()) == json.loads(matrix.to_json())
    text = matrix.to_text()
    assert "case-disjoint, 3 folds" in text
    assert "tested on 100X" in text
    assert f"{matrix.cells[0].accuracy:.3f}" in text


def test_a_cache_of_one_magnification_is_refused(tmp_path):
    folder = write_study(tmp_path, magnifications=(40,))
    with pytest.raises(UsageError, match="magnifications are 40, expected two or more"):
        cross_magnification(folder / "f.h5", folder / "s.csv", folder / "out", QUICK)
