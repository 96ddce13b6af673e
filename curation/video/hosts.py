"""Web addresses are read from hosts of the open internet alone, unless the policy says otherwise.

The check sits where a connection is made, on the address that is connected to: whatever a URL, a redirect or a name server
says, and however it spells an address, the socket goes to a public one or is not made.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import aiohttp
import yarl
from aiohttp.abc import ResolveResult
from fsspec.implementations.http import HTTPFileSystem

from dailies.curation.policy import WEB, PrivateHost, SourcePolicy, scheme_of

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
APART = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
"""Public by number alone: protocols' own addresses, relays, and the one by which Azure manages its machines."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
COMPATIBLE = ipaddress.ip_network("::/96")


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the open internet, as are the IPv4 addresses that it may stand for."""
    number = ipaddress.ip_address(address.partition("%")[0])
    if not number.is_global or number.is_multicast or any(number in network for network in APART):
        return False
    return not getattr(number, "is_site_local", False) and all(is_public(str(inner)) for inner in _embedded(number))


def _embedded(number: Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses that gateways, tunnels and systems take an IPv6 address for."""
    if isinstance(number, ipaddress.IPv6Address):
        teredo = number.teredo or ()
        yield from (inner for inner in (number.ipv4_mapped, number.sixtofour, *teredo) if inner is not None)
        if number in NAT64 or number in COMPATIBLE:
            yield ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)


class CheckedHTTP(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's file system of web addresses, whose connections are checked by a policy."""

    def __init__(self, *args: Any, policy: SourcePolicy, **options: Any) -> None:
        options["get_client"] = partial(_client, policy)
        super().__init__(*args, **options)


async def _client(policy: SourcePolicy, **options: Any) -> aiohttp.ClientSession:
    guard = _Guard(policy)
    options["connector"] = aiohttp.TCPConnector(resolver=guard, socket_factory=guard.socket)
    return aiohttp.ClientSession(**options)


class _Guard(aiohttp.resolver.ThreadedResolver):
    """Resolves names to addresses that may be connected to, and makes sockets to these alone."""

    def __init__(self, policy: SourcePolicy) -> None:
        super().__init__()
        urls = [yarl.URL(origin) for origin in policy.named if scheme_of(origin) in WEB]
        self._named = {(url.raw_host, url.port) for url in urls}
        self._trusted: set[tuple[str, int]] = set()  # addresses that named hosts have
        self._all = policy.private_hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        places = await super().resolve(host, port, family)
        if (host, port) in self._named:
            self._trusted.update((place["host"], port) for place in places)
        admitted = [place for place in places if self._admits(place["host"], port)]
        if places and not admitted:
            raise PrivateHost(f"{host} is {places[0]['host']}, which is no public address")
        return admitted

    def socket(self, info: Any) -> socket.socket:
        """Make the socket for one address, as aiohttp asks before it connects."""
        family, kind, protocol, _, (address, port, *_rest) = info
        if not self._admits(address, port):
            raise PrivateHost(f"{address} is no public address")
        return socket.socket(family, kind, protocol)

    def _admits(self, address: str, port: int) -> bool:
        place = (address, port)
        return self._all or place in self._named or place in self._trusted or is_public(address)
