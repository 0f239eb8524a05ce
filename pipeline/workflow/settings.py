"""The workflow's configuration as paths and command lines."""

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.evaluation.headline import headline

_DEMO = "demo"
_DEMO_NOTE = "The images are SYNTHETIC: these numbers show that the pipeline works, no more."


class Settings:
    """The settings of one run of the workflow.

    Attributes:
        is_demo: whether the data set is the synthetic one.
        dataset: the data set.
        results: folder of everything that is made from it.
        weights: file of the encoder's weights.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.is_demo = config["dataset"] == _DEMO
        self.dataset = Path("resources/demo") if self.is_demo else Path(config["dataset"])
        self.results = Path("results") / self._name()
        seed = config["weights"].get("random")
        kind = "imagenet" if seed is None else f"random_{seed}"
        self.weights = Path("resources") / f"vgg16_{kind}.safetensors"

    def _name(self) -> str:
        own = self._config["name"] or self.dataset.resolve().stem
        return re.sub(r"[^A-Za-z0-9._-]+", "_", own)

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
        or its opposite.
        """
        values = dict(self._config[section])
        if section == "evaluate" and self.is_demo:
            values["note"] = values.get("note") or _DEMO_NOTE
        words = []
        for key, value in sorted(values.items()):
            option = "--" + key.replace("_", "-")
            if isinstance(value, bool):
                words.append(option if value else _OPPOSITES[option])
            elif value is not None:
                words += [option, str(value)]
        return shlex.join(words)

    def listing(self) -> str:
        """A digest of the names, sizes and times of a data set's files.

        Snakemake looks at a folder's own time only, which does not change when a file deeper
        down does.
        """
        if self.is_demo or not self.dataset.is_dir():
            return ""
        digest = hashlib.sha256()
        for folder, folders, files in os.walk(self.dataset):
            folders.sort()
            for name in sorted(files):
                found = (Path(folder) / name).lstat()
                digest.update(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def print_results(self) -> None:
        """Show the numbers last, where nothing scrolls them away, and where the rest is."""
        table = headline(self.results / "metrics.json")
        sys.stdout.write(
            f"\n{table}\n\nResults are in {self.results}/: metrics.json has all numbers, fits/ the "
            "models and predictions, features.h5 the features, logs/ what each step said.\n"
        )


_OPPOSITES = {"--bidirectional": "--one-direction"}
