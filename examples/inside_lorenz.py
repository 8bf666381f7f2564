# %% [markdown]
# # Inside Lorenz: every fixed point of a fitted map, and what it is
#
# A piecewise-linear map is fitted to the Lorenz system and then solved: in each of its linear regions, of which there
# are more than a hundred thousand. What comes out is not what some optimiser found from some starts, but all that there
# is, and it can be held against what is known of the system.

# %%
import os

import numpy as np

from dsrecon import analyse, plot, reconstruct, simulate
from dsrecon.analysis import findings, fixed_points, unstable_manifold
from dsrecon.measures import affine_exponents, kaplan_yorke
from dsrecon.pwl import box_around
from dsrecon.systems import Lorenz63

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
length, updates = (10_000, 500) if small else (100_000, None)

# %% [markdown]
# ## The fit
# The cell that `reconstruct` chooses has three units and a hundred hyperplanes, which cut the space of its states into
# regions. In each of them the map is affine.

# %%
data = simulate(Lorenz63(), length)
model = reconstruct(data, steps=updates)
structure = analyse(model, longest=1)
print("\n\n".join(findings(structure)))

# %% [markdown]
# ## Against the truth
# The Lorenz system rests at the origin, a saddle, and at the middle of each wing, a saddle-focus: orbits come in along
# one direction and spiral out along two. Rates are per unit of time.

# %%
sigma, rho, beta = 10.0, 28.0, 8 / 3
c = (beta * (rho - 1)) ** 0.5
truth = np.array([[-c, -c, rho - 1], [0.0, 0.0, 0.0], [c, c, rho - 1]])
for x, y, z in truth:
    jacobian = np.array([[-sigma, sigma, 0], [rho - z, -1, -x], [y, x, -beta]])
    rates = np.linalg.eigvals(jacobian)
    print(f"true: ({x:7.3f}, {y:7.3f}, {z:7.3f})  rates", np.round(rates[np.argsort(-rates.real)], 3))
for cycle, points in zip(structure.cycles, structure.observed, strict=True):
    rates = np.log(cycle.eigenvalues.astype(complex)) / structure.time_step
    x, y, z = points[0]
    print(f"fit:  ({x:7.3f}, {y:7.3f}, {z:7.3f})  rates", np.round(rates, 3), cycle.kind)
print(structure.table().iloc[:, :11].to_string())

# %% [markdown]
# ## In the attractor

# %%
if structure.orbit is not None:
    plot.save(plot.fixed_points(structure.cycles, structure.orbit, model=model), "inside-lorenz.png")

# %% [markdown]
# ## Out of the saddle
# The saddle has one unstable direction. Its unstable manifold is a curve, straight in every region, with corners where
# it passes a border; it winds around the wings as the attractor does.

# %%
saddles = [cycle for cycle in fixed_points(model.cell) if cycle.stability.unstable == 1 and not cycle.border]
if saddles:
    saddle = min(saddles, key=lambda cycle: float(np.abs(cycle.points).sum()))
    states = np.asarray(model.free_run(1000).zs)
    box = box_around(np.vstack([states, saddle.points]), 1.0)
    curve = unstable_manifold(model.cell, saddle, steps=40 if small else 120, box=box)
    print(f"{len(curve)} straight pieces; {curve.why or 'nothing was left out'}")
    plot.save(plot.manifolds(curve, None, model=model), "inside-lorenz-manifold.png")

# %% [markdown]
# ## Exponents without differentiation
# The affine pieces that the free run passes through, multiplied, give the Lyapunov exponents; of the true system these
# are 0.906, 0 and -14.57.

# %%
exponents = affine_exponents(model.cell, model.start(), steps=2_000 if small else 100_000, dt=model.clock.time_step)
print("exponents", np.round(exponents, 3), " dimension", round(kaplan_yorke(exponents), 3))

# %% [markdown]
# The same from a shell, for a run folder that `dsrecon fit` or `dsrecon demo` wrote: `dsrecon analyse RUN`.
