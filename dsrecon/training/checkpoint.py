"""A fit on disk: written whole or not at all, read back to go on exactly where it stood."""

import errno
import glob
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from dsrecon.modelfile import read_tree, write_tree
from dsrecon.training.progress import Progress, joined, parted
from dsrecon.training.updates import Recipe, Run, text

FORMAT = "dsrecon-checkpoint"
SHARE = 0.05
"""Share of a fit's time that may go into writing: a chunk that ends sooner than that allows is not written."""


def fingerprint(facts: dict[str, Any], start: tuple[Run, PyTree], recipe: Recipe) -> dict[str, Any]:
    """What makes a fit the one it is, entry by entry, in readable form; arrays by their SHA-256.

    Loss, sampler and optimiser are functions, and functions cannot be compared. What is compared is the program that
    they trace to (StableHLO of one update, which is the same in every process), with every constant in it, and the
    arrays of sampler and optimiser state. `evaluate` runs on the host and is not seen: what it depends on belongs
    into the facts.

    **Arguments:** `facts`: numbers and texts by name; `start`: all runs, and the arrays of the model that are not
    trained; `recipe`.
    """
    run, fixed = start
    return {
        **facts,
        "jax": f"{jax.__version__} on {jax.default_backend()}",
        **_arrays("key", run.key),
        **_arrays("model", eqx.combine(run.free, fixed)),
        **_arrays("state", run.loss_state),
        **_arrays("sampler", eqx.filter(recipe.sampler, eqx.is_array)),
        **_arrays("optimiser", run.opt_state),
        "program": f"sha256:{hashlib.sha256(text(start, recipe).encode()).hexdigest()}",
    }


class Checkpoint:
    """The file of one fit: knows whose it is, and how long writing takes.

    **Arguments:** `path`; `fingerprint`: of the fit, `{entry: text or number}`.

    **Raises:** `OSError` for a folder that does not exist or cannot be written: at once, not after hours.
    """

    def __init__(self, path: str | os.PathLike, fingerprint: dict[str, Any]):
        self.path, self.fingerprint = Path(path), fingerprint
        self.written: Progress | None = None
        self.cost, self.ended, self.begun = 0.0, -np.inf, time.time()
        if not (self.path.parent.is_dir() and os.access(self.path.parent, os.W_OK)):
            what = f"cannot write a checkpoint: {self.path.parent} is no folder that can be written"
            raise OSError(errno.EACCES if self.path.parent.exists() else errno.ENOENT, what, str(self.path))

    def read(self, start: Progress) -> Progress:
        """Where the fit stood; `start` where there is no file yet, which also says how runs are grouped now.

        **Raises:** `ValueError` for a file that is damaged, of another kind, or of another fit: naming what differs.
        """
        if not self.path.exists():
            return start
        found = read_tree(self.path, FORMAT)
        self._compare(found["fingerprint"])
        groups = list(zip(start.runs, start.best, strict=True))
        tree = jax.tree.unflatten(jax.tree.structure(groups[0]), found["leaves"])
        runs, best = zip(*parted(tree, groups), strict=True)
        scores = [{k: v[i] for k, v in found["scores"].items()} for i in range(found["evaluations"])]
        times = found["compile_seconds"], found["seconds"]
        self.written = Progress(
            runs, best, (found["traces"],) if found["done"] else (), tuple(scores), found["done"], *times
        )
        return self.written

    def write(self, progress: Progress, *, now: bool = False) -> None:
        """Put it on the disk, unless it is there, or writing would take more than its share of the time.

        **Arguments:** `progress`; `now`: write whatever it costs.

        **Raises:** `OSError` that names the file; the one before stays whole.
        """
        begun = time.perf_counter()
        if progress is self.written or not (now or (begun - self.ended) * SHARE >= self.cost):
            return
        if not self.cost:
            self._sweep()
        tree = joined(list(zip(progress.runs, progress.best, strict=True)))
        names = progress.scores[0] if progress.scores else {}
        content = {
            "fingerprint": self.fingerprint,
            "done": progress.done,
            "compile_seconds": progress.compile_seconds,
            "seconds": progress.seconds,
            "leaves": jax.tree.leaves(tree),
            "traces": progress.trace(),
            "scores": {k: np.stack([s[k] for s in progress.scores]) for k in names},
            "evaluations": len(progress.scores),
        }
        write_tree(self.path, content, FORMAT)
        self.written, self.ended = progress, time.perf_counter()
        self.cost = self.ended - begun

    def _compare(self, found: dict[str, Any]) -> None:
        own = self.fingerprint
        names = [k for k in dict.fromkeys([*own, *found]) if own.get(k) != found.get(k)]
        if not names:
            return
        settings = _unlike(found.get("identity"), own.get("identity"))
        readable = [k for k in names if k != "identity" and "sha256" not in f"{found.get(k)}{own.get(k)}"]
        shown = [f"{k}: {found.get(k)}, here {own.get(k)}" for k in readable] + settings
        if not shown:
            shown = [f"{k}: {_brief(found.get(k), own.get(k))}, here {_brief(own.get(k), found.get(k))}" for k in names]
        rest = f"; and {len(shown) - 6} more" if len(shown) > 6 else ""
        raise ValueError(
            f"{self.path} is the checkpoint of another fit. In the file: {'; '.join(shown[:6])}{rest}. Go on with what "
            "it was begun with, or give another path."
        )

    def _sweep(self) -> None:
        """Remove what a killed writer left behind: temporary files from before this fit."""
        for part in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.part"):
            try:
                if part.stat().st_mtime < self.begun:
                    part.unlink()
            except FileNotFoundError:
                continue  # another fit was faster


def _arrays(name: str, tree: PyTree) -> dict[str, str]:
    """Name, type, shape and checksum of every array."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, np.ndarray | jax.Array):
            key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            values = np.asarray(jax.random.key_data(leaf) if key else leaf)
            digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
            found[name + jax.tree_util.keystr(path)] = f"{leaf.dtype}{list(leaf.shape)} sha256:{digest}"
    return found


def _unlike(found: Any, own: Any) -> list[str]:
    """Where two identities differ that are objects in JSON: entry by entry; otherwise nothing."""
    try:
        one, other = json.loads(found), json.loads(own)
    except (TypeError, ValueError):
        return []
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return []
    names = [k for k in dict.fromkeys([*other, *one]) if one.get(k) != other.get(k)]
    return [f"{k}: {one.get(k)}, here {other.get(k)}" for k in names]


def _brief(value: Any, other: Any) -> str:
    """A value, cut to where it begins to differ from another."""
    if value is None:
        return "nothing"
    if not isinstance(value, str):
        return str(value)
    pairs = enumerate(zip(value, str(other), strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(value), len(str(other))))
    start = max(0, same - 30)
    return ("..." if start else "") + value[start : same + 30] + ("..." if same + 30 < len(value) else "")
