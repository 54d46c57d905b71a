"""Networks that predict the merging coefficients of a pair of LoRAs, and their files.

`Hypernetwork` is LoRA.rar's and reads columns; `Invariants` reads how two columns stand to each other and to
their layer, so that one network serves any base model. Both answer `Network.coefficients`.
"""

from lorarar.hypernet.columns import Hypernetwork
from lorarar.hypernet.invariants import Invariants
from lorarar.hypernet.kinds import is_network, load_network
from lorarar.hypernet.network import Network
from lorarar.merging import PARTS, layers_of

__all__ = ["PARTS", "Hypernetwork", "Invariants", "Network", "is_network", "layers_of", "load_network"]
