"""FedProx (Li et al. 2020): averaged like FedAvg; the difference is made at the hospitals.

Each node adds ``mu / 2 · ‖w − received‖²`` to its loss, so that a hospital whose cells differ from the others' does
not run far from the common model. As in Flower's class the centre's part is to ask for it: `FedProxParameters.asked`
writes ``mu`` into the recipe that travels with every request, which `client_node.training.loop` honours.
"""

from server.federation.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """See the module."""
