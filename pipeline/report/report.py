"""The results of a run as one HTML file that needs nothing else."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cache.files import publish
from pipeline.evaluation.headline import heading
from pipeline.evaluation.tables import shown as shown_measure
from pipeline.fitting.sequences import Sequences
from pipeline.progress import Progress, silent
from pipeline.report import tables
from pipeline.report.curves import (
    learning_figure,
    precision_figure,
    reliability_figure,
    roc_figure,
)
from pipeline.report.features_map import MOST_IMAGES, lay_out, map_figure, mean_inputs
from pipeline.report.gallery import fold_ensemble, surest_mistakes
from pipeline.report.run_files import RunFiles, read_run
from pipeline.report.svg import STYLE, to_svg
from pipeline.user_file import printable

_TEMPLATE = "report.html.jinja"


class Drawn(NamedTuple):
    """A figure on the page: what it shows in words, and its SVG element."""

    caption: str
    svg: str


def report(folder: Path, out: Path, progress: Progress = silent) -> None:
    """Publish the report of a run: one HTML file without scripts or links to other files.

    Args:
        folder: with `fits/`, `metrics.json`, `features.h5`, and `manifest.csv` for the pictures.
        out: the HTML file.
        progress: told of each of its three parts.

    Raises:
        UsageError: a file is missing, or belongs to another run.
        CacheError: the cache is damaged.
        PublishError: `out` cannot be written.
    """
    with progress(3, 0) as advance:
        run = read_run(folder)
        advance(1)
        try:
            with mpl.rc_context(STYLE):
                figures = _figures(run)
            advance(1)
            html = _render(run, figures)
        finally:
            run.cache.close()
        with publish(out) as temporary:
            temporary.write_text(html, encoding="utf-8")
        advance(1)


def _render(run: RunFiles, figures: Mapping[str, Drawn]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    evaluation, scores, records = run.evaluation, run.scores, run.fits.records
    return environment.get_template(_TEMPLATE).render(
        name=run.folder.resolve().name,
        evaluation=evaluation,
        heading=heading(vars(evaluation)).splitlines(),
        cards=tables.cards(evaluation),
        what=tables.what_was_run(run),
        measures=tables.measures(evaluation),
        folds=tables.folds(records, evaluation),
        calibration=tables.calibration(evaluation),
        confusions=_there(tables.confusion(scores, False), tables.confusion(scores, True)),
        parts=_there(
            tables.parts("magnification", evaluation.by_magnification),
            tables.parts("subtype", evaluation.by_subtype),
        ),
        patients=tables.by_patient(scores),
        baselines=tables.baselines(evaluation),
        published=tables.published(evaluation),
        findings=list(_findings(run)),
        mistakes=surest_mistakes(run),
        wrong=len(set(scores.image_ids[~scores.right].tolist())),
        figures=figures,
        digests=run.digests,
        version=version("patch-feature-pipeline"),
    )


def _there(*found: tables.Table | None) -> list[tables.Table]:
    return [one for one in found if one is not None]


def _findings(run: RunFiles) -> Iterator[str]:
    audit = run.evaluation.audit
    yield printable(str(audit.get("summary", "none")), 400)
    found = audit.get("findings")
    for one in found if isinstance(found, list) else []:
        if isinstance(one, dict) and one.get("severity") in ("leak", "suspect"):
            yield printable(f"{one['severity'].upper()}: {one.get('text', '')}", 400)


def _figures(run: RunFiles) -> dict[str, Drawn]:
    """The figures under the names by which the template places them."""
    scores, evaluation = run.scores, run.evaluation
    before, after = evaluation.calibration["before"], evaluation.calibration["after"]
    shown = scores.classes[1] if len(scores.classes) == 2 else "the called class"
    histories = [run.history(record.fold) for record in run.fits.records]
    auc = shown_measure(evaluation.pooled["roc_auc"])
    made = {
        "roc": (roc_figure(scores), f"ROC curve of the test images; area {auc}"),
        "precision": (precision_figure(scores), "Precision over recall of the test images"),
        "reliability": (
            reliability_figure(before, after, shown),
            f"Reliability: how often images of a probability are {shown}; on the dashed line, "
            "probabilities mean what they say. Larger points hold more images",
        ),
        "learning": (
            learning_figure(histories),
            f"Loss of {len(histories)} folds while they were fitted: thin lines are folds",
        ),
        "map": _map(run),
    }
    return {
        name: Drawn(caption, to_svg(figure, name, caption))
        for name, (figure, caption) in made.items()
    }


def _map(run: RunFiles) -> tuple[Figure, str]:
    record = run.fits.records[0]
    model = fold_ensemble(run.fits, record.fold).models[0]
    features = Sequences.from_arrays(run.features, run.cache.offsets)
    inputs = mean_inputs(model, features)
    chosen = np.arange(len(inputs))
    if len(chosen) > MOST_IMAGES:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MOST_IMAGES, replace=False))
    rows = [run.rows[i] for i in chosen]
    unit = "slide" if all(row.slide for row in rows) else "patient"
    groups = [row.slide if unit == "slide" else row.case for row in rows]
    labels = [getattr(row, record.target) for row in rows]
    wrong = _mostly_wrong(run)[chosen]
    caption = (
        f"Map (t-SNE) of the features of {len(chosen)} of {len(run.rows)} images, as the model of "
        f"fold {record.fold} reads them: neighbours look alike to it. Colours by {unit} repeat"
    )
    return map_figure(lay_out(inputs[chosen]), labels, groups, wrong, unit), caption


def _mostly_wrong(run: RunFiles) -> NDArray[np.bool_]:
    """(N,) whether an image is called wrongly in most of the folds that test it."""
    wrong: Counter[str] = Counter()
    tested: defaultdict[str, int] = defaultdict(int)
    for image, right in zip(run.scores.image_ids.tolist(), run.scores.right, strict=True):
        tested[image] += 1
        wrong[image] += not right
    return np.array([2 * wrong[row.image_id] > tested[row.image_id] for row in run.rows])
