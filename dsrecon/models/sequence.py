"""Deep models of sequences: blocks of sequence layers between an encoder and a head."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, Shaped

from dsrecon._checks import jax_key
from dsrecon._types import Key, Matrix, State
from dsrecon.cell import dense_jacobian
from dsrecon.layer import AbstractOutputCell, AbstractSequenceLayer, Steps, Timed
from dsrecon.models._init import at_least_one

Length = int | Int[Array, ""]


class Block(eqx.Module):
    """A residual block, its norm first: `x + drop(glu(drop(gelu(layer(norm(x))))))`.

    `glu(y) = (W y + w) * sigmoid(V y + v)` mixes the channels. With a layer `backward` the block is bidirectional,
    `layer(u) + reversed(backward(reversed(u)))`, and has no stepwise face.

    **Fields:** `layer`, `backward` of width d; `norm`; `mix`: `[2d, d]`; `dropout`: share of values that are zeroed in
    training, of all steps alike.

    Reference: Gu, Goel & Ré 2022, *Efficiently modeling long sequences with structured state spaces*, ICLR.
    """

    layer: AbstractSequenceLayer
    backward: AbstractSequenceLayer | None
    norm: eqx.nn.LayerNorm
    mix: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __call__(
        self, x: Float[Array, "t d"], dt: Steps, length: Length | None, *, key: Key | None
    ) -> Float[Array, "t d"]:
        u = jax.vmap(self.norm)(x)
        y = self.layer(u, dt)
        if self.backward is not None:
            y = y + _reversed(self.backward(_reversed(u, length), _reversed_steps(dt, length)), length)
        keys = (None, None) if key is None else jax.random.split(key)
        y = self._dropped(jax.nn.gelu(y), keys[0])
        return x + self._dropped(jax.nn.glu(jax.vmap(self.mix)(y), 1), keys[1])

    def after(self, x: Float[Array, "d"], y: Float[Array, "d"]) -> Float[Array, "d"]:
        """What leaves the block at one step, `x` having come in and `y` out of its layer."""
        return x + jax.nn.glu(self.mix(jax.nn.gelu(y)), 0)

    def _dropped(self, y: Float[Array, "t d"], key: Key | None) -> Float[Array, "t d"]:
        return self.dropout(y, key=key, inference=key is None)


class SequenceModel(eqx.Module):
    """Encoder, residual blocks of sequence layers, head: `x` `[t, k]` to `y` `[c]` or, step by step, `[t, c]`.

    **Fields and arguments:**

    - `encoder`: `[k]` to `[d]`, applied to each step; `head`: `[d]` to `[c]`; any callable PyTrees (`eqx.nn.Linear`).
    - `layers`: sequence layers of one width `d`. `backward`: as many again, for a model that reads both ways.
    - `pool`: `"mean"` of all steps or the `"last"` one before the head; `None` for a head at each step.
    - `dropout`: share, in [0, 1); drawn only where a key is given to the call.
    - `key`: for the mixing weights of the blocks.

    **Raises:** `ValueError` for no layers, layers of different widths, another number of backward layers, an unknown
    pool, a dropout outside [0, 1).
    """

    encoder: Callable[..., Any]
    blocks: tuple[Block, ...]
    norm: eqx.nn.LayerNorm
    head: Callable[..., Any]
    pool: str | None = eqx.field(static=True)

    def __init__(
        self,
        encoder: Callable[..., Any],
        layers: Sequence[AbstractSequenceLayer],
        head: Callable[..., Any],
        *,
        backward: Sequence[AbstractSequenceLayer] | None = None,
        pool: Literal["mean", "last"] | None = "mean",
        dropout: float = 0.0,
        key: Key,
    ):
        widths = {layer.width for layer in (*layers, *(backward or ()))}
        if len(widths) != 1:
            raise ValueError(f"layers must be at least one, all of one width: got widths {sorted(widths)}.")
        if backward is not None and len(backward) != len(layers):
            raise ValueError(f"backward must hold a layer for each of the {len(layers)}: got {len(backward)}.")
        if pool not in ("mean", "last", None):
            raise ValueError(f'pool must be "mean", "last" or None: got {pool!r}.')
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1): got {dropout}.")
        d = widths.pop()
        both = [None] * len(layers) if backward is None else list(backward)
        self.blocks = tuple(
            Block(layer, other, eqx.nn.LayerNorm(d), eqx.nn.Linear(d, 2 * d, key=k), eqx.nn.Dropout(dropout))
            for layer, other, k in zip(layers, both, jax.random.split(key, len(layers)), strict=True)
        )
        self.encoder, self.norm, self.head, self.pool = encoder, eqx.nn.LayerNorm(d), head, pool

    def __call__(
        self, x: Float[Array, "t k"], dt: Steps = 1.0, *, length: Length | None = None, key: Key | None = None
    ) -> Float[Array, "*t c"]:
        """The model along a sequence.

        **Arguments:** `x` `[t, k]`; `dt`: as that of a layer; `length`: how many steps at the beginning are real (all,
        where `None`): what follows is not pooled and not read backwards; `key`: for dropout, `None` for none.
        """
        keys = [None] * len(self.blocks) if key is None else list(jax.random.split(key, len(self.blocks)))
        h = jax.vmap(self.encoder)(x)
        for block, k in zip(self.blocks, keys, strict=True):
            h = block(h, dt, length, key=k)
        h = jax.vmap(self.norm)(h)
        if self.pool is None:
            return jax.vmap(self.head)(h)
        return self.head(self._pooled(h, length))

    def cell(self, dt: float | Shaped[Array, ""] | None = 1.0) -> "SequenceCell":
        """The model step by step: input `[k]` (`Timed(x, dt)` with `None`), output `[c]`, of the steps so far.

        **Raises:** `ValueError` for a model that reads both ways.
        """
        if any(block.backward is not None for block in self.blocks):
            raise ValueError("a model that reads both ways has no stepwise face: build it without backward layers.")
        return SequenceCell(self, tuple(block.layer.cell(dt) for block in self.blocks))  # pyright: ignore[reportCallIssue]

    def _pooled(self, h: Float[Array, "t d"], length: Length | None) -> Float[Array, "d"]:
        if self.pool == "last":
            return h[-1] if length is None else h[jnp.asarray(length) - 1]
        if length is None:
            return jnp.mean(h, 0)
        real = jnp.arange(len(h)) < length
        return jnp.sum(jnp.where(real[:, None], h, jnp.zeros_like(h)), 0) / jnp.asarray(length, h.dtype)


class SequenceCell(AbstractOutputCell):
    """A `SequenceModel` step by step. State: those of its layers one after the other; of a mean, the sum so far (`d`)
    and the number of steps (1)."""

    model: SequenceModel
    cells: tuple[AbstractOutputCell, ...]

    @property
    def state_size(self) -> int:
        return sum(cell.state_size for cell in self.cells) + self._pooling

    @property
    def _pooling(self) -> int:
        return self.model.blocks[0].layer.width + 1 if self.model.pool == "mean" else 0

    def __call__(self, z: Inexact[Array, "m"], s: Any) -> Inexact[Array, "m"]:
        out, h = [], self.model.encoder(_input(s))
        for block, cell, part in zip(self.model.blocks, self.cells, self._parts(z), strict=False):
            given = _given(s, block.norm(h))
            moved = cell(part, given)
            h = block.after(h, cell.output(moved, given))
            out.append(moved)
        if self._pooling:
            out += [z[-self._pooling : -1] + self.model.norm(h), z[-1:] + 1]
        return jnp.concatenate(out)

    def linearise(self, z: Inexact[Array, "m"], s: Any = None) -> tuple[State, Matrix]:
        """`(f(z, s), df/dz)`, dense, by forward mode."""
        return dense_jacobian(self, z, s)

    def output(self, z: State, u: Any) -> Inexact[Array, "c"]:
        if self._pooling:
            return self.model.head(z[-self._pooling : -1] / z[-1:])
        h = self.model.encoder(_input(u))
        for block, cell, part in zip(self.model.blocks, self.cells, self._parts(z), strict=False):
            h = block.after(h, cell.output(part, _given(u, block.norm(h))))
        return self.model.head(self.model.norm(h))

    def _parts(self, z: Array) -> list[Array]:
        ends, first = [], 0
        for cell in self.cells:
            ends.append(z[first : first + cell.state_size])
            first += cell.state_size
        return ends


def sequence_model(
    input_size: int,
    output_size: int,
    layer: Callable[[Key], AbstractSequenceLayer],
    *,
    depth: int = 4,
    pool: Literal["mean", "last"] | None = "mean",
    bidirectional: bool = False,
    dropout: float = 0.0,
    key: Key,
) -> SequenceModel:
    """A `SequenceModel` of `depth` layers of one kind, with linear encoder and head.

    **Arguments:** `input_size` k, `output_size` c; `layer`: makes one, `lambda key: S4D(64, key=key)`; `pool`,
    `dropout`: as `SequenceModel`; `bidirectional`: a second layer a block, which reads backwards.

    **Raises:** `ValueError` for sizes below 1, and as `SequenceModel`.
    """
    at_least_one(input_size=input_size, output_size=output_size, depth=depth)
    keys = jax.random.split(jax_key(key), 2 * depth + 3)
    layers = [layer(k) for k in keys[:depth]]
    width = layers[0].width
    return SequenceModel(
        eqx.nn.Linear(input_size, width, key=keys[-1]),
        layers,
        eqx.nn.Linear(width, output_size, key=keys[-2]),
        backward=[layer(k) for k in keys[depth : 2 * depth]] if bidirectional else None,
        pool=pool,
        dropout=dropout,
        key=keys[-3],
    )


def _input(s: Any) -> Array:
    return s.u if isinstance(s, Timed) else s


def _given(s: Any, u: Array) -> Any:
    return Timed(u, s.dt) if isinstance(s, Timed) else u


def _reversed(x: Array, length: Length | None) -> Array:
    """The first `length` rows in reverse; what follows is in reverse behind them."""
    return jnp.flip(x, 0) if length is None else jnp.roll(jnp.flip(x, 0), length, 0)


def _reversed_steps(dt: Any, length: Length | None) -> Any:
    """Of the sequence in reverse the step before each sample: the first keeps its own."""
    if jnp.ndim(dt) == 0:
        return dt
    behind = jnp.roll(_reversed(jnp.asarray(dt), length), 1)
    return behind.at[0].set(jnp.asarray(dt)[0])
