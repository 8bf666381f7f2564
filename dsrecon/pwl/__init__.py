"""Regions of a piecewise-linear cell as polyhedra: which there are, which words they form, which boxes hold orbits."""

from dsrecon.pwl.arrangement import regions as regions
from dsrecon.pwl.box import Box as Box
from dsrecon.pwl.box import box_around as box_around
from dsrecon.pwl.box import checked_box as checked_box
from dsrecon.pwl.invariant import image_box as image_box
from dsrecon.pwl.invariant import invariant_box as invariant_box
from dsrecon.pwl.pieces import Pieces as Pieces
from dsrecon.pwl.pieces import field_pieces as field_pieces
from dsrecon.pwl.pieces import pieces as pieces
from dsrecon.pwl.polyhedron import TOLERANCE as TOLERANCE
from dsrecon.pwl.polyhedron import Ball as Ball
from dsrecon.pwl.polyhedron import inner_ball as inner_ball
from dsrecon.pwl.words import Words as Words
from dsrecon.pwl.words import admissible as admissible
from dsrecon.pwl.words import word_polyhedron as word_polyhedron
from dsrecon.pwl.words import words as words
