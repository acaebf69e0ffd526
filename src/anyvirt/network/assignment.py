"""What a guest is told about its network: its address, its gateway, and who knows names."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface


@dataclass(frozen=True)
class Assignment:
    """The configuration of a guest's network interface."""

    address: IPv4Interface
    gateway: IPv4Address | None = None
    nameservers: tuple[IPv4Address, ...] = ()

    @property
    def resolver(self) -> str:
        """The content of /etc/resolv.conf; empty if nobody knows names."""
        return "".join(f"nameserver {server}\n" for server in self.nameservers)


USER_NETWORK = Assignment(IPv4Interface("10.0.2.15/24"), IPv4Address("10.0.2.2"), (IPv4Address("10.0.2.3"),))
"""Of user-mode networking, as everybody has it: the gateway is the host, its loopback interface included."""
