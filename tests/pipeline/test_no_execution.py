"""Nothing that the software reads is unpickled, evaluated or run."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "cache").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")])

FORBIDDEN_MODULES = {"dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy", "code"}
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.loads"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("os.system", "os.popen", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"),
    *("numpy.fromfile", "numpy.memmap"),
}
SAFE_ONLY_WITH = {"torch.load": ("weights_only", True)}
NEVER_WITH = {("allow_pickle", True), ("shell", True), ("weights_only", False)}


def imported_names(tree):
    """Name in the file → what it stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def full_name(node, names):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def dangers_of(source):
    """What a source does that could run what it reads, a line each."""
    tree = ast.parse(source)
    names = imported_names(tree)
    roots = {name.partition(".")[0] for name in names.values()}
    found = [f"imports {name}" for name in sorted(roots & FORBIDDEN_MODULES)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func, names)
        keywords = {
            (word.arg, word.value.value)
            for word in node.keywords
            if isinstance(word.value, ast.Constant)
        }
        unsafe = name in SAFE_ONLY_WITH and SAFE_ONLY_WITH[name] not in keywords
        if name in FORBIDDEN_BUILTINS | FORBIDDEN_CALLS or unsafe or keywords & NEVER_WITH:
            found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_unpickles_or_runs_what_it_reads(path):
    assert dangers_of(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(data)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "eval(text)",
        "import joblib",
        "import subprocess\nsubprocess.run(text, shell=True)",
    ],
)
def test_each_way_to_run_what_is_read_would_be_noticed(source):
    assert dangers_of(source)


def test_what_is_safe_is_not_refused():
    assert dangers_of("import torch\ntorch.load(path, weights_only=True)") == []


def test_every_source_is_looked_at():
    assert len(SOURCES) > 40
