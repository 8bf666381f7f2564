"""The numbers that a diagnosis rests on, each in units that transfer from system to system."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsrecon.cell import AbstractPWLCell
from dsrecon.diagnose.model import follow, free_run, regions
from dsrecon.diagnose.neighbours import (
    NAN,
    divergence,
    false_share,
    far_error,
    neighbour_error,
    spectra_apart,
    structure,
    visits_apart,
)
from dsrecon.measures.attractor import outside
from dsrecon.measures.embedding import decorrelation_time
from dsrecon.readout import GeneralisedReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import as_series

LEAST = 200
"""Rows from which on a diagnosis is tried."""

LONGEST = 10_000
"""Rows of a stretch that count, at most."""

WINDOWS = 64
"""Windows that gradients are followed through."""


class Stretch(NamedTuple):
    """What a model is diagnosed against: `x` `[t, n]` in standard deviations of the fitted series, NaN where missing.

    `s`: the inputs of every row in the units of the model, `[t, k]`, or `None`.
    """

    x: np.ndarray
    s: Float[Array, "t k"] | None


class Evidence(NamedTuple):
    """Everything measured. Errors are mean squared errors in variances of the data; NaN: could not be measured.

    - `d_stsp`, `d_h`: distances of the free run from the data, in floors (what the other half of the data scores);
      `distance_h`: the second as it is, 0 to 1.
    - `nonfinite`: first step of the free run that is not finite (-1: none); `outside`: share of it out of range.
    - `moves`: standard deviation of the end of the free run over that of the data, largest over the channels.
    - `far`, `far_run`: error of nearest neighbours a quarter of the stretch ahead, less that one step ahead: of the
      data, and of the free run. Near 0: it repeats itself; near 1 to 2: it forgets.
    - `error`, `error_ahead`: of the model's forecasts, one step and `ahead` steps on; `analogue`, `analogue_ahead`: of
      nearest neighbours in the other half of the data; `still`, `still_ahead`: of no change at all.
    - `structured`: share of the one-step residuals that those at the nearest state foretell, 0 (noise) to 1;
      `noise`: half of the error that is not, since a forecast leads from a noisy state to a noisy one.
    - `growth`: mean log growth a step of the distance of neighbours; `false`: share of neighbours that are near in the
      coordinates only.
    - `regions`: linear regions visited along the data (0: not piecewise linear); `gates`: of the cell.
    - `window`: orders of magnitude by which a gradient grows over a training window without forcing, mean over windows;
      `window_forced`: under the forcing of the training; `stretch`: growth of the cell a step, `exp` of its mean log.
    - `alpha`, `length`, `interval`: of the training. `gradient`: median norm of its gradients over the first half of
      the course; `loss_first`, `loss`: at the beginning, and up to the update `updates`, whose model was kept;
      `stopped`: share of the runs that stopped at numbers that are not finite.
    """

    rows: int
    variables: int
    ahead: int
    d_stsp: float
    d_h: float
    distance_h: float
    nonfinite: int
    outside: float
    moves: float
    moves_data: float
    far: float
    far_run: float
    error: float
    error_ahead: float
    analogue: float
    analogue_ahead: float
    still: float
    still_ahead: float
    structured: float
    noise: float
    growth: float
    false: float
    regions: int
    gates: int
    window: float
    window_forced: float
    stretch: float
    alpha: float
    interval: float
    length: int
    updates: int
    gradient: float
    loss_first: float
    loss: float
    stopped: float


def stretch_of(reconstruction: Reconstruction, series: Any, inputs: Any) -> Stretch:
    """The stretch to diagnose against. **Raises:** `ValueError`: see `diagnose`."""
    if series is None:
        if inputs is not None:
            raise ValueError("inputs go with a series: got inputs without one (those of the fit are kept with it).")
        x, raw = reconstruction.validation, reconstruction.validation_inputs
        if x is None:
            raise ValueError(
                "series must be given: the reconstruction holds no validation stretch (an old file, or saved with "
                "data=False)."
            )
        if reconstruction.input_scaler is not None and raw is None:
            raise ValueError("series and inputs must be given: the reconstruction holds no inputs of its validation.")
        s = None if raw is None or reconstruction.input_scaler is None else reconstruction.input_scaler.scale(raw)
    else:
        matched = reconstruction.matched(as_series(series))
        x = reconstruction.embedded(matched).values
        s = reconstruction.driven(inputs, matched.clock, len(matched.values))
        s = None if s is None else s[reconstruction.offset :]
    flat = [n for n, c in zip(reconstruction.coordinates, x.T, strict=True) if not np.nanmax(c) > np.nanmin(c)]
    if flat:
        raise ValueError(f"series must vary: {flat[0]!r} is constant.")
    x = np.asarray((x - reconstruction.scaler.mean) / reconstruction.scaler.std)
    complete = np.asarray(np.isfinite(x).all(1))
    first = int(np.argmax(complete))
    rows = slice(first, first + LONGEST)
    if complete[rows].sum() < LEAST:
        raise ValueError(
            f"series must have at least {LEAST} rows that are observed in every variable: got {complete[rows].sum()}."
        )
    return Stretch(x[rows], None if s is None else s[rows])


def evidence_of(reconstruction: Reconstruction, stretch: Stretch) -> Evidence:
    """All of it, in a few compiled calls."""
    x, half = stretch.x, len(stretch.x) // 2
    settings = {name: s["value"] for name, s in reconstruction.settings.items()}
    memory = decorrelation_time(x)
    ahead = int(np.clip(memory // 2, 2, half // 4))
    found: dict[str, Any] = {"rows": len(x), "variables": x.shape[1], "ahead": ahead}
    found |= _data_of(x, ahead)
    found |= _model_of(reconstruction, stretch, ahead, settings)
    found |= _run_of(reconstruction, stretch, found["noise"])
    found |= course_of(reconstruction)
    return Evidence(**found)


def _run_of(reconstruction: Reconstruction, stretch: Stretch, noise: float) -> dict[str, Any]:
    """The free run from the first row, against the data. An autonomous one is let settle for as long as they are.

    For the distances it gets the `noise` of the data, of which a right law knows nothing.
    """
    x, half = stretch.x, len(stretch.x) // 2
    settle = 0 if stretch.s is not None else len(x)
    s = None if stretch.s is None else stretch.s[1:]
    steps = len(s) if s is not None else settle + len(x)
    run = np.asarray(free_run(reconstruction.cell, reconstruction.readout, jnp.asarray(x[0], dtype=float), s, steps))
    bad = ~np.isfinite(run).all(1)
    found: dict[str, Any] = {"nonfinite": int(np.argmax(bad)) if bad.any() else -1, "outside": outside(x, run)}
    names = ("d_stsp", "d_h", "distance_h", "moves", "moves_data", "far_run")
    if bad.any():
        return found | dict.fromkeys(names, NAN)
    run = np.asarray(run[settle:], np.float64)
    first, second = x[:half], x[half : 2 * half]
    unit = np.nanstd(x, 0)
    shown = run + np.sqrt(noise if np.isfinite(noise) else 0.0) * unit * np.random.default_rng(0).normal(size=run.shape)
    spectral, floor = spectra_apart(first, shown[:half]), spectra_apart(first, second)
    tail = run[len(run) // 2 :].std(0) / unit
    return found | {
        "d_stsp": visits_apart(first, shown[:half]) / visits_apart(first, second),
        "d_h": spectral / floor,
        "distance_h": spectral,
        "moves": float(tail.max()),
        "moves_data": float((np.nanstd(second, 0) / unit).max()),
        "far_run": far_error(run / unit),
    }


def _data_of(x: np.ndarray, ahead: int) -> dict[str, Any]:
    """What the data themselves foretell."""
    half = len(x) // 2
    unit = np.nanstd(x, 0)
    x = x / unit
    return {
        "far": far_error(x),
        "analogue": neighbour_error(x[:half], x[half:], 1),
        "analogue_ahead": neighbour_error(x[:half], x[half:], ahead),
        "still": float(np.nanmean((x[1:] - x[:-1]) ** 2)),
        "still_ahead": float(np.nanmean((x[ahead:] - x[:-ahead]) ** 2)),
        "growth": divergence(x, ahead),
        "false": false_share(x, ahead),
    }


def _model_of(reconstruction: Reconstruction, stretch: Stretch, ahead: int, settings: dict) -> dict[str, Any]:
    """How the model follows the data: errors of its forecasts, what they have in common, regions, and gradients."""
    x, s = stretch.x, stretch.s
    shown, mask = reconstruction.presented(x * reconstruction.scaler.std + reconstruction.scaler.mean)
    alpha, interval, length = training_of(reconstruction, settings)
    span = min(length, len(x) // 2)
    pulls = jnp.asarray(_pulls(alpha, interval, span), dtype=float)
    at = np.unique(np.linspace(0, len(x) - span - ahead - 1, WINDOWS).astype(int))
    pull = jnp.asarray(reconstruction.pull, dtype=float)
    states, one, more, growth = follow(
        reconstruction.cell, reconstruction.readout, shown, mask, s, pull, pulls, jnp.asarray(at), ahead
    )
    std = np.nanstd(x, 0)
    residual = (np.asarray(one, np.float64) - x[1:]) / std
    later = (np.asarray(more, np.float64) - x[ahead:]) / std
    free, forced = (np.asarray(g, np.float64) for g in growth)
    bits = regions(reconstruction.cell, states) if isinstance(reconstruction.cell, AbstractPWLCell) else None
    error, structured = float(np.nanmean(residual**2)), structure(x[:-1] / std, residual)
    return {
        "error": error,
        "noise": error * (1 - min(max(structured, 0.0), 1.0)) / 2,
        "error_ahead": float(np.nanmean(later**2)),
        "structured": structured,
        "regions": 0 if bits is None else len(np.unique(np.asarray(bits), axis=0)),
        "gates": 0 if bits is None else bits.shape[1],
        "window": float(free.mean() / np.log(10)),
        "window_forced": float(forced.mean() / np.log(10)) if np.isfinite(alpha) or np.isfinite(interval) else NAN,
        "stretch": float(np.exp(free.mean() / span)),
        "alpha": alpha,
        "interval": interval,
        "length": length,
    }


def training_of(reconstruction: Reconstruction, settings: dict) -> tuple[float, float, int]:
    """Forcing strength and interval of the training (NaN: none, or not told), and length of its windows."""
    alpha, interval = settings.get("alpha"), settings.get("interval")
    course = reconstruction.course
    if not isinstance(alpha, int | float):
        last = course["alpha"].values[np.isfinite(course["alpha"].values)] if "alpha" in course else np.array([])
        alpha = last[-1] if len(last) else NAN
    return float(alpha), float(interval) if isinstance(interval, int) else NAN, int(settings.get("length", 50))


def _pulls(alpha: float, interval: float, length: int) -> np.ndarray:
    """Forcing along a window, `[2, length]`: none, and that of the training."""
    trained = np.zeros(length)
    if np.isfinite(interval):
        trained[:: int(interval)] = 1.0
    elif np.isfinite(alpha):
        trained[:] = alpha
    return np.stack([np.zeros(length), trained])


def course_of(reconstruction: Reconstruction) -> dict[str, Any]:
    """What the course of the fit tells; NaN where it is not known. Only a squared error is told as a loss."""
    course, runs = reconstruction.course, reconstruction.runs
    readout = reconstruction.readout
    families = readout.families if isinstance(readout, GeneralisedReadout) else ()
    loss = course["loss"].values if "loss" in course and all(f == "gaussian" for f in families) else np.array([])
    gradient = course["gradient_norm"].values if "gradient_norm" in course else np.array([])
    gradient = gradient[: max(1, len(gradient) // 2)]
    updates = course["update"].values
    kept = updates[-1] if len(updates) else 0
    if "best_at" in runs and "best" in runs.attrs and runs["best_at"].values[runs.attrs["best"]] > 0:
        kept = runs["best_at"].values[runs.attrs["best"]]
    tenth, at = max(1, len(loss) // 10), int(np.searchsorted(updates, kept)) + 1
    return {
        "updates": int(kept),
        "gradient": _median(gradient),
        "loss_first": _median(loss[:tenth]),
        "loss": _median(loss[max(0, at - tenth) : at]),
        "stopped": float((runs["stopped_at"].values >= 0).mean()) if "stopped_at" in runs else 0.0,
    }


def _median(values: np.ndarray) -> float:
    seen = values[np.isfinite(values)]
    return float(np.median(seen)) if len(seen) else NAN
