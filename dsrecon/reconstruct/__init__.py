"""`reconstruct`: from a series to a dynamical system, in one call."""

from dsrecon.reconstruct.atlas import Atlas as Atlas
from dsrecon.reconstruct.atlas import seed_atlas as seed_atlas
from dsrecon.reconstruct.door import reconstruct as reconstruct
from dsrecon.reconstruct.pruning import Pruned as Pruned
from dsrecon.reconstruct.pruning import prune as prune
from dsrecon.reconstruct.pruning import pruning_curve as pruning_curve
from dsrecon.reconstruct.subjects import Subjects as Subjects
from dsrecon.reconstruct.subjects import load_subjects as load_subjects
from dsrecon.reconstruct.together import reconstruct_subjects as reconstruct_subjects
