"""Several steps of a cell as one."""

import equinox as eqx
import jax
import jax.numpy as jnp

from dsrecon._types import Inputs, Matrix, State, States
from dsrecon.cell import AbstractCell, as_matrix


class Composed(AbstractCell):
    """`steps` steps of a cell as one map; its input has leaves `[steps, ...]`.

    Its Jacobian is the product of theirs, dense.

    **Arguments:** `cell`; `steps`: at least 1.
    """

    cell: AbstractCell
    steps: int = eqx.field(static=True)

    def __init__(self, cell: AbstractCell, steps: int):
        self.cell, self.steps = cell, steps

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def __call__(self, z: State, s: Inputs = None) -> State:
        return self.states(z, s)[-1]

    def states(self, z: State, s: Inputs = None) -> States:
        """All the states on the way, `[steps, m]`."""

        def step(z, s):
            z = self.cell(z, s)
            return z, z

        return jax.lax.scan(step, z, s, length=self.steps)[1]

    def linearise(self, z: State, s: Inputs = None) -> tuple[State, Matrix]:
        def step(carry, s):
            z, M = carry
            z, J = self.cell.linearise(z, s)
            return (z, jnp.matmul(as_matrix(J), M, precision=jax.lax.Precision.HIGHEST)), None

        (z, M), _ = jax.lax.scan(step, (z, jnp.eye(z.size, dtype=z.dtype)), s, length=self.steps)
        return z, M
