"""`pipeline cache diff`: everything that differs, for a person and for a script."""

import json

import pytest
from click.testing import CliRunner
from small_caches import coords_of, features_of, make_recipe, make_row, write

from cache import Failure, ShardPlace, write_cache
from pipeline.cli import main

COUNT = 14


def diff(*words):
    return CliRunner().invoke(main, ["cache", "diff", *map(str, words)])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two shards that differ in everything."""
    folder = tmp_path_factory.mktemp("pair")
    with write_cache(folder / "a.h5", make_recipe(), {"by": "a"}, ShardPlace(0, 1, "p")) as a:
        for i in range(COUNT):
            a.append(make_row(f"image{i}"), features_of(i, 3), coords_of(3))
        a.append(make_row("mine"), features_of(0, 3), coords_of(3))
        a.fail(Failure("lost", "lost.png", "damaged"))
    with write_cache(folder / "b.h5", make_recipe(layer="conv5"), {"by": "b"}) as b:
        for i in [1, 0, *range(2, COUNT)]:
            n = 2 if i == 2 else 3
            row = make_row(f"image{i}", label=f"new{i}")
            b.append(row, features_of(i, n) + 1, coords_of(n) + (i == 3))
        b.append(make_row("theirs"), features_of(0, 3), coords_of(3))
    return folder / "a.h5", folder / "b.h5"


def test_two_caches_of_the_same_content_do_not_differ(tmp_path):
    a, b = (write(tmp_path / f"{name}.h5", make_recipe(), [3, 2]) for name in "ab")
    result = diff(a, b)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"A: {a}\nB: {b}\nnothing that counts differs in 2 images\n"
    assert json.loads(diff(a, b, "--json").stdout)["same"] is True


def test_a_copy_with_its_labels_corrected_differs_in_these_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.h5", make_recipe(), [3, 2])
    (tmp_path / "labels.csv").write_text("image_id,label\nimage1,malignant\n")
    words = ["cache", "relabel", "a.h5", "--labels", "labels.csv", "--out", "b.h5"]
    assert CliRunner().invoke(main, words).exit_code == 0
    result = diff("a.h5", "b.h5")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "A: a.h5\nB: b.h5\nlabel differs: 1 of 2 images\n  image1: 'benign', 'malignant'\n"
        "not counted:\n  provenance, relabelled: None, '"
    )


def test_the_text_names_every_kind_of_difference_and_cuts_long_lists(pair):
    result = diff(*pair)
    assert (result.exit_code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    for line in [
        "recipe, layer: 'features.30', 'conv5'",
        "images only in A: 1",
        "  mine",
        "images only in B: 1",
        "  theirs",
        "images in another order: 2 of 14",
        "  image0: position 0, 1",
        "label differs: 14 of 14 images",
        "  image9: 'benign', 'new9'",
        "  … and 4 more",
        "number of patches differs: 1 of 14 images",
        "  image2: 3, 2",
        "coords differ: 1 of 14 images",
        "  image3: 3 patches",
        "failures differ: 1",
        "  lost: 'lost.png: damaged', none",
        "shard: 0 of 1, plan 'p'; a whole cache",
        "not counted:",
        "  provenance, by: 'a', 'b'",
    ]:
        assert line in lines
    assert "  image10: 'benign', 'new10'" not in lines
    assert any(line.startswith("features differ: 13 of 14 images, by at most 1") for line in lines)


def test_the_json_holds_every_difference(pair):
    result = diff(*pair, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["a"], found["b"], found["same"]) == (str(pair[0]), str(pair[1]), False)
    assert found["recipe"] == {"layer": {"a": "features.30", "b": "conv5"}}
    images = found["images"]
    assert (images["common"], images["only_a"], images["only_b"]) == (14, ["mine"], ["theirs"])
    assert images["moved"][0] == {"image_id": "image0", "a": 0, "b": 1}
    changed = {image["image_id"]: image for image in images["changed"]}
    assert list(changed) == [f"image{i}" for i in range(COUNT)]
    for i, image in enumerate(changed.values()):
        assert image["columns"] == {"label": {"a": "benign", "b": f"new{i}"}}
        assert image["patches"] == ({"a": 3, "b": 2} if i == 2 else None)
        assert image["coords"] == (3 if i == 3 else 0)
        assert (image["features"] or {"patches": 0})["patches"] == (0 if i == 2 else 3)
    features = found["features"]
    assert (features["compared"], features["images"]) == (True, 13)
    for name in ("absolute", "relative"):
        largest = max(i["features"][name] for i in changed.values() if i["features"])
        assert features[f"largest_{name}"] == largest
    failure = {"image_id": "lost", "path": "lost.png", "reason": "damaged"}
    assert found["failures"] == {"lost": {"a": failure, "b": None}}
    assert found["shard"] == {"a": {"number": 0, "total": 1, "plan": "p"}, "b": None}
    assert found["not_counted"]["provenance"] == {"by": {"a": "a", "b": "b"}}


def test_features_of_other_lengths_are_said_not_to_be_compared(tmp_path):
    a = write(tmp_path / "a.h5", make_recipe(), [3])
    with write_cache(tmp_path / "b.h5", make_recipe(feature_dim=2), {"made": "by a test"}) as b:
        b.append(make_row("image0"), features_of(0, 3)[:, :2], coords_of(3))
    result = diff(a, tmp_path / "b.h5")
    assert result.exit_code == 1
    assert "recipe, feature_dim: 4, 2\n" in result.stdout
    assert "features: not compared, they have different lengths\n" in result.stdout
    assert not json.loads(diff(a, tmp_path / "b.h5", "--json").stdout)["features"]["compared"]


def test_a_damaged_cache_is_an_error_and_no_answer(tmp_path):
    a, b = (write(tmp_path / f"{name}.h5", make_recipe(), [3, 2]) for name in "ab")
    content = bytearray(b.read_bytes())
    content[-200] ^= 1
    b.write_bytes(content)
    for words in ([a, b], [b, a, "--json"]):
        result = diff(*words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: {b}")


@pytest.mark.parametrize("words", [[], ["a.h5"], ["a.h5", "b.h5", "c.h5"], ["a.h5", "."]])
def test_wrong_usage_is_told_apart_from_a_difference(words):
    assert diff(*words).exit_code == 2
