"""What each process of `sweep.sbatch` does: runs of its own on its own devices, and the best of all in the end.

    python sweep.py SERIES.csv FOLDER [--runs 64] [--steps N]

Without SLURM it is one process. Each writes `FOLDER/host-NUMBER.model` and goes on from `host-NUMBER.checkpoint` where
an earlier job was ended; the first writes `best.txt`.
"""

import argparse
import os
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from dsrecon import read_series, reconstruct


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("series")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=64, help="runs of each process")
    parser.add_argument("--steps", type=int)
    told = parser.parse_args()
    if "SLURM_JOB_ID" in os.environ:
        jax.distributed.initialize()
    number = jax.process_index()
    told.folder.mkdir(parents=True, exist_ok=True)
    found = reconstruct(
        read_series(told.series),
        runs=told.runs,
        steps=told.steps,
        key=number,  # other start values and windows in every process
        devices=jax.local_devices(),
        checkpoint=told.folder / f"host-{number}.checkpoint",
    )
    found.save(told.folder / f"host-{number}.model")
    score = float(np.nanmin(found.runs["score"]))
    scores = np.atleast_1d(multihost_utils.process_allgather(np.asarray(score)))
    if number == 0:
        best = int(np.nanargmin(scores))
        (told.folder / "best.txt").write_text(f"host-{best}.model {scores[best]:.4g}\n")


if __name__ == "__main__":
    main()
