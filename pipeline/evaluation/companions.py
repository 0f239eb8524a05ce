"""The LSTM beside its baselines on the same images: differences with intervals, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.bootstrap import Interval, p_value
from pipeline.evaluation.measures import HEADLINE, Measures, Replicates, measure, replicate
from pipeline.evaluation.scores import Scores

STAINING = "A number that does not beat colour is a number about staining."


@dataclass(frozen=True)
class Result:
    """One model beside another.

    Attributes:
        measures: see `measure`.
        intervals: of the headline measures.
        auc_gain: ROC AUC of the LSTM minus that of this model; None if not defined.
        gain_interval: of it, paired over patients.
        p: two-sided, that the gain is 0.
    """

    measures: Measures
    intervals: dict[str, Interval | None]
    auc_gain: float | None
    gain_interval: Interval | None
    p: float | None

    @property
    def beaten(self) -> bool:
        """Whether the LSTM is better beyond doubt: the interval of the gain is above 0."""
        return self.gain_interval is not None and self.gain_interval.low > 0


def beside(scores: Scores, own: Replicates, companions: Mapping[str, Scores]) -> dict[str, Result]:
    """Measure baselines on the test images of the LSTM, paired with it.

    Args:
        scores: of the LSTM.
        own: its replicates, whose drawing of patients the baselines share.
        companions: the baselines, on the same images.
    """
    auc = measure(scores)["roc_auc"]
    results = {}
    for name, theirs in companions.items():
        measures = measure(theirs)
        found = replicate(theirs, own.resampling)
        differences = own.samples["roc_auc"] - found.samples["roc_auc"]
        paired = Replicates({"roc_auc": differences}, own.resampling)
        both = auc is not None and measures["roc_auc"] is not None
        results[name] = Result(
            measures=measures,
            intervals={measure: found.interval(measure) for measure in HEADLINE},
            auc_gain=auc - measures["roc_auc"] if both else None,  # type: ignore[operator]
            gain_interval=paired.interval("roc_auc") if both else None,
            p=p_value(differences, own.resampling.strata_sizes) if both else None,
        )
    return results


def verdict(results: Mapping[str, Result], titles: Mapping[str, str]) -> str:
    """One sentence on which baselines are beaten beyond doubt, and one on colour if it is not."""
    beaten = [titles[name] for name, result in results.items() if result.beaten]
    others = [titles[name] for name, result in results.items() if not result.beaten]
    if not results:
        return ""
    if not beaten:
        text = "In ROC AUC the LSTM beats none of the baselines beyond doubt."
    elif not others:
        text = f"In ROC AUC the LSTM beats all baselines beyond doubt: {_listed(beaten)}."
    else:
        text = (
            f"In ROC AUC the LSTM beats {_listed(beaten)} beyond doubt, but not {_listed(others)}."
        )
    colour = results.get("colour")
    return text if colour is None or colour.beaten else f"{text} {STAINING}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
