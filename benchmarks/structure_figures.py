"""The figures of the page on structure: Lozi's manifolds and its bifurcations.

    python benchmarks/structure_figures.py

They land in `docs/`.
"""

from pathlib import Path

import jax
import numpy as np

from dsrecon import plot
from dsrecon.analysis import (
    asymptotic_orbits,
    continuation,
    fixed_points,
    homoclinic_points,
    stable_manifold,
    unstable_manifold,
)
from dsrecon.systems import Lozi

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    saddle = next(c for c in fixed_points(Lozi()) if c.points[0, 0] > 0)
    up = unstable_manifold(Lozi(), saddle, steps=6)
    down = stable_manifold(Lozi(), saddle, steps=4, box=([-2, -2], [2, 2]))
    crossings = homoclinic_points(up, down)
    plot.save(plot.manifolds(up, down, crossings), DOCS / "lozi-manifolds.png")
    print(f"{len(up)} and {len(down)} segments, {len(crossings)} homoclinic points")

    values = np.linspace(0.4, 1.65, 126)
    diagram = continuation(lambda a: Lozi(a, 0.3), values, longest=5)
    orbit = asymptotic_orbits(lambda a: Lozi(a, 0.3), values, [0.1, 0.1])
    plot.save(plot.bifurcation(diagram, orbit=orbit, name="a"), DOCS / "lozi-bifurcation.png")
    print(diagram.event_table().to_string())


if __name__ == "__main__":
    main()
