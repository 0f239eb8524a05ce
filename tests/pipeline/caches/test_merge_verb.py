"""`pipeline cache merge --virtual`: a run from features that stay in the shards."""

import shutil

from click.testing import CliRunner
from small_data import write_study

from pipeline.cli import main


def run(line, code=0):
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code == code, done.output
    return done.output


def test_a_virtual_cache_gives_the_predictions_of_a_copied_one(tmp_path, weights_file, monkeypatch):
    write_study(tmp_path, 24, cases=12)
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights_file, "w.safetensors")
    size = "--patch-size 32 --stride 32 --layers conv1_2 --device cpu --threads 1"
    for number in (1, 2, 3):
        out = f"--out shards/{number}.h5 --shard {number}/3"
        run(f"extract --manifest manifest.csv --weights w.safetensors {out} {size}")
    run("split manifest.csv --out s.csv --folds 3")
    run("cache merge shards --out copied.h5")
    said = run("cache merge shards --out virtual.h5 --virtual")
    assert "virtual.h5: 24 images" in said
    few = "--no-companions --steps 4 --checks 1 --members 2"
    for name in ("copied", "virtual"):
        run(f"fit-lstm --cache {name}.h5 --splits s.csv --out {name} {few}")
    for fold in range(3):
        one, other = (
            (tmp_path / name / f"fold{fold}/predictions.csv").read_bytes()
            for name in ("copied", "virtual")
        )
        assert one == other
    info = run("cache info virtual.h5")
    assert "shards/1.h5, shards/2.h5, shards/3.h5" in info
    run("cache verify virtual.h5")
    run("cache diff copied.h5 virtual.h5")
    (tmp_path / "shards/2.h5").unlink()
    refused = run(f"fit-lstm --cache virtual.h5 --splits s.csv --out again {few}", code=1)
    assert "shards/2.h5, which is missing: put the shards back" in refused
