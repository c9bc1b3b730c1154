"""Start, watch and end other programs so that none is ever left behind."""

from shared.processes.service import (
    LOOPBACK,
    Service,
    Supervisor,
    free_port,
    free_ports,
    is_listening,
    require_port,
)

__all__ = ["LOOPBACK", "Service", "Supervisor", "free_port", "free_ports", "is_listening", "require_port"]
