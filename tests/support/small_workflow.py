"""Run the workflow on a small data set, in a working directory of its own."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from small_data import write_image

SNAKEFILE = Path(__file__).resolve().parents[2] / "Snakefile"

SMALL: dict[str, Any] = {
    "dataset": "my images",
    "weights": {"random": 0},
    "split": {"folds": 3},
    "extract": {"patch_size": 32, "stride": 32, "device": "cpu"},
    "fit": {"hidden": 4, "components": 4, "members": 2, "steps": 4},
}
"""A configuration that takes seconds."""


@dataclass(frozen=True)
class Finished:
    """A Snakemake that came to its end: exit code, and all that it and its jobs said."""

    code: int
    text: str


@dataclass(frozen=True)
class WorkFolder:
    """A working directory with the data set `my images`."""

    path: Path

    @property
    def images(self) -> list[Path]:
        return sorted((self.path / "my images").rglob("*.png"))

    @property
    def results(self) -> Path:
        return self.path / "results/my_images"

    def snakemake(self, *options: str, **changes: Any) -> Finished:
        """Run the workflow with the small configuration, and what differs from it."""
        files = []
        for number, config in enumerate(filter(None, (SMALL, changes))):
            file = self.path / f"config{number}.yaml"
            file.write_text(yaml.safe_dump(config))
            files.append(file.name)
        words = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE), "--cores", "1"]
        done = subprocess.run(
            [*words, "--directory", ".", "--configfile", *files, *options],
            cwd=self.path,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=300,
        )
        return Finished(done.returncode, done.stdout)

    def _environment(self) -> dict[str, str]:
        """Nothing of the user's, and a PATH without the project's interpreter."""
        home = self.path / "home"
        temporary = home / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "TMPDIR": str(temporary),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def copy(self, to: Path) -> "WorkFolder":
        """A copy in which Snakemake finds everything as it left it, times included."""
        shutil.copytree(self.path, to, ignore=shutil.ignore_patterns("resources", "home"))
        # The weights are large, and replaced whole if at all.
        shutil.copytree(self.path / "resources", to / "resources", copy_function=os.link)
        return WorkFolder(to)


def write_images(folder: Path) -> None:
    """Two images of 64×64 pixels of each of 12 slides, under names of BreakHis."""
    for i in range(24):
        slide, kind = 1000 + i % 12, "M_DC" if i % 2 else "B_A"
        name = f"SOB_{kind}-14-{slide}-100-{i:03}.png"
        write_image(folder / f"SOB_{kind}_14-{slide}" / "100X" / name, i, 64, 64)
