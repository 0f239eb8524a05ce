"""Model and weights files with forged headers are refused before memory is given to them."""

import json
import math
import os
import struct
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from forged_models import (
    joined,
    parts_of,
    with_array,
    with_entry,
    with_metadata,
    with_sizes,
    with_values,
    write_model,
)
from measured import memory, reset_peak
from small_fits import CLASSES, prediction, write_fits

from pipeline.errors import UsageError
from pipeline.fitting import model_file
from pipeline.fitting.model_file import load_model
from pipeline.fitting.networks import MAX_PARAMETERS, LstmNetwork, NetworkSizes
from pipeline.fitting.predictions import file_sha256
from pipeline.fitting.record import read_fits
from pipeline.safetensors_file import MAX_BYTES, MAX_HEADER
from pipeline.weights import formats, weights_file
from pipeline.weights.formats import read_vgg16_arrays
from pipeline.weights.weights_file import load_weights

NAN = struct.pack("<f", float("nan"))
COLUMNS, LEVEL, MEAN, BASIS = (
    f"whitening.{name}" for name in ("columns", "level", "mean", "basis")
)
REFERENCES = "familiar.references"
DEEP = "[" * 100_000 + "]" * 100_000


def replaced_values(data, value):
    header, arrays = parts_of(data)
    return joined(header, value * (len(arrays) // len(value)))


def swapped(data):
    header, arrays = parts_of(data)
    names = "layers.0.0.recurrence", "layers.0.1.inputs.weight"
    header[names[0]], header[names[1]] = header[names[1]], header[names[0]]
    return joined(header, arrays)


SIZES = {
    "hidden": 10**9,
    "layers": 10**9,
    "projection": 2**63,
    "inputs": 10**30,
    "members": 100,
    "outputs": 1024,
    "dropout": float("nan"),
    "bidirectional": 1,
}

FORGED = {
    **{
        f"{name} is {value}": lambda data, n=name, v=value: with_sizes(data, **{n: v})
        for name, value in SIZES.items()
    },
    **{
        f"hidden is {value!r}": lambda data, v=value: with_sizes(data, hidden=v)
        for value in (-1, 0, True, 2.0, "2", None, [2], {"a": 1}, 3, 8192)
    },
    "layers too many for the arrays": lambda data: with_sizes(data, layers=16),
    "a size that is not known": lambda data: with_sizes(data, width=3),
    "sizes deeply nested": lambda data: with_metadata(data, sizes=DEEP),
    "sizes with a number of 100,000 digits": lambda data: with_metadata(
        data, sizes='{"hidden": ' + "9" * 100_000 + "}"
    ),
    "sizes that are a list": lambda data: with_metadata(data, sizes="[4, 3, 2]"),
    "no sizes": lambda data: with_metadata(data, sizes=None),
    "a recipe deeply nested": lambda data: with_metadata(data, recipe=DEEP),
    "a recipe of another fingerprint": lambda data: with_metadata(data, fingerprint="0" * 64),
    "no recipe": lambda data: with_metadata(data, recipe=None),
    **{
        f"classes {labels}": lambda data, v=labels: with_metadata(data, classes=json.dumps(v))
        for labels in (
            ["a"],
            ["a", "a"],
            ["a", ""],
            ["a", 1],
            "ab",
            {"a": 1, "b": 2},
            ["a", "\x1b"],
            ["a", "b", "c"],
            [f"class{i}" for i in range(1025)],
        )
    },
    **{
        f"{name} {text[:20]}": lambda data, n=name, v=text: with_metadata(data, **{n: v})
        for name, texts in {
            "temperature": ("0.0", "-1.0", "NaN", "Infinity", "null", "1", "true", '"1"', "", DEEP),
            "threshold": ("-0.1", "1.5", "NaN", "null", "[0.5]", "true", "9" * 5000, DEEP),
            "target": ("", "slide", "\x1b"),
            "limit": ("0.0", "-1.0", "NaN", "Infinity", "null", "1", "true", DEEP),
        }.items()
        for text in texts
    },
    "no temperature": lambda data: with_metadata(data, temperature=None),
    "no limit": lambda data: with_metadata(data, limit=None),
    "no threshold": lambda data: with_metadata(data, threshold=None),
    **{
        f"fold {fold}": lambda data, v=fold: with_metadata(data, fold=v)
        for fold in ("-1", "1_0", "1.5", "", "true", "9" * 5000, "١")
    },
    "a protocol that controls the terminal": lambda data: with_metadata(data, protocol="\x1b[2J"),
    "another format": lambda data: with_metadata(data, format="\x1b" * 5000),
    "no metadata": lambda data: joined(
        {k: v for k, v in parts_of(data)[0].items() if k != "__metadata__"}, parts_of(data)[1]
    ),
    "an array of terabytes": lambda data: with_entry(
        data, "logit.weight", shape=[1, 10**12], data_offsets=[0, 4 * 10**12]
    ),
    "an array of another type": lambda data: with_entry(data, "logit.weight", dtype="I32"),
    "an array of another name": lambda data: data.replace(b'"logit.bias"', b'"logit.bath"'),
    "an array too many": lambda data: with_entry(
        data, "more", dtype="F32", shape=[0], data_offsets=[len(parts_of(data)[1])] * 2
    ),
    "arrays that change places": swapped,
    "a shape that overflows": lambda data: with_entry(data, MEAN, shape=[2**62, 4]),
    "a negative shape": lambda data: with_entry(data, MEAN, shape=[-4]),
    "arrays that overlap": lambda data: with_entry(data, MEAN, data_offsets=[4, 16]),
    "values that are not finite": lambda data: replaced_values(data, NAN),
    "one weight that is not finite": lambda data: with_values(data, "logit.weight", NAN),
    **{
        f"column {column}": lambda data, v=column: with_values(data, COLUMNS, struct.pack("<q", v))
        for column in (-1, 4, 2**31, 2**63 - 1, -(2**63))
    },
    **{
        f"{name} that is not finite": lambda data, n=name: with_values(data, f"whitening.{n}", NAN)
        for name in ("level", "mean", "basis")
    },
    "a negative level": lambda data: with_values(data, LEVEL, struct.pack("<f", -1.0)),
    "a level of 0 for some": lambda data: with_values(data, LEVEL, bytes(4)),
    "columns of another type": lambda data: with_array(data, COLUMNS, "I32", [3], bytes(12)),
    "columns that are no numbers": lambda data: with_array(data, COLUMNS, "F32", [3], bytes(12)),
    "columns of two dimensions": lambda data: with_array(data, COLUMNS, "I64", [3, 1], bytes(24)),
    "no columns": lambda data: with_array(data, COLUMNS, "I64", [0], b""),
    "columns that are one number": lambda data: with_array(data, COLUMNS, "I64", [], bytes(8)),
    "nothing used at all": lambda data: with_array(
        with_array(with_array(data, COLUMNS, "I64", [0], b""), LEVEL, "F32", [0], b""),
        *(MEAN, "F32", [0], b""),
    ),
    "more columns than features": lambda data: with_array(data, COLUMNS, "I64", [5], bytes(40)),
    "a mean of another length": lambda data: with_array(data, MEAN, "F32", [2], bytes(8)),
    "a mean of halves": lambda data: with_array(data, MEAN, "F16", [3], bytes(6)),
    "a basis for other inputs": lambda data: with_array(data, BASIS, "F32", [3, 3], bytes(36)),
    "a basis turned over": lambda data: with_array(data, BASIS, "F32", [2, 3], bytes(24)),
    "a basis of factors for fewer inputs": lambda data: with_array(
        data, BASIS, "F32", [3], bytes(12)
    ),
    "no basis": lambda data: data.replace(b'"whitening.basis"', b'"whitening.bases"'),
    **{
        f"references of shape {shape}": lambda data, v=shape: with_array(
            data, REFERENCES, "F32", v, bytes(4 * math.prod(v))
        )
        for shape in ([0, 2], [2], [5, 3], [5, 2, 1], [], [4097, 2])
    },
    "references of halves": lambda data: with_array(data, REFERENCES, "F16", [2, 2], bytes(8)),
    "references that are not finite": lambda data: with_values(data, REFERENCES, NAN),
    "no references": lambda data: data.replace(b'"familiar.references"', b'"familiar.preferences"'),
    "a whitening array too many": lambda data: with_array(
        data, "whitening.more", "F32", [1], bytes(4)
    ),
    "a header that is longer than the file": lambda data: joined(b"{}", b"", 2**63),
    "a header of a gigabyte": lambda data: joined(b"{}", b"", 1 << 30),
    "a header just too long": lambda data: joined(b"{}".ljust(MAX_HEADER + 1), b""),
    "a header of brackets": lambda data: joined(b"[" * MAX_HEADER, b""),
    "a header of arrays": lambda data: joined(
        {f"a{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(15_000)},
        b"",
    ),
    "nothing": lambda data: b"",
    "seven bytes": lambda data: data[:7],
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors").read_bytes()


def test_the_sound_model_is_read(tmp_path, sound):
    (tmp_path / "m").write_bytes(sound)
    assert load_model(tmp_path / "m").classes == ("benign", "malignant")


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_model_is_refused_by_name_before_memory_is_given_to_it(tmp_path, sound, kind):
    path = tmp_path / "m.safetensors"
    path.write_bytes(FORGED[kind](sound))
    reset_peak()
    before, began = memory("VmRSS"), time.perf_counter()
    with pytest.raises(UsageError) as caught:
        load_model(path)
    assert memory("VmHWM") - before < 100_000_000
    assert time.perf_counter() - began < 5
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < 1000


def test_nothing_is_built_before_the_arrays_are_those_of_the_sizes(tmp_path, sound, monkeypatch):
    built = []

    class Watched(LstmNetwork):
        def __init__(self, sizes):
            super().__init__(sizes)
            built.append(self.logit.weight.device.type)

    monkeypatch.setattr(model_file, "LstmNetwork", Watched)
    (tmp_path / "m").write_bytes(with_sizes(sound, hidden=2048, projection=2048))
    with pytest.raises(UsageError, match="expected the"):
        load_model(tmp_path / "m")
    assert built == ["meta"]


READERS = {"model": load_model, "weights": load_weights, "others' weights": read_vgg16_arrays}
NO_FILES = {
    "pipe": (os.mkfifo, "a pipe or device"),
    "folder": (Path.mkdir, "Is a directory"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a pipe or device"),
    "nothing": (lambda path: None, "No such file"),
    "link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, reader, kind):
    make, reason = NO_FILES[kind]
    make(tmp_path / "m")
    with pytest.raises(UsageError, match=reason):
        READERS[reader](tmp_path / "m")


@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_ten_gigabytes_is_refused_unread(tmp_path, reader):
    with (tmp_path / "m").open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(UsageError, match=f"expected at most {MAX_BYTES:,}"):
        READERS[reader](tmp_path / "m")


@pytest.mark.parametrize("reader", ["weights", "others' weights"])
@pytest.mark.parametrize(
    "data",
    [
        joined(b"{}", b"", 1 << 30),
        joined(b"{" + b"[" * 100_000, b""),
        joined(
            {"\x1b[2J" + "x" * 9000: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, b""
        ),
        joined(
            {"features.0.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 0]}}, b""
        ),
    ],
    ids=["long header", "brackets", "escapes", "terabytes"],
)
def test_a_forged_weights_file_is_refused_in_words_that_can_be_shown(tmp_path, reader, data):
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(UsageError) as caught:
        READERS[reader](tmp_path / "m")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


class TestOthersWeights:
    @pytest.fixture(autouse=True)
    def small_layers(self, monkeypatch):
        shapes = {name: tuple(min(n, 4) for n in s) for name, s in weights_file.LAYERS.items()}
        for module in (weights_file, formats):
            monkeypatch.setattr(module, "LAYERS", shapes)

    def state(self):
        return {name: torch.zeros(shape) for name, shape in weights_file.LAYERS.items()}

    def keras(self, path, make):
        blocks = [
            f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)
        ]
        shapes = iter(weights_file.LAYERS.values())
        with h5py.File(path, "w") as file:
            for block in blocks:
                o, i, h, w = next(shapes)
                file[f"{block}/kernel"] = np.zeros((h, w, i, o), "<f4")
                file[f"{block}/bias"] = np.zeros(next(shapes), "<f4")
            make(file)

    def test_the_sound_files_are_read(self, tmp_path):
        torch.save(self.state(), tmp_path / "t")
        self.keras(tmp_path / "k", lambda file: None)
        for name in "tk":
            assert len(read_vgg16_arrays(tmp_path / name)) == 26

    def test_an_archive_that_expands_is_refused_unexpanded(self, tmp_path):
        torch.save(self.state(), tmp_path / "t")
        with (
            zipfile.ZipFile(tmp_path / "t") as old,
            zipfile.ZipFile(tmp_path / "m", "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for member in old.infolist():
                new.writestr(member.filename, old.read(member))
            new.writestr("archive/data/9", bytes(50_000_000))
        with pytest.raises(UsageError, match="packed, or too large"):
            read_vgg16_arrays(tmp_path / "m")

    def test_an_archive_of_a_hundred_thousand_members_is_refused_unlisted(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m", "w") as archive:
            for i in range(80_000):
                archive.writestr(f"{i}", b"")
        reset_peak()
        before = memory("VmRSS")
        with pytest.raises(UsageError, match="too many members"):
            read_vgg16_arrays(tmp_path / "m")
        assert memory("VmHWM") - before < 10_000_000

    def test_a_long_pickle_is_refused_unread(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m", "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + b"]" * 5_000_000)
        with pytest.raises(UsageError, match="packed, or too large"):
            read_vgg16_arrays(tmp_path / "m")

    def test_a_pickle_that_runs_code_is_refused_and_does_not(self, tmp_path):
        class Harm:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "harmed",))

        for name, options in (("new", {}), ("old", {"_use_new_zipfile_serialization": False})):
            torch.save({**self.state(), "x": Harm()}, tmp_path / name, **options)
            with pytest.raises(UsageError, match="more than tensors"):
                read_vgg16_arrays(tmp_path / name)
        assert not (tmp_path / "harmed").exists()

    @pytest.mark.parametrize("kind", ["external", "virtual", "chunk", "link"])
    def test_an_hdf5_file_that_leads_elsewhere_or_claims_too_much_is_refused(self, tmp_path, kind):
        (tmp_path / "secret").write_bytes(bytes(1000))
        name, shape = "block1_conv1/kernel", (3, 3, 3, 4)

        def change(file):
            del file[name]
            if kind == "external":
                external = [(str(tmp_path / "secret"), 0, 1000)]
                file.create_dataset(name, shape, "<f4", external=external)
            elif kind == "virtual":
                layout = h5py.VirtualLayout(shape, "<f4")
                layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape)
                file.create_virtual_dataset(name, layout)
            elif kind == "chunk":
                large = {"chunks": (3, 3, 3, 2**22), "maxshape": (3, 3, 3, None)}
                file.create_dataset(name, shape, "<f4", compression="gzip", **large)
            else:
                file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")

        self.keras(tmp_path / "other.h5", lambda file: file.create_dataset("x", shape, "<f4"))
        self.keras(tmp_path / "m", change)
        with pytest.raises(
            UsageError, match=r"not stored in chunks of this file|missing: features"
        ):
            read_vgg16_arrays(tmp_path / "m")


def test_sizes_that_would_fill_the_memory_are_refused_before_they_do():
    with pytest.raises(UsageError, match=f"expected at most {MAX_PARAMETERS:,}: choose a smaller"):
        NetworkSizes(4, 512, projection=8192, hidden=8192, layers=16)
    with pytest.raises(UsageError, match="hidden is 8193, expected 1 to 8192"):
        NetworkSizes(1, 512, hidden=8193)


def folder_of_fits(tmp_path):
    rows = [prediction(0, f"c{label}", label, 0.25) for label in CLASSES]
    write_fits(tmp_path / "fits", rows, {"colour": rows})
    return tmp_path / "fits"


def with_record(folder, **changes):
    path = folder / "fold0/fit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


TABLE = {"sha256": "0" * 64, "temperature": 1.0, "threshold": 0.5}
RECORDS = {
    **{
        f"companion {name!r}": {"companions": {name: TABLE}}
        for name in (
            "../x",
            "/etc/passwd",
            "",
            ".",
            "predictions",
            "colour\0",
            "x" * 10_000,
            "\x1b",
        )
    },
    **{
        f"companions {value!r:.40}": {"companions": value}
        for value in (
            *([], None, "colour", {"colour": []}, {"colour": {}}, {"colour": None}),
            *({"colour": {**TABLE, "sha256": 3}}, {"colour": {**TABLE, "sha256": None}}),
            *({"colour": {**TABLE, "temperature": "hot"}}, {"colour": {**TABLE, "threshold": []}}),
            *({"colour": {**TABLE, "temperature": 0.0}}, {"colour": {**TABLE, "threshold": 7}}),
            {"colour": {"sha256": "0" * 64}},
        )
    },
    **{
        f"{name} {value!r:.40}": {name: value}
        for name, values in {
            "repeat": (-1, 1, 1.5, "0", None, True),
            "repeats": (0, 3, 10**30, "1"),
            "folds": (0, 2, 10**9, -1),
            "fold": (1, -1),
            "labels": ([], ["a"], ["a", "a"], ["a", 1], "ab", None, ["a", "\x1b"], ["a"] * 2000),
            "target": ("", "slide", "\x1b", 1),
            "temperature": (0, -1.0, "1", None, True, float("nan"), float("inf")),
            "threshold": (-0.5, 2, "0.5", True, float("nan"), None),
            "train_magnification": (1.5, "40", None, -1),
            "notes": ("text", [1], ["\x1b"], None),
            "chosen": (1, None, "\x1b"),
            "audit_sha256": ("0" * 64, 1, None),
            "options": ([], "x"),
            "seconds": ("1",),
            "more": (1,),
        }.items()
        for value in values
    },
}


def test_the_sound_fits_are_read(tmp_path):
    assert read_fits(folder_of_fits(tmp_path)).companions.keys() == {"colour"}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_forged_record_is_refused_by_name(tmp_path, kind):
    folder = folder_of_fits(tmp_path)
    with_record(folder, **RECORDS[kind])
    with pytest.raises(UsageError) as caught:
        read_fits(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}")
    assert message.isprintable()
    assert len(message) < 1000


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{", DEEP, '{"a": ' + "9" * 5000 + "}"])
def test_a_forged_audit_is_refused_by_name_even_with_its_digest(tmp_path, text):
    folder = folder_of_fits(tmp_path)
    (folder / "audit.json").write_text(text)
    with_record(folder, audit_sha256=file_sha256(folder / "audit.json"))
    with pytest.raises(UsageError, match=r"audit\.json: "):
        read_fits(folder)


@pytest.mark.parametrize("name", ["fit.json", "predictions.csv", "colour.csv", "../audit.json"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_among_the_fits_is_refused_and_not_waited_for(tmp_path, name, kind):
    folder = folder_of_fits(tmp_path)
    path = (folder / "fold0" / name).resolve()
    path.unlink()
    NO_FILES[kind][0](path)
    with pytest.raises(UsageError):
        read_fits(folder)
