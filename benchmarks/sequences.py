"""Sequences classified by S4D: digits pixel by pixel, Japanese vowels, traces of systems at other sampling rates.

    python benchmarks/sequences.py [digits] [vowels] [rates]

Results go to `results/sequences.json`, with wall and processor time of each run, compilation among it, and the load of
the machine. Settings were chosen by parts held back from the training rows of seed 0 (`--try`: three folds of five);
the test part had no say. Each run is then trained on all training rows for a fixed number of updates.

- `digits`: scikit-learn's 1,797 digits of 8 x 8 pixels as 64 steps of one channel, values / 16; 80 % to train on, 20 %
  to test on, stratified, the split drawn anew for each of three seeds. Goal: 97 %.
- `vowels`: JapaneseVowels (UCI; as shipped by sktime or aeon), 9 speakers, 12 channels, 7 to 29 steps, its own 270
  sequences to train on and 370 to test on; three seeds. Channels are standardised by the training part. Goal: 97 %.
- `rates`: noisy traces of five systems as in `examples/classify.py`, trained at `d`, tested on the same traces at
  `d / 2`, `d` and `2 d` by the step alone; three seeds (of data and model). Goal: within 2 points of that at `d`. A
  model trained at `2 d` tells what the samples left there still hold.
"""

import itertools
import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from conftest import versions

from dsrecon import simulate
from dsrecon.models import S4D, sequence_model
from dsrecon.systems import Chua, HindmarshRose, Lorenz63, MackeyGlass, Roessler
from dsrecon.training import Sequences, classifying, fit, grouped, held, padded, predicted

RESULTS = Path(__file__).parent / "results" / "sequences.json"
SEEDS = 3


class Settings(NamedTuple):
    updates: int
    batch: int = 32
    width: int = 64
    state_size: int = 16
    depth: int = 2
    step_min: float = 0.02
    step_max: float = 0.5
    bidirectional: bool = True
    dropout: float = 0.2
    smoothing: float = 0.1
    rate: float = 4e-3
    rate_of_dynamics: float = 1e-3
    weight_decay: float = 0.05


DIGITS = Settings(1500)
VOWELS = Settings(300, bidirectional=False, dropout=0.3)
RATES = Settings(600, step_min=0.005, step_max=0.05, bidirectional=False, dropout=0.1, smoothing=0.0)
TWICE = RATES._replace(step_min=2 * RATES.step_min, step_max=2 * RATES.step_max)


def trained(x, y, lengths, settings: Settings, seed: int, held_back=None):
    """A model after the last update, and its accuracies on what is held back, on the way."""
    keys = jax.random.split(jax.random.key(seed))
    model = sequence_model(
        x.shape[2],
        int(y.max()) + 1,
        lambda key: S4D(
            settings.width, settings.state_size, step_min=settings.step_min, step_max=settings.step_max, key=key
        ),
        depth=settings.depth,
        bidirectional=settings.bidirectional,
        dropout=settings.dropout,
        key=keys[0],
    )
    n = settings.updates
    rest, dynamics = (
        optax.warmup_cosine_decay_schedule(0.0, peak, n // 20, n, peak / 100)
        for peak in (settings.rate, settings.rate_of_dynamics)
    )
    optimiser = grouped(optax.adamw(rest, weight_decay=settings.weight_decay), optax.adam(dynamics))
    loss, sampler = classifying(settings.smoothing), Sequences(x, y, lengths, batch=settings.batch)
    evaluate = None if held_back is None else held(Sequences(*held_back, batch=32), loss)
    model, history = fit(
        model, loss, sampler, optimiser, steps=n, key=keys[1], every=n // 10, evaluate=evaluate, progress=False
    )
    return model, history.scores.get("accuracy", np.zeros((0, 1)))[:, 0].round(4).tolist()


class Clock:
    """Wall and processor time from here on."""

    def __init__(self):
        self.begun = time.perf_counter(), time.process_time()

    def told(self) -> dict[str, float]:
        wall, cpu = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]
        return {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1), "load": round(os.getloadavg()[0], 1)}


def several(name: str, data, settings: Settings) -> dict[str, Any]:
    """Three seeds of `data(seed) -> (x, y, lengths), (x, y, lengths)`, training and test part."""
    runs = []
    for seed in range(SEEDS):
        (x, y, n), (x_test, y_test, n_test) = data(seed)
        clock = Clock()
        model, _ = trained(x, y, n, settings, seed)
        accuracy = float((predicted(model, x_test, 1.0, n_test).argmax(1) == y_test).mean())
        runs.append({"seed": seed, "accuracy": accuracy, **clock.told()})
        print(name, runs[-1], flush=True)
    found = [run["accuracy"] for run in runs]
    return {"settings": settings._asdict(), "runs": runs, "accuracy": float(np.mean(found)), "least": min(found)}


def tried(name: str, data, settings: Settings) -> None:
    """Accuracies on parts of the training rows that are held back: the first three folds of five."""
    from sklearn.model_selection import StratifiedKFold

    (x, y, n), _ = data(0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
    for rows, back in itertools.islice(folds, 3):
        cut = [tuple(None if v is None else v[part] for v in (x, y, n)) for part in (rows, back)]
        clock = Clock()
        _, accuracies = trained(*cut[0], settings, 0, cut[1])
        print(name, "held back", accuracies, clock.told(), flush=True)


def digit_rows(seed: int):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = (digits.data / 16)[:, :, None].astype(np.float32)
    x, x_test, y, y_test = train_test_split(x, digits.target, test_size=0.2, stratify=digits.target, random_state=seed)
    return (x, y, None), (x_test, y_test, None)


def vowel_rows(seed: int):
    """The same for every seed: channels in standard deviations of the training part."""
    train, test = (series_of(vowels_file(part)) for part in ("TRAIN", "TEST"))
    every = np.concatenate(train[0])
    scaled = [[((one - every.mean(0)) / every.std(0)).astype(np.float32) for one in part[0]] for part in (train, test)]
    (x, n), (x_test, n_test) = map(padded, scaled)
    return (x, train[1], n), (x_test, test[1], n_test)


def vowels_file(part: str) -> Path:
    for package in ("aeon", "sktime"):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / "datasets/data/JapaneseVowels" / f"JapaneseVowels_{part}.ts"
            if path.exists():
                return path
    raise SystemExit("JapaneseVowels is shipped by aeon and by sktime: pip install --no-deps aeon")


def series_of(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Sequences `[t_i, k]` and labels of a `.ts` file: channels between colons, the label last."""
    text = path.read_text().split("@data", 1)[1].strip()
    rows = [line.split(":") for line in text.splitlines()]
    x = [np.array([channel.split(",") for channel in row[:-1]], float).T for row in rows]
    names = sorted({row[-1].strip() for row in rows})
    return x, np.array([names.index(row[-1].strip()) for row in rows])


SYSTEMS = {Lorenz63(): 0.0075, Roessler(): 0.06, Chua(): 0.025, HindmarshRose(): 0.125, MackeyGlass(): 0.5}
TRACES, SAMPLES, NOISE = 3_000, 100_000, 0.25


def standardised(x: np.ndarray) -> np.ndarray:
    return ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True))[..., None].astype(np.float32)


def rates(orbits: np.ndarray, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def measured(count: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(len(orbits), size=count)
        pace, begin = rng.integers(2, 4, count), rng.integers(first, last - 3 * 256, count)
        x = orbits[labels[:, None], begin[:, None] + pace[:, None] * np.arange(256)]
        return x + NOISE * orbits.std(1)[labels, None] * rng.normal(size=x.shape), labels

    x, y = measured(TRACES, 0, 2 * SAMPLES // 3)
    x_test, y_test = measured(TRACES // 2, 2 * SAMPLES // 3, SAMPLES)
    clock, row = Clock(), {"seed": seed}
    model, _ = trained(standardised(x[:, ::2]), y, None, RATES, seed)
    for name, every, dt in (("d / 2", 1, 0.5), ("d", 2, 1.0), ("2 d", 4, 2.0)):
        sampled = standardised(x_test[:, ::every])
        row[name] = float((predicted(model, sampled, dt).argmax(1) == y_test).mean())
        row[f"{name}, step left as it was"] = float((predicted(model, sampled).argmax(1) == y_test).mean())
    row |= clock.told()
    model, _ = trained(standardised(x[:, ::4]), y, None, TWICE, seed)
    row["trained at 2 d"] = float((predicted(model, sampled).argmax(1) == y_test).mean())
    return row


def rate_change() -> dict[str, Any]:
    orbits = np.stack([simulate(system, SAMPLES, dt=dt).values[:, 0] for system, dt in SYSTEMS.items()])
    runs = []
    for seed in range(SEEDS):
        runs.append(rates(orbits, seed))
        print("rates", runs[-1], flush=True)
    names = [name for name in runs[0] if isinstance(runs[0][name], float) and name not in Clock().told()]
    means = {name: float(np.mean([run[name] for run in runs])) for name in names}
    loss = max(abs(run[name] - run["d"]) for run in runs for name in ("d / 2", "2 d"))
    return {"settings": RATES._asdict(), "runs": runs, "mean": means, "largest difference to d": loss}


PARTS = {
    "digits": lambda: several("digits", digit_rows, DIGITS),
    "vowels": lambda: several("vowels", vowel_rows, VOWELS),
    "rates": rate_change,
}


def main() -> None:
    wanted = [name for name in sys.argv[1:] if name != "--try"] or list(PARTS)
    if "--try" in sys.argv:
        for name, data, settings in (("digits", digit_rows, DIGITS), ("vowels", vowel_rows, VOWELS)):
            if name in wanted:
                tried(name, data, settings)
        return
    for name in wanted:
        result = {**PARTS[name](), "machine": versions()}
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        found[name] = result
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
