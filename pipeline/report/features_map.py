"""A map of the cached features: images that look alike to the classifier lie side by side."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.fitting.model_file import Model
from pipeline.fitting.sequences import Sequences
from pipeline.report.svg import GRID, ONE, TWO

MOST_IMAGES = 3000
"""Images on a map; of more, this many are drawn at random."""

_RASTER_FROM = 800
_PERPLEXITY = 30.0
_LEAST_IMAGES = 8


def lay_out(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Positions (N, 2) of images with mean inputs (N, k).

    t-SNE (van der Maaten and Hinton, JMLR 2008) from the principal components on, so that equal
    inputs give equal maps; of very few images, the principal components themselves.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(inputs) < _LEAST_IMAGES:
        padded = np.pad(inputs, ((0, 0), (0, max(0, 2 - inputs.shape[1]))))
        centred = padded - padded.mean(axis=0)
        return np.asarray(centred[:, :2], np.float64)
    few = PCA(min(50, *inputs.shape), random_state=0).fit_transform(inputs)
    near = min(_PERPLEXITY, (len(inputs) - 1) / 3)
    return np.asarray(
        TSNE(perplexity=near, init="pca", random_state=0).fit_transform(few), np.float64
    )


def mean_inputs(model: Model, features: Sequences) -> NDArray[np.float32]:
    """(N, k) what a model reads of each image, averaged over its patches."""
    with torch.no_grad():
        return np.asarray(model.inputs(features).means().numpy())


def map_figure(
    places: NDArray[np.float64],
    labels: Sequence[str],
    groups: Sequence[str],
    wrong: NDArray[np.bool_],
    unit: str,
) -> Figure:
    """Three views of one map: by label, by group, and the images that are called wrongly.

    Args:
        places: (N, 2).
        labels: of each image.
        groups: the patient or slide of each.
        wrong: (N,) whether the test prediction is wrong, in most repeats.
        unit: what the groups are.
    """
    figure = Figure((10.5, 3.7))
    axes = figure.subplots(1, 3)
    for one, title in zip(axes, ("label", unit, "called wrongly"), strict=True):
        one.set_title(f"by {title}" if title != "called wrongly" else title)
        one.set(xticks=[], yticks=[])
        one.grid(visible=False)
        one.spines[:].set_visible(False)
    names = sorted(set(labels))
    _by(axes[0], places, labels, names, legend=len(names) <= 8)
    _by(axes[1], places, groups, sorted(set(groups)), legend=False)
    _points(axes[2], places[~wrong], GRID, f"right ({int((~wrong).sum())})")
    _points(axes[2], places[wrong], TWO, f"wrong ({int(wrong.sum())})")
    axes[2].legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
    return figure


def _by(
    axes: Axes,
    places: NDArray[np.float64],
    keys: Sequence[str],
    names: Sequence[str],
    legend: bool,
) -> None:
    values = np.array(keys)
    palette = colormaps["tab20"]
    for number, name in enumerate(names):
        two = (ONE, TWO)[number] if len(names) == 2 else palette(number % 20)
        chosen = places[values == name]
        _points(axes, chosen, two, f"{name} ({len(chosen)})", "osD^v"[number // 20 % 5])
    if legend:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)


def _points(
    axes: Axes, places: NDArray[np.float64], colour: object, label: str, marker: str = "o"
) -> None:
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=14,
        color=colour,
        alpha=0.8,
        linewidths=0,
        label=label,
        marker=marker,
    )
