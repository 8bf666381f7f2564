"""Systems with known answers: flows (through diffrax), maps, their cells, and series simulated from them."""

from dsrecon.systems.cells import MapCell as MapCell
from dsrecon.systems.cells import ODECell as ODECell
from dsrecon.systems.known import AbstractFlow as AbstractFlow
from dsrecon.systems.known import AbstractMap as AbstractMap
from dsrecon.systems.known import AbstractSystem as AbstractSystem
from dsrecon.systems.known import Henon as Henon
from dsrecon.systems.known import Logistic as Logistic
from dsrecon.systems.known import Lorenz63 as Lorenz63
from dsrecon.systems.known import Roessler as Roessler
from dsrecon.systems.simulate import simulate as simulate
