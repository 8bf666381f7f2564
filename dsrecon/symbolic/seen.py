"""How fast does the number of words grow that were seen? A lower bound of how many there are."""

from typing import Any

import numpy as np
import xarray as xr

from dsrecon.symbolic.symbols import as_sequence
from dsrecon.symbolic.windows import letters_of, word_codes


def seen_words(symbols: Any, max_length: int) -> xr.Dataset:
    """The words that occur in a sequence, counted by length: never more than there are.

    For maps whose words cannot be solved for, such as the Hénon map. The number of words seen is **a lower bound** of
    the number `N(L)` of those that occur at all, and certifies nothing about the entropy `h = lim ln N(L) / L`:

    - `per_symbol`, `ln(words) / L`, approaches `h` from above as `1 / L` does, for it carries the constant of `N(L) ~ C
      exp(h L)`; once words are missing it falls below.
    - `increment`, `ln` of the words of length `L` over those of length `L - 1`, is rid of the constant and scatters
      around `h`.

    `once` counts the words that were seen a single time. By Good and Turing their windows are the share of a next
    sequence that would show a new word: where it is not small against the windows, or `once` not against `words`, words
    are missing.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `max_length` of the words, 1
    to t.

    **Returns:** `Dataset` along `length`: `words`, `once`, `per_symbol`, `increment` (nats per step). Attributes:
    `steps`, `time_step`, `time_unit`.

    **Raises:** `ValueError` as `as_sequence`, and for another length.

    Reference: Good 1953, *The population frequencies of species and the estimation of population parameters*,
    Biometrika 40, 237.
    """
    sequence = as_sequence(symbols)
    if not 1 <= max_length <= len(sequence.values):
        raise ValueError(
            f"max_length must lie between 1 and the {len(sequence.values)} steps of symbols: got {max_length}."
        )
    letters, alphabet = letters_of(sequence.values)
    windows = word_codes(letters, len(alphabet), max_length)
    counts = [np.bincount(code, minlength=found) for code, found in windows]
    words = np.array([len(count) for count in counts])
    length = np.arange(1, len(counts) + 1)
    columns = {
        "words": words,
        "once": np.array([int((count == 1).sum()) for count in counts]),
        "per_symbol": np.log(words) / length,
        "increment": np.diff(np.log(words), prepend=0.0),
    }
    return xr.Dataset(
        {name: ("length", column) for name, column in columns.items()},
        coords={"length": length},
        attrs={
            "steps": len(sequence.values),
            "time_step": sequence.time_step,
            "time_unit": sequence.time_unit,
        },
    )
