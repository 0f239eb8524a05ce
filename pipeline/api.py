"""The stages as functions, for scripts and notebooks. The features are read with `cache`.

Example:
    >>> from pathlib import Path
    >>> from pipeline.api import FitOptions, evaluate, fit_lstm
    >>> cache, splits = Path("features.h5"), Path("splits.csv")
    >>> fit_lstm(cache, splits, Path("fits"), FitOptions(hidden=16))  # doctest: +SKIP
    >>> evaluate(Path("fits"), Path("metrics.json")).pooled["roc_auc"]  # doctest: +SKIP
"""

from pipeline.dataset.index import index_dataset
from pipeline.errors import PipelineError, UsageError
from pipeline.evaluation.compare import compare
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.extraction.extract import ExtractOptions, ExtractResult, extract
from pipeline.extraction.recipe import PatchOptions
from pipeline.fitting.fit import FitResult, fit_lstm
from pipeline.fitting.options import FitOptions
from pipeline.prediction.ensemble import Ensemble, Verdict
from pipeline.prediction.find_models import find_models
from pipeline.prediction.predict import Predicted, PredictOptions, PredictResult, predict
from pipeline.report.report import report

__all__ = [
    "Ensemble",
    "Evaluation",
    "ExtractOptions",
    "ExtractResult",
    "FitOptions",
    "FitResult",
    "PatchOptions",
    "PipelineError",
    "PredictOptions",
    "PredictResult",
    "Predicted",
    "UsageError",
    "Verdict",
    "compare",
    "evaluate",
    "extract",
    "find_models",
    "fit_lstm",
    "index_dataset",
    "predict",
    "report",
]
