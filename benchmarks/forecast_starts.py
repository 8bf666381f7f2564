"""Do the start values of seeds 0 to 39 explain what TPGN makes of 1,440 steps of ETTh1? Many starts in one ensemble.

    DSRECON_DATA=FOLDER python benchmarks/forecast_starts.py FIRST COUNT [EPOCHS]

The training of `forecast_seeds.py` written out once more: Adam, shuffled epochs, the best of the first three by the
validation error (none of 80 runs there was best later), for the starts of `TPGNEstimator` with keys FIRST to
FIRST + COUNT - 1. Orders of windows are NumPy's. From the start values and in the order of a PyTorch run, this loop and
PyTorch's have the same loss to 1e-5 through three epochs. A line goes to `results/forecast_starts.json`.
"""

import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from forecast import data, parts
from forecast_seeds import BATCH, PERIOD, WIDTH, H, L

from dsrecon.forecast import time_marks
from dsrecon.models import TPGN
from dsrecon.series import as_series
from dsrecon.training import Windows, forecasting

RESULTS = Path(__file__).parent / "results" / "forecast_starts.json"


def main() -> None:
    first, count, epochs = int(sys.argv[1]), int(sys.argv[2]), int([*sys.argv, "3"][3])
    frame = data()
    train, fitted, last = parts(len(frame), H)
    values = frame.to_numpy()[:, 0]
    x = jnp.asarray((values - values[:train].mean()) / values[:train].std(), jnp.float32)
    marks = jnp.asarray(time_marks(as_series(frame).clock, len(x))[0], jnp.float32)
    windows = Windows(x[:train, None], length=L + H - 1, batch=BATCH, s=marks[:train])
    every = windows.count // BATCH
    held = jnp.arange(train - L, fitted - L - H + 1)
    test = jnp.arange(fitted - L, last - L - H + 1)
    loss = forecasting()
    optimiser = optax.adam(lambda n: 1e-3 * 0.9 ** jnp.maximum(n // every - 1, 0))

    def start(key):
        key = jax.random.split(key, (2, 1))[0][0]  # as the estimator draws it
        return TPGN(L, H, period=PERIOD, width=WIDTH, past_size=marks.shape[1], key=key)

    def update(model, state, at):
        batch = windows.of(at, jax.random.key(0))
        gradient = eqx.filter_grad(lambda m: loss(m, {}, batch, None)[0])(model)
        step, state = optimiser.update(gradient, state)
        return eqx.apply_updates(model, step), state

    @eqx.filter_jit
    @eqx.filter_vmap
    def epoch(model, state, order):
        free, fixed = eqx.partition((model, state), eqx.is_array)

        def body(free, at):
            return eqx.filter(update(*eqx.combine(free, fixed), at), eqx.is_array), None

        return eqx.combine(jax.lax.scan(body, free, order)[0], fixed)

    @eqx.filter_jit
    def errors(models, starts):
        def one(model):
            def window(i):
                y = jax.lax.dynamic_slice(x, (i,), (L + H,))
                beside = jax.lax.dynamic_slice(marks, (i, 0), (L, marks.shape[1]))
                return jnp.mean((model(y[:L, None], beside)[:, 0] - y[L:]) ** 2)

            return jnp.mean(jax.lax.map(window, starts, batch_size=256))

        return eqx.filter_vmap(one)(models)

    models = eqx.filter_jit(eqx.filter_vmap(start))(jax.vmap(jax.random.key)(first + jnp.arange(count)))
    state = eqx.filter_vmap(lambda m: optimiser.init(eqx.filter(m, eqx.is_inexact_array)))(models)
    seen = []
    for number in range(epochs):
        orders = [np.random.default_rng(999 + 1000 * i + number).permutation(windows.count) for i in range(count)]
        order = np.stack(orders)[:, : every * BATCH].reshape(count, every, BATCH).astype(np.int32)
        models, state = epoch(models, state, jnp.asarray(order))
        seen.append([np.asarray(errors(models, held)), np.asarray(errors(models, test))])
    val, found = np.moveaxis(np.array(seen), 1, 0)
    best = val.argmin(0)
    mse = found[best, np.arange(count)]
    row = {"first": first, "count": count, "epochs": epochs, "mse": float(mse.mean())}
    row |= {"standard error": float(mse.std(ddof=1) / count**0.5) if count > 1 else None}
    row |= {"validation by epoch": val.mean(1).round(4).tolist(), "test by epoch": found.mean(1).round(4).tolist()}
    row |= {"best epoch": (np.bincount(best, minlength=epochs)).tolist()}
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*kept, row], indent=1) + "\n")
    print(row)


if __name__ == "__main__":
    main()
