"""A file made to deceive: refused from its description, before memory is given to it."""

import os
import shutil

import h5py
import numpy as np
import pytest
from opened import never_opened, replace_by_endless
from small_caches import DIM, write

from cache import CacheError, FeatureCache, verify
from cache.file_seal import write_file_seal


@pytest.fixture
def path(tmp_path, recipe):
    return write(tmp_path / "f.h5", recipe, [2, 3, 1])


def replace(name, **arguments):
    def change(file):
        del file[name]
        file.create_dataset(name, **arguments)

    return change


def linked(name, link):
    def change(file):
        file.copy(name, "kept")
        del file[name]
        file[name] = link

    return change


def virtual(file):
    layout = h5py.VirtualLayout((6, DIM), "<f2")
    layout[:] = h5py.VirtualSource(str(file.filename) + ".secret", "features", (6, DIM))
    del file["features"]
    file.create_virtual_dataset("features", layout)


def endless(file):
    replace_by_endless(file, "features", file.filename + ".secret")


def attribute(value, **arguments):
    def change(file):
        del file.attrs["provenance"]
        file.attrs.create("provenance", value, **arguments)

    return change


def reference(file):
    file.attrs.create("provenance", file["features"].ref, dtype=h5py.ref_dtype)


def cycle(file):
    del file["images"]
    file["images"] = file["/"]


def many_attributes(file):
    for i in range(300):
        file.attrs[f"a{i}"] = "x"


CHUNKED = {"chunks": (1, DIM), "fletcher32": True, "maxshape": (None, DIM)}

HOSTILE = {
    "external link": linked("features", h5py.ExternalLink("other.h5", "features")),
    "link by name": linked("features", h5py.SoftLink("/kept")),
    "group that is an external link": linked("images", h5py.ExternalLink("other.h5", "images")),
    "cyclic group": cycle,
    "virtual dataset": virtual,
    "virtual dataset without end": endless,
    "external storage": replace(
        "features", shape=(6, DIM), dtype="<f2", external=[("secret", 0, 6 * DIM * 2)]
    ),
    "absurd shape": replace("features", shape=(2**40, DIM), dtype="<f2", **CHUNKED),
    "absurd chunk": replace(
        "features", shape=(6, DIM), dtype="<f2", **{**CHUNKED, "chunks": (2**28, DIM)}
    ),
    "absurd text": replace("images/label", shape=(3,), dtype="S1000000000", chunks=(1,)),
    "text of variable length": replace("images/label", data=["a", "b", "c"]),
    "no checksum": replace("features", data=np.zeros((6, DIM), "<f2"), chunks=(1, DIM)),
    "compression": replace(
        "features", data=np.zeros((6, DIM), "<f2"), compression="gzip", **CHUNKED
    ),
    "big-endian": replace("features", data=np.zeros((6, DIM), ">f2"), **CHUNKED),
    "object references": replace("features", shape=(6, DIM), dtype=h5py.ref_dtype),
    "scalar": replace("offsets", data=1),
    "no values at all": replace("offsets", data=h5py.Empty("<i8")),
    "a group for a dataset": lambda file: (file.pop("features"), file.create_group("features")),
    "attribute of references": reference,
    "array attribute": attribute(["a"] * 1000),
    "number attribute": attribute(5),
    "many attributes": many_attributes,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_hdf5_is_refused(path, kind):
    with h5py.File(path, "r+") as file:
        HOSTILE[kind](file)
    write_file_seal(path)
    with pytest.raises(CacheError, match=r"f\.h5: "):
        FeatureCache(path)
    assert verify(path)


@pytest.mark.parametrize("kind", ["virtual dataset", "virtual dataset without end"])
def test_no_file_that_a_virtual_dataset_names_is_opened(path, kind):
    secret = path.with_name("f.h5.secret")
    shutil.copy(path, secret)
    with h5py.File(path, "r+") as file:
        HOSTILE[kind](file)
    write_file_seal(path)
    with never_opened(secret), pytest.raises(CacheError, match="not stored in chunks"):
        FeatureCache(path)


def test_every_fault_of_the_structure_is_listed(path):
    with h5py.File(path, "r+") as file:
        HOSTILE["big-endian"](file)
        del file["images/case"]
        HOSTILE["scalar"](file)
    text = "\n".join(verify(path))
    for name in ("features", "images/case", "offsets"):
        assert name in text


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "f.h5")
    with pytest.raises(CacheError, match="no such file"):
        FeatureCache(tmp_path / "f.h5")


def test_more_features_than_memory_are_refused(path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    with pytest.raises(CacheError, match="of memory"), FeatureCache(path) as cache:
        cache.load()
