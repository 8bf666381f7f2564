"""What the model does: freely, and along the data."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dsrecon.cell import AbstractCell, AbstractPWLCell
from dsrecon.evolve import evolve
from dsrecon.readout import AbstractReadout, Forced, Forcing, GeneralisedReadout


@eqx.filter_jit
def free_run(
    cell: AbstractCell, readout: AbstractReadout, x0: Float[Array, "n"], s: Float[Array, "t k"] | None, steps: int
) -> Float[Array, "t n"]:
    """What a free run shows; row 0 is one step after the start. Counts are drawn, to be compared with counts."""
    z0 = readout.start(readout.targets(x0[None], None)[0])
    zs = evolve(cell, z0, s, steps=steps, throw=False).zs
    if isinstance(readout, GeneralisedReadout):
        return readout.sample(zs, key=jax.random.key(0))
    return readout.observe(zs)


@eqx.filter_jit
def follow(cell, readout, shown, mask, s, pull, pulls, at, ahead):
    """States along the data, what is shown one step and `ahead` steps after each, log growth in windows `[2, w]`."""
    x = readout.targets(shown, mask)
    forced = Forced(cell, readout)  # pyright: ignore[reportCallIssue]
    z0 = readout.start(x[0])
    strength = jnp.full(len(x), pull, x.dtype)

    def forcing(rows, strengths):
        return Forcing(x[rows], strengths[rows], None if s is None else s[rows], None if mask is None else mask[rows])

    rows = jnp.arange(len(x) - 1)
    before = forcing(rows, strength)._replace(s=None if s is None else s[1:])
    zs = jnp.concatenate([z0[None], evolve(forced, z0, before, throw=False).zs])
    every = Forcing(x, strength, None, mask)
    states = eqx.filter_vmap(forced.force)(zs, every)
    one = readout.observe(zs)[1:]
    inputs = None if s is None else s[jnp.arange(len(x) - ahead)[:, None] + jnp.arange(1, ahead + 1)[None]]
    runs = evolve(cell, states[: len(x) - ahead], inputs, steps=ahead, throw=False).zs
    if readout.memory:
        more = jax.vmap(lambda z, run: readout.observe(jnp.concatenate([z[None], run]))[-1])(
            states[: len(x) - ahead], runs
        )
    else:
        more = jax.vmap(lambda z: readout.observe(z[None])[0])(runs[:, -1])

    def window(start, strengths):
        def step(v, i):
            row = start + i
            drive = None if s is None else s[row + 1]
            pulled = Forcing(x[row], strengths[i], drive, None if mask is None else mask[row])
            _, v = jax.jvp(lambda z: forced(z, pulled), (states[row],), (v,))
            size = jnp.sqrt(jnp.sum(v**2))
            return v / size, jnp.log(size)

        v = jnp.ones_like(z0) / jnp.sqrt(jnp.asarray(z0.size, z0.dtype))
        return jnp.sum(jax.lax.scan(step, v, jnp.arange(pulls.shape[1]))[1])

    growth = jax.vmap(lambda strengths: jax.vmap(lambda start: window(start, strengths))(at))(pulls)
    return states, one, more, growth


@eqx.filter_jit
def regions(cell: AbstractPWLCell, zs: Float[Array, "t m"]) -> Bool[Array, "t p"]:
    """The region of every state."""
    return jax.vmap(lambda z: cell.region(z))(zs)
