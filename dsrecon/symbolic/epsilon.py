"""Epsilon-machines from a sequence: the causal states of its process, by CSSR."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsrecon.symbolic.machine import Machine


@dataclass(frozen=True)
class Reconstructed:
    """What `epsilon_machine` found.

    **Fields:** `machine`; `history`: length of the longest pasts that were told apart; `steps`: symbols in the
    sequence; `counts` `[s, a]`: how often each edge was passed; `log_likelihood` of the steps that were counted, nats;
    `bic` of each history that was tried; `statistical_complexity`, `entropy_rate`: `(value, low, high)`, nats, with
    the interval.
    """

    machine: Machine
    history: int
    steps: int
    counts: tuple[tuple[int, ...], ...]
    log_likelihood: float
    bic: dict[int, float]
    statistical_complexity: tuple[float, float, float]
    entropy_rate: tuple[float, float, float]
    level: float


def epsilon_machine(
    symbols: Any,
    *,
    history: int | None = None,
    significance: float = 0.01,
    level: float = 0.95,
    seed: int = 0,
) -> Reconstructed:
    """The epsilon-machine of a sequence, by causal-state splitting reconstruction (CSSR)."""
    raise NotImplementedError


_ = np
