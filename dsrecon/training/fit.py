"""The training loop: many updates in one compiled call, many runs at once."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree
from tqdm.auto import tqdm

from dsrecon._types import Key, Keys
from dsrecon.training.losses import Loss


class History(NamedTuple):
    """What happened. Arrays are on the host; `r` runs, `u` updates, `e` evaluations.

    - `loss` `[u, r]`: training loss of each update; NaN from the update after which a run stopped.
    - `scores`: name to `[e, r]`, what `evaluate` gave; `evaluated_at` `[e]`: after how many updates.
    - `best_at` `[r]`: updates after which the returned model was kept.
    - `failed_at` `[r]`: update at which a run turned non-finite and stopped, -1 where none did.
    - `compile_seconds`, `seconds`: time to compile, and to train after that.
    """

    loss: np.ndarray
    scores: dict[str, np.ndarray]
    evaluated_at: np.ndarray
    best_at: np.ndarray
    failed_at: np.ndarray
    compile_seconds: float
    seconds: float


class _Run(NamedTuple):
    """All that one update takes in and gives back, for one run."""

    free: PyTree
    opt_state: PyTree
    loss_state: PyTree
    key: Keys
    update: Array
    failed_at: Array


def radam(start: float, end: float, steps: int) -> optax.GradientTransformation:
    """RAdam (Liu 2020) with a learning rate that decays exponentially from `start` to `end` over `steps` updates."""
    if not (start > 0 and end > 0 and steps >= 1):
        raise ValueError(f"rates must be positive and steps at least 1: got {start}, {end}, {steps}.")
    return optax.radam(optax.exponential_decay(start, steps, end / start))


def fit(
    model: PyTree,
    loss: Loss,
    sampler: Callable[[Key], Any],
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    key: Keys,
    state: PyTree = None,
    evaluate: Callable[[PyTree], dict[str, np.ndarray]] | None = None,
    every: int | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> tuple[PyTree, History]:
    """Minimise a loss by stochastic gradients, for one run or an ensemble of them.

    **Arguments:**

    - `model`: a PyTree; its inexact arrays are trained. For an ensemble every array leaf has a leading axis `r`.
    - `loss`: `(model, state, batch, key) -> (value, (state, facts))`, for one run. `state`: its first state.
    - `sampler`: `key -> batch`, traced; shared by the runs, each with its own keys.
    - `optimiser`: an optax transformation.
    - `steps`: updates. `every`: updates in one compiled call, evaluated after each (default: a twentieth of them).
    - `key`: one key, or keys `[r]`: one a member. A member trains as it would alone with its key.
    - `evaluate`: `models -> {"score": [r], ...}`; takes the runs of a group stacked (one run: a leading axis of 1).
      The model with the smallest `score` is returned, run by run. Without it, the last one.
    - `threads`: runs are shared out among this many host threads (default: as many as the CPU has and divide them).
    - `progress`: show a bar (default: on a terminal or in a notebook).

    A run whose loss or parameters turn non-finite stops there, keeps its last good parameters, and says so in
    `failed_at`; the others go on.

    **Returns:** `(model, History)`: the model in the form it came in.

    **Raises:** `ValueError` for `steps` or `every` below 1, leaves without the ensemble's axis, or other scores.
    """
    keys, single = _as_keys(key)
    if steps < 1 or (every is not None and every < 1):
        raise ValueError(f"steps and every must be at least 1: got {steps} and {every}.")
    runs = len(keys)
    if single:
        state = jax.tree.map(jnp.asarray, state)
        model, state = _add_axis(model), _add_axis(state)
    for leaf in [*filter(eqx.is_array, jax.tree.leaves(model)), *jax.tree.leaves(state)]:
        if jnp.shape(leaf)[:1] != (runs,):
            raise ValueError(
                f"every array of an ensemble of {runs} runs needs that leading axis: got {jnp.shape(leaf)}."
            )
    free, fixed = eqx.partition(model, eqx.is_inexact_array)
    fixed_arrays, static = eqx.partition(fixed, eqx.is_array)
    opt_state = eqx.filter_vmap(optimiser.init)(free)
    zeros = jnp.zeros(runs, jnp.int32)
    everything = (_Run(free, opt_state, state, keys, zeros, zeros - 1), fixed_arrays)

    groups = _split(runs, threads)
    carried = [jax.tree.map(lambda x, g=g: x[g], everything) for g in groups]
    chunk = min(every or max(1, steps // 20), steps)
    lengths = [chunk] * (steps // chunk) + ([steps % chunk] if steps % chunk else [])
    begun = time.perf_counter()
    programs = {n: _compile(n, carried[0], static, loss, sampler, optimiser) for n in sorted(set(lengths))}
    compiled = time.perf_counter()

    best = [_Best.of(c[0].free, g.stop - g.start) for c, g in zip(carried, groups, strict=True)]
    losses, scores, done = [], [], 0
    settings = _thread_settings()
    with ThreadPoolExecutor(len(groups)) as pool, _bar(steps, progress) as bar:
        for n in lengths:

            def advance(i, n=n):
                run, values = programs[n](*carried[i])
                found = None
                if evaluate is not None:
                    with ExitStack() as stack:
                        for setting, value in settings:
                            stack.enter_context(setting(value))
                        found = evaluate(eqx.combine(run.free, carried[i][1], static))
                return run, np.asarray(values), found

            results = list(pool.map(advance, range(len(groups))))
            done += n
            for i, (run, _, found) in enumerate(results):
                carried[i] = (run, carried[i][1])
                best[i].offer(run.free, found, done, np.asarray(run.failed_at))
            losses.append(np.concatenate([values for _, values, _ in results]).T)
            evaluated = [found for *_, found in results if found is not None]
            if evaluated:
                scores.append({k: np.concatenate([f[k] for f in evaluated]) for k in evaluated[0]})
            bar.update(n)
            bar.set_postfix_str(_postfix(losses[-1], scores), refresh=False)
            if all((np.asarray(run.failed_at) >= 0).all() for run, *_ in results):
                break
    ended = time.perf_counter()

    free = jax.tree.map(lambda *x: jnp.concatenate(x), *[b.free for b in best])
    model = eqx.combine(free, fixed_arrays, static)
    history = History(
        np.concatenate(losses),
        {k: np.stack([s[k] for s in scores]) for k in (scores[0] if scores else {})},
        np.cumsum(lengths[: len(losses)]),
        np.concatenate([b.at for b in best]),
        np.concatenate([np.asarray(run.failed_at) for run, _ in carried]),
        compiled - begun,
        ended - compiled,
    )
    return (jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, model) if single else model), history


def _compile(length, example, static, loss, sampler, optimiser):
    """`length` updates of one group of runs as one executable: `(run, fixed) -> (run, losses [r, length])`."""

    def member(run: _Run, fixed: PyTree, sampler: Any):
        def update(run: _Run, _):
            batch_key, loss_key = jax.random.split(jax.random.fold_in(run.key, run.update))

            def value(free):
                return loss(eqx.combine(free, fixed, static), run.loss_state, sampler(batch_key), loss_key)

            (error, (loss_state, _)), gradient = jax.value_and_grad(value, has_aux=True)(run.free)
            updates, opt_state = optimiser.update(gradient, run.opt_state, run.free)
            proposed = (optax.apply_updates(run.free, updates), opt_state, loss_state)
            sound = _all_finite((error, proposed[0]))
            going = (run.failed_at < 0) & sound
            kept = jax.tree.map(
                lambda new, old: jnp.where(going, new, old),
                proposed,
                (run.free, run.opt_state, run.loss_state),
            )
            failed_at = jnp.where((run.failed_at < 0) & ~sound, run.update, run.failed_at)
            error = jnp.where(run.failed_at < 0, error, jnp.nan)
            return _Run(kept[0], kept[1], kept[2], run.key, run.update + 1, failed_at), error

        return jax.lax.scan(update, run, length=length)

    dynamic, fixed_sampler = eqx.partition(sampler, eqx.is_array)

    def program(run, fixed, dynamic):
        sampler = eqx.combine(dynamic, fixed_sampler)
        if len(run.key) > 1:
            return jax.vmap(member, in_axes=(0, 0, None))(run, fixed, sampler)
        # A batch axis of one would send the small products of a CPU to a slower library.
        run, fixed = jax.tree.map(lambda x: x[0], (run, fixed))
        out = member(run, fixed, sampler)
        return jax.tree.map(lambda x: x[None], out)

    executable = jax.jit(program).lower(*example, dynamic).compile()
    return lambda run, fixed: executable(run, fixed, dynamic)


def _thread_settings():
    """JAX's contexts (`with jax.enable_x64(): ...`) hold for one thread: what must be entered again in another."""
    config: Any = jax.config  # its attributes are made at run time
    return (
        (jax.enable_x64, config.jax_enable_x64),
        (jax.numpy_dtype_promotion, config.jax_numpy_dtype_promotion),
        (jax.numpy_rank_promotion, config.jax_numpy_rank_promotion),
    )


class _Best:
    """The best parameters so far of one group of runs, on the device."""

    def __init__(self, free: PyTree, score: np.ndarray, at: np.ndarray):
        self.free, self.score, self.at = free, score, at

    @staticmethod
    def of(free: PyTree, runs: int) -> "_Best":
        return _Best(free, np.full(runs, np.inf), np.zeros(runs, int))

    def offer(self, free: PyTree, found: dict[str, np.ndarray] | None, done: int, failed_at: np.ndarray) -> None:
        stopped = failed_at >= 0
        if found is None:
            better = np.ones(len(self.at), bool)
        else:
            score = np.asarray(found.get("score", ()))
            if score.shape != self.score.shape:
                raise ValueError(
                    f'evaluate must return {{"score": [{len(self.at)}], ...}}, one a run: got '
                    f"{ {k: np.shape(v) for k, v in found.items()} }."
                )
            unscored = np.isinf(self.score) & ~np.isfinite(score)
            better = (score < self.score) | unscored
            self.score = np.where(score < self.score, score, self.score)
        self.at = np.where(better | (found is None), np.where(stopped, failed_at, done), self.at)

        def choose(new, old):
            return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        self.free = jax.tree.map(choose, free, self.free)


def _all_finite(tree: PyTree) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _as_keys(key: Keys) -> tuple[Keys, bool]:
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim > 1:
        raise ValueError(f"key must be one key or keys [r]: got shape {key.shape}.")
    return (key[None], True) if key.ndim == 0 else (key, False)


def _add_axis(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[None] if eqx.is_array(x) else x, tree)


def _split(runs: int, threads: int | None) -> list[slice]:
    """Equal groups of runs, one a thread. An accelerator takes them all at once."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1: got {threads}.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = threads or (cores if jax.default_backend() == "cpu" else 1)
    count = max(n for n in range(1, min(wanted, runs) + 1) if runs % n == 0)
    size = runs // count
    return [slice(i * size, (i + 1) * size) for i in range(count)]


def _bar(steps: int, progress: bool | None):
    shown = (sys.stderr.isatty() or "ipykernel" in sys.modules) if progress is None else progress
    return tqdm(total=steps, unit="update", disable=not shown)


def _postfix(losses: np.ndarray, scores: list[dict[str, np.ndarray]]) -> str:
    last = losses[-1]
    text = f"loss {np.median(last[np.isfinite(last)]):.3g}" if np.isfinite(last).any() else "all runs stopped"
    found = scores[-1]["score"] if scores else np.array([])
    known = found[np.isfinite(found)]
    return text + (f", best score {known.min():.3g}" if known.size else "")
