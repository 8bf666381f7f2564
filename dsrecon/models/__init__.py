"""One family a file."""

from dsrecon.models.alrnn import ALRNN as ALRNN
from dsrecon.models.bounds import norm_bound as norm_bound
from dsrecon.models.combined import CombinedForecaster as CombinedForecaster
from dsrecon.models.dendritic import ClippedDendriticPLRNN as ClippedDendriticPLRNN
from dsrecon.models.dendritic import DendriticPLRNN as DendriticPLRNN
from dsrecon.models.driven import CellForecaster as CellForecaster
from dsrecon.models.experts import ExpertMixture as ExpertMixture
from dsrecon.models.experts import GatedExperts as GatedExperts
from dsrecon.models.gated import GRU as GRU
from dsrecon.models.gated import LSTM as LSTM
from dsrecon.models.gated import RecurrentHighway as RecurrentHighway
from dsrecon.models.gated import TanhRNN as TanhRNN
from dsrecon.models.hierarchical import Hierarchical as Hierarchical
from dsrecon.models.hierarchical import Individual as Individual
from dsrecon.models.linear import DLinear as DLinear
from dsrecon.models.linear import LinearForecaster as LinearForecaster
from dsrecon.models.naive import Parrot as Parrot
from dsrecon.models.naive import SeasonalNaive as SeasonalNaive
from dsrecon.models.pgn import PGN as PGN
from dsrecon.models.plrnn import PLRNN as PLRNN
from dsrecon.models.plrnn import MeanCentredPLRNN as MeanCentredPLRNN
from dsrecon.models.shallow import ClippedShallowPLRNN as ClippedShallowPLRNN
from dsrecon.models.shallow import ShallowPLRNN as ShallowPLRNN
from dsrecon.models.structured import ParaGRU as ParaGRU
from dsrecon.models.structured import ParaLSTM as ParaLSTM
from dsrecon.models.tpgn import TPGN as TPGN
