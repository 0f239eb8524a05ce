"""`pipeline cache merge --virtual`: what a person sees, and that stage two sees no difference."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_caches import make_recipe, write
from small_studies import write_study

from cache import FeatureCache, ShardPlace, write_cache
from pipeline.cli import main
from pipeline.fitting.fit import fit_lstm
from pipeline.fitting.options import FitOptions

QUICK = FitOptions(
    steps=20, checks=2, hidden=4, members=2, components=4, learning_rate=0.02, companions=False
)


def run(*words):
    return CliRunner().invoke(main, ["cache", *map(str, words)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three shards in a folder, copied to `m.h5` and joined to `v.h5`."""
    for number in range(3):
        place = ShardPlace(number, 3, "p")
        write(tmp_path / f"shards/{number}.h5", make_recipe(), [2, 1 + number], place)
    monkeypatch.chdir(tmp_path)
    assert run("merge", "shards", "--out", "m.h5").exit_code == 0
    result = run("merge", "shards", "--out", "v.h5", "--virtual")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "v.h5: 6 images, 12 patches, of 3 shards, which hold the features and must stay where "
        "they are\n"
    )
    return tmp_path


def test_the_shards_keep_the_features(folder):
    assert run("verify", "v.h5").stdout == "v.h5: sound\n"
    assert run("diff", "m.h5", "v.h5").exit_code == 0
    with FeatureCache("v.h5") as mine, FeatureCache("m.h5") as copied:
        assert mine.load().tobytes() == copied.load().tobytes()
        assert mine.provenance == copied.provenance
        assert (len(mine.sources), copied.sources) == (3, [])


def test_info_says_where_the_features_are(folder):
    names = r"shards/0\.h5, shards/1\.h5, shards/2\.h5"
    assert re.search(rf"^features in +3 shards: {names}$", run("info", "v.h5").stdout, re.M)
    assert re.search(r"^features in +the file$", run("info", "m.h5").stdout, re.M)
    found = [json.loads(run("info", name, "--json").stdout)["sources"] for name in ("v.h5", "m.h5")]
    assert found == [["shards/0.h5", "shards/1.h5", "shards/2.h5"], []]


def test_an_export_is_that_of_the_copied_cache(folder):
    for name in ("m", "v"):
        result = run("export", f"{name}.h5", "--to", "numpy", "--out", name)
        assert result.exit_code == 0, result.output
    files = sorted(path.relative_to("m") for path in Path("m").rglob("*.npy"))
    assert files
    for file in files:
        assert (Path("m") / file).read_bytes() == (Path("v") / file).read_bytes()


def test_a_missing_shard_is_one_message_of_every_verb(folder):
    Path("shards/1.h5").unlink()
    for words in (["info", "v.h5"], ["verify", "v.h5"], ["diff", "m.h5", "v.h5"]):
        result = run(*words)
        assert result.exit_code == 1
        assert "shards/1.h5 is missing" in result.stderr
        assert "Traceback" not in result.output


def test_shards_elsewhere_are_refused_before_anything_is_written(folder):
    result = run("merge", "shards", "--out", "below/v.h5", "--virtual")
    assert result.exit_code == 1
    assert "not in or below" in result.stderr
    assert "choose an --out above the shards" in result.stderr
    assert not Path("below").exists()


def test_a_shard_that_was_replaced_is_merged_again(folder):
    write(Path("shards/1.h5"), make_recipe(), [2, 2, 2], ShardPlace(1, 3, "p"))
    assert run("verify", "v.h5").exit_code == 1
    result = run("merge", "shards", "--out", "v.h5", "--virtual", "--overwrite")
    assert result.exit_code == 0
    assert run("verify", "v.h5").exit_code == 0


@pytest.mark.parametrize("missing", [False, True])
def test_repair_says_to_repair_the_shard(folder, missing):
    before = Path("v.h5").read_bytes()
    if missing:
        Path("shards/0.h5").unlink()
    result = run("repair", "v.h5")
    assert result.exit_code == 2
    assert "its features lie in 3 shards, such as shards/0.h5: repair the one" in result.stderr
    assert Path("v.h5").read_bytes() == before


def test_a_virtual_cache_is_no_shard(folder):
    result = run("merge", "v.h5", "--out", "again.h5", "--virtual")
    assert result.exit_code == 1
    assert "not a shard, but a whole cache" in result.stderr


def test_fits_predict_the_same(tmp_path):
    write_study(tmp_path)
    (tmp_path / "shards").mkdir()
    with FeatureCache(tmp_path / "f.h5") as whole:
        rows = whole.images.rows()
        for number, part in enumerate((range(30), range(30, len(rows)))):
            place = ShardPlace(number, 2, "p")
            file = tmp_path / f"shards/{number}.h5"
            with write_cache(file, whole.recipe, whole.provenance, place) as writer:
                for i in part:
                    statistics = whole.statistics[i] if whole.statistics else None
                    writer.append(rows[i], whole.sequence(i), whole.coords(i), statistics)
                for failure in whole.failures if number else ():
                    writer.fail(failure)
    result = run("merge", tmp_path / "shards", "--out", tmp_path / "v.h5", "--virtual", *ALLOW)
    assert result.exit_code == 0, result.output
    for name in ("f", "v"):
        out = tmp_path / f"fits-{name}"
        fit_lstm(tmp_path / f"{name}.h5", tmp_path / "splits.csv", out, QUICK)
    files = sorted(p.relative_to(tmp_path / "fits-f") for p in tmp_path.glob("fits-f/*/pred*.csv"))
    assert files
    for file in files:
        mine, other = tmp_path / "fits-v" / file, tmp_path / "fits-f" / file
        assert mine.read_bytes() == other.read_bytes()


ALLOW = ("--allow-failures", "99")
