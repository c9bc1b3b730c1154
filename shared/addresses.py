"""Where an address leads."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host name or IP address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
