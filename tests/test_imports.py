"""Who may import what: quick starts, and workers without pandas and scikit-learn."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import adanet_py

PACKAGE = Path(adanet_py.__file__).parent
HEAVY = ("torch", "pandas", "sklearn", "numba", "llvmlite")

# No torch, pandas or scikit-learn, at import or through what they import.
LIGHT = (
    "adanet_py", "adanet_py.records", "adanet_py.errors", "adanet_py.config", "adanet_py.console",
    "adanet_py.listing", "adanet_py.cli", "adanet_py.journal", "adanet_py.reward",
    "adanet_py.metrics", "adanet_py.calibration", "adanet_py.baselines", "adanet_py.space",
    "adanet_py.controllers", "adanet_py.executors", "adanet_py.architectures",
    "adanet_py.training.optimizers", "adanet_py.training.schedules", "adanet_py.training.losses",
    "adanet_py.training.general", "adanet_py.training.engines", "adanet_py.training.diagnostics",
    "adanet_py.curves", "adanet_py.drawing", "adanet_py.fork_server",
    "adanet_py.training.engines.native",
)  # fmt: skip

# What a worker process loads: torch, but neither pandas nor scikit-learn.
WORKER = ("adanet_py.worker", "adanet_py.training.jobs", "adanet_py.training.groups")

# Only these may import these.
OWNERS = {
    "optuna": ("controllers/", "study.py"),
    "numba": ("training/engines/native/",),
    "ray": ("executors/ray.py",),
    "typer": ("commands/",),
    "matplotlib": ("drawing.py",),
    "plotext": ("drawing.py",),
}


def _loads(modules, watched):
    """For each module in turn, which of `watched` its import brought in, in a fresh process."""
    code = (
        "import importlib, json, sys\n"
        "modules, watched = json.loads(sys.argv[1])\n"
        "out = {}\n"
        "for m in modules:\n"
        "    before = set(sys.modules)\n"
        "    importlib.import_module(m)\n"
        "    out[m] = [w for w in watched if w in sys.modules and w not in before]\n"
        "print(json.dumps(out))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([modules, watched])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_light_modules_load_neither_torch_pandas_nor_scikit_learn():
    assert _loads(LIGHT, HEAVY) == {m: [] for m in LIGHT}


def test_a_worker_loads_neither_pandas_nor_scikit_learn():
    found = _loads(WORKER, ("pandas", "sklearn", "scipy", "pydantic", "numba"))
    assert found == {m: [] for m in WORKER}


def test_numba_is_loaded_by_the_engine_that_needs_it_only():
    modules = ("adanet_py.run", "adanet_py.loop", "adanet_py.api", "adanet_py.training.arrays")
    assert _loads(modules, ("numba", "llvmlite")) == {m: [] for m in modules}


def test_a_module_that_is_spared_can_be_imported_afterwards(tmp_path, monkeypatch):
    from adanet_py.training.engines.native.sparing import without

    (tmp_path / "spared_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with without("spared_module"), pytest.raises(ImportError):
        importlib.import_module("spared_module")
    assert importlib.import_module("spared_module").value == 1
    with without("spared_module"):  # nothing is taken from who has it
        assert importlib.import_module("spared_module").value == 1


def test_the_data_side_loads_no_torch():
    modules = ("adanet_py.data.table", "adanet_py.data.preprocess", "adanet_py.data.splits")
    assert _loads(modules, ("torch",)) == {m: [] for m in modules}


@pytest.mark.parametrize(
    "command",
    [["--help"], ["search", "--help"], ["--version"], ["spaces", "--help"], ["list", "metrics"],
     ["list", "architectures"], ["list", "controllers", "--json"], ["spaces", "list"]],
)  # fmt: skip
def test_quick_commands_load_neither_torch_pandas_nor_scikit_learn(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "adanet_py", *command],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "adanet_py.cli" in loaded
    assert loaded.isdisjoint(HEAVY)
    if "--help" in command:
        assert loaded.isdisjoint({"numpy", "rich"})


@cache
def _imported(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_known_to_its_owner_only(library):
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == library for name in _imported(path))
    ]
    assert [u for u in users if not u.startswith(OWNERS[library])] == []


def test_every_public_name_is_there():
    for name in adanet_py.__all__:
        assert getattr(adanet_py, name) is not None
    assert set(adanet_py.__all__) <= set(dir(adanet_py))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing_such'"):
        _ = adanet_py.nothing_such


def test_every_module_can_be_imported(compiled):
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        if name.startswith("adanet_py.training.engines.native.") and not compiled:
            continue  # needs numba
        if name != "adanet_py.__main__":
            importlib.import_module(name)


def test_the_first_proposals_of_a_search_load_no_scipy():
    code = (
        "import sys, numpy as np\n"
        "from adanet_py.controllers import CONTROLLERS\n"
        "from adanet_py.records import History\n"
        "from adanet_py.space import load_space\n"
        "CONTROLLERS['auto'](load_space('table'), History(), 8, np.random.default_rng(0))\n"
        "print([m for m in ('scipy', 'sklearn', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
