"""What is observed of a state, one observation model a file, and how observations pull on it."""

from dsrecon.readout.base import AbstractReadout as AbstractReadout
from dsrecon.readout.forced import Forced as Forced
from dsrecon.readout.forced import Forcing as Forcing
from dsrecon.readout.generalised import GeneralisedReadout as GeneralisedReadout
from dsrecon.readout.generalised import check_counts as check_counts
from dsrecon.readout.haemodynamic import HaemodynamicReadout as HaemodynamicReadout
from dsrecon.readout.haemodynamic import response as response
from dsrecon.readout.identity import IdentityReadout as IdentityReadout
from dsrecon.readout.linear import LinearReadout as LinearReadout
