"""The layers of docs/architecture.md, kept by reading every import in the source, function bodies too.

A dynamic import of a name that is only known at run time is out of reach of this test.
"""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dsrecon"

# A module may import what stands in a row above its own here (rows are numbered from 0), and its own package.
LAYERS = (
    ("_types", "_results", "_files", "_checks"),
    ("kernels",),
    (
        "cell",
        "readout",
        "pwl",
        "evolve",
        "newton",
        "layer",
        "forecaster",
        "series",
        "scaler",
        "embedding",
        "modelfile",
        "reconstruction",
    ),
    ("models", "training", "measures", "symbolic", "analysis", "systems"),
    ("data", "datasets", "plot", "export"),
    ("reconstruct", "forecast", "diagnose", "cli", "__init__", "__main__"),
)
ORDERED = 2  # in this row a module may also import those to its left
TOP = 5  # in this row a module may import everything

# Third-party packages with one door, and the modules that are that door.
DOORS = {
    "matplotlib": {"plot"},
    "mpl_toolkits": {"plot"},
    "diffrax": {"systems"},
    "networkx": {"symbolic"},
    "pooch": {"datasets"},
    "scoringrules": {"measures"},
    "sktime": {"forecast"},
    "dp_accounting": {"training"},
}
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
MAY_PRINT = {"cli"}

ROW = {module: row for row, modules in enumerate(LAYERS) for module in modules}


def allowed(importer: str, imported: str) -> bool:
    """Whether one module (or package) directly under `dsrecon` may import another."""
    above, below = ROW[importer], ROW[imported]
    if importer == imported or above == TOP:
        return True
    if above == below == ORDERED:
        return LAYERS[ORDERED].index(imported) < LAYERS[ORDERED].index(importer)
    return below < above


def imports(tree: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of all that a source imports; `path` is ("dsrecon", ..., "file.py")."""
    package = path[:-1]

    def absolute(name: str, level: int) -> str:
        if not level:
            return name
        return ".".join((*package[: len(package) - level + 1], *([name] if name else [])))

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node.module or "", node.level)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called.id if isinstance(called, ast.Name) else called
            name = node.args[0].value
            if called in ("import_module", "__import__") and isinstance(name, str):
                dots = len(name) - len(name.lstrip("."))
                yield node.lineno, absolute(name[dots:], dots)


def violations(source: str, path: tuple[str, ...], modules: frozenset[str]) -> list[str]:
    """What in a source breaks the rules. `modules` are the modules and packages directly under `dsrecon`."""
    where, module = "/".join(path), path[1].removesuffix(".py")
    if module not in ROW:
        return [
            f"{where}: the module {module!r} has no layer. Add it to LAYERS in tests/test_layering.py "
            "and to the table in docs/architecture.md."
        ]
    tree, found = ast.parse(source), []
    for line, name in imports(tree, path):
        root, *rest = name.split(".")
        if root == "dsrecon":
            target = rest[0] if rest and rest[0] in modules | ROW.keys() else "__init__"
            if target not in ROW:
                found.append(f"{where}:{line}: imports {target!r}, which has no layer (LAYERS, test_layering.py).")
            elif not allowed(module, target):
                found.append(
                    f"{where}:{line}: {module} (layer {ROW[module]}) must not import {target} (layer {ROW[target]})."
                )
        if module not in DOORS.get(root, {module}):
            found.append(f"{where}:{line}: {root} is imported only in {', '.join(sorted(DOORS[root]))}.")
        if root in PICKLES:
            found.append(f"{where}:{line}: no pickle, in any form: {root}.")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "print" and module not in MAY_PRINT:
                found.append(f"{where}:{node.lineno}: print() outside cli.")
            if name in ("read_pickle", "to_pickle"):
                found.append(f"{where}:{node.lineno}: no pickle, in any form: {name}.")
            for keyword in node.keywords:
                value = keyword.value
                off = isinstance(value, ast.Constant) and value.value is False
                if keyword.arg == "allow_pickle" and not off:
                    found.append(f"{where}:{node.lineno}: allow_pickle must be False.")
    return list(dict.fromkeys(found))


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = frozenset(
    path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_layer_allows(path):
    inside = ("dsrecon", *path.relative_to(PACKAGE).parts)
    found = violations(path.read_text(), inside, MODULES)
    assert not found, "\n" + "\n".join(found)


def test_the_walk_reaches_the_package():
    assert {"__init__", "cell", "kernels", "models"} <= MODULES
    assert PACKAGE / "kernels" / "recurrence.py" in FILES


def test_the_table_names_each_module_once():
    assert len(ROW) == sum(map(len, LAYERS))


# The checker itself: what it must catch, and what it must let pass.

WRONG = {
    "upwards": ("cell.py", "from dsrecon.models import ALRNN"),
    "upwards, plain import": ("cell.py", "import dsrecon.models.alrnn as a"),
    "upwards, from the root": ("cell.py", "from dsrecon import models"),
    "upwards, relative": ("cell.py", "from .models import ALRNN"),
    "upwards, relative module": ("cell.py", "from . import models"),
    "upwards, two dots": ("kernels/scan.py", "from ..cell import AbstractCell"),
    "upwards, two dots, module": ("kernels/scan.py", "from .. import cell"),
    "in a function": ("cell.py", "def f():\n    from dsrecon.evolve import evolve"),
    "in a method, under a condition": (
        "cell.py",
        "class A:\n    def f(self):\n        if self:\n            import dsrecon.evolve",
    ),
    "for types only": (
        "cell.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dsrecon.evolve import evolve",
    ),
    "by import_module": ("cell.py", "import importlib\nimportlib.import_module('dsrecon.plot')"),
    "by bare import_module": (
        "cell.py",
        "from importlib import import_module\nimport_module('.plot', 'dsrecon')",
    ),
    "by __import__": ("cell.py", "__import__('dsrecon.training.losses')"),
    "to the right in the ordered layer": ("readout.py", "from dsrecon.evolve import evolve"),
    "siblings of layer 3": ("training/fit.py", "from dsrecon.measures import d_stsp"),
    "siblings of layer 3, relative": ("training/fit.py", "from ..models import ALRNN"),
    "siblings of layer 4": ("data.py", "import dsrecon.plot"),
    "siblings of layer 0": ("_types.py", "from dsrecon._results import RESULTS"),
    "the root below the top": ("measures/spectra.py", "import dsrecon"),
    "a public name of the root": ("measures/spectra.py", "from dsrecon import ALRNN"),
    "all of the root": ("measures/spectra.py", "from dsrecon import *"),
    "a module without a layer": ("cli.py", "from dsrecon import strange"),
    "matplotlib": ("reconstruct.py", "def f():\n    import matplotlib.pyplot as plt"),
    "diffrax": ("models/ode.py", "from diffrax import Tsit5"),
    "networkx": ("analysis/cycles.py", "import networkx as nx"),
    "pickle": ("reconstruction.py", "import pickle"),
    "allow_pickle": ("data.py", "np.load(path, allow_pickle=True)"),
    "allow_pickle by a variable": ("data.py", "np.load(path, allow_pickle=trust)"),
    "pandas pickles": ("data.py", "pd.read_pickle(path)"),
    "print": ("training/fit.py", "def f():\n    print('step')"),
    "print of jax": ("training/fit.py", "jax.debug.print('step')"),
}
RIGHT = {
    "downwards": ("training/fit.py", "from dsrecon.evolve import evolve\nfrom ..cell import x"),
    "downwards, from the root": ("training/fit.py", "from dsrecon import cell, readout"),
    "to the left in the ordered layer": ("reconstruction.py", "from dsrecon.series import Series"),
    "its own package": (
        "models/alrnn.py",
        "from dsrecon.models._init import a\nfrom . import _init",
    ),
    "the top takes all": ("cli.py", "import dsrecon\nfrom dsrecon.diagnose import diagnose"),
    "the root takes all": ("__init__.py", "from dsrecon.cli import app\nfrom .plot import summary"),
    "the doors": ("plot.py", "import matplotlib.pyplot as plt"),
    "diffrax in systems": ("systems.py", "import diffrax"),
    "networkx in symbolic": ("symbolic/graph.py", "import networkx as nx"),
    "other packages": (
        "measures/spectra.py",
        "import numpy, scipy.signal\nfrom dsrecon2 import models",
    ),
    "allow_pickle=False": ("data.py", "np.load(path, allow_pickle=False)"),
    "print in cli": ("cli.py", "print('done')"),
}
MADE_UP = frozenset(ROW) | {"strange"}


@pytest.mark.parametrize("case", WRONG)
def test_the_checker_catches(case):
    file, source = WRONG[case]
    found = violations(source, ("dsrecon", *file.split("/")), MADE_UP)
    assert len(found) == 1, found
    assert found[0].startswith(f"dsrecon/{file}:")


@pytest.mark.parametrize("case", RIGHT)
def test_the_checker_lets_pass(case):
    file, source = RIGHT[case]
    assert violations(source, ("dsrecon", *file.split("/")), MADE_UP) == []


@pytest.mark.parametrize("file", ["strange.py", "strange/part.py"])
def test_a_module_without_a_layer_is_told_where_to_add_itself(file):
    (message,) = violations("", ("dsrecon", *file.split("/")), MADE_UP)
    assert "'strange' has no layer" in message
    assert "LAYERS in tests/test_layering.py" in message


# Importing has no side effect: seen from a fresh interpreter.

PROBE = """
import importlib, os, sys
import jax, numpy
from jax._src import xla_bridge

before = dict(jax.config.values), os.environ.copy(), numpy.random.get_state()[1].tolist()
for name in sys.argv[1:]:
    importlib.import_module(name)
after = dict(jax.config.values), os.environ.copy(), numpy.random.get_state()[1].tolist()
changed = [k for k in before[0] if after[0][k] != before[0][k]]  # a part of jax that is imported adds keys of its own
if changed:
    print("jax.config:", *changed)
if before[1] != after[1]:
    print("environment")
if before[2] != after[2]:
    print("seed of numpy.random")
if xla_bridge._backends:
    print("backend:", *xla_bridge._backends)
if "matplotlib.pyplot" in sys.modules:
    print("matplotlib.pyplot")
"""


def side_effects(*modules: str, cwd: Path) -> list[str]:
    """What importing the modules in a fresh interpreter did beside defining them, one line each."""
    run = subprocess.run([sys.executable, "-c", PROBE, *modules], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_importing_the_package_has_no_side_effect():
    assert side_effects("dsrecon", cwd=PACKAGE.parent) == []


def test_importing_every_module_leaves_jax_alone():
    names = [".".join(("dsrecon", *file.relative_to(PACKAGE).parts))[: -len(".py")] for file in FILES]
    foreign = "dsrecon.forecast.adapter"  # imports sktime, which is not ours to answer for
    names = [name.removesuffix(".__init__") for name in names if not name.endswith(".__main__") and name != foreign]
    assert set(side_effects(*names, cwd=PACKAGE.parent)) <= {"matplotlib.pyplot"}


def test_the_probe_sees_side_effects(tmp_path):
    (tmp_path / "loud.py").write_text(
        textwrap.dedent("""
            import os, jax, numpy, matplotlib.pyplot
            jax.config.update("jax_enable_x64", True)
            jax.numpy.zeros(1)
            numpy.random.seed(1)
            os.environ["LOUD"] = "1"
        """)
    )
    found = side_effects("loud", cwd=tmp_path)
    assert [line.split(":")[0] for line in found] == [
        "jax.config",
        "environment",
        "seed of numpy.random",
        "backend",
        "matplotlib.pyplot",
    ]
