"""`pipeline cache import`: nothing is lost, nothing is taken on trust."""

import csv
import dataclasses
import json
import os
import pickle
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import never_opened, replace_by_endless
from small_caches import make_recipe, make_row

from cache import FeatureCache, write_cache
from cache.verify import verify
from pipeline.dataset.manifest import write_manifest
from pipeline.errors import PipelineError, UsageError
from pipeline.exchange.commands import import_cache
from pipeline.exchange.describe import Described
from pipeline.exchange.exporting import export
from pipeline.exchange.foreign_file import ForeignFileError, find_array, opened
from pipeline.exchange.importing import ImportOptions, import_files
from pipeline.exchange.options import Options

TOOLS = ["trident", "clam", "stamp"]
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)
COORDS = np.array([[0, 0], [256, 0], [0, 256]])
ATTRIBUTES = {
    "patch_size": 256,
    "patch_size_level0": 256,
    "level0_magnification": 20,
    "target_magnification": 20,
    "overlap": 0,
}


def write_trident(path, features=FEATURES, coords=COORDS, encoder="uni_v1", **attributes):
    """A file as TRIDENT writes it."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("features", data=features, chunks=(1, features.shape[1]))
        if encoder is not None:
            dataset.attrs["encoder"] = encoder
        file.create_dataset("coords", data=coords, chunks=(1, 2))
        file["coords"].attrs.update({**ATTRIBUTES, **attributes})


def write_stamp(path, **attributes):
    """A file as STAMP writes it, at 0.5 micrometres a pixel."""
    with h5py.File(path, "w") as file:
        file["feats"] = FEATURES.astype(np.float16)
        file["coords"] = (COORDS * 0.5).astype(np.float32)
        file.attrs.update({"extractor": "uni", "unit": "um", "tile_size_um": 128.0, **attributes})


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "manifest.csv"
    write_manifest(path, [make_row(name) for name in ("b", "a")])
    return path


@pytest.fixture
def trident(tmp_path):
    """What TRIDENT made of images a and b."""
    write_trident(tmp_path / "trident/features_uni_v1" / "a.h5")
    write_trident(tmp_path / "trident/features_uni_v1" / "b.h5", FEATURES + 100)
    return tmp_path / "trident"


@pytest.fixture(autouse=True)
def make_folders(tmp_path):
    (tmp_path / "trident").mkdir()


def read(path):
    """Features and coordinates of a cache by image, its recipe and its provenance."""
    assert verify(path) == []
    with FeatureCache(path) as cache:
        rows = cache.images.rows()
        images = {row.image_id: (cache.sequence(i), cache.coords(i)) for i, row in enumerate(rows)}
        return images, cache.recipe, cache.provenance


def finite(rng, shape, dtype):
    """Any bits that are a finite number, small and large and negative zero."""
    unsigned = {"float16": np.uint16, "float32": np.uint32}[dtype]
    values = rng.integers(0, np.iinfo(unsigned).max, shape, unsigned, endpoint=True).view(dtype)
    return np.where(np.isfinite(values), values, np.array(-0.0, dtype))


@pytest.mark.parametrize("tool", TOOLS)
@settings(max_examples=10)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    dim=st.integers(1, 6),
    dtype=st.sampled_from(["float16", "float32"]),
    mpp=st.floats(0.01, 10),
    patch_size=st.integers(1, 4096),
    stride=st.integers(1, 4096),
    seed=st.integers(0, 2**32),
)
def test_a_round_trip_loses_nothing(tool, lengths, dim, dtype, mpp, patch_size, stride, seed):
    rng, wide = np.random.default_rng(seed), 2**22
    sizes = {"patch_size": patch_size, "stride": stride}
    recipe = make_recipe(feature_dim=dim, dtype=dtype, **sizes)
    mpp = mpp if tool == "stamp" else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with write_cache(folder / "f.h5", recipe, {}) as writer:
            for i, patches in enumerate(lengths):
                row = make_row(f"image {i}.v2", width=wide, height=wide)
                coords = rng.integers(0, wide, (patches, 2))
                writer.append(row, finite(rng, (patches, dim), dtype), coords)
        export(folder / "f.h5", tool, folder / "out", Options(mpp=mpp))
        images = folder / "out/images.csv"
        import_files(folder / "out", tool, images, folder / "i.h5", ImportOptions(mpp=mpp))
        with FeatureCache(folder / "f.h5") as before, FeatureCache(folder / "i.h5") as after:
            for name in ("features_sha256", "index_sha256", "manifest_sha256"):
                assert before.attributes[name] == after.attributes[name]
            assert before.features().tobytes() == after.features().tobytes()
            encoder = f"imported:{tool}:vgg16"
            assert after.recipe == dataclasses.replace(recipe, encoder=encoder)
            assert after.provenance["exported_fingerprint"] == before.fingerprint


def test_a_second_round_trip_does_not_pile_up_names(tmp_path, trident, manifest):
    import_files(trident, "trident", manifest, tmp_path / "one.h5")
    export(tmp_path / "one.h5", "clam", tmp_path / "clam")
    import_files(tmp_path / "clam", "clam", manifest, tmp_path / "two.h5")
    assert read(tmp_path / "two.h5")[1].encoder == "imported:clam:uni_v1"


def test_a_view_goes_out_and_comes_back(tmp_path):
    recipe = make_recipe(views=("identity", "rot90"))
    with write_cache(tmp_path / "f.h5", recipe, {}) as writer:
        coords = np.array([[690, 450], [450, 690]])  # of 700 × 460 pixels, and of 460 × 700
        writer.append(make_row("a"), FEATURES[:2], coords)
    export(tmp_path / "f.h5", "clam", tmp_path / "clam", Options(view="rot90"))
    import_files(tmp_path / "clam", "clam", tmp_path / "clam/images.csv", tmp_path / "i.h5")
    images, found, _ = read(tmp_path / "i.h5")
    assert found.views == ("rot90",)
    assert images["a"][1].tolist() == [[450, 690]]


def test_the_recipe_of_trident_files_says_what_is_known_and_no_more(tmp_path, trident, manifest):
    result = import_files(trident, "trident", manifest, tmp_path / "i.h5")
    images, recipe, provenance = read(tmp_path / "i.h5")
    known = {"encoder": "imported:trident:uni_v1", "feature_dim": 4, "views": ("identity",)}
    known |= {"patch_size": 256, "stride": 256, "dtype": "float32"}
    known |= {"weights": "unknown", "weights_sha256": "unknown"}
    assert dataclasses.asdict(recipe) == {
        **dict.fromkeys([field.name for field in dataclasses.fields(recipe)], "as imported"),
        **known,
    }
    assert provenance["imported_from"] == "trident"
    assert provenance["folder"].endswith("features_uni_v1")
    assert list(images) == ["b", "a"]  # as in the manifest
    assert np.array_equal(images["a"][0], FEATURES)
    assert np.array_equal(images["b"][0], FEATURES + 100)
    assert np.array_equal(images["a"][1], COORDS)
    assert (result.images, result.patches, result.failures, result.extra) == (2, 6, [], [])


def test_the_folder_of_the_files_may_be_named_itself(tmp_path, trident, manifest):
    import_files(trident / "features_uni_v1", "trident", manifest, tmp_path / "i.h5")
    assert read(tmp_path / "i.h5")[1].encoder == "imported:trident:uni_v1"


@pytest.mark.parametrize("encoder", [None, "None"])
def test_an_encoder_that_trident_did_not_write_is_the_folders(tmp_path, manifest, encoder):
    for name in "ab":
        write_trident(tmp_path / f"trident/features_conch/{name}.h5", encoder=encoder)
    import_files(tmp_path / "trident", "trident", manifest, tmp_path / "i.h5")
    assert read(tmp_path / "i.h5")[1].encoder == "imported:trident:conch"


def test_sizes_of_resized_patches_are_those_in_the_image(tmp_path, manifest):
    for name in "ab":
        sizes = {"patch_size_level0": 512, "overlap": 64, "level0_magnification": 40}
        write_trident(tmp_path / f"trident/features_uni/{name}.h5", **sizes)
    import_files(tmp_path / "trident", "trident", manifest, tmp_path / "i.h5")
    recipe = read(tmp_path / "i.h5")[1]
    assert (recipe.patch_size, recipe.stride) == (512, 384)


def test_stamp_files_become_pixels(tmp_path, manifest):
    for name in "ab":
        write_stamp(tmp_path / "trident" / f"{name}.h5")
    import_files(tmp_path / "trident", "stamp", manifest, tmp_path / "i.h5", ImportOptions(0.5))
    images, recipe, provenance = read(tmp_path / "i.h5")
    assert (recipe.encoder, recipe.patch_size, recipe.stride) == ("imported:stamp:uni", 256, 256)
    assert (recipe.dtype, provenance["mpp"]) == ("float16", "0.5")
    assert np.array_equal(images["a"][1], COORDS)


@pytest.mark.parametrize(
    ("tool", "mpp", "message"),
    [("stamp", None, "--mpp is missing"), ("clam", 0.5, "--mpp is for stamp")],
)
def test_the_size_of_a_pixel_is_asked_for_where_it_counts(tmp_path, manifest, tool, mpp, message):
    with pytest.raises(UsageError, match=message):
        import_files(tmp_path, tool, manifest, tmp_path / "i.h5", ImportOptions(mpp))


def write_clam(folder):
    (folder / "h5_files").mkdir()
    for name in "ab":
        with h5py.File(folder / "h5_files" / f"{name}.h5", "w") as file:
            file["features"], file["coords"] = FEATURES, COORDS.astype(np.int32)


def test_clam_files_do_not_say_how_they_were_made_so_the_user_must(tmp_path, manifest):
    write_clam(tmp_path / "trident")
    arguments = tmp_path / "trident", "clam", manifest, tmp_path / "i.h5"
    with pytest.raises(PipelineError, match="does not say its encoder: state it"):
        import_files(*arguments)
    with pytest.raises(PipelineError, match="does not say its patch_size: state it"):
        import_files(*arguments, ImportOptions(stated=Described("resnet50")))
    import_files(*arguments, ImportOptions(stated=Described("resnet50", 256, 128)))
    recipe = read(tmp_path / "i.h5")[1]
    assert (recipe.encoder, recipe.patch_size) == ("imported:clam:resnet50", 256)
    assert recipe.stride == 128


def test_what_is_pickled_is_never_loaded(tmp_path, manifest):
    write_clam(tmp_path / "trident")
    (tmp_path / "trident/pt_files").mkdir()

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for name in ("pt_files/a.pt", "pt_files/b.pt", "h5_files/a.npy"):
        (tmp_path / "trident" / name).write_bytes(pickle.dumps(Trap()))
    options = ImportOptions(stated=Described("resnet50", 256))
    import_files(tmp_path / "trident", "clam", manifest, tmp_path / "i.h5", options)
    assert not (tmp_path / "sprung").exists()


def replace(name, **arguments):
    def change(file):
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, **arguments).attrs.update(attributes)

    return change


def linked(link):
    def change(file):
        file.copy("features", "kept")
        del file["features"]
        file["features"] = link

    return change


def virtual(file):
    layout = h5py.VirtualLayout((3, 4), "<f4")
    layout[:] = h5py.VirtualSource("secret.h5", "features", (3, 4))
    del file["features"]
    file.create_virtual_dataset("features", layout)


def attribute(dataset, name, value, **arguments):
    return lambda file: file[dataset].attrs.create(name, value, **arguments)


def without(name):
    return lambda file: file.pop(name)


ROWS = {"shape": (3, 4), "dtype": "<f4"}
HOSTILE = {
    "external link": (linked(h5py.ExternalLink("secret.h5", "features")), "features is missing"),
    "link by name": (linked(h5py.SoftLink("/kept")), "features is missing"),
    "virtual dataset": (virtual, "values in another file"),
    "external storage": (
        replace("features", **ROWS, external=[("secret", 0, 48)]),
        "values in another file",
    ),
    "absurd shape": (
        replace("features", shape=(2**40, 4), dtype="<f4", chunks=(1, 4)),
        "claims 17,592,186,044,416 bytes",
    ),
    "absurd chunk": (
        replace("features", shape=(3, 4), dtype="<f4", chunks=(2**27, 4), maxshape=(None, 4)),
        "has chunks of",
    ),
    "compression": (replace("features", data=FEATURES, compression="gzip"), "is compressed"),
    "no patch": (replace("features", shape=(0, 4), dtype="<f4"), "shape (0, 4)"),
    "one dimension": (replace("features", data=FEATURES[0]), "shape (4,)"),
    "three dimensions": (replace("features", data=FEATURES[None]), "shape (1, 3, 4)"),
    "no values at all": (replace("features", data=h5py.Empty("<f4")), "shape None"),
    "float64": (replace("features", data=FEATURES.astype(float)), "is of float64"),
    "whole numbers": (replace("features", data=FEATURES.astype(int)), "expected float16"),
    "objects": (replace("features", shape=(3, 4), dtype=h5py.ref_dtype), "is of object"),
    "texts": (replace("features", data=[["a"] * 4] * 3, dtype=h5py.string_dtype()), "is of object"),
    "NaN": (replace("features", data=np.full((3, 4), np.nan, "<f4")), "not finite"),
    "infinity": (replace("features", data=np.full((3, 4), np.inf, "<f4")), "not finite"),
    "another width": (replace("features", data=FEATURES[:, :3]), "feature_dim: 4, 3"),
    "features missing": (without("features"), "features is missing; found coords"),
    "a group for a dataset": (
        lambda file: (file.pop("features"), file.create_group("features")),
        "features is missing",
    ),
    "coords missing": (without("coords"), "coords is missing; found features"),
    "fewer coords": (replace("coords", data=COORDS[:2]), "expected (3, 2)"),
    "coords of three": (replace("coords", data=np.zeros((3, 3), int)), "expected (3, 2)"),
    "coords between pixels": (replace("coords", data=COORDS + 0.5, dtype="<f4"), "whole pixels"),
    "coords below zero": (replace("coords", data=COORDS - 1), "(-1, -1)"),
    "coords that are no number": (
        replace("coords", data=np.full((3, 2), np.nan, "<f4")),
        "(nan, nan)",
    ),
    "coords beyond all": (replace("coords", data=COORDS + 2**40), "whole pixels"),
    "coords outside of the image": (
        replace("coords", data=COORDS + 600),
        "patches reach (856, 856), the image has 700 × 460 pixels",
    ),
    "another encoder": (
        attribute("features", "encoder", "conch"),
        "encoder: 'imported:trident:uni_v1', 'imported:trident:conch'",
    ),
    "another patch size": (attribute("coords", "patch_size_level0", 512), "patch_size: 256, 512"),
    "an encoder that is no text": (attribute("features", "encoder", 5), "encoder is '5'"),
    "an encoder that commands a terminal": (
        attribute("features", "encoder", "\x1b[2J"),
        "expected a short text",
    ),
    "a long encoder": (attribute("features", "encoder", "x" * 10_000), "expected a short text"),
    "many encoders": (attribute("features", "encoder", ["x"] * 99), "not a single value"),
    "a patch size of text": (attribute("coords", "patch_size", "x"), "patch_size is 'x'"),
    "a patch size of nothing": (attribute("coords", "patch_size_level0", 0), "at least 1"),
    "a patch size without end": (attribute("coords", "patch_size", np.inf), "expected a number"),
    "all overlap": (attribute("coords", "overlap", 256), "stride is 0"),
}


def test_no_file_that_a_virtual_dataset_names_is_opened(tmp_path):
    for name in ("a.h5", "secret.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["features"] = FEATURES
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        replace_by_endless(file, "features", tmp_path / "secret.h5")
    with (
        never_opened(tmp_path / "secret.h5"),
        pytest.raises(ForeignFileError, match="values in another file"),
        opened(tmp_path / "a.h5") as file,
    ):
        find_array(file, "features")


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_listed_with_its_reason_and_the_others_are_taken(
    tmp_path, trident, manifest, kind
):
    change, reason = HOSTILE[kind]
    path = trident / "features_uni_v1" / "a.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    with h5py.File(path.with_name("secret.h5"), "w") as file:
        file["features"] = FEATURES
    out = tmp_path / "i.h5"
    result = import_files(trident, "trident", manifest, out, ImportOptions(allow_failures=1))
    (failure,) = result.failures
    assert (failure.image_id, failure.path) == ("a", "a.png")
    assert failure.reason.startswith(f"{path}: ")
    assert reason in failure.reason
    assert list(read(out)[0]) == ["b"]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"not HDF5", "not a sound HDF5 file"), (None, "a pipe or device")]
)
def test_what_is_no_hdf5_file_is_listed(tmp_path, trident, manifest, content, reason):
    path = trident / "features_uni_v1" / "a.h5"
    path.unlink()
    path.write_bytes(content) if content else os.mkfifo(path)
    with pytest.raises(PipelineError, match=f"1 of 2 images[^$]*{reason}"):
        import_files(trident, "trident", manifest, tmp_path / "i.h5")


def test_a_file_that_is_cut_short_is_listed(tmp_path, trident, manifest):
    path = trident / "features_uni_v1" / "a.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PipelineError, match="not a sound HDF5 file"):
        import_files(trident, "trident", manifest, tmp_path / "i.h5")


def run(*words):
    return CliRunner().invoke(import_cache, [*map(str, words)])


def test_missing_images_are_listed_and_refused_unless_allowed(tmp_path, trident, manifest):
    (trident / "features_uni_v1" / "a.h5").unlink()
    out, listing = tmp_path / "i.h5", tmp_path / "i.failures.csv"
    words = [trident, "--from", "trident", "--manifest", manifest, "--out", out]
    refused = run(*words)
    assert isinstance(refused.exception, PipelineError)
    assert refused.exception.exit_code == 1
    assert "1 of 2 images" in str(refused.exception)
    assert "--allow-failures 1" in str(refused.exception)
    assert not out.exists()
    allowed = run(*words, "--allow-failures", 1)
    assert allowed.exit_code == 0
    assert "1 images, 3 patches, encoder imported:trident:uni_v1; 1 images" in allowed.stdout
    assert f"{trident}/features_uni_v1/a.h5: cannot be read (No such file" in allowed.stderr
    with listing.open(newline="") as file:
        assert [line["image_id"] for line in csv.DictReader(file)] == ["a"]
    with FeatureCache(out) as cache:
        assert [failure.image_id for failure in cache.failures] == ["a"]


def test_a_listing_of_an_earlier_import_does_not_stay(tmp_path, trident, manifest):
    (tmp_path / "i.failures.csv").write_text("old")
    import_files(trident, "trident", manifest, tmp_path / "i.h5")
    assert not (tmp_path / "i.failures.csv").exists()


def test_nothing_but_failures_is_an_error_however_many_are_allowed(tmp_path, trident, manifest):
    for name in "ab":
        (trident / "features_uni_v1" / f"{name}.h5").write_bytes(b"")
    with pytest.raises(PipelineError, match="Nothing can be imported"):
        import_files(
            trident, "trident", manifest, tmp_path / "i.h5", ImportOptions(None, allow_failures=9)
        )
    assert len((tmp_path / "i.failures.csv").read_text().splitlines()) == 3


def test_files_that_no_image_asks_for_are_named(tmp_path, trident, manifest):
    write_trident(trident / "features_uni_v1" / "extra\n.h5")
    out = tmp_path / "i.h5"
    found = run(trident, "--from", "trident", "--manifest", manifest, "--out", out)
    assert found.exit_code == 0
    assert "1 files are of no image of the manifest:\n  extra\\n.h5\n" in found.stderr


def test_a_folder_without_files_is_refused(tmp_path, manifest):
    with pytest.raises(UsageError, match=r"no \.h5 files"):
        import_files(tmp_path / "trident", "trident", manifest, tmp_path / "i.h5")
    with pytest.raises(UsageError, match="no such folder"):
        import_files(tmp_path / "nowhere", "trident", manifest, tmp_path / "i.h5")


def test_of_several_encoders_one_must_be_named(tmp_path, trident, manifest):
    (trident / "features_conch").mkdir()
    with pytest.raises(UsageError, match="features_conch, features_uni_v1: expected one"):
        import_files(trident, "trident", manifest, tmp_path / "i.h5")


def test_an_existing_cache_is_replaced_only_if_that_is_asked_for(tmp_path, trident, manifest):
    out = tmp_path / "i.h5"
    out.write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        import_files(trident, "trident", manifest, out)
    assert out.read_text() == "precious"
    import_files(trident, "trident", manifest, out, ImportOptions(overwrite=True))
    assert len(read(out)[0]) == 2


def test_the_files_themselves_are_never_replaced(tmp_path, trident, manifest):
    out = trident / "features_uni_v1" / "a.h5"
    with pytest.raises(UsageError, match="lies among the files"):
        import_files(trident, "trident", manifest, out, ImportOptions(overwrite=True))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (Described("conch"), "encoder is 'uni_v1', expected 'conch' as stated"),
        (Described(None, 512), "patch_size is 256, expected 512 as stated"),
    ],
)
def test_what_the_user_says_must_not_contradict_the_files(
    tmp_path, trident, manifest, stated, message
):
    with pytest.raises(PipelineError, match=message):
        import_files(trident, "trident", manifest, tmp_path / "i.h5", ImportOptions(None, stated))


@pytest.fixture
def our_export(tmp_path, trident, manifest):
    """An export to CLAM."""
    import_files(trident, "trident", manifest, tmp_path / "source.h5")
    export(tmp_path / "source.h5", "clam", tmp_path / "clam")
    return tmp_path / "clam"


def change_record(folder, **changes):
    content = json.loads((folder / "export.json").read_text())
    recipe = {**content["recipe"], **changes.pop("recipe", {})}
    content = {**content, **changes, "recipe": recipe}
    (folder / "export.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "trident"}, "layout is 'trident', expected 'clam'"),
        ({"format": "x"}, "not of an export"),
        ({"version": 2}, "version 2, expected 1"),
        ({"recipe": {"encoder": "forged"}}, "fingerprint is not that of its recipe"),
        ({"recipe": {"feature_dim": -1}}, "feature_dim is -1"),
        ({"features_sha256": 5}, "features_sha256 is '5'"),
        ({"mpp": "x"}, "mpp is 'x'"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path, our_export, manifest, changes, message):
    change_record(our_export, **changes)
    with pytest.raises(UsageError, match=rf"export\.json: .*{message}"):
        import_files(our_export, "clam", manifest, tmp_path / "i.h5")


def test_a_record_that_is_not_json_is_refused(tmp_path, our_export, manifest):
    (our_export / "export.json").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not JSON"):
        import_files(our_export, "clam", manifest, tmp_path / "i.h5")


def test_what_the_user_says_must_not_contradict_the_record(tmp_path, our_export, manifest):
    options = ImportOptions(stated=Described("conch"))
    with pytest.raises(UsageError, match=r"'conch' was stated, expected 'uni_v1' as in export"):
        import_files(our_export, "clam", manifest, tmp_path / "i.h5", options)


def test_another_size_of_a_pixel_than_that_of_the_export_is_refused(tmp_path, our_export, manifest):
    export(tmp_path / "source.h5", "stamp", tmp_path / "stamp", Options(mpp=0.5))
    with pytest.raises(UsageError, match=r"mpp 0\.25 was stated, expected 0\.5"):
        import_files(tmp_path / "stamp", "stamp", manifest, tmp_path / "i.h5", ImportOptions(0.25))


def test_features_that_the_recorded_type_would_round_are_refused(tmp_path, manifest):
    with write_cache(tmp_path / "f.h5", make_recipe(), {}) as writer:
        for name in "ab":
            writer.append(make_row(name), FEATURES, COORDS)
    export(tmp_path / "f.h5", "clam", tmp_path / "clam")
    with h5py.File(tmp_path / "clam/h5_files/a.h5", "r+") as file:
        file["features"][0, 0] = 1 / 3
    with pytest.raises(PipelineError, match="are float32 and change in float16"):
        import_files(tmp_path / "clam", "clam", manifest, tmp_path / "i.h5")


def test_features_of_another_length_than_the_record_says_are_refused(
    tmp_path, our_export, manifest
):
    with h5py.File(our_export / "h5_files/a.h5", "r+") as file:
        replace("features", data=FEATURES[:, :3])(file)
    with pytest.raises(PipelineError, match=r"3 features a patch, export\.json says 4"):
        import_files(our_export, "clam", manifest, tmp_path / "i.h5")
