"""The hot loops: one function each, several engines, one result."""

from dsrecon.kernels.cauchy import cauchy_product as cauchy_product
from dsrecon.kernels.contraction import plain_pullback as plain_pullback
from dsrecon.kernels.contraction import pullback as pullback
from dsrecon.kernels.convolution import causal_convolution as causal_convolution
from dsrecon.kernels.linear_scan import linear_scan as linear_scan
from dsrecon.kernels.members import abreast as abreast
from dsrecon.kernels.recurrence import recurrence as recurrence
from dsrecon.kernels.recurrence import stages as stages
from dsrecon.kernels.sharded import Sharded as Sharded
from dsrecon.kernels.smoother import damped_scan as damped_scan
from dsrecon.kernels.vandermonde import vandermonde_product as vandermonde_product
