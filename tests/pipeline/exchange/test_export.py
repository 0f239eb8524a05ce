"""`pipeline cache export`: files as other tools document and read them."""

import csv
import importlib.util
import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from small_caches import DIM, coords_of, features_of, make_recipe, make_row, write

from cache import CacheError, Failure, FeatureCache, PublishError, write_cache
from pipeline.dataset.manifest import read_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.exchange import exporting, folders, to_anndata
from pipeline.exchange.commands import export_cache
from pipeline.exchange.exporting import export
from pipeline.exchange.options import Options
from pipeline.exchange.source import Source
from pipeline.interrupts import Interruption, StoppedError
from pipeline.torchvision_shim import import_torchvision

LAYOUTS = ["trident", "clam", "stamp", "torchmil", "anndata", "numpy"]
LENGTHS = [3, 1, 2]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Three images of two patients, and one without features. Only to be read."""
    path = tmp_path_factory.mktemp("cache") / "features.h5"
    with write_cache(path, make_recipe(stride=112), {"made": "by a test"}) as writer:
        for i, patches in enumerate(LENGTHS):
            label, magnification = ("benign", 40) if i < 2 else ("malignant", 0)
            changes = {"label": label, "case": f"c{i // 2}", "magnification": magnification}
            row = make_row(f"image{i}", **changes)
            writer.append(row, features_of(i, patches), coords_of(patches) * 100)
        writer.fail(Failure("lost", "lost.png", "damaged"))
    return path


def options_for(layout, **changes):
    return Options(mpp=0.5 if layout == "stamp" else None, **changes)


def exported(path, layout, tmp_path):
    export(path, layout, tmp_path / "out", options_for(layout))
    return tmp_path / "out"


def half(i):
    return features_of(i, LENGTHS[i]).astype(np.float16)


def table(path):
    with path.open(newline="") as file:
        return [tuple(line) for line in csv.reader(file)]


def names_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_trident_files_have_the_datasets_and_attributes_that_trident_writes(path, tmp_path):
    folder = exported(path, "trident", tmp_path)
    for i, patches in enumerate(LENGTHS):
        with h5py.File(folder / "features_vgg16" / f"image{i}.h5") as file:
            assert sorted(file) == ["coords", "features"]
            features, coords = file["features"], file["coords"]
            assert (features.dtype, coords.dtype) == (np.float32, np.int64)
            assert np.array_equal(features[:], half(i))
            assert np.array_equal(coords[:], coords_of(patches) * 100)
            assert dict(features.attrs) == {
                "encoder": "vgg16",
                "name": f"image{i}",
                "savetodir": "features_vgg16",
            }
            assert dict(coords.attrs) == {
                "patch_size": 224,
                "patch_size_level0": 224,
                "level0_magnification": 40 if i < 2 else "None",
                "target_magnification": 40 if i < 2 else "None",
                "overlap": 112,
                "name": f"image{i}",
                "savetodir": "features_vgg16",
                "level0_width": 700,
                "level0_height": 460,
            }


def test_clam_gets_h5_and_pt_files_and_a_table(path, tmp_path):
    import torch

    folder = exported(path, "clam", tmp_path)
    for i, patches in enumerate(LENGTHS):
        with h5py.File(folder / "h5_files" / f"image{i}.h5") as file:
            assert sorted(file) == ["coords", "features"]
            assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int32)
            assert np.array_equal(file["features"][:], half(i))
            assert np.array_equal(file["coords"][:], coords_of(patches) * 100)
        tensor = torch.load(folder / "pt_files" / f"image{i}.pt", weights_only=True)
        assert tensor.dtype == torch.float32
        assert np.array_equal(tensor.numpy(), half(i))
    assert table(folder / "dataset.csv") == [
        ("case_id", "slide_id", "label"),
        ("c0", "image0", "benign"),
        ("c0", "image1", "benign"),
        ("c1", "image2", "malignant"),
    ]


def test_stamp_files_hold_micrometres_and_what_stamp_asks_for(path, tmp_path):
    folder = exported(path, "stamp", tmp_path)
    for i, patches in enumerate(LENGTHS):
        with h5py.File(folder / "features" / f"image{i}.h5") as file:
            assert sorted(file) == ["coords", "feats"]
            assert (file["feats"].dtype, file["coords"].dtype) == (np.float16, np.float32)
            assert np.array_equal(file["feats"][:], half(i))
            assert np.array_equal(file["coords"][:], coords_of(patches) * 50)
            assert dict(file.attrs) == {
                "extractor": "vgg16",
                "unit": "um",
                "tile_size_um": 112.0,
                "tile_size_px": 224,
                "stamp_version": "2.1.0",
                "feat_type": "tile",
            }
    clini = [("PATIENT", "label"), ("c0", "benign"), ("c1", "malignant")]
    assert table(folder / "clini.csv") == clini
    assert table(folder / "slide.csv") == [
        ("PATIENT", "FILENAME"),
        ("c0", "image0.h5"),
        ("c0", "image1.h5"),
        ("c1", "image2.h5"),
    ]


def test_stamp_needs_the_size_of_a_pixel(path, tmp_path):
    with pytest.raises(UsageError, match="--mpp is missing"):
        export(path, "stamp", tmp_path / "out")


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_a_size_of_a_pixel_that_is_none_is_refused(path, tmp_path, mpp):
    with pytest.raises(UsageError, match="expected micrometres"):
        export(path, "stamp", tmp_path / "out", Options(mpp=mpp))


def test_an_option_that_would_do_nothing_is_refused(path, tmp_path):
    with pytest.raises(UsageError, match="--mpp is for stamp"):
        export(path, "clam", tmp_path / "out", Options(mpp=0.5))


def test_a_patient_with_two_labels_is_not_given_to_stamp(tmp_path):
    with write_cache(tmp_path / "f.h5", make_recipe(), {}) as writer:
        for label in ("benign", "malignant"):
            writer.append(make_row(label, label=label), features_of(0, 1), coords_of(1))
    with pytest.raises(PipelineError, match=r"malignant.*patient 'c1' has 'benign'"):
        export(tmp_path / "f.h5", "stamp", tmp_path / "out", Options(mpp=0.5))


def test_coordinates_that_micrometres_cannot_hold_are_refused(tmp_path):
    with write_cache(tmp_path / "f.h5", make_recipe(), {}) as writer:
        writer.append(make_row("far"), features_of(0, 1), np.array([[2**30 + 1, 0]]))
    with pytest.raises(PipelineError, match="far: coordinates up to 1,073,741,825"):
        export(tmp_path / "f.h5", "stamp", tmp_path / "out", Options(mpp=0.3))


def test_torchmil_folders_hold_an_array_an_image(path, tmp_path):
    folder = exported(path, "torchmil", tmp_path)
    for i, patches in enumerate(LENGTHS):
        features, label, coords = (
            np.load(folder / part / f"image{i}.npy", allow_pickle=False)
            for part in ("features", "labels", "coords")
        )
        assert (features.dtype, label.dtype, coords.dtype) == (np.float32, np.int64, np.int64)
        assert np.array_equal(features, half(i))
        assert label.tolist() == [i // 2]
        assert np.array_equal(coords, coords_of(patches) * 100)
    record = json.loads((folder / "export.json").read_text())
    assert (record["classes"], record["dist_thr"]) == (["benign", "malignant"], 168.0)


@pytest.fixture(scope="session")
def torchmil_datasets():
    if importlib.util.find_spec("torchmil") is None:
        pytest.skip("torchmil is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_torchvision()
        return importlib.import_module("torchmil.datasets")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's, in torchmil's code
def test_torchmil_reads_its_export(path, tmp_path, torchmil_datasets):
    folder = exported(path, "torchmil", tmp_path)
    dataset = torchmil_datasets.ProcessedMILDataset(
        *(str(folder / part) for part in ("features", "labels")),
        coords_path=str(folder / "coords"),
        bag_keys=["X", "Y", "adj", "coords"],
        dist_thr=json.loads((folder / "export.json").read_text())["dist_thr"],
    )
    assert dataset.get_bag_names() == ["image0", "image1", "image2"]
    for i, patches in enumerate(LENGTHS):
        bag = dataset[i]
        assert np.array_equal(bag["X"].numpy(), half(i))
        assert bag["Y"].tolist() == [i // 2]
        assert np.array_equal(bag["coords"].numpy(), coords_of(patches) * 100)
        assert bag["adj"].shape == (patches, patches)


def test_torchmils_reader_of_trident_reads_the_export_to_trident(path, tmp_path, torchmil_datasets):
    folder = exported(path, "trident", tmp_path)
    dataset = torchmil_datasets.TridentWSIDataset(f"{folder}/", "", "vgg16", bag_keys=["X"])
    assert dataset.get_bag_names() == ["image0", "image1", "image2"]
    for i in range(3):
        assert np.array_equal(dataset[i]["X"].numpy(), half(i))


def test_anndata_reads_its_export(path, tmp_path):
    anndata = pytest.importorskip("anndata")
    found = anndata.read_h5ad(exported(path, "anndata", tmp_path) / "features.h5ad")
    coords = np.concatenate([coords_of(patches) * 100 for patches in LENGTHS])
    assert found.X.dtype == np.float32
    assert np.array_equal(found.X, np.concatenate([half(i) for i in range(3)]))
    assert np.array_equal(found.obsm["spatial"], coords)
    assert np.array_equal(found.obs[["x", "y"]].to_numpy(), coords)
    assert found.obs_names.tolist()[:4] == ["image0-0", "image0-1", "image0-2", "image1-0"]
    assert found.obs["image_id"].tolist() == ["image0"] * 3 + ["image1"] + ["image2"] * 2
    assert found.obs["label"].tolist() == ["benign"] * 4 + ["malignant"] * 2
    assert found.obs["case"].tolist() == ["c0"] * 4 + ["c1"] * 2
    assert set(found.obs["slide"]) == {"s1"}
    assert set(found.obs["subtype"]) == {""}
    assert found.obs["magnification"].tolist() == [40] * 4 + [0] * 2
    assert json.loads(found.uns["recipe"])["encoder"] == "vgg16"
    assert found.uns["fingerprint"] == make_recipe(stride=112).fingerprint


def test_without_anndata_the_error_names_the_package(path, tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(to_anndata.importlib, "import_module", missing)
    with pytest.raises(PipelineError, match=r"needs the package anndata.*pip install"):
        export(path, "anndata", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_numpy_arrays_are_those_of_the_cache(path, tmp_path):
    folder = exported(path, "numpy", tmp_path)
    with FeatureCache(path) as cache:
        for name, values in [
            ("features", cache.features()),
            ("coords", cache.all_coords()),
            ("offsets", cache.offsets),
        ]:
            found = np.load(folder / f"{name}.npy", allow_pickle=False)
            assert found.dtype == values.dtype
            assert np.array_equal(found, values)
        assert (folder / "recipe.json").read_text().strip() == cache.recipe.to_json()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_export_says_what_it_was_made_from(path, tmp_path, layout):
    if layout == "anndata":
        pytest.importorskip("anndata")
    folder = exported(path, layout, tmp_path)
    record = json.loads((folder / "export.json").read_text())
    with FeatureCache(path) as cache:
        assert record["layout"] == layout
        assert record["recipe"] == json.loads(cache.recipe.to_json())
        assert record["fingerprint"] == record["cache_fingerprint"] == cache.fingerprint
        assert record["features_sha256"] == cache.attributes["features_sha256"]
        assert read_manifest(folder / "images.csv") == cache.images.rows()
    counts = [record[name] for name in ("images", "patches", "feature_dim", "without_features")]
    assert counts == [3, 6, DIM, 1]
    assert record["mpp"] == (0.5 if layout == "stamp" else None)


def test_the_verb_says_what_it_wrote(path, tmp_path):
    words = [str(path), "--to", "numpy", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(export_cache, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'out'}: 3 images, 6 patches of 4 features\n"


def test_an_earlier_export_is_replaced_only_if_that_is_asked_for(path, tmp_path):
    folder = exported(path, "clam", tmp_path)
    with pytest.raises(UsageError, match="--overwrite"):
        export(path, "numpy", folder)
    assert (folder / "dataset.csv").exists()
    export(path, "numpy", folder, Options(overwrite=True))
    names = ["coords.npy", "export.json", "features.npy", "images.csv", "offsets.npy"]
    assert names_in(folder) == [*names, "recipe.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_no_export_is_never_replaced(path, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not an export"):
        export(path, "numpy", tmp_path, Options(overwrite=True))
    assert names_in(tmp_path) == ["thesis.tex"]


def test_the_folder_of_the_cache_itself_is_never_replaced(tmp_path):
    path = write(tmp_path / "f.h5", make_recipe(), [1])
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(UsageError, match=r"holds f\.h5, the input"):
        export(path, "numpy", tmp_path, Options(overwrite=True))


def test_an_empty_folder_is_taken(path, tmp_path):
    (tmp_path / "out").mkdir()
    assert exported(path, "numpy", tmp_path).is_dir()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there_and_nothing_else(path, tmp_path, monkeypatch, error):
    folder = exported(path, "clam", tmp_path)
    before = names_in(folder)

    def fail(source, content, options):
        (content / "half").write_text("half")
        raise error

    monkeypatch.setitem(exporting._WRITERS, "numpy", fail)
    expected = PublishError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        export(path, "numpy", folder, Options(overwrite=True))
    assert names_in(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_earlier_export_comes_back_if_the_new_one_cannot_take_its_place(
    path, tmp_path, monkeypatch
):
    folder = exported(path, "clam", tmp_path)
    rename = Path.rename

    def fail(self, target):
        if self.name == "out" and self.parent != tmp_path:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PublishError, match="Input/output"):
        export(path, "numpy", folder, Options(overwrite=True))
    assert "dataset.csv" in names_in(folder)


def test_every_file_is_on_the_disk_before_the_folder_has_its_name(path, tmp_path, monkeypatch):
    flushed, flush = [], folders.flush

    def note(name):
        assert name == tmp_path or not (tmp_path / "out").exists()
        flushed.append(name.name)
        flush(name)

    monkeypatch.setattr(folders, "flush", note)
    folder = exported(path, "trident", tmp_path)
    names = [Path(name).name for name in names_in(folder)]
    assert sorted(flushed[:-1]) == sorted([*names, "features_vgg16", "out"])
    assert flushed[-1] == tmp_path.name


@pytest.mark.parametrize("checksum", ["wrong", "right"])
def test_a_damaged_cache_is_not_exported(path, tmp_path, checksum):
    content = bytearray(path.read_bytes())
    content[-9] ^= checksum == "wrong"
    (tmp_path / "f.h5").write_bytes(content)
    if checksum == "right":  # as another program would change it: only the seal tells
        with h5py.File(tmp_path / "f.h5", "r+") as file:
            file["features"][0, 0] = 7
    with pytest.raises(CacheError, match=r"f\.h5: "):
        export(tmp_path / "f.h5", "numpy", tmp_path / "out")
    assert names_in(tmp_path) == ["f.h5"]


def test_of_several_views_one_is_exported_and_must_be_named(tmp_path):
    recipe = make_recipe(views=("identity", "rot90"))
    path = write(tmp_path / "f.h5", recipe, [4, 2])
    with pytest.raises(UsageError, match="identity, rot90, of which other tools know only one"):
        export(path, "numpy", tmp_path / "out")
    with pytest.raises(UsageError, match="not flip_x"):
        export(path, "numpy", tmp_path / "out", Options(view="flip_x"))
    export(path, "trident", tmp_path / "out", Options(view="rot90"))
    with FeatureCache(path) as cache, h5py.File(tmp_path / "out/features_vgg16/image0.h5") as file:
        assert np.array_equal(file["features"][:], cache.sequence(0, 1))
        assert np.array_equal(file["coords"][:], cache.coords(0, 1))
        sizes = [file["coords"].attrs[f"level0_{side}"] for side in ("width", "height")]
    assert sizes == [460, 700]  # a quarter turn of 700 × 460
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert (record["recipe"]["views"], record["patches"]) == (["rot90"], 3)


@pytest.mark.parametrize("layout", ["anndata", "numpy"])
def test_whole_arrays_hold_the_rows_of_one_view(tmp_path, layout):
    path = write(tmp_path / "f.h5", make_recipe(views=("identity", "flip_x")), [4, 2])
    with FeatureCache(path) as cache:
        features = np.concatenate([cache.sequence(i, 1) for i in range(2)])
        coords = np.concatenate([cache.coords(i, 1) for i in range(2)])
    if layout == "anndata":
        anndata = pytest.importorskip("anndata")
        export(path, layout, tmp_path / "out", Options(view="flip_x"))
        found = anndata.read_h5ad(tmp_path / "out/features.h5ad")
        found = found.X, found.obsm["spatial"]
    else:
        export(path, layout, tmp_path / "out", Options(view="flip_x"))
        found = [np.load(tmp_path / "out" / f"{name}.npy") for name in ("features", "coords")]
    assert np.array_equal(found[0], features)
    assert np.array_equal(found[1], coords)


def test_a_signal_stops_between_two_images(path):
    interruption = Interruption()
    with FeatureCache(path) as cache:
        images = Source(cache, 0, interruption, lambda n: None).images()
        next(images)
        interruption.signum = 15
        with pytest.raises(StoppedError, match="nothing was exported"):
            next(images)
