"""What imports what: stages apart, the cache on its own, a command line that starts at once."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchvision", "numpy", "h5py", "sklearn", "snakemake", "PIL", "safetensors"}
GROUPS = {
    "pipeline.arguments",
    "pipeline.completion",
    *("pipeline.app", "pipeline.app.command"),
    *("pipeline.caches", "pipeline.caches.commands"),
    *("pipeline.doctor", "pipeline.doctor.command"),
    *("pipeline.exchange", "pipeline.exchange.commands"),
    *("pipeline.prediction", "pipeline.prediction.command"),
    *("pipeline.report", "pipeline.report.command"),
}
CACHE_MAY_USE = {"numpy", "h5py", "cache"}


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after running `code`."""
    report = "import json, sys; print(); print(json.dumps(list(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(json.loads(found.stdout.splitlines()[-1]))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def below(modules: set[str], *parents: str) -> set[str]:
    return {name for name in modules for parent in parents if f"{name}.".startswith(f"{parent}.")}


def imports_of(path: Path) -> set[str]:
    """Absolute names of what a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_cache_loads_neither_torch_nor_click_nor_the_pipeline():
    modules = loaded_by("import cache")
    assert "cache.writer" in modules
    assert not packages(modules) & {"torch", "torchvision", "click", "sklearn", "PIL", "pipeline"}


@pytest.mark.parametrize(
    "code",
    [
        "import pipeline.cli",
        "from pipeline.cli import main; main(['--help'], standalone_mode=False)",
        "from pipeline.cli import main; main(['extract', '--help'], standalone_mode=False)",
    ],
    ids=["import", "pipeline --help", "pipeline extract --help"],
)
def test_the_command_line_starts_without_anything_heavy(code):
    modules = loaded_by(code)
    assert not packages(modules) & HEAVY
    assert below(modules, "pipeline") == {"pipeline", "pipeline.cli", *GROUPS}
    assert not below(modules, "cache")


def test_extraction_loads_nothing_of_stage_two():
    modules = loaded_by("import pipeline.extraction.extract")
    assert "pipeline.extraction.engines.choose" in modules
    assert not below(modules, "pipeline.fitting", "pipeline.evaluation", "sklearn", "pipeline.cli")


def test_fitting_loads_nothing_of_stage_one():
    modules = loaded_by("import pipeline.fitting.fit")
    assert "pipeline.fitting.networks" in modules
    assert not below(modules, "pipeline.extraction", "pipeline.weights", "torchvision", "PIL")
    assert not below(modules, "pipeline.evaluation", "sklearn", "pipeline.cli")


def test_evaluation_loads_neither_torch_nor_the_fitting():
    modules = loaded_by("import pipeline.evaluation.evaluate")
    assert not packages(modules) & {"torch", "torchvision", "PIL"}
    assert not below(modules, "pipeline.extraction", "pipeline.fitting.fit", "pipeline.cli")


@pytest.mark.parametrize("path", files_of("cache"), ids=name_of)
def test_the_cache_imports_the_standard_library_numpy_and_h5py_only(path):
    others = packages(imports_of(path)) - sys.stdlib_module_names
    assert others <= CACHE_MAY_USE


@pytest.mark.parametrize("path", files_of("pipeline"), ids=name_of)
def test_imports_point_away_from_the_command_line(path):
    if path.name != "__main__.py":
        assert not below(imports_of(path), "pipeline.cli")


@pytest.mark.parametrize(
    ("stage", "others"),
    [
        ("extraction", ["fitting", "evaluation", "splits", "demo", "workflow"]),
        ("fitting", ["extraction", "evaluation", "weights", "demo", "workflow"]),
        ("evaluation", ["extraction", "weights", "demo", "workflow"]),
        ("dataset", ["extraction", "fitting", "evaluation", "splits", "weights", "workflow"]),
        ("splits", ["extraction", "fitting", "evaluation", "weights", "demo", "workflow"]),
        ("weights", ["extraction", "fitting", "evaluation", "dataset", "splits", "workflow"]),
        ("evaluation", ["prediction", "report", "app", "doctor"]),
        ("fitting", ["prediction", "report", "app", "doctor"]),
        ("extraction", ["prediction", "report", "app", "doctor"]),
        ("prediction", ["evaluation", "report", "app", "splits", "demo", "workflow"]),
        ("report", ["app", "splits", "demo", "workflow"]),
        ("app", ["evaluation", "report", "splits", "demo", "workflow"]),
        ("exchange", ["extraction", "fitting", "evaluation", "splits", "weights", "workflow"]),
        ("caches", ["fitting", "evaluation", "splits", "demo", "workflow"]),
        ("demo", ["extraction", "fitting", "evaluation", "splits", "weights", "workflow"]),
    ],
)
def test_no_part_imports_what_comes_after_it_even_inside_a_function(stage, others):
    for path in files_of(f"pipeline/{stage}"):
        found = below(imports_of(path), *(f"pipeline.{other}" for other in others))
        assert not found, f"{name_of(path)} imports {sorted(found)}"


def test_importing_any_module_prints_nothing_and_starts_nothing():
    """Scripts with work at import are what this refuses; only `__main__` runs."""
    for path in [*files_of("pipeline"), *files_of("cache")]:
        if path.name == "__main__.py":
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant), f"{name_of(path)}:{node.lineno}"
