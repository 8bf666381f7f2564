"""`linear_scan`: every engine and structure against a NumPy loop, its gradients against JAX's own of the plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon.kernels import engines, linear_scan
from dsrecon.kernels.engines import Plan, plan

M, C = 4, 2
SLOPES = {"scalar": (), "diagonal": (M,), "dense": (M, M), "blocks": (C, C, M // C)}
NAMES = ("sequential", "associative", "chunked")


def by_doubling(a, b, reverse):
    """An engine from outside: `h = b` and `h_t += a_t h_{t-1}` again and again; slow, and nobody else's code."""
    steps = b.shape[0]
    dense = as_dense(a, b.shape[1])
    dense, b = (jnp.flip(x, 0) if reverse else x for x in (dense, b))
    h = b
    for _ in range(steps - 1):
        h = b + jnp.einsum("tij,tj->ti", dense, jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]]))
    return jnp.flip(h, 0) if reverse else h


def as_dense(a, m, np=jnp):
    """Slopes of any structure as matrices `[t, m, m]`."""
    if a.ndim == 1:
        return a[:, None, None] * np.eye(m, dtype=a.dtype)[None]
    if a.ndim == 2:
        return a[:, :, None] * np.eye(m, dtype=a.dtype)[None]
    if a.ndim == 3:
        return a
    k = a.shape[3]
    return (a.transpose(0, 1, 3, 2)[..., None] * np.eye(k, dtype=a.dtype)[None, None, :, None]).reshape(len(a), m, m)


def looped(a, b, h0, resets, reverse):
    """The definition, in NumPy."""
    a, b = as_dense(np.asarray(a), b.shape[1], np), np.asarray(b)
    start = np.zeros(b.shape[1]) if h0 is None else np.asarray(h0)
    h, out = start, np.zeros(b.shape, np.result_type(a, b, start))
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        h = a[t] @ (start if resets is not None and resets[t] else h) + b[t]
        out[t] = h
    return out


def problem(structure, steps, *, complex_a=False, complex_b=False, start=True, resets=True, seed=0):
    rng = np.random.default_rng(seed)

    def draw(shape, is_complex):
        x = rng.normal(size=shape)
        return x + 1j * rng.normal(size=shape) if is_complex else x

    a = draw((steps, *SLOPES[structure]), complex_a) / 2
    h0 = draw((M,), complex_b) if start else None
    return a, draw((steps, M), complex_b), h0, rng.random(steps) < 0.25 if resets else None


def cases(structure):
    """All of start, resets and direction; each pair of realness with half of them, another half for each structure."""
    turn = list(SLOPES).index(structure)
    return [
        {
            "complex_a": (start + resets + turn // 2) % 2 == 1,
            "complex_b": (resets + reverse + turn) % 2 == 1,
            "start": start,
            "resets": resets,
            "reverse": reverse,
        }
        for start in (False, True)
        for resets in (False, True)
        for reverse in (False, True)
    ]


def weighed(h, weights):
    """A real number in which every state has its own weight, and not linearly."""
    h = jnp.sin(h)
    return jnp.sum(weights.real * h.real) + jnp.sum(weights.imag * h.imag)


def given(case, structure, steps):
    a, b, h0, resets = problem(structure, steps, **{k: v for k, v in case.items() if k != "reverse"})
    w = np.random.default_rng(1).normal(size=(2, *b.shape))
    free = {"a": a, "b": b} | ({} if h0 is None else {"h0": h0})
    return (
        jax.tree.map(jnp.asarray, free),
        None if resets is None else jnp.asarray(resets),
        jnp.asarray(w[0] + 1j * w[1]),
    )


QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Many small programs are compiled here and each is run once."""


@functools.partial(jax.jit, static_argnums=(1, 2, 3), compiler_options=QUICK)
def everything(problems, structure, engine, adjoint):
    """Values of many problems and gradients of every other, compiled as one."""
    found = []
    for (free, resets, w), case in zip(problems, cases(structure), strict=True):

        def loss(free, resets=resets, w=w, reverse=case["reverse"]):
            h = linear_scan(**free, resets=resets, reverse=reverse, engine=engine, adjoint=adjoint)
            return weighed(h, w), h

        if (case["start"] + case["resets"] + case["reverse"]) % 2:
            found.append((loss(free)[1], {}))
        else:
            (_, h), slopes = jax.value_and_grad(loss, has_aux=True)(free)
            found.append((h, slopes))
    return found


def close(found, wanted, tolerance):
    scale = max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


@functools.cache
def reference(structure, steps):
    """JAX's own derivatives of the loop."""
    return everything(problems_of(structure, steps), structure, "sequential", "direct")


def problems_of(structure, steps):
    return [given(case, structure, steps) for case in cases(structure)]


PAIRS = [(engine, s) for engine in NAMES for s in SLOPES] + [(by_doubling, s) for s in ("diagonal", "dense")]


@pytest.mark.parametrize(("engine", "structure"), PAIRS, ids=lambda e: e if isinstance(e, str) else "function")
def test_values_and_gradients_are_those_of_the_loop(engine, structure):
    steps = 13
    problems, wanted = problems_of(structure, steps), reference(structure, steps)
    found = everything(problems, structure, engine, "deferred")
    for case, (free, resets, _), (h, slopes), (_, direct) in zip(
        cases(structure), problems, found, wanted, strict=True
    ):
        loop = looped(free["a"], free["b"], free.get("h0"), resets, case["reverse"])
        assert h.dtype == loop.dtype
        close(h, loop, 1e-12)
        assert slopes.keys() == direct.keys()
        for name in slopes:
            assert slopes[name].dtype == free[name].dtype
            close(slopes[name], direct[name], 1e-10)


@pytest.mark.parametrize("steps", [1, 2, 16])
@pytest.mark.parametrize("engine", NAMES)
def test_short_and_even_lengths(engine, steps):
    @functools.partial(jax.jit, compiler_options=QUICK)
    def found(problems):
        return [
            linear_scan(a, b, h0, resets=resets, reverse=reverse, engine=engine)
            for a, b, h0, resets in problems
            for reverse in (False, True)
        ]

    problems = [problem(structure, steps) for structure in ("dense", "diagonal")]
    wanted = [looped(*p, reverse) for p in problems for reverse in (False, True)]
    for h, loop in zip(found(problems), wanted, strict=True):
        close(h, loop, 1e-12)


ACCELERATED = {
    "associative": functools.partial(engines.associative, plan=Plan("associative", 0, 8, True)),
    "chunked": functools.partial(engines.chunked, plan=Plan("chunked", 4, 8, False), copies=False),
    "chunked, copies": functools.partial(engines.chunked, plan=Plan("chunked", 4, 8, False), copies=True),
    "chunked, loop, one block": functools.partial(engines.chunked, plan=Plan("chunked", 16, 8, True), copies=False),
    "chunked, matrices": functools.partial(engines.chunked, plan=Plan("chunked", 3, 1, False), copies=False),
    "sequential": functools.partial(engines.sequential, plan=Plan("sequential", 0, 0, True)),
}
"""Layouts that the rule for CPUs does not choose."""


@pytest.mark.parametrize("name", ACCELERATED)
def test_layouts_that_only_accelerators_are_given(name):
    engine, steps = ACCELERATED[name], 13
    choices = ((False, False), (False, True), (True, True))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def found(problems):
        return [
            engine(a, b, None if transpose else h0, resets, reverse=reverse, transpose=transpose)
            for a, b, h0, resets in problems
            for transpose, reverse in choices
        ]

    problems = [problem(structure, steps) for structure in ("dense", "blocks")]
    wanted = []
    for a, b, h0, resets in problems:
        for transpose, reverse in choices:
            turned = as_dense(a, M, np).swapaxes(1, 2) if transpose else a
            wanted.append(looped(turned, b, None if transpose else h0, resets, reverse))
    for h, loop in zip(found(jax.tree.map(jnp.asarray, problems)), wanted, strict=True):
        close(h, loop, 1e-12)


@pytest.mark.parametrize("engine", NAMES)
def test_direct_differentiates_either_way_and_twice(engine):
    case = {"start": True, "resets": True, "complex_a": False, "complex_b": False, "reverse": False}
    problems = {s: given(case, s, 5) for s in ("dense", "scalar")}

    def loss(free, structure, engine, adjoint="direct"):
        _, resets, w = problems[structure]
        return weighed(linear_scan(**free, resets=resets, engine=engine, adjoint=adjoint), w)

    @functools.partial(jax.jit, static_argnums=1, compiler_options=QUICK)
    def derivatives(frees, engine):
        found = []
        for structure, free in frees.items():
            of = functools.partial(loss, structure=structure, engine=engine)
            ones = jax.tree.map(jnp.ones_like, free)
            found.append((jax.jvp(of, (free,), (ones,))[1], jax.grad(of)(free)))
        of = functools.partial(loss, structure="scalar", engine=engine)
        ones = jax.tree.map(jnp.ones_like, frees["scalar"])
        second = jax.grad(lambda free: jax.jvp(of, (free,), (ones,))[1])(frees["scalar"])
        return found, second

    frees = {s: free for s, (free, _, _) in problems.items()}
    (first, second), (wanted, twice) = derivatives(frees, engine), derivatives(frees, "sequential")
    for (forward, backward), (_, loop) in zip(first, wanted, strict=True):
        close(forward, sum(np.sum(x) for x in jax.tree.leaves(loop)), 1e-10)
        jax.tree.map(functools.partial(close, tolerance=1e-10), backward, loop)
    jax.tree.map(functools.partial(close, tolerance=1e-10), second, twice)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(
            lambda a: loss({**frees["scalar"], "a": a}, "scalar", engine, "deferred"), *[(frees["scalar"]["a"],)] * 2
        )


def test_gradients_are_central_differences():
    (free, resets, w), eps = given(cases("dense")[-1], "dense", 6), 1e-6
    free = jax.tree.map(lambda x: x.real, free)
    rng = np.random.default_rng(3)
    along = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), free)

    @jax.jit
    def loss(free):
        return weighed(linear_scan(**free, resets=resets, engine="chunked"), w)

    up, down = (loss(jax.tree.map(lambda x, d, s=s: x + s * eps * d, free, along)) for s in (1, -1))
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), jax.grad(loss)(free), along)))
    # central differences: 1e-16 / eps of rounding times a loss of order 10
    np.testing.assert_allclose(slope, (up - down) / (2 * eps), rtol=1e-7)


@pytest.mark.parametrize("engine", NAMES)
def test_vmap_is_one_by_one(engine):
    batch = [problem("dense", 13, seed=seed) for seed in range(3)]
    a, b, h0, resets = (jnp.stack([jnp.asarray(p[i]) for p in batch]) for i in range(4))

    def loss(a, b, h0, resets):
        h = linear_scan(a, b, h0, resets=resets, engine=engine)
        return jnp.sum(jnp.sin(h)), h

    @functools.partial(jax.jit, compiler_options=QUICK)
    def found(a, b, h0, resets):
        each = jax.vmap(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(a, b, h0, resets)
        shared = jax.grad(lambda a: jnp.sum(jax.vmap(loss, (None, 0, 0, None))(a, b, h0, resets[0])[0]))(a[0])
        return each, shared

    one = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), compiler_options=QUICK)
    each, shared = found(a, b, h0, resets)
    for i in range(3):
        jax.tree.map(
            functools.partial(close, tolerance=1e-12),
            jax.tree.map(lambda x, i=i: x[i], each),
            one(a[i], b[i], h0[i], resets[i]),
        )
    wanted = sum(np.asarray(one(a[0], b[i], h0[i], resets[0])[1][0]) for i in range(3))
    close(shared, wanted, 1e-12)


def test_a_second_call_compiles_nothing():
    traced = []

    def counted(a, b, reverse):
        traced.append(reverse)
        return by_doubling(a, b, reverse)

    a, b, h0, _ = problem("diagonal", 5, resets=False)
    for _ in range(3):
        h = linear_scan(a, b, h0, engine=counted)
    assert traced == [False]
    close(h, looped(a, b, h0, None, False), 1e-12)


@pytest.mark.parametrize("engine", NAMES)
@pytest.mark.parametrize("structure", ["diagonal", "dense"])
def test_nothing_of_a_trial_reaches_another(structure, engine):
    """Three trials, the middle one gone to infinity and NaN: the others are as if alone, and so are their gradients."""
    a, b, h0, _ = problem(structure, 15)
    resets = np.zeros(15, bool)
    resets[[5, 10]] = True
    wild_a, wild_b = a.copy(), b.copy()
    wild_a[6:10] *= 1e200
    wild_a[8], wild_b[7] = np.nan, np.nan

    @functools.partial(jax.jit, static_argnums=(3, 4), compiler_options=QUICK)
    def found(a, b, h0, reverse, adjoint):
        def loss(a, b):
            h = linear_scan(a, b, h0, resets=where, reverse=reverse, engine=engine, adjoint=adjoint)
            return jnp.sum(jnp.sin(h[jnp.asarray(calm)])), h

        # in reverse a trial begins at its last step
        where = jnp.asarray(np.roll(resets, -1) if reverse else resets)
        return jax.value_and_grad(loss, (0, 1), has_aux=True)(a, b)

    calm = np.r_[0:5, 10:15]
    ways = ((False, "deferred"), (True, "deferred"), (False, "direct"))
    for reverse, adjoint in ways if structure == "dense" else ways[:1]:
        (_, h), slopes = found(wild_a, wild_b, h0, reverse, adjoint)
        (_, tame), wanted = found(a, b, h0, reverse, adjoint)
        assert not np.isfinite(h[7]).any()
        close(h[calm], tame[calm], 1e-12)
        for slope, want in zip(slopes, wanted, strict=True):
            close(slope[calm], want[calm], 1e-12)


@pytest.mark.parametrize("engine", NAMES)
def test_closed_forms(engine):
    rng, steps = np.random.default_rng(0), 50
    b, start = rng.normal(size=(steps, 3)), rng.normal(size=4)
    slopes, powers = np.asarray([0.5, -0.9, 0.99]), np.arange(1, steps + 1)[:, None]
    turn = 2 * np.pi / 25
    block = np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    @functools.partial(jax.jit, compiler_options=QUICK)
    def found():
        run = functools.partial(linear_scan, engine=engine)
        return (
            run(np.ones(steps), b),
            run(np.ones((steps, 3)), b, reverse=True),
            run(np.broadcast_to(slopes, (steps, 3)), np.ones((steps, 3))),
            run(np.broadcast_to(block[None, :, :, None], (steps, 2, 2, 2)), np.zeros((steps, 4)), start),
            run(np.full(steps, np.exp(1j * turn)), np.zeros((steps, 2)), start[:2] + 1j * start[2:]),
        )

    summed, backwards, geometric, turned, z = found()
    close(summed, np.cumsum(b, 0), 1e-13)
    close(backwards, np.cumsum(b[::-1], 0)[::-1], 1e-13)
    close(geometric, (1 - slopes**powers) / (1 - slopes), 1e-13)
    # a rotation in planes comes back after its period, and is a complex slope of modulus one
    close(turned[24::25], np.broadcast_to(start, (2, 4)), 1e-13)
    close(turned, np.concatenate([z.real, z.imag], 1), 1e-13)


@pytest.mark.parametrize("engine", NAMES)
def test_float32(engine, float32):
    for structure in ("dense", "diagonal"):
        a, b, h0, resets = (np.asarray(x) for x in problem(structure, 13))
        small = [np.asarray(x, np.float32) for x in (a, b, h0)]
        h = linear_scan(*small, resets=resets, engine=engine)
        assert h.dtype == np.float32
        close(h, looped(*[x.astype(np.float64) for x in small], resets, False), 2e-6)
    small[0] = small[0].astype(np.complex64)
    assert jax.eval_shape(functools.partial(linear_scan, engine=engine), *small).dtype == np.complex64


@pytest.mark.parametrize("engine", NAMES)
@pytest.mark.parametrize("slopes", [(10, 20, 20), (10, 3, 3)], ids=str)
def test_products_are_in_full_precision(slopes, engine):
    with jax.default_matmul_precision("bfloat16"):
        program = jax.make_jaxpr(jax.grad(lambda a, b: jnp.sum(linear_scan(a, b, engine=engine) ** 2), (0, 1)))
        text = str(program(jnp.ones(slopes), jnp.ones(slopes[:2])))
    products = text.count("dot_general[")
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products > 0


def planned(engine, steps, m, shape, platform, itemsize=4):
    return plan(engine, steps, float(steps * (m + np.prod(shape)) * itemsize), platform)


def test_the_rule_on_a_cpu_is_the_loop():
    for steps in (1, 100, 10**6):
        for m in (1, 3, 64):
            for shape in ((), (m,), (m, m), (1, 1, m)):
                assert planned("auto", steps, m, shape, "cpu").engine == "sequential"
    compiled = jax.jit(linear_scan).lower(jnp.ones(100), jnp.ones((100, 3))).compile().as_text()
    assert "conditional" not in compiled


def test_the_rule_on_an_accelerator_weighs_launches_against_bytes(monkeypatch):
    assert planned("auto", 8, 3, (3, 3), "gpu").engine == "sequential"
    assert planned("auto", 10_000, 3, (3, 3), "gpu").engine == "associative"
    # the measured passes may change; where the chunked engine moves less, it serves from some size on
    monkeypatch.setattr(engines, "ASSOCIATIVE_PASSES", 10.0)
    monkeypatch.setattr(engines, "CHUNKED_PASSES", 3.0)
    assert planned("auto", 10_000, 3, (3, 3), "gpu").engine == "associative"
    assert planned("auto", 1_000_000, 64, (64,), "gpu").engine == "chunked"
    assert planned("auto", 100_000, 64, (64, 64), "gpu").engine == "chunked"
    # twice the numbers are in float64: the border lies at half the length
    border = [
        next(t for t in range(1000, 10**6, 1000) if planned("auto", t, 8, (8,), "gpu", size).engine == "chunked")
        for size in (4, 8)
    ]
    assert abs(border[0] - 2 * border[1]) <= 2000
    monkeypatch.setattr(engines, "CHUNKED_PASSES", 10.0)
    assert planned("auto", 1_000_000, 64, (64,), "gpu").engine == "associative"


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_blocks_divide_the_time_where_they_can(platform):
    for steps in (1, 2, 3, 13, 100, 10_000, 99_991, 100_000, 1_000_000):
        block = planned("chunked", steps, 3, (3, 3), platform).block
        assert 1 <= block <= max(2 * steps**0.5, 1)
        if steps in (100, 10_000, 100_000, 1_000_000):
            assert steps % block == 0


WRONG = {
    "no steps": ({"b": (0, 4), "a": (0,)}, "b must have at least one step: got shape (0, 4)."),
    "b of one axis": ({"b": (5,)}, "b must have shape [t, m]: got (5,)."),
    "b of no state": ({"b": (5, 0)}, "b must have shape [t, m]: got (5, 0)."),
    "a of another length": ({"a": (4,)}, "got (4,)."),
    "a of another size": (
        {"a": (5, 3)},
        "[5, 4, 4] or [5, c, c, k] with c k = 4 to go with b (5, 4): got (5, 3).",
    ),
    "a one matrix": ({"a": (4, 4)}, "a must have shape [5]"),
    "a not square": ({"a": (5, 4, 3)}, "got (5, 4, 3)."),
    "blocks that do not fill": ({"a": (5, 2, 2, 3)}, "got (5, 2, 2, 3)."),
    "blocks not square": ({"a": (5, 2, 4, 2)}, "got (5, 2, 4, 2)."),
    "a without time": ({"a": ()}, "got ()."),
    "a of five axes": ({"a": (5, 1, 1, 1, 4)}, "got (5, 1, 1, 1, 4)."),
    "h0 of another size": ({"h0": (3,)}, "h0 must have shape [4]: got (3,)."),
    "resets of another length": (
        {"resets": np.zeros(4, bool)},
        "booleans of shape [5]: got bool of shape (4,).",
    ),
    "resets of numbers": ({"resets": np.zeros(5)}, "resets must be booleans of shape [5]: got float64"),
    "a of integers": ({"a": np.ones(5, np.int32)}, "a must be real or complex floating point: got int32."),
    "b of integers": ({"b": np.ones((5, 4), np.int32)}, "b must be real or complex floating point: got int32."),
    "h0 of booleans": ({"h0": np.ones(4, bool)}, "h0 must be real or complex floating point: got bool."),
    "engine": (
        {"engine": "parallel"},
        "'chunked', 'pallas', 'interpreted') or a function (a, b, reverse) -> h: got 'parallel'.",
    ),
    "adjoint": ({"adjoint": "implicit"}, 'adjoint must be "deferred" or "direct": got \'implicit\'.'),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_refused_by_name(case):
    changed, message = WRONG[case]
    changed = {k: np.ones(v) if isinstance(v, tuple) else v for k, v in changed.items()}
    arguments = {"a": np.ones(5), "b": np.ones((5, 4))} | changed
    with pytest.raises(ValueError) as error:
        linear_scan(**arguments)
    assert message in str(error.value)
