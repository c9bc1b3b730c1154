"""FedAvg (McMahan et al. 2017): the average of the updates is the model.

Flower's own class keeps all replies in memory until the last one is there; this one keeps a running sum.
"""

from server.federation.strategies.average import WeightedAverage
from server.federation.strategies.port import Sent


class FedAvg:
    """See the module; has no parameters, so what it keeps between rounds is nothing."""

    def begin(self, sent: Sent) -> WeightedAverage:
        """Begin a round; see `Strategy`."""
        return WeightedAverage(sent)
