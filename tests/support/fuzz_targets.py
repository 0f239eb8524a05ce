"""The readers that are fuzzed, and how their inputs are made."""

import csv
import hashlib
import io
import json
import os
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from fuzzing import BLIND, JSON_TOKENS, ODDITIES, TABLE_TOKENS, TEXT, Target, insert, mutated

from cache import ImageRow

TABLE = [*TEXT, insert(TABLE_TOKENS)]
JSON = [*TEXT, insert(JSON_TOKENS)]
SEAL = "complete"
DIGEST = "0123456789abcdef" * 4


def study() -> list[ImageRow]:
    """Twelve images of six cases."""
    return [
        ImageRow(
            image_id=f"image{i:02}",
            path=f"data/image{i:02}.png",
            label="malignant" if i % 2 else "benign",
            subtype="",
            slide=f"s{i % 6}",
            case=f"c{i % 6}",
            magnification=100,
            width=700,
            height=460,
            sha256=DIGEST,
        )
        for i in range(12)
    ]


def table(header: tuple[str, ...], rows: list[tuple[object, ...]], **style: object) -> bytes:
    text = io.StringIO()
    csv.writer(text, **style).writerows([header, *rows])
    return text.getvalue().encode()


def splits_table(group_by: str = "case", **style: object) -> bytes:
    """Two folds that keep the cases of `study` together."""
    roles = (("test", "test", "train", "train", "val", "val"),)
    roles += (("val", "val", "test", "test", "train", "train"),)
    rows = [
        (row.image_id, fold, roles[fold][int(row.case[1:])], group_by)
        for fold in range(2)
        for row in study()
    ]
    return table(("image_id", "fold", "role", "group_by"), rows, **style)


def seeds_of_tables(data: list[bytes]) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        return mutated(rng, rng.choice(data), TABLE)

    return make


def manifest(folder: Path) -> Target:
    from pipeline.dataset.manifest import read_manifest

    rows, path = study()[:3], folder / "manifest.csv"
    seeds = [
        table(ImageRow._fields, rows, lineterminator="\n"),
        table(ImageRow._fields, rows, quoting=csv.QUOTE_ALL),
        b"\xef\xbb\xbf" + table((*ImageRow._fields, "note"), [(*row, 'a "b"\n c') for row in rows]),
        table(ImageRow._fields[::-1], [row[::-1] for row in rows]),
    ]

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_manifest(path)

    return Target(seeds_of_tables(seeds), read)


def splits(folder: Path) -> Target:
    from pipeline.splits.table import read_splits

    rows, path = study(), folder / "splits.csv"
    seeds = [
        splits_table(lineterminator="\n"),
        splits_table(quoting=csv.QUOTE_ALL),
        splits_table("image"),
        b"\n".join(line.rpartition(b",")[0] for line in splits_table().split(b"\r\n")),
    ]

    def read(data: bytes) -> object:
        path.write_bytes(data)
        found = read_splits(path, rows)
        return found.protocol(rows)

    return Target(seeds_of_tables(seeds), read)


def foreign(folder: Path) -> Target:
    from pipeline.audit.audit import audit
    from pipeline.audit.foreign import read_foreign

    rows, path = study(), folder / "theirs.csv"
    named = [(Path(row.path).name, "testing" if i % 3 else "train") for i, row in enumerate(rows)]
    seeds = [
        splits_table(lineterminator="\n"),
        splits_table(quoting=csv.QUOTE_ALL),
        table(("image_id", "role"), named),
        table(("image_id", "role", "repeat", "fold"), [(*pair, 1, 2) for pair in named * 2]),
    ]

    def read(data: bytes) -> object:
        path.write_bytes(data)
        found = read_foreign(path, rows)
        text = audit(rows, found.splits, known=found.findings, numbers=found.numbers).to_text()
        assert all(line.isprintable() for line in text.splitlines())
        return text

    return Target(seeds_of_tables(seeds), read)


def model(folder: Path) -> Target:
    import torch
    from forged_models import joined, parts_of, write_model

    from pipeline.fitting.model_file import load_model

    torch.set_num_threads(1)
    path = folder / "model.safetensors"
    sound = write_model(path).read_bytes()
    header, arrays = parts_of(sound)

    def make(rng: random.Random) -> bytes:
        kind = rng.random()
        if kind < 0.25:  # anywhere
            return mutated(rng, sound, BLIND)
        if kind < 0.35:  # the values alone
            return sound[: -len(arrays)] + mutated(rng, arrays, BLIND)
        if kind < 0.6:  # the text of the header, of the right length
            text = mutated(rng, json.dumps(header).encode(), JSON)
            return joined(text, arrays, None if rng.random() < 0.95 else rng.getrandbits(64))
        if kind < 0.8:  # one text of the metadata
            changed = dict(header["__metadata__"])
            name = rng.choice(sorted(changed))
            text = mutated(rng, changed[name].encode(), JSON)
            changed[name] = text.decode(errors="surrogateescape")
            return joined({**header, "__metadata__": changed}, arrays)
        return joined(_with_other_entry(rng, header), arrays)

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_model(path)

    return Target(make, read)


def _with_other_entry(rng: random.Random, header: dict) -> dict:
    """A header with one array that is described otherwise, or under another name."""
    name = rng.choice(sorted(header.keys() - {"__metadata__"}))
    entry = dict(header[name])
    extremes = (0, 1, 4, -1, 2**31, 2**62, 2**63, 2**64, 1.5, None, True, "4")
    field = rng.choice(("dtype", "shape", "data_offsets", "name", "order"))
    if field == "dtype":
        entry["dtype"] = rng.choice(("F32", "F16", "BF16", "I32", "U64", "BOOL", "F8_E4M3", "", 3))
    elif field == "name":
        return {name + "0" if key == name else key: value for key, value in header.items()}
    elif field == "order":
        return dict(rng.sample(sorted(header.items()), len(header)))
    else:
        entry[field] = [rng.choice(extremes) for _ in range(rng.randrange(4))]
    return {**header, name: entry}


FITS_FILES = ("fold0/predictions.csv", "fold0/colour.csv", "fold0/image_level.csv", "audit.json")


def fits(folder: Path) -> Target:
    from pipeline.fitting.record import read_fits

    seeds = [_sound_fits(folder / str(n), labels) for n, labels in enumerate(("ab", "abc"))]

    def make(rng: random.Random) -> bytes:
        """All files, the record last, behind a line of their lengths."""
        files = dict(rng.choice(seeds))
        record = json.loads(files.pop("fold0/fit.json"))
        if rng.random() < 0.5:
            name = rng.choice(FITS_FILES)
            files[name] = mutated(rng, files[name], JSON if name == "audit.json" else TABLE)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        record["predictions_sha256"] = digests[FITS_FILES[0]]
        record["audit_sha256"] = digests["audit.json"]
        for name in record["companions"]:
            record["companions"][name]["sha256"] = digests[f"fold0/{name}.csv"]
        text = json.dumps(record).encode()
        if rng.random() < 0.5:
            text = mutated(rng, text, JSON)
        contents = [*(files[name] for name in FITS_FILES), text]
        return (
            json.dumps([len(content) for content in contents]).encode() + b"\n" + b"".join(contents)
        )

    def read(data: bytes) -> object:
        (folder / "fold0").mkdir(exist_ok=True)
        lengths, _, contents = data.partition(b"\n")
        for name, length in zip((*FITS_FILES, "fold0/fit.json"), json.loads(lengths), strict=True):
            (folder / name).write_bytes(contents[:length])
            contents = contents[length:]
        return read_fits(folder)

    return Target(make, read)


def _sound_fits(folder: Path, labels: str) -> dict[str, bytes]:
    """The files of a fit of one fold, by name, with two or three classes."""
    from small_fits import prediction, write_fits

    values = (0.25,) if len(labels) == 2 else (0.25, 0.5, 0.25)
    rows = [
        prediction(
            *(0, row.case, labels[i % len(labels)], 0.25),
            image_id=row.image_id,
            called=labels[0],
            logits=values,
            probabilities=values,
        )
        for i, row in enumerate(study())
    ]
    threshold = {} if len(labels) == 2 else {"threshold": None}
    write_fits(
        folder, rows, {"colour": rows, "image_level": rows}, labels=tuple(labels), **threshold
    )
    return {name: (folder / name).read_bytes() for name in (*FITS_FILES, "fold0/fit.json")}


def images(folder: Path) -> Target:
    import numpy as np
    from PIL import Image

    from pipeline.dataset.images import decode

    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    pixels[10:30] = 200
    kinds: list[tuple[str, dict[str, object]]] = [
        *(("PNG", {}), ("BMP", {}), ("JPEG", {}), ("JPEG", {"progressive": True})),
        *(("TIFF", {}), ("TIFF", {"big_tiff": True}), ("TIFF", {"strip_size": 500})),
        *(("TIFF", {"compression": name}) for name in ("tiff_lzw", "jpeg", "packbits", "zstd")),
    ]
    seeds = []
    for form, options in kinds:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form, **options)
        seeds.append(file.getvalue())

    def make(rng: random.Random) -> bytes:
        data = rng.choice(seeds)
        split = rng.choice((64, 400, len(data)))  # most of what matters is at one of the ends
        if rng.random() < 0.5:
            return mutated(rng, data[:split], FEW_BYTES) + data[split:]
        return data[:-split] + mutated(rng, data[-split:], FEW_BYTES)

    return Target(make, decode)


STATISTICS = ("colour", "perceptual_hash", "pixels_sha256", "digests")
CACHE_DATASETS = (
    *("features", "coords", "offsets"),
    *(f"images/{n}" for n in ImageRow._fields),
    *(f"statistics/{n}" for n in STATISTICS),
)


def cache(folder: Path) -> Target:
    from small_caches import make_recipe, write

    from cache import FeatureCache, verify
    from cache.errors import CacheDamagedError

    path, scratch = folder / "cache.h5", folder / "scratch.h5"
    recipe = make_recipe()
    sound = write(folder / "sound.h5", recipe, [2, 3, 1], statistics=True).read_bytes()

    def make(rng: random.Random) -> bytes:
        kind = rng.random()
        if kind < 0.05:
            return mutated(rng, sound, BLIND)
        if kind < 0.5:
            return _sealed(scratch, sound[:512] + mutated(rng, sound[512:], FEW_BYTES))
        scratch.write_bytes(sound)
        change = _change_attribute if kind < 0.75 else _change_structure
        change(rng, scratch)
        return _sealed(scratch, scratch.read_bytes())

    def read(data: bytes) -> object:
        path.write_bytes(data)
        if zlib.crc32(data) % 2:  # as `pipeline cache verify` does
            violations = verify(path)
            if violations:
                assert all(line.isprintable() for line in violations)
                raise CacheDamagedError("; ".join(violations))
            return None
        with FeatureCache(path) as opened:  # as `pipeline fit-lstm` does
            opened.load()
            return [opened.coords(row.image_id) for row in opened.images.rows()]

    return Target(make, read)


def _sealed(scratch: Path, data: bytes) -> bytes:
    """The data behind a seal that fits it, so that it is looked at and not just compared."""
    from cache.file_seal import BLOCK_BYTES, write_file_seal

    scratch.write_bytes(data)
    if len(data) > BLOCK_BYTES:
        write_file_seal(scratch)
    return scratch.read_bytes()


def _flip_byte(rng: random.Random, data: bytes) -> bytes:
    """Zeros and small numbers as often as any, since they are what sizes and addresses are of."""
    at = rng.randrange(len(data))
    value = rng.choice((0, 1, 2, 8, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return data[:at] + bytes([value]) + data[at + 1 :]


def _write_number(rng: random.Random, data: bytes) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice((2, 4, 8))
    value = rng.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1, at)) % 256**size
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


FEW_BYTES = [_flip_byte, _flip_byte, _flip_byte, _write_number, *BLIND]


def _change_attribute(rng: random.Random, path: Path) -> None:
    """Change the text of root attributes, and seal them again."""
    import h5py

    from cache.layout import read_attributes, write_attributes

    with h5py.File(path, "r+") as file:
        attributes = {name: text for name, text in read_attributes(file).items() if name != SEAL}
        name = rng.choice(sorted(attributes))
        if rng.random() < 0.1:
            del attributes[name], file.attrs[name]
        elif rng.random() < 0.2:
            attributes["provenance"] = json.dumps({"made": str(rng.random())})
        else:
            text = mutated(rng, attributes[name].encode(), JSON).replace(b"\0", b" ")
            attributes[name] = text[:60_000].decode(errors="replace")
        write_attributes(file, attributes)


def _change_structure(rng: random.Random, path: Path) -> None:
    """Replace one object of the file by another, which may be of any type, shape or place."""
    import h5py

    with h5py.File(path, "r+") as file:
        name = rng.choice((*CACHE_DATASETS, *CACHE_DATASETS[:3]))
        old = file[name]
        values, shape = old[()], old.shape
        del file[name]
        change = rng.choice(STRUCTURES)
        change(rng, file, name, values, shape)


def _other_type(rng, file, name, values, shape):
    types = ("<f2", ">f2", "<f4", "<f8", "<i4", ">i8", "<u4", "S1", "S100", "V16", "?", "<c8")
    file.create_dataset(name, shape, rng.choice(types), **_layout(rng, shape))


def _other_shape(rng, file, name, values, shape):
    extremes = (0, 1, 3, 6, 2**20, 2**31, 2**40, 2**62)
    changed = tuple(rng.choice(extremes) for _ in range(rng.randrange(1, 4)))
    chunks = tuple(min(n, rng.choice((1, 8, 2**16))) or 1 for n in changed)
    dtype = "<f2" if rng.random() < 0.5 else values.dtype
    options = {"fletcher32": True, "maxshape": (None,) * len(changed)}
    file.create_dataset(name, changed, dtype, chunks=chunks, **options)


def _other_filters(rng, file, name, values, shape):
    kept = rng.choice(({"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}, {}))
    file.create_dataset(name, data=values, chunks=shape, fletcher32=rng.random() < 0.5, **kept)


def _layout(rng, shape):
    return {"chunks": shape, "fletcher32": True} if rng.random() < 0.5 else {}


def _link(rng, file, name, values, shape):
    import h5py

    targets = ("/", f"/{name}", "/images", "/nothing", "/offsets", ".", "..", "/images/image_id")
    kind = rng.randrange(3)
    if kind == 0:
        file[name] = h5py.SoftLink(rng.choice(targets))
    elif kind == 1:
        place = rng.choice((".", file.filename, "/dev/zero", "/etc/passwd", "nothing.h5"))
        file[name] = h5py.ExternalLink(place, rng.choice(targets))
    else:
        file[name] = file[rng.choice(("/", "/images", "/offsets" if name != "offsets" else "/"))]


def _elsewhere(rng, file, name, values, shape):
    import h5py

    if rng.random() < 0.5:
        places = [(rng.choice(("/etc/passwd", "nothing", "/dev/zero")), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, shape, values.dtype, external=places)
    else:
        layout = h5py.VirtualLayout(shape, values.dtype)
        layout[:] = h5py.VirtualSource(rng.choice((".", "nothing")), name, shape)
        file.create_virtual_dataset(name, layout)


def _odd_object(rng, file, name, values, shape):
    import h5py
    import numpy as np

    kind = rng.randrange(6)
    if kind == 0:
        file.create_group(name)
    elif kind == 1:
        file.create_dataset(name, shape, h5py.ref_dtype)[...] = file.ref
    elif kind == 2:
        file.create_dataset(name, data=h5py.Empty(values.dtype))
    elif kind == 3:
        file.create_dataset(name, shape, h5py.string_dtype(), chunks=shape)
    elif kind == 4:
        file[name] = np.dtype("<f4")
    else:
        file.create_dataset(name, shape, [("a", "<i4"), ("b", "<f4", (2,))])


def _odd_attribute(rng, file, name, values, shape):
    import h5py
    import numpy as np

    file.create_dataset(
        name, data=values, chunks=shape, maxshape=(None, *shape[1:]), fletcher32=True
    )
    odd = (
        *(5, 2.5, True, ["a"] * 100, "text", b"\xff\xfe", np.zeros((50, 50)), h5py.Empty("f")),
        *(np.bytes_(b"x" * 60_000), np.array([], "S1")),
    )
    attribute = rng.choice((*file.attrs, "more"))
    file.attrs[attribute] = rng.choice(odd)


def _other_values(rng, file, name, values, shape):
    """Values that the format does not allow, or that are not what the digests say."""
    import numpy as np

    changed = values.copy()
    if values.dtype.kind == "S":
        tokens = (*ODDITIES, b"", b"a" * values.dtype.itemsize)
        changed[rng.randrange(len(changed))] = rng.choice(tokens)
    else:
        whole_numbers = values.dtype.kind in "iu"
        limits = np.iinfo(values.dtype) if whole_numbers else np.finfo(values.dtype)
        extremes = (limits.min, limits.max, 0, 1) if whole_numbers else (np.nan, np.inf)
        changed.flat[rng.randrange(changed.size)] = rng.choice(extremes)
    if values.dtype.kind == "S":
        import h5py

        changed = changed.astype(h5py.string_dtype("utf-8", values.dtype.itemsize))
    whole = {"maxshape": (None, *shape[1:]), "fletcher32": True, "chunks": shape}
    file.create_dataset(name, data=changed, **whole)


def _nothing(rng, file, name, values, shape):
    return None


STRUCTURES = [
    *(_other_type, _other_shape, _other_filters, _link, _elsewhere, _odd_object),
    *(_odd_attribute, _other_values, _other_values, _nothing),
]


def _fault(fault: Callable[[], object]) -> Callable[[Path], Target]:
    """A reader with a fault, to test the test with; its first call, of the imports, is spared."""
    calls: list[bytes] = []

    def read(data: bytes) -> object:
        calls.append(data)
        return fault() if len(calls) > 1 else None

    return lambda folder: Target(lambda rng: b"crash", read)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "manifest": manifest,
    "splits": splits,
    "foreign": foreign,
    "model": model,
    "fits": fits,
    "images": images,
    "cache": cache,
    "crash": _fault(os.abort),
    "hang": _fault(lambda: time.sleep(60)),
    "memory": _fault(lambda: bytes(4 << 30)),
    "other": _fault(lambda: 1 // 0),
}
__all__ = ["ODDITIES", "TARGETS", "study", "table"]
