"""Export as an AnnData file: a row a patch."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np

from cache.disk import Disk, open_disk
from pipeline.errors import PipelineError
from pipeline.exchange.options import Facts, Options
from pipeline.exchange.source import Source

FILE = "features.h5ad"
_TEXT = ("image_id", "label", "subtype", "slide", "case")
_CHUNK_BYTES = 256 * 1024


def write_anndata(source: Source, folder: Path, options: Options) -> Facts:
    """Write `features.h5ad`: X float32 (P, D), `obs` a row a patch, `obsm["spatial"]` pixels.

    Raises:
        PipelineError: anndata is not installed.
    """
    del options
    anndata, pandas = _module("anndata"), _module("pandas")
    path = folder / FILE
    path.touch()
    with (
        open_disk(path) as disk,
        h5py.File(path, "w", driver="fileobj", fileobj=disk) as file,
    ):
        anndata.io.write_elem(file, "/", _described(source, anndata, pandas))
        _write_features(source, file, disk)
    return {"files": FILE}


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PipelineError(
            f"--to anndata needs the package {name}, which cannot be imported ({error}): install "
            'it with pip install "anndata>=0.11"'
        ) from error


def _described(source: Source, anndata: ModuleType, pandas: ModuleType) -> Any:  # noqa: ANN401
    """All but X, which is written an image at a time."""
    rows, lengths = source.rows, np.diff(source.offsets)
    owner = np.repeat(np.arange(len(rows)), lengths)  # (P,)
    within = np.arange(len(owner)) - np.repeat(source.offsets[:-1], lengths)
    coords = _coords(source)
    obs = {name: _categories([getattr(row, name) for row in rows], owner, pandas) for name in _TEXT}
    obs["magnification"] = np.array([row.magnification for row in rows], np.int32)[owner]
    obs["x"], obs["y"] = coords[:, 0], coords[:, 1]
    names = [f"{rows[i].image_id}-{k}" for i, k in zip(owner, within, strict=True)]
    return anndata.AnnData(
        obs=pandas.DataFrame(obs, index=names),
        var=pandas.DataFrame(index=[str(i) for i in range(source.recipe.feature_dim)]),
        obsm={"spatial": coords},
        uns={"recipe": source.recipe.to_json(), "fingerprint": source.recipe.fingerprint},
    )


def _coords(source: Source) -> Any:  # noqa: ANN401
    """(P, 2) of the view."""
    mine = source.cache.all_views() == source.view
    return source.cache.all_coords()[mine]


def _categories(values: Sequence[str], owner: Any, pandas: ModuleType) -> Any:  # noqa: ANN401
    """Text of each image as one of each patch, of which every value is kept once."""
    known = sorted(set(values))
    position = {value: i for i, value in enumerate(known)}
    codes = np.array([position[value] for value in values])[owner]
    return pandas.Categorical.from_codes(codes, known)


def _write_features(source: Source, file: h5py.File, disk: Disk) -> None:
    dim, patches = source.recipe.feature_dim, int(source.offsets[-1])
    rows = min(max(1, _CHUNK_BYTES // (4 * dim)), patches)
    features = file.create_dataset("X", (patches, dim), np.float32, chunks=(rows, dim))
    features.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    start = 0
    for image in source.images():
        disk.raise_error()
        features[start : start + len(image.features)] = image.features
        start += len(image.features)
