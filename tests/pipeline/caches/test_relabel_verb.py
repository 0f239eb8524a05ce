"""`pipeline cache relabel`: the right labels on the right images, or one message and no file."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_caches import make_recipe, write

from cache import FeatureCache
from pipeline.cli import main
from pipeline.dataset.manifest import write_manifest

LENGTHS = [3, 1, 2, 4, 2, 1, 1, 1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write(tmp_path / "f.h5", make_recipe(), LENGTHS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def relabel(text, out="new.h5"):
    Path("labels.csv").write_text(text, encoding="utf-8")
    return CliRunner().invoke(
        main, ["cache", "relabel", "f.h5", "--labels", "labels.csv", "--out", out]
    )


def table(path):
    with FeatureCache(path) as cache:
        return cache.images.rows()


@pytest.mark.parametrize("out", ["new.h5", "f.h5", "sub/new.h5"])
def test_only_the_named_images_change_and_only_in_the_given_columns(folder, out):
    rows = table("f.h5")
    rows[1] = rows[1]._replace(label="malignant", case="c2")
    rows[3] = rows[3]._replace(case="")
    result = relabel("case,image_id,label\n,image3,benign\nc2,image1,malignant\n", out)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{out}: 2 of 8 images changed: label of 1, case of 2\n"
    assert table(out) == rows


def test_a_whole_manifest_serves_and_its_other_columns_are_ignored(folder):
    rows = [
        row._replace(subtype="x", magnification=0, path="other.png", sha256="b" * 64, width=1)
        for row in table("f.h5")[::-1]
    ]
    write_manifest(folder / "manifest.csv", rows)
    result = relabel((folder / "manifest.csv").read_text())
    assert result.stdout == "new.h5: 8 of 8 images changed: subtype of 8, magnification of 8\n"
    assert table("new.h5") == [r._replace(subtype="x", magnification=0) for r in table("f.h5")]


def test_labels_that_are_already_right_change_nothing(folder):
    before = (folder / "f.h5").stat()
    result = relabel("image_id,label\nimage1,benign\n", "f.h5")
    assert (result.exit_code, result.stdout) == (0, "f.h5: 0 of 8 images changed\n")
    assert (folder / "f.h5").stat() == before


REFUSED = {
    "one unknown image": (
        "image_id,label\nimage1,x\nimagine,x\n",
        ["labels.csv: 1 images are not in f.h5: imagine (line 3)"],
    ),
    "many unknown images": (
        "image_id,label\n" + "".join(f"no{i},x\n" for i in range(12)),
        ["12 images are not in f.h5: no0 (line 2), no1", "no4 (line 6) and 7 more"],
    ),
    "an image twice": (
        "image_id,label\nimage1,x\nimage2,x\nimage1,x\n",
        ["labels.csv, line 4: image_id image1 is already on line 2"],
    ),
    "an empty label": (
        "image_id,label\nimage1,x\nimage2,\n",
        ["labels.csv, line 3: label is empty"],
    ),
    "none of the columns": (
        "image_id,Label\nimage1,x\n",
        ["none of the columns label, subtype, slide, case, magnification", "Label"],
    ),
    "no image_id": ("id,label\nimage1,x\n", ["labels.csv: no column image_id", "id, label"]),
    "only a header": ("image_id,label\n", ["labels.csv: no images below the header"]),
    "an empty file": ("", ["labels.csv: no column image_id"]),
    "a column twice": ("image_id,label,label\nimage1,x,y\n", ["label appears twice"]),
    "a magnification that is none": (
        "image_id,magnification\nimage1,100X\n",
        ["labels.csv, line 2: magnification is '100X'"],
    ),
    "a magnification out of range": (
        "image_id,magnification\nimage1,2147483648\n",
        ["labels.csv, line 2: magnification"],
    ),
    "a control character": ("image_id,label\nimage1,a\x1bb\n", ["labels.csv, line 2: label"]),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_file_is_refused_with_one_message_and_nothing_is_written(folder, text, words):
    before = (folder / "f.h5").read_bytes()
    result = relabel(text, "f.h5")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    assert (folder / "f.h5").read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {"f.h5", "labels.csv"}


def test_the_labels_are_not_replaced_by_the_cache(folder):
    result = relabel("image_id,label\nimage1,x\n", "./labels.csv")
    assert result.exit_code == 2
    assert "labels.csv: is an input" in result.stderr
    assert (folder / "labels.csv").read_text().startswith("image_id")


@pytest.mark.parametrize("missing", ["f.h5", "labels.csv"])
def test_a_missing_file_is_named(folder, missing):
    names = {"f.h5": "f.h5", "labels.csv": "f.h5", missing: "nowhere"}
    words = ["cache", "relabel", names["f.h5"], "--labels", names["labels.csv"], "--out", "new.h5"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code in (1, 2)
    assert re.match(r"error: nowhere: ", result.stderr)
    assert not (folder / "new.h5").exists()


def test_a_damaged_cache_is_refused(folder):
    content = bytearray((folder / "f.h5").read_bytes())
    content[-200] ^= 1
    (folder / "f.h5").write_bytes(content)
    result = relabel("image_id,label\nimage1,x\n")
    assert result.exit_code == 1
    assert "f.h5" in result.stderr
    assert not (folder / "new.h5").exists()
