"""Which hosts are this machine, so that nobody else can read or alter what is sent there."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or `localhost`. Other names are not looked up."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
