"""The commands that this app adds to the protocol, by what they are about; found by the kernel's autodiscovery."""

from security.commands import port_leases, sessions

__all__ = ["port_leases", "sessions"]
