"""One family a file."""

from dsrecon.models.alrnn import ALRNN as ALRNN
from dsrecon.models.shallow import ClippedShallowPLRNN as ClippedShallowPLRNN
