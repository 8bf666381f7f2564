"""What is done to all members of a batch at once is what is done to each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon import Forced, Forcing, IdentityReadout, LinearReadout
from dsrecon.kernels import members
from dsrecon.kernels.members import FEW, MEMBERS, abreast, lie_side_by_side, of_members
from dsrecon.kernels.recurrence import recurrence
from dsrecon.models import ALRNN, GRU, DendriticPLRNN, MeanCentredPLRNN, ShallowPLRNN

SIZE = 5
W = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)))
LARGE = jnp.asarray(np.random.default_rng(1).normal(size=(FEW + 1, FEW + 1)))


def looped(z):
    return jax.lax.while_loop(lambda z: jnp.sum(z**2) < 10, lambda z: 2 * z, z)


def branched(z):
    return jax.lax.cond(z[0] > 0, lambda z: jnp.cumsum(z), lambda z: z[::-1], z)


FUNCTIONS = {
    "product from the left": (lambda z: W @ z, 3),
    "product from the right": (lambda z: z @ W, 7),
    "product that is not written out": (lambda z: jnp.tanh(LARGE @ jnp.tanh(z)), FEW + 1),
    "matrices of members": (lambda z: jnp.outer(z, z) @ z, 3),
    "sums and scalars": (lambda z: z * jnp.sum(z) - jnp.mean(z) + 2, 4),
    "cut, joined and padded": (lambda z: jnp.pad(jnp.concatenate([z[2:], -z[:1]]), (1, 2)), 4),
    "broadcast to a matrix": (lambda z: jnp.max(z[:, None] - jnp.arange(3.0)[None], axis=1), 4),
    "whole numbers and gates": (lambda z: jnp.where(z > 0, z, (z * 3).astype(int).astype(z.dtype)), 4),
    "a loop of its own length": (looped, 3),
    "a branch of its own": (branched, 3),
    "nothing of its own": (lambda z: jnp.arange(3.0), 3),
}


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_members_get_what_each_gets_alone(name, axis):
    function, size = FUNCTIONS[name]
    zs = jnp.asarray(np.random.default_rng(2).normal(size=(SIZE, size)))
    given = zs if axis == 0 else zs.T
    found = of_members(function, jax.ShapeDtypeStruct((size,), zs.dtype), axis=axis)(given)
    wanted = jnp.stack([function(z) for z in zs], axis=axis)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)


def test_members_get_leaves_of_inputs():
    def function(z, s):
        return z * s["scale"] + W @ s["x"] if s["x"] is not None else z

    zs, scale, x = (
        jnp.asarray(np.random.default_rng(i).normal(size=n)) for i, n in enumerate([(SIZE, 7), SIZE, (SIZE, 3)])
    )
    one = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), (zs, {"scale": scale, "x": x}))
    found = of_members(function, *one, axis=-1)(zs.T, {"scale": scale, "x": x.T})
    np.testing.assert_allclose(found.T, zs * scale[:, None] + x @ W.T, rtol=1e-13)


def test_which_batches_lie_side_by_side():
    alrnn = ALRNN(FEW, 1, key=jax.random.key(0))

    def small(size, cell=alrnn, unroll=1):
        return lie_side_by_side(cell, jnp.zeros(size), unroll)

    assert small((MEMBERS, FEW))
    assert not small((MEMBERS - 1, FEW))
    assert not small((MEMBERS, FEW + 1))
    assert not small((MEMBERS, FEW), unroll=2)
    assert not small((FEW,))
    assert not small((MEMBERS, 3), GRU(3, key=jax.random.key(0)))
    assert abreast(Forced(ALRNN(4, 1, key=jax.random.key(0)), IdentityReadout(3, 4, key=jax.random.key(1)))) == FEW


CELLS = {
    "shallow": lambda key: ShallowPLRNN(3, 10, input_size=2, key=key),
    "mean-centred": lambda key: MeanCentredPLRNN(4, input_size=2, key=key),
    "dendritic": lambda key: DendriticPLRNN(16, 3, input_size=2, key=key),
}


@pytest.mark.parametrize("name, steps", [("shallow", 1), ("shallow", 2), ("mean-centred", 5), ("dendritic", 5)])
def test_a_batch_side_by_side_is_its_members_alone(name, steps):
    cell = CELLS[name](jax.random.key(0))
    z0 = jax.random.normal(jax.random.key(1), (MEMBERS, cell.state_size))
    s = jax.random.normal(jax.random.key(2), (steps, MEMBERS, 2))
    assert lie_side_by_side(cell, z0, unroll=1)

    def together(cell, z0, s):
        return recurrence(cell, z0, s)

    def alone(cell, z0, s):
        run = jax.vmap(lambda z, s: recurrence(cell, z, s, adjoint="direct"), in_axes=(0, 1), out_axes=1)
        return run(z0, s)

    np.testing.assert_allclose(together(cell, z0, s), alone(cell, z0, s), rtol=1e-12, atol=1e-13)
    found, wanted = (eqx.filter_grad(lambda x, f=f: jnp.sum(jnp.sin(f(*x))))((cell, z0, s)) for f in (together, alone))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


def test_what_diverges_is_told_of_its_member_alone():
    cell = ALRNN(3, 1, key=jax.random.key(0))
    z0 = jnp.ones((MEMBERS, 3)).at[2].set(jnp.nan)
    zs = recurrence(cell, z0, steps=4)
    assert jnp.isnan(zs[:, 2]).all() and jnp.isfinite(jnp.delete(zs, 2, axis=1)).all()


def test_a_loop_on_a_gpu_works_out_before_it_what_its_parameters_alone_decide(monkeypatch):
    """XLA leaves a singular value decomposition inside of a loop there, and makes it at every step."""
    model = Forced(ShallowPLRNN(5, 6, key=jax.random.key(0)), LinearReadout(3, 5, key=jax.random.key(1)))
    inputs = Forcing(jax.random.normal(jax.random.key(2), (4, 7, 3)), jnp.full((4, 7), 0.3))
    z0 = jax.random.normal(jax.random.key(3), (4, 5))

    def weighed(model, z0, inputs):
        return jnp.sum(jnp.sin(recurrence(model, z0, inputs, batch_first=True)))

    wanted = eqx.filter_grad(weighed)(model, z0, inputs)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = eqx.filter_grad(weighed)(model, z0, inputs)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)
    free, fixed = eqx.partition(model, eqx.is_array)
    program = jax.make_jaxpr(jax.grad(lambda free: weighed(eqx.combine(free, fixed), z0, inputs)))(free)
    loops = [eqn for eqn in leaves_of(program.jaxpr) if eqn.primitive.name == "scan"]
    assert len(loops) == 2 and "svd" in str(program)
    assert not any("svd" in str(eqn.params["jaxpr"]) for eqn in loops)


def leaves_of(program):
    """All operations of a program but what lies within its loops."""
    for eqn in program.eqns:
        inner = [x for x in eqn.params.values() if hasattr(x, "jaxpr") or hasattr(x, "eqns")]
        if eqn.primitive.name == "scan" or not inner:
            yield eqn
        else:
            for x in inner:
                yield from leaves_of(getattr(x, "jaxpr", x))


@pytest.mark.parametrize(("columns", "spare"), [(3, 29), (22, 10), (32, 0), (40, 24), (72, 0), (100, 28), (130, 0)])
def test_products_of_filled_up_matrices_are_those_of_each(columns, spare):
    rng = np.random.default_rng(0)
    W, z = (jnp.asarray(rng.normal(size=size).astype(np.float32)) for size in ((columns, 7), (5, 7)))
    assert members._spare(W.T) == spare and members._spare(W.T.astype(float)) == 0
    found = members.of_members(lambda z: jnp.tanh(W @ z), z[0], axis=0)(z)
    assert found.shape == (5, columns)
    np.testing.assert_allclose(found, jnp.tanh(z @ W.T), rtol=1e-5, atol=1e-6)
