"""Where a fit stands between two compiled calls."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from dsrecon.training.updates import Run

Traces = dict[str, np.ndarray]
"""What was told of every update, by name."""


class Best(NamedTuple):
    """The best parameters so far of a group of `r` runs: `free` on the device, `score` and `at` `[r]` on the host."""

    free: PyTree
    score: np.ndarray
    at: np.ndarray

    def offered(self, run: Run, found: dict[str, np.ndarray] | None, done: int, over: np.ndarray) -> "Best":
        """The better of these and of the parameters after `done` updates, run by run, by the scores `found` of them.

        Runs that are `over` `[r]` keep what they have.
        """
        failed_at = np.asarray(run.failed_at)
        if found is None:
            better, score = np.ones(len(self.at), bool), self.score
        else:
            score = np.asarray(found.get("score", ()))
            if score.shape != self.score.shape:
                raise ValueError(
                    f'evaluate must return {{"score": [{len(self.at)}], ...}}, one a run: got '
                    f"{ {k: np.shape(v) for k, v in found.items()} }."
                )
            unscored = np.isinf(self.score) & ~np.isfinite(score)
            better = ((score < self.score) | unscored) & ~over
            score = np.where((score < self.score) & ~over, score, self.score)

        def choose(new, old):
            return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        at = np.where(better, np.where(failed_at >= 0, failed_at, done), self.at)
        return Best(jax.tree.map(choose, run.free, self.free), score, at)


class Progress(NamedTuple):
    """All that a fit has come to. It is never changed, only replaced: whatever interrupts a fit finds it whole.

    - `runs`, `best`: one a group of runs.
    - `traces`: name to `[u, r]`, one a compiled call, `loss` among them; `scores`: name to `[r]`, one an evaluation.
    - `done`: updates.
    - `compile_seconds`, `seconds`: spent so far.
    """

    runs: tuple[Run, ...]
    best: tuple[Best, ...]
    traces: tuple[dict[str, np.ndarray], ...] = ()
    scores: tuple[dict[str, np.ndarray], ...] = ()
    done: int = 0
    compile_seconds: float = 0.0
    seconds: float = 0.0

    @staticmethod
    def begun(runs: Sequence[Run]) -> "Progress":
        """Nothing done yet; each run's start is its best."""
        sizes = [len(run.key) for run in runs]
        best = [Best(run.free, np.full(n, np.inf), np.zeros(n, int)) for run, n in zip(runs, sizes, strict=True)]
        return Progress(tuple(runs), tuple(best))

    def advanced(
        self,
        length: int,
        results: Sequence[tuple[Run, dict[str, np.ndarray], Any]],
        seconds: float,
        limit: int | None = None,
    ) -> "Progress":
        """After `length` updates more, which gave `(run, {name: [r, length]}, scores or None)` for every group."""
        done = self.done + length
        best = [
            old.offered(run, found, done, _stalled(old, self.done, limit))
            for old, (run, _, found) in zip(self.best, results, strict=True)
        ]
        traces = {k: np.concatenate([facts[k] for _, facts, _ in results]).T for k in results[0][1]}
        evaluated = [found for *_, found in results if found is not None]
        scores = [{k: np.concatenate([f[k] for f in evaluated]) for k in evaluated[0]}] if evaluated else []
        return Progress(
            tuple(run for run, *_ in results),
            tuple(best),
            (*self.traces, traces),
            (*self.scores, *scores),
            done,
            self.compile_seconds,
            seconds,
        )

    def trace(self) -> dict[str, np.ndarray]:
        """All traces from the first update on: name to `[u, r]`."""
        return {k: np.concatenate([t[k] for t in self.traces]) for k in self.traces[0]} if self.traces else {}

    def stalled(self, limit: int | None) -> np.ndarray:
        """Which runs have had `limit` updates without a better score: `[r]`; none without a limit."""
        return np.concatenate([_stalled(best, self.done, limit) for best in self.best])

    @property
    def failed_at(self) -> np.ndarray:
        """Update at which each run stopped, -1 for those that go on: `[r]`."""
        return np.concatenate([np.asarray(run.failed_at) for run in self.runs])


def _stalled(best: Best, done: int, limit: int | None) -> np.ndarray:
    return np.zeros(len(best.at), bool) if limit is None else done - best.at >= limit


def joined(groups: Sequence[PyTree]) -> PyTree:
    """The groups as one, on the host; random keys as the words they are made of."""
    return jax.tree.map(lambda *x: np.concatenate([_on_host(v) for v in x]), *groups)


def parted(tree: PyTree, groups: Sequence[PyTree]) -> tuple[PyTree, ...]:
    """What `joined` made, in groups as long as these and where these are: on the device or on the host."""

    def part(values, like):
        if not isinstance(like, jax.Array):
            return values
        if _is_key(like):
            values = jax.random.wrap_key_data(values, impl=jax.random.key_impl(like))
        return jax.device_put(values, like.sharding)

    parts, start = [], 0
    for group in groups:
        size = len(jax.tree.leaves(group)[0])
        parts.append(jax.tree.map(lambda x, like, a=start, n=size: part(x[a : a + n], like), tree, group))
        start += size
    return tuple(parts)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _on_host(x: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)
