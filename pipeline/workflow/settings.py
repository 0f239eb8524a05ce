"""The workflow's configuration as paths and command lines."""

import contextlib
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.evaluation.headline import headline
from pipeline.extraction.encoders.timm_folder import CONFIG, WEIGHTS, folder_of
from pipeline.splits.official import FOLDS as OFFICIAL_FOLDS
from pipeline.tables import read_table

_DEMO = "demo"
_DEMO_NOTE = "The images are SYNTHETIC: these numbers show that the pipeline works, no more."


class Settings:
    """The settings of one run of the workflow.

    Attributes:
        is_demo: whether the data set is the synthetic one.
        dataset: the data set.
        results: folder of everything that is made from it.
        weights: file of the encoder's weights.
        encoder: name of the network that encodes patches.
        shards: jobs that extract together.
        fits_together: whether one job fits all folds.
        allowed_failures: images that may have no features.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.is_demo = config["dataset"] == _DEMO
        self.dataset = Path("resources/demo") if self.is_demo else Path(config["dataset"])
        self.results = Path("results") / self._name()
        seed = config["weights"].get("random")
        kind = "imagenet" if seed is None else f"random_{seed}"
        self.encoder: str = config["extract"]["encoder"]
        self.weights = Path("resources") / f"{_file_name(self.encoder)}_{kind}.safetensors"
        scatter = config["scatter"]
        self.shards: int = scatter["shards"]
        self.fits_together = not scatter["folds"]
        self.allowed_failures: int = config["extract"]["allow_failures"]
        self._metrics = self.results / "metrics.json"
        self._metrics_before = _state(self._metrics)

    @property
    def encoder_files(self) -> list[Path]:
        """Files that the encoder is read from, if it is a folder: what they change runs again."""
        folder = folder_of(self.encoder)
        names = () if folder is None else (CONFIG, *WEIGHTS)
        return [folder / name for name in names if folder is not None and (folder / name).is_file()]

    @property
    def fits(self) -> list[Path]:
        """The folder of the fits, or that of each fold where each has a job of its own."""
        if self.fits_together:
            return [self.results / "fits"]
        split = self._config["split"]
        folds = OFFICIAL_FOLDS if split["official"] else split["folds"] * split["repeats"]
        return [self.results / "fits" / f"fold{number}" for number in range(folds)]

    def _name(self) -> str:
        dataset = self.dataset.resolve()
        # The end of a folder's name tells it from others, as in `images.v2`.
        own = dataset.stem if dataset.suffix.lower() == ".csv" else dataset.name
        return re.sub(r"[^\w.-]+", "_", self._config["name"] or own)

    @staticmethod
    def put_this_interpreter_first() -> None:
        """Let `python3` in the rules be the interpreter that runs Snakemake.

        So the workflow runs from an environment that is not activated. A conda environment, if
        Snakemake is told to use it, still comes before it.
        """
        own = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])

    def options(self, section: str) -> str:
        """A section of the configuration as command line options.

        Keys become long options; null leaves an option out; a truth value becomes the option
        or its opposite; a list repeats it.
        """
        values = dict(self._config[section])
        if section == "evaluate" and self.is_demo:
            values["note"] = values.get("note") or _DEMO_NOTE
        words = []
        for key, value in sorted(values.items()):
            option = "--" + key.replace("_", "-")
            if isinstance(value, bool):
                words.append(option if value else _OPPOSITES[option])
            elif isinstance(value, list):
                words += [word for one in value for word in (option, str(one))]
            elif value is not None:
                words += [option, str(value)]
        return shlex.join(words)

    def listing(self) -> str:
        """A digest of the names, sizes and times of a data set's images.

        Snakemake looks only at the time of a folder or table, which does not change when a file
        deeper down, or named in the table, does.
        """
        digest = hashlib.sha256()
        for file in self._files():
            digest.update(f"{file} {_state(file)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _files(self) -> Iterator[Path]:
        if self.is_demo:
            return
        if self.dataset.is_dir():
            for folder, folders, files in os.walk(self.dataset):
                folders.sort()
                yield from (Path(folder) / name for name in sorted(files))
            return
        # Rule index tells what is wrong with the table.
        with contextlib.suppress(UsageError):
            for _, fields in read_table(self.dataset, ["path"]):
                yield self.dataset.parent / fields["path"]

    def print_results(self) -> None:
        """Show the numbers last, where nothing scrolls them away, and where the rest is.

        Nothing is shown after a run that made no numbers, such as one with `--until extract`.
        """
        if _state(self._metrics) == self._metrics_before:
            return
        table = headline(self._metrics)
        sys.stdout.write(
            f"\n{table}\n\nResults are in {self.results}/: open report.html in a browser; "
            "metrics.json has all numbers, fits/ the models and predictions, features.h5 the "
            "features, logs/ what each step said.\n"
        )


def _file_name(encoder: str) -> str:
    """Part of a file's name: short, and another for each encoder."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", encoder)
    if len(encoder) <= 80 and plain in (encoder, encoder.replace(":", "_", 1)):
        return plain
    return f"{plain[:40]}_{hashlib.sha256(encoder.encode()).hexdigest()[:12]}"


def _state(file: Path) -> str:
    try:
        found = file.lstat()
    except (OSError, ValueError):
        return "absent"
    return f"{found.st_size} {found.st_mtime_ns}"


_OPPOSITES = {"--bidirectional": "--one-direction", "--companions": "--no-companions"}
