"""What was trained on one generator's latents, applied to another.

`MappedGenerator` takes the first one's latents and draws with the second; `RelativeGenerator` takes coordinates that
all generators share.
"""

from lcg.transfer.mapped import MappedGenerator
from lcg.transfer.maps import LatentMap, fit_map
from lcg.transfer.relative import RelativeGenerator, RelativeRepresentation
from lcg.transfer.solvers import HOW, How

__all__ = [
    "HOW",
    "How",
    "LatentMap",
    "MappedGenerator",
    "RelativeGenerator",
    "RelativeRepresentation",
    "fit_map",
]
