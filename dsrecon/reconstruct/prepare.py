"""From stretches in the units of the data to arrays that training takes."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from dsrecon._types import Key
from dsrecon.readout import AbstractReadout, GeneralisedReadout, check_counts
from dsrecon.readout.generalised import FAMILIES
from dsrecon.reconstruct.parts import Parts, Stretch
from dsrecon.reconstruct.select import LONGEST_RUN, begun, evaluator
from dsrecon.scaler import Scaler
from dsrecon.series import Series, filled


class Data(NamedTuple):
    """The training stretches one below the other on the device, in the units of the model, and what goes with them.

    `anchor`, the observation where free runs begin, is row `anchored_at` of the first of them: the first complete one.
    """

    x: Float[Array, "t n"]
    seen: Float[Array, "t n"] | None
    mask: Bool[Array, "t n"] | None
    s: Float[Array, "t k"] | None
    lengths: tuple[int, ...]
    scaler: Scaler
    input_scaler: Scaler | None
    anchor: np.ndarray
    anchored_at: int
    evaluate: Callable[[PyTree], dict[str, np.ndarray]]


def kinds_of(
    families: Mapping[str, str] | None, readout: Callable[[Key], AbstractReadout] | None, trials: Sequence[Series]
) -> tuple[str, ...] | None:
    """The family of every variable, or `None` where all are Gaussian.

    **Raises:** `ValueError` for families of unknown variables, beside a readout, and for values that no count or
    binary variable has.
    """
    names = trials[0].names
    if families is not None and readout is not None:
        raise ValueError("give families or readout, not both: the readout has its own.")
    if readout is not None:
        made = eqx.filter_eval_shape(readout, jax.random.key(0))
        kinds = made.families if isinstance(made, GeneralisedReadout) else None
    elif families is not None:
        if not isinstance(families, Mapping):
            example = {names[0]: families if isinstance(families, str) else "poisson"}
            raise ValueError(f"families must be a mapping from variable to family, {example} say: got {families!r}.")
        unknown = [name for name in families if name not in names]
        if unknown:
            raise ValueError(f"families must name variables of the series, {names}: got {unknown[0]!r}.")
        strange = [(n, f) for n, f in families.items() if f not in FAMILIES]
        if strange:
            raise ValueError(f"families must be among {FAMILIES}: got {strange[0][1]!r} for {strange[0][0]!r}.")
        kinds = tuple(families.get(name, "gaussian") for name in names)
    else:
        kinds = None
    if kinds is not None:
        for trial in trials:
            check_counts(trial.values, kinds, names)
    return kinds


def prepared(parts: Parts, kinds: tuple[str, ...] | None, readout: AbstractReadout) -> Data:
    """Scaled, without a NaN, with masks; and the evaluation on what is held out.

    **Arguments:** `parts`; `kinds`: family of every variable, `None` where all are Gaussian (counts keep their own
    units); `readout`: one run's, for its `targets`.
    """
    plain_units = None if kinds is None else tuple(kind != "gaussian" for kind in kinds)
    rows = np.concatenate([part.x for part in parts.train])
    scaler = Scaler.fit(rows, plain_units)
    driven = parts.train[0].s is not None
    input_scaler = _input_scaler(parts) if driven else None

    def shown(part: Stretch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values in the units of the model, finite throughout, what the model is shown of them, and the mask."""
        known = np.isfinite(part.x)
        lines = filled(part.x)
        x = scaler.scale(np.where(np.isnan(lines), scaler.mean, lines))
        return np.asarray(x), np.asarray(readout.targets(x, jnp.asarray(known))), known

    def scaled_inputs(part: Stretch) -> np.ndarray | None:
        return None if part.s is None or input_scaler is None else np.asarray(input_scaler.scale(part.s))

    drives = [drive for part in parts.train if (drive := scaled_inputs(part)) is not None]

    ready = [shown(part) for part in parts.train]
    x, seen, mask = (np.concatenate(columns) for columns in zip(*ready, strict=True))
    lengths = [len(part.x) for part in parts.held]
    held = [
        begun((p.x - scaler.mean) / scaler.std, shown(p)[1], scaled_inputs(p), max(1, LONGEST_RUN // len(lengths)))
        for p in parts.held
    ]
    train = [(part.x - scaler.mean) / scaler.std for part in parts.train]
    first = parts.train[0].x
    complete = np.isfinite(first).all(1)
    at = int(np.argmax(complete)) if complete.any() else 0
    lines = filled(first[at:])[0]
    return Data(
        jnp.asarray(x),
        None if np.array_equal(x, seen) else jnp.asarray(seen),
        None if mask.all() else jnp.asarray(mask),
        jnp.asarray(np.concatenate(drives)) if drives else None,
        tuple(len(part.x) for part in parts.train),
        scaler,
        input_scaler,
        np.where(np.isnan(lines), scaler.mean, lines),
        at,
        evaluator(held, train, "min-max" if kinds is None else "padded"),
    )


def _input_scaler(parts: Parts) -> Scaler:
    """Standardisation of the inputs over the training part; one that is constant there is only centred."""
    rows = np.concatenate([part.s for part in parts.train if part.s is not None])
    fitted = Scaler.fit(rows)
    return Scaler(fitted.mean, np.where(fitted.std > 1e-12 * (1 + np.abs(fitted.mean)), fitted.std, 1.0))
