"""Systems with known answers: flows (through diffrax), maps, their cells, and series simulated from them."""

from dsrecon.systems.cells import MapCell as MapCell
from dsrecon.systems.cells import ODECell as ODECell
from dsrecon.systems.continuous import respond as respond
from dsrecon.systems.delay import DelayCell as DelayCell
from dsrecon.systems.delay import MackeyGlass as MackeyGlass
from dsrecon.systems.dysts import DystsFlow as DystsFlow
from dsrecon.systems.dysts import from_dysts as from_dysts
from dsrecon.systems.flows import Chua as Chua
from dsrecon.systems.flows import HindmarshRose as HindmarshRose
from dsrecon.systems.flows import Lorenz63 as Lorenz63
from dsrecon.systems.flows import Lorenz96 as Lorenz96
from dsrecon.systems.flows import Roessler as Roessler
from dsrecon.systems.known import AbstractFlow as AbstractFlow
from dsrecon.systems.known import AbstractMap as AbstractMap
from dsrecon.systems.known import AbstractSystem as AbstractSystem
from dsrecon.systems.maps import Henon as Henon
from dsrecon.systems.maps import Logistic as Logistic
from dsrecon.systems.pwl import AbstractPWLMap as AbstractPWLMap
from dsrecon.systems.pwl import Baker as Baker
from dsrecon.systems.pwl import Lozi as Lozi
from dsrecon.systems.pwl import SkewTent as SkewTent
from dsrecon.systems.pwl import Tent as Tent
from dsrecon.systems.simulate import simulate as simulate
from dsrecon.systems.spatial import AbstractSemilinear as AbstractSemilinear
from dsrecon.systems.spatial import ETDRK4Cell as ETDRK4Cell
from dsrecon.systems.spatial import KuramotoSivashinsky as KuramotoSivashinsky
