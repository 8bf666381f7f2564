"""The `dsrecon` command: a demonstration, a fit of a file, its symbols and its scores, a forecast.

`command` holds the application, every other module adds its commands to it.
"""

from dsrecon.cli import ahead as ahead
from dsrecon.cli import demos as demos
from dsrecon.cli import fits as fits
from dsrecon.cli import inspection as inspection
from dsrecon.cli import structure as structure
from dsrecon.cli.command import app as app
