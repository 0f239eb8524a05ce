"""Bad input gives one message and an exit code, no traceback, and leaves nothing half-written."""

import csv
import io
import os
import shlex
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from small_data import write_image

from cache import FeatureCache, check
from pipeline.cli import main
from pipeline.dataset.manifest import read_manifest
from pipeline.safetensors_file import write_safetensors

INDEX = "index data --out new.csv"
SPLIT = "split manifest.csv --out new.csv --folds 3"
EXTRACT = (
    "extract --manifest manifest.csv --weights weights.safetensors --out new.h5 "
    "--patch-size 32 --stride 32 --device cpu --threads 1"
)
FIT = (
    "fit-lstm --cache features.h5 --splits splits.csv --out new "
    "--steps 1 --checks 1 --components 4 --hidden 4 --members 2"
)
EVALUATE = "evaluate --fits fits --out new.json"
DEMO = "demo --out new --slides 2 --images 2"


def run(command, *, fails=True):
    result = CliRunner().invoke(main, shlex.split(command))
    assert isinstance(result.exception, SystemExit | None), result.output
    assert fails or result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory, weights_file):
    """A small study with everything that the verbs make of it."""
    folder = tmp_path_factory.mktemp("finished")
    for i in range(12):
        label = "malignant" if i // 2 % 2 else "benign"
        write_image(folder / f"data/{label}/s{i // 2}/image{i}.png", i, 64, 64)
    (folder / "weights.safetensors").symlink_to(weights_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(f"{INDEX} --out manifest.csv", fails=False)
        run(f"{SPLIT} --out splits.csv", fails=False)
        run(f"{EXTRACT} --out features.h5", fails=False)
        run(f"{FIT} --out fits", fails=False)
    return folder


@pytest.fixture
def study(finished, tmp_path, monkeypatch):
    """A copy of the study to break, as the working directory."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def snapshot(folder) -> dict[str, bytes]:
    """Content of every file but the weights, hidden ones too; empty for what is no file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if not path.is_symlink()
    }


def assert_one_message(output):
    lines = [line for line in output.splitlines() if line.lower().startswith("error: ")]
    listings = [line for line in output.splitlines() if "files were left out, listed in" in line]
    assert len(lines) + len(listings) == 1, output
    for text in ("Traceback", "internal fault", "None"):
        assert text not in output


def write(name, content=b""):
    """A preparation: write a file."""

    def prepare(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def edit(name, old, new, count=-1):
    """A preparation: replace text in a file, which must hold it."""

    def prepare(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, count))

    return prepare


def cut(name, size):
    """A preparation: cut a file, or what a link leads to, short."""

    def prepare(folder):
        with (folder / name).open("rb") as file:
            data = file.read(size)
        (folder / name).unlink()
        (folder / name).write_bytes(data)

    return prepare


def repeat_last_line(name):
    """A preparation: write the last line of a file twice."""

    def prepare(folder):
        text = (folder / name).read_text()
        (folder / name).write_text(text + text.splitlines()[-1] + "\n")

    return prepare


def remove(name):
    """A preparation: remove a file or folder."""

    def prepare(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return prepare


def one_benign_slide(folder):
    rows = (folder / "manifest.csv").read_text().splitlines()
    kept = [row for row in rows if ",benign," not in row or ",s0," in row]
    (folder / "manifest.csv").write_text("\n".join(kept))


def other_architecture(folder):
    arrays = {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    write_safetensors(folder / "resnet.safetensors", arrays, {})


def copied_fold(folder):
    shutil.copytree(folder / "fits/fold1", folder / "fits/fold1 copy")


def case_on_both_sides(folder):
    text = (folder / "splits.csv").read_text()
    assert "image0,0,train" in text or "image0,0,val" in text or "image0,0,test" in text
    old = next(line for line in text.splitlines() if "image0,0," in line)
    role = "train" if ",test," in old else "test"
    (folder / "splits.csv").write_text(text.replace(old, f"benign__s0__image0,0,{role},case,0"))


TABLE = "path,label,image_id\ndata/benign/s0/image0.png,benign,a\n"

BAD_FILES = {
    "a folder without images": (
        lambda folder: (folder / "empty").mkdir(),
        "index empty --out new.csv",
        2,
        ["empty: no images", "one subfolder a class"],
    ),
    "a folder of one class": (
        remove("data/benign"),
        INDEX,
        2,
        ["data: found one label: malignant (6 images)", "at least two"],
    ),
    "a table without the column label": (
        write("table.csv", "path,slide\na.png,s1\n"),
        "index table.csv --out new.csv",
        2,
        ["table.csv: no column label", "found path, slide"],
    ),
    "a table with a row too short": (
        write("table.csv", TABLE + "b.png,malignant\n"),
        "index table.csv --out new.csv",
        2,
        ["table.csv, line 3: 2 fields, expected 3"],
    ),
    "a table that the list of problems would replace": (
        write("new.problems.csv", TABLE),
        "index new.problems.csv --out new.csv",
        2,
        ["new.problems.csv: is the dataset itself", "another name"],
    ),
    "a manifest with an id twice": (
        repeat_last_line("manifest.csv"),
        SPLIT,
        2,
        ["manifest.csv, line 14: image_id malignant__s5__image11", "line 13", "remove one"],
    ),
    "a manifest with an id twice, extracted": (
        repeat_last_line("manifest.csv"),
        EXTRACT,
        2,
        ["manifest.csv, line 14"],
    ),
    "a manifest without a column": (
        edit("manifest.csv", "sha256", "digest", 1),
        EXTRACT,
        2,
        ["manifest.csv: no column sha256"],
    ),
    "a manifest that is HDF5": (None, "split features.h5 --out new.csv", 2, ["features.h5: not"]),
    "a label that only one slide has": (
        one_benign_slide,
        SPLIT,
        2,
        ["label benign has 1 cases", "at least 3", "add cases"],
    ),
    "a manifest of one class": (
        edit("manifest.csv", ",benign,", ",malignant,"),
        SPLIT,
        2,
        ["found 1 labels (malignant)", "at least two"],
    ),
    "fewer cases than folds": (
        None,
        f"{SPLIT} --folds 5",
        2,
        ["label benign has 3 cases", "at least 5", "--folds 3"],
    ),
    "a splits file as manifest": (
        None,
        "split splits.csv --out new.csv",
        2,
        ["splits.csv: no column path"],
    ),
    "weights of another architecture": (
        other_architecture,
        f"{EXTRACT} --weights resnet.safetensors",
        2,
        ["resnet.safetensors: not the 13 convolutions", "missing: features.0.weight", "conv1"],
    ),
    "weights of another architecture to convert": (
        other_architecture,
        "weights --from resnet.safetensors --out new.safetensors",
        2,
        ["resnet.safetensors: not the 13 convolutions", "missing: features.0.weight"],
    ),
    "weights that are not ImageNet's": (
        None,
        "weights --from weights.safetensors --out new.safetensors",
        2,
        ["weights.safetensors: not the ImageNet weights", "expected 25d244c5"],
    ),
    "weights cut short": (
        cut("weights.safetensors", 100_000),
        EXTRACT,
        2,
        ["weights.safetensors: not a safetensors file, or truncated", "pipeline weights --out"],
    ),
    "text as weights": (
        None,
        f"{EXTRACT} --weights manifest.csv",
        2,
        ["manifest.csv: not a safetensors file"],
    ),
    "text as weights to convert": (
        None,
        "weights --from manifest.csv --out new.safetensors",
        2,
        ["manifest.csv: begins with b'image_id'", "expected safetensors"],
    ),
    "a cache that is not HDF5": (
        None,
        f"{FIT} --cache manifest.csv",
        1,
        ["manifest.csv: not an HDF5 file"],
    ),
    "a cache cut short": (
        cut("features.h5", 30_000),
        FIT,
        1,
        ["features.h5: its bytes are not those that were written", "pipeline cache repair"],
    ),
    "a cache cut short, looked into": (
        cut("features.h5", 30_000),
        "cache info features.h5",
        1,
        ["features.h5: damaged or cut short"],
    ),
    "splits of other images": (
        edit("splits.csv", "__image7,", "__image77,"),
        FIT,
        2,
        ["splits.csv, fold 0", "malignant__s3__image7)", "unexpected (malignant__s3__image77)"],
    ),
    "splits with an unknown role": (
        edit("splits.csv", ",val,", ",validation,"),
        FIT,
        2,
        ["splits.csv, line ", "role is 'validation'", "train, val, test"],
    ),
    "splits with a row twice": (
        repeat_last_line("splits.csv"),
        FIT,
        2,
        ["splits.csv, line 38", "in fold 2 already", "remove one"],
    ),
    "splits with a case on both sides": (
        case_on_both_sides,
        FIT,
        2,
        ["splits.csv, fold 0: 1 cases", "(s0 in", "group_by image"],
    ),
    "splits that are a manifest": (
        None,
        f"{FIT} --splits manifest.csv",
        2,
        ["manifest.csv: no column fold, role"],
    ),
    "a folder without fits": (None, "evaluate --fits data --out new.json", 2, ["data: no fold<K>"]),
    "a fold that is missing": (
        remove("fits/fold1"),
        EVALUATE,
        2,
        ["fits: folds [1] of 3 are missing"],
    ),
    "a fold that is there twice": (
        copied_fold,
        EVALUATE,
        2,
        ["fits/fold1 copy/fit.json: the record of fold 1", "move or remove"],
    ),
    "predictions that are gone": (
        remove("fits/fold1/predictions.csv"),
        EVALUATE,
        2,
        ["fits/fold1/predictions.csv: cannot be read"],
    ),
    "predictions with a number changed": (
        edit("fits/fold0/predictions.csv", ",0.", ",0.0"),
        EVALUATE,
        2,
        ["fits/fold0/predictions.csv: was changed after it was made", "fit again"],
    ),
    "predictions with a line twice": (
        repeat_last_line("fits/fold0/predictions.csv"),
        EVALUATE,
        2,
        ["fits/fold0/predictions.csv: was changed"],
    ),
    "predictions with roles exchanged": (
        edit("fits/fold0/predictions.csv", ",train,", ",test,"),
        EVALUATE,
        2,
        ["fits/fold0/predictions.csv: was changed"],
    ),
    "predictions that are no numbers": (
        edit("fits/fold0/predictions.csv", ",0.", ",nan0."),
        EVALUATE,
        2,
        ["fits/fold0/predictions.csv, line 2: not a prediction"],
    ),
    "predictions without a column": (
        edit("fits/fold0/predictions.csv", "probability", "score"),
        EVALUATE,
        2,
        ["predictions.csv: no column probability"],
    ),
    "a record of another number of folds": (
        edit("fits/fold0/fit.json", '"folds": 3', '"folds": "many"'),
        EVALUATE,
        2,
        ["fits/fold0/fit.json: not the record of a fit (folds is 'many')"],
    ),
    "a record of one label": (
        edit("fits/fold0/fit.json", '"benign",', ""),
        EVALUATE,
        2,
        ["fits/fold0/fit.json: not the record of a fit", "expected two"],
    ),
    "a record that is a list": (
        write("fits/fold0/fit.json", "[]"),
        EVALUATE,
        2,
        ["fits/fold0/fit.json: not the record of a fit"],
    ),
    "folds fitted to different splits": (
        edit("fits/fold2/fit.json", '"splits_sha256": "', '"splits_sha256": "0'),
        EVALUATE,
        2,
        ["fits/fold2: fitted from other data", "fit all folds again"],
    ),
    "an output that is no cache": (
        None,
        f"{EXTRACT} --out splits.csv",
        2,
        ["splits.csv: not an HDF5 file", "--overwrite"],
    ),
    "an output made from something else": (
        None,
        f"{EXTRACT} --out features.h5 --stride 16",
        2,
        ["features.h5: exists", "stride: 16, 32", "--overwrite"],
    ),
    "an output that is the manifest": (
        None,
        f"{EXTRACT} --out manifest.csv --overwrite",
        2,
        ["manifest.csv: is an input"],
    ),
    "splits in place of the manifest": (
        None,
        f"{SPLIT} --out ./manifest.csv",
        2,
        ["manifest.csv: is an input", "choose another"],
    ),
}

MISSING = {
    "index": "index nowhere --out new.csv",
    "split": "split nowhere --out new.csv",
    "split by official folds": f"{SPLIT} --official nowhere",
    "weights": "weights --from nowhere --out new.safetensors",
    "extract, manifest": f"{EXTRACT} --manifest nowhere",
    "extract, weights": f"{EXTRACT} --weights nowhere",
    "fit-lstm, cache": f"{FIT} --cache nowhere",
    "fit-lstm, splits": f"{FIT} --splits nowhere",
    "evaluate": "evaluate --fits nowhere --out new.json",
    "cache info": "cache info nowhere",
}

BAD_OPTIONS = {
    f"{DEMO} --slides 1": "slides is 1",
    f"{DEMO} --images 1": "images is 1",
    f"{DEMO} --seed -1": "seed is -1",
    f"{INDEX} --allow-failures -1": "-1 is not in the range",
    f"{INDEX} --magnification 100": "no magnification",
    f"{SPLIT} --folds 1": "folds is 1",
    f"{SPLIT} --seed -1": "seed is -1",
    f"{SPLIT} --val-fraction 0": "val_fraction is 0.0",
    f"{SPLIT} --val-fraction nan": "val_fraction is nan",
    f"{SPLIT} --group-by patient": "'patient' is not one of",
    "weights --random -1 --out new.safetensors": "seed -1",
    "weights --random 1 --from weights.safetensors --out new.safetensors": "exclude each other",
    f"{EXTRACT} --patch-size 0": "patch size 0",
    f"{EXTRACT} --stride 0": "stride 0",
    f"{EXTRACT} --threads 0": "0 is not in the range",
    f"{EXTRACT} --allow-failures -1": "-1 is not in the range",
    f"{EXTRACT} --device tpu": "device 'tpu'",
    f"{EXTRACT} --device mps": "device 'mps'",
    f"{EXTRACT} --precision float16": "only float32",
    f"{FIT} --dropout 1": "dropout is 1.0",
    f"{FIT} --hidden 0 --out fits": "hidden is 0",
    f"{FIT} --lstm-layers 0": "lstm_layers is 0",
    f"{FIT} --members 0": "members is 0",
    f"{FIT} --members 101": "members is 101",
    f"{FIT} --components -1": "components is -1",
    f"{FIT} --projection 8193": "projection is 8193",
    f"{FIT} --steps -1": "steps is -1",
    f"{FIT} --compression square": "'square'",
    f"{FIT} --pooled max": "'max'",
    f"{FIT} --target case": "'case'",
    f"{FIT} --layers conv9_9 --out fits": "conv9_9",
    f"{FIT} --train-magnification 7 --out fits": "train_magnification is 7",
    f"{FIT} --try speed=3 --out fits": "'speed' cannot be tried",
    f"{FIT} --try hidden=many": "'many' is no hidden",
    f"{FIT} --checks 0": "checks is 0",
    f"{FIT} --batch-size 0": "batch_size is 0",
    f"{FIT} --learning-rate 0": "learning_rate is 0.0",
    f"{FIT} --weight-decay nan": "weight_decay is nan",
    f"{FIT} --seed -1": "seed is -1",
    f"{FIT} --seed 4294967296": "seed is 4294967296",
    f"{FIT} --fold 3": "folds 0 to 2",
    f"{FIT} --positive cancer --out fits": "'cancer'",
    f"{FIT} --hiden 3": "No such option",
    f"{EVALUATE} --fits manifest.csv": "is a file",
    "cache info data": "is a directory",
    "cache verify data": "is a directory",
    "extract --out new.h5": "Missing option",
    "demonstrate": "No such command",
}

WRITING = {
    "demo": DEMO,
    "index": INDEX,
    "split": SPLIT,
    "weights": "weights --random 0 --out new",
    "extract": EXTRACT,
    "fit-lstm": FIT,
    "evaluate": EVALUATE,
}


@pytest.mark.parametrize(
    ("prepare", "command", "code", "words"), BAD_FILES.values(), ids=BAD_FILES.keys()
)
def test_a_bad_file_gives_one_message_and_changes_nothing(study, prepare, command, code, words):
    if prepare is not None:
        prepare(study)
    before = snapshot(study)
    result = run(command)
    assert result.exit_code == code, result.output
    assert_one_message(result.stderr)
    assert not result.stdout
    for word in words:
        assert word in result.stderr
    assert snapshot(study) == before


@pytest.mark.parametrize("command", MISSING.values(), ids=MISSING.keys())
def test_a_missing_input_is_named(study, command):
    before = snapshot(study)
    result = run(command)
    assert result.exit_code in (1, 2)
    assert_one_message(result.stderr)
    assert "nowhere" in result.stderr
    assert snapshot(study) == before


@pytest.mark.parametrize(("command", "words"), BAD_OPTIONS.items())
def test_a_wrong_option_is_usage_and_changes_nothing(study, command, words):
    before = snapshot(study)
    result = run(command)
    assert result.exit_code == 2, result.output
    assert_one_message(result.stderr)
    assert words in result.stderr
    assert snapshot(study) == before


@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
def test_cuda_without_a_gpu_is_usage(study, monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = snapshot(study)
    result = run(f"{EXTRACT} --device {name}")
    assert result.exit_code == 2
    assert_one_message(result.stderr)
    assert "finds no CUDA device" in result.stderr
    assert snapshot(study) == before


def test_a_gpu_of_a_higher_number_than_there_are_is_usage(study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    result = run(f"{EXTRACT} --device cuda:2")
    assert result.exit_code == 2
    assert_one_message(result.stderr)
    assert "there are 2 CUDA devices, counted from 0" in result.stderr


@pytest.mark.parametrize("command", WRITING.values(), ids=WRITING.keys())
@pytest.mark.parametrize("place", ["features.h5/below", "/proc/nonexistent/below"])
def test_an_output_that_cannot_be_written_is_named(study, command, place):
    if place.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("there is no /proc")
    before = snapshot(study)
    result = run(f"{command} --out {place}")
    assert result.exit_code == 1, result.output
    assert_one_message(result.stderr)
    assert f"error: {place}" in result.stderr
    assert "cannot be" in result.stderr
    assert snapshot(study) == before


def test_an_output_that_is_a_pipe_stays_one(study):
    os.mkfifo(study / "pipe")
    result = run(f"{SPLIT} --out pipe")
    assert result.exit_code == 1
    assert_one_message(result.stderr)
    assert "pipe: is a device or pipe" in result.stderr
    assert (study / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["nowhere", "manifest.csv", "features.h5"])
def test_verification_lists_what_is_wrong_and_exits_with_1(study, name):
    cut("features.h5", 30_000)(study)
    before = snapshot(study)
    result = run(f"cache verify {name}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"{name}: ")
    assert snapshot(study) == before


def png(mode: str, side: int = 64) -> bytes:
    values = np.random.default_rng(side).integers(0, 256, (side, side), dtype=np.uint8)
    array = values.astype(np.uint16) * 257 if mode == "I;16" else values
    image = Image.fromarray(array)
    stream = io.BytesIO()
    (image if mode == "I;16" else image.convert(mode)).save(stream, "PNG")
    return stream.getvalue()


def handmade_png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """An RGB image whose header says what it likes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BAD_IMAGES = {
    "truncated": (png("RGB")[:1500], "damaged image"),
    "empty": (b"", "the file is empty"),
    "text": (b"not an image", "not a PNG"),
    "16-bit grey": (png("I;16"), "16-bit grey"),
    "16-bit RGB": (handmade_png(64, 64, 16, bytes(64 * (1 + 64 * 6))), "16-bit RGB"),
    "palette": (png("P"), "indexed in a palette"),
    "RGBA": (png("RGBA"), "RGB with transparency"),
    "grey": (png("L"), "8-bit grey"),
    "one pixel": (png("RGB", 1), "1×1 pixels, expected at least 32"),
    "huge": (handmade_png(20_000, 20_000, 8, b"0"), "20000×20000 pixels in 66 bytes: cut short"),
    "too huge": (handmade_png(30_000, 20_000, 8, b"0"), "30000×20000 pixels, expected at most"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_bad_image_is_listed_and_the_others_are_indexed(study, content, reason):
    write("data/malignant/s1/bad.png", content)(study)
    before = snapshot(study)
    result = run(INDEX)
    assert result.exit_code == 1
    assert_one_message(result.stderr)
    path = "data/malignant/s1/bad.png"
    assert f"  {path}: unreadable: " in result.stderr
    assert reason in result.stderr
    assert "new.csv: 12 images" in result.stdout
    assert read_manifest(study / "new.csv") == read_manifest(study / "manifest.csv")
    with (study / "new.problems.csv").open() as file:
        assert [(row["path"], row["kind"]) for row in csv.DictReader(file)] == [
            (path, "unreadable")
        ]
    made = snapshot(study)
    assert made.keys() - before.keys() == {"new.csv", "new.problems.csv"}
    assert run(f"{INDEX} --allow-failures 1").exit_code == 0
    assert snapshot(study) == made


def test_bad_images_count_against_those_that_are_allowed(study):
    for i, (content, _) in enumerate(BAD_IMAGES.values()):
        write(f"data/benign/s0/bad{i}.png", content)(study)
    codes = [
        run(f"{INDEX} --allow-failures {allowed}").exit_code
        for allowed in (len(BAD_IMAGES) - 1, len(BAD_IMAGES))
    ]
    assert codes == [1, 0]
    assert read_manifest(study / "new.csv") == read_manifest(study / "manifest.csv")


def test_a_table_with_an_id_twice_lists_the_second(study):
    lines = ["data/malignant/s1/image2.png,malignant,a", "data/malignant/s1/image3.png,malignant,b"]
    write("table.csv", TABLE + "\n".join(lines))(study)
    result = run("index table.csv --out new.csv")
    assert result.exit_code == 1
    assert_one_message(result.stderr)
    assert "image2.png: name: its image_id a is also that of data/benign" in result.stderr
    assert [row.image_id for row in read_manifest(study / "new.csv")] == ["a", "b"]


def test_without_a_good_image_there_is_no_manifest_but_a_list(study):
    for path in (study / "data").rglob("*.png"):
        path.write_bytes(b"")
    before = snapshot(study)
    result = run(f"{INDEX} --allow-failures 12")
    assert result.exit_code == 1
    assert_one_message(result.stderr)
    assert "none of 12 files can be used: new.problems.csv" in result.stderr
    assert snapshot(study).keys() - before.keys() == {"new.problems.csv"}


def break_images(folder):
    """Three images break in three ways after they were indexed."""
    (folder / "data/benign/s0/image0.png").write_bytes(png("RGB")[:1500])
    (folder / "data/benign/s2/image4.png").unlink()
    (folder / "data/malignant/s1/image2.png").write_bytes(b"")


def test_images_that_broke_after_indexing_are_listed_and_the_others_kept(study):
    break_images(study)
    before = snapshot(study)
    result = run(EXTRACT)
    assert result.exit_code == 1
    assert_one_message(result.stderr)
    for words in (
        "3 of 12 images could not be encoded",
        "data/benign/s0/image0.png: content changed",
        "data/benign/s2/image4.png: cannot be read (No such file",
        "--allow-failures 3",
    ):
        assert words in result.stderr
    made = snapshot(study).keys() - before.keys()
    assert not (study / "new.h5").exists()
    assert {name for name in made if not name.startswith("new.h5.shards")} == {"new.failures.csv"}
    assert not [name for name in made if name.endswith(".part")]

    assert run(f"{EXTRACT} --allow-failures 2").exit_code == 1
    allowed = run(f"{EXTRACT} --allow-failures 3")
    assert allowed.exit_code == 0
    assert "3 images have no features" in allowed.stdout
    check(study / "new.h5")
    with FeatureCache(study / "new.h5") as cache:
        assert len(cache) == 9
        assert [failure.path for failure in cache.failures] == [
            "data/benign/s0/image0.png",
            "data/benign/s2/image4.png",
            "data/malignant/s1/image2.png",
        ]
    assert not list(study.rglob("*.part"))


def test_images_smaller_than_a_patch_are_told_with_both_sizes(study):
    result = run(f"{EXTRACT} --patch-size 65")
    assert result.exit_code == 1
    assert_one_message(result.stderr)
    assert "12 of 12 images" in result.stderr
    assert "64×64 pixels, smaller than a patch of 65" in result.stderr
    assert "--allow-failures" not in result.stderr, "it would not help"
    assert not (study / "new.h5").exists()
    assert run(f"{EXTRACT} --patch-size 65 --edge pad").exit_code == 0


def raise_boom(*_args, **_options):
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    "fault", [MemoryError("4 TB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_is_no_internal_fault(study, monkeypatch, fault):
    def exhaust(*_args, **_options):
        raise fault

    monkeypatch.setattr("pipeline.dataset.manifest.read_manifest", exhaust)
    result = run(SPLIT)
    assert result.exit_code == 1
    assert f"error: not enough memory ({fault}): choose smaller" in result.stderr


def test_an_internal_fault_is_one_line_and_a_traceback_only_with_debug(study, monkeypatch):
    monkeypatch.setattr("pipeline.dataset.manifest.read_manifest", raise_boom)
    result = run(SPLIT)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "error: internal fault, RuntimeError: boom (see --debug, and report it)"
    ]
    debugged = run(f"--debug {SPLIT}")
    assert debugged.exit_code == 1
    assert "Traceback" in debugged.stderr
    assert "raise_boom" in debugged.stderr
    assert debugged.stderr.splitlines()[-1] == result.stderr.strip()


def test_a_fault_in_the_middle_of_an_extraction_leaves_no_half_file(study, monkeypatch):
    monkeypatch.setattr("pipeline.extraction.engines.ncnn_encoder.NcnnEncoder.encode", raise_boom)
    before = snapshot(study)
    result = run(EXTRACT)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    made = snapshot(study).keys() - before.keys()
    assert all(name.startswith("new.h5.shards") for name in made)
    assert not [name for name in made if name.endswith((".part", ".h5"))]


def test_an_expected_error_has_a_traceback_only_with_debug(study):
    assert "Traceback" not in run("split nowhere --out new.csv").stderr
    debugged = run("--debug split nowhere --out new.csv")
    assert debugged.exit_code == 2
    assert "Traceback" in debugged.stderr


def pipeline(*arguments, **options):
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, **options)


def test_a_real_process_gives_the_same_message_and_exit_code(study):
    found = pipeline("index", "nowhere", "--out", "new.csv", stdout=subprocess.PIPE)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == run("index nowhere --out new.csv").stderr
    wrong = pipeline("split", "--fold", "3", stdout=subprocess.PIPE)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("Usage: pipeline split")


def test_a_reader_that_has_gone_gives_no_traceback(study):
    reading, writing = os.pipe()
    os.close(reading)
    gone = pipeline(*shlex.split(INDEX), stdout=writing)
    os.close(writing)
    assert (gone.returncode, gone.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_message(study):
    with Path("/dev/full").open("w") as full:
        found = pipeline(*shlex.split(INDEX), stdout=full)
    assert found.returncode == 1
    assert_one_message(found.stderr)
    assert "No space left" in found.stderr
