"""The training loop: many updates in one compiled call, many runs at once."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree
from tqdm.auto import tqdm

from dsrecon._types import Devices, Key, Keys
from dsrecon.training.checkpoint import Checkpoint, fingerprint
from dsrecon.training.epochs import Epochs
from dsrecon.training.losses import Loss
from dsrecon.training.progress import Progress, joined, parted
from dsrecon.training.spread import groups_of
from dsrecon.training.updates import Adapt, Gradient, Program, Recipe, Run, compiled, of_batch

Evaluate = Callable[[PyTree], dict[str, np.ndarray]]


class History(NamedTuple):
    """What happened. Arrays are on the host; `r` runs, `u` updates, `e` evaluations.

    - `loss` `[u, r]`: training loss of each update; NaN from the update after which a run stopped.
    - `facts`: name to `[u, r]`, what else was told of each update: `gradient_norm` (of all parameters, as it comes from
      the loss, before the optimiser cuts or scales it), what the loss tells, and of an adaptive forcing `alpha`, `norm`
      (the estimate `s`) and `bound`, `(1 - alpha) s`.
    - `scores`: name to `[e, r]`, what `evaluate` gave; `evaluated_at` `[e]`: after how many updates.
    - `best_at` `[r]`: updates after which the returned model was kept.
    - `failed_at` `[r]`: update at which a run turned non-finite and stopped, -1 where none did.
    - `compile_seconds`, `seconds`: time to compile, and to train after that; of all sessions of a resumed fit.
    - `interrupted`: Ctrl-C ended it before its last update.
    """

    loss: np.ndarray
    scores: dict[str, np.ndarray]
    evaluated_at: np.ndarray
    best_at: np.ndarray
    failed_at: np.ndarray
    compile_seconds: float
    seconds: float
    interrupted: bool = False
    facts: dict[str, np.ndarray] = {}  # noqa: RUF012


def radam(start: float, end: float, steps: int) -> optax.GradientTransformation:
    """RAdam (Liu 2020) with a learning rate that decays exponentially from `start` to `end` over `steps` updates."""
    if not (start > 0 and end > 0 and steps >= 1):
        raise ValueError(f"rates must be positive and steps at least 1: got {start}, {end}, {steps}.")
    return optax.radam(optax.exponential_decay(start, steps, end / start))


def fit(
    model: PyTree,
    loss: Loss,
    sampler: Callable[[Key], Any] | Epochs,
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    key: Keys,
    state: PyTree = None,
    adapt: Adapt | None = None,
    gradient: Gradient = of_batch,
    evaluate: Evaluate | None = None,
    every: int | None = None,
    patience: int | None = None,
    threads: int | None = None,
    devices: Devices | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    identity: str = "",
) -> tuple[PyTree, History]:
    """Minimise a loss by stochastic gradients, for one run or an ensemble of them.

    **Arguments:**

    - `model`: a PyTree; its inexact arrays are trained. For an ensemble every array leaf has a leading axis `r`.
    - `loss`: `(model, state, batch, key) -> (value, (state, facts))`, for one run. `state`: its first state.
    - `adapt`: `(model, state, batch, update) -> (state, facts)`, before each gradient: changes the state of the loss,
      such as the strength of the forcing (`Adaptive`, `scheduled`).
    - `gradient`: what the optimiser gets: `of_batch`, or `of_windows`, the gradient of each window by itself.
    - `sampler`: `key -> batch`, traced, or `Epochs`; shared by the runs, each with its own keys.
    - `optimiser`: an optax transformation.
    - `steps`: updates. `every`: updates in one compiled call, evaluated after each (default: a twentieth of them).
    - `key`: one key, or keys `[r]`: one a member. A member trains as it would alone with its key.
    - `evaluate`: `models -> {"score": [r], ...}`; takes the runs of a group stacked (one run: a leading axis of 1).
      The model with the smallest `score` is returned, run by run. Without it, the last one.
    - `patience`: a run is over once so many evaluations in a row have brought it no better score; the fit ends with the
      last of its runs, or after `steps`.
    - `threads`: runs are shared out among this many host threads (default: as many as the CPU has and divide them).
    - `devices`: runs are shared out among these devices of this process, such as `jax.local_devices()`, one group each
      (of 10 runs on 4 devices: 2, 3, 2, 3); nothing travels between them. Default: all on the default device.
    - `progress`: show a bar (default: on a terminal or in a notebook).
    - `checkpoint`: a file that holds where the fit stands; written after the compiled calls (less often where writing
      would take more than a twentieth of the time) and at the end. Where it exists, the fit goes on from it and ends
      with bit for bit what it would have ended with; a finished one is returned at once.
    - `identity`: text that says what `evaluate` depends on (settings, data): a checkpoint goes on only under the same.

    A run whose loss or parameters turn non-finite stops there, keeps its last good parameters, and says so in
    `failed_at`; the others go on.

    Ctrl-C ends the fit after the compiled call in flight, with the best models so far and `interrupted` in the history;
    a second one, or one before the first call has ended, is a `KeyboardInterrupt` as ever.

    **What a checkpoint compares.** Start parameters, keys, states, arrays of the sampler, `steps`, `every`, `identity`,
    and the program that loss, sampler and optimiser trace to. These are functions, which cannot be compared
    themselves: what they do on the host, and `evaluate`, is not seen. Another version of JAX is another program. A
    fit may go on with other `threads`: the updates are then those of the other grouping, whose sums may be rounded
    otherwise. So with other `devices` of the same kind.

    **Returns:** `(model, History)`: the model in the form it came in.

    **Raises:** `ValueError` for `steps`, `every` or `patience` below 1, patience without `evaluate`, devices of another
    process or beside `threads`, leaves without the ensemble's axis, other scores, a checkpoint that is damaged or of
    another fit; `OSError` that names the checkpoint where it cannot be written.
    """
    keys, single = _as_keys(key)
    if steps < 1 or (every is not None and every < 1):
        raise ValueError(f"steps and every must be at least 1: got {steps} and {every}.")
    if patience is not None and (patience < 1 or evaluate is None):
        wanted = "at least 1" if patience < 1 else "given together with evaluate, whose scores it goes by"
        raise ValueError(f"patience must be {wanted}: got {patience}.")
    model, state = _stacked(model, state, len(keys), single)
    free, fixed = eqx.partition(model, eqx.is_inexact_array)
    fixed, static = eqx.partition(fixed, eqx.is_array)
    zeros = jnp.zeros(len(keys), jnp.int32)
    start = (Run(free, eqx.filter_vmap(optimiser.init)(free), state, keys, zeros - 1), fixed)
    recipe = Recipe(static, loss, sampler, optimiser, adapt, gradient)
    groups = groups_of(start, len(keys), threads, devices)
    chunk = min(every or max(1, steps // 20), steps)

    lengths = [chunk] * (steps // chunk) + ([steps % chunk] if steps % chunk else [])

    limit = None if patience is None else patience * chunk
    reached, store = Progress.begun([run for run, _ in groups]), None
    if checkpoint is not None:
        facts = {"steps": steps, "every": chunk, "runs": len(keys), "identity": identity, "evaluate": bool(evaluate)}
        facts |= {} if patience is None else {"patience": patience}
        store = Checkpoint(checkpoint, fingerprint(facts, start, recipe))
        reached = store.read(reached)
    bar = _bar(steps, reached.done, progress)
    reached, interrupted = _train(reached, groups, recipe, lengths, evaluate, limit, store, bar)

    best = joined(reached.best)
    model = eqx.combine(*parted(best.free, [free]), fixed, static)
    ends = np.cumsum(lengths)
    facts = reached.trace()
    history = History(
        facts.pop("loss"),
        {k: np.stack([s[k] for s in reached.scores]) for k in (reached.scores[0] if reached.scores else {})},
        ends[ends <= reached.done],
        best.at,
        reached.failed_at,
        reached.compile_seconds,
        reached.seconds,
        interrupted,
        facts,
    )
    return (jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, model) if single else model), history


def _train(
    reached: Progress,
    groups: Sequence[tuple[Run, PyTree]],
    recipe: Recipe,
    lengths: Sequence[int],
    evaluate: Evaluate | None,
    limit: int | None,
    store: Checkpoint | None,
    bar: tqdm,
) -> tuple[Progress, bool]:
    """Chunk by chunk to the end, or to the first Ctrl-C: where it came to, and whether it was interrupted.

    `limit`: updates without a better score after which a run is over.
    """
    steps, interrupted = sum(lengths), False
    todo = [n for n, end in zip(lengths, np.cumsum(lengths), strict=True) if end > reached.done]
    if _over(reached, steps, limit):
        return reached, False
    try:
        begun = time.perf_counter()
        programs = {n: _programs(n, groups, recipe) for n in sorted(set(todo))}
        reached = reached._replace(compile_seconds=reached.compile_seconds + time.perf_counter() - begun)
        begun = time.perf_counter() - reached.seconds
        with _pool(len(groups)) as pool, bar:
            for n in todo:
                advance = _advance(programs[n], reached, groups, recipe, evaluate)
                futures = [pool.submit(advance, i) for i in range(len(groups))]
                try:
                    results = _finished(futures)
                except KeyboardInterrupt:
                    interrupted = True
                    bar.set_postfix_str("interrupted: this chunk is the last; Ctrl-C again drops it")
                    results = _finished(futures)
                reached = reached.advanced(n, results, time.perf_counter() - begun, limit)
                if store is not None:
                    store.write(reached)
                bar.update(n)
                bar.set_postfix_str(_postfix(reached.traces[-1]["loss"], reached.scores), refresh=False)
                if interrupted or _over(reached, steps, limit):
                    break
    except KeyboardInterrupt:
        # `reached` is only ever replaced as a whole, so it is whole; a second Ctrl-C goes on out
        if interrupted or not reached.done:
            raise
        interrupted = True
    if store is not None:
        store.write(reached, now=True)
    return reached, interrupted and not _over(reached, steps, limit)


def _over(reached: Progress, steps: int, limit: int | None) -> bool:
    return reached.done >= steps or bool(((reached.failed_at >= 0) | reached.stalled(limit)).all())


def _programs(length: int, groups: Sequence[tuple[Run, PyTree]], recipe: Recipe) -> list[Program]:
    """The program of every group: one for all that are alike in size and device, compiled side by side."""
    kinds = [(len(run.key), run.key.device) for run, _ in groups]
    firsts = {kind: group for kind, group in zip(reversed(kinds), reversed(groups), strict=True)}
    settings = _thread_settings()

    def make(group: tuple[Run, PyTree]) -> Program:
        with _entered(settings):
            return compiled(length, group, recipe)

    if len(firsts) == 1:
        return [compiled(length, groups[0], recipe)] * len(groups)
    with ThreadPoolExecutor(len(firsts)) as pool:
        found = dict(zip(firsts, pool.map(make, firsts.values()), strict=True))
    return [found[kind] for kind in kinds]


def _advance(programs, reached: Progress, groups, recipe: Recipe, evaluate: Evaluate | None) -> Callable[[int], Any]:
    """One chunk of one group, for a thread: `i -> (run, facts [r, length], scores or None)`."""
    settings = _thread_settings()

    def advance(i: int):
        fixed = groups[i][1]
        run, facts = programs[i](reached.runs[i], fixed, reached.done)
        found = None
        if evaluate is not None:
            with _entered(settings):
                found = evaluate(eqx.combine(run.free, fixed, recipe.static))
        return run, jax.tree.map(np.asarray, facts), found

    return advance


def _finished(futures: Sequence[Future]) -> list[Any]:
    """Their results. Waits are short: a signal just as one begins (on Windows: any) is heard only when it ends."""
    while wait(futures, timeout=0.2).not_done:
        pass
    return [future.result() for future in futures]


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that nobody waits for when an error or a second Ctrl-C is on its way out."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _thread_settings():
    """JAX's contexts (`with jax.enable_x64(): ...`) hold for one thread: what must be entered again in another."""
    config: Any = jax.config  # its attributes are made at run time
    return (
        (jax.enable_x64, config.jax_enable_x64),
        (jax.numpy_dtype_promotion, config.jax_numpy_dtype_promotion),
        (jax.numpy_rank_promotion, config.jax_numpy_rank_promotion),
    )


@contextmanager
def _entered(settings) -> Iterator[None]:
    with ExitStack() as stack:
        for setting, value in settings:
            stack.enter_context(setting(value))
        yield


def _as_keys(key: Keys) -> tuple[Keys, bool]:
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim > 1:
        raise ValueError(f"key must be one key or keys [r]: got shape {key.shape}.")
    return (key[None], True) if key.ndim == 0 else (key, False)


def _stacked(model: PyTree, state: PyTree, runs: int, single: bool) -> tuple[PyTree, PyTree]:
    """Model and state with a leading axis of runs, in arrays of JAX."""
    if single:
        state = jax.tree.map(jnp.asarray, state)
        model, state = jax.tree.map(lambda x: x[None] if eqx.is_array(x) else x, (model, state))
    for leaf in [*filter(eqx.is_array, jax.tree.leaves(model)), *jax.tree.leaves(state)]:
        if jnp.shape(leaf)[:1] != (runs,):
            raise ValueError(
                f"every array of an ensemble of {runs} runs needs that leading axis: got {jnp.shape(leaf)}."
            )
    return model, jax.tree.map(jnp.asarray, state)


def _bar(steps: int, done: int, progress: bool | None) -> tqdm:
    shown = (sys.stderr.isatty() or "ipykernel" in sys.modules) if progress is None else progress
    return tqdm(total=steps, initial=done, unit="update", disable=not shown)


def _postfix(losses: np.ndarray, scores: Sequence[dict[str, np.ndarray]]) -> str:
    last = losses[-1]
    text = f"loss {np.median(last[np.isfinite(last)]):.3g}" if np.isfinite(last).any() else "all runs stopped"
    found = scores[-1]["score"] if scores else np.array([])
    known = found[np.isfinite(found)]
    return text + (f", best score {known.min():.3g}" if known.size else "")
