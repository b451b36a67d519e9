"""The link between host and node, and the routes that go with it."""

from __future__ import annotations

import ipaddress
import json

from tests.cluster.errors import ClusterError, ClusterUnavailableError
from tests.cluster.layout import (
    HOST_ADDRESS,
    HOST_LINK,
    NODE_ADDRESS,
    NODE_NETWORK,
    POD_NETWORK,
    SERVICE_NETWORK,
)
from tests.cluster.progress import run

_GUARD_METRIC = "65535"
_NETWORKS = (NODE_NETWORK, SERVICE_NETWORK, POD_NETWORK)


def _routes() -> list[dict[str, object]]:
    listed = run(["ip", "-j", "-4", "route", "show", "table", "main"]).stdout
    return list(json.loads(listed))


def refuse_conflicts() -> None:
    """Fail when the machine already uses one of the cluster's networks for something else."""
    ours = [ipaddress.ip_network(network) for network in _NETWORKS]
    for route in _routes():
        destination = str(route["dst"])
        if destination == "default" or route.get("dev") == HOST_LINK or route.get("type") == "unreachable":
            continue
        taken = ipaddress.ip_network(destination, strict=False)
        for network in ours:
            if taken.overlaps(network):
                raise ClusterUnavailableError(
                    f"the local cluster needs the network {network}, but this machine routes {destination} "
                    f"to the link {route.get('dev')}"
                )


def connect(node_pid: int) -> None:
    """Join host and node by a link pair, and route the cluster's addresses over it."""
    # First the guard: when the node is gone, its addresses must not go to the default gateway.
    for network in _NETWORKS:
        run(["ip", "route", "replace", "unreachable", network, "metric", _GUARD_METRIC])
    other_end = ["peer", "name", "eth0", "netns", str(node_pid)]
    run(["ip", "link", "add", HOST_LINK, "type", "veth", *other_end])
    run(["ip", "address", "add", f"{HOST_ADDRESS}/24", "dev", HOST_LINK])
    run(["ip", "link", "set", HOST_LINK, "up"])
    for network in (SERVICE_NETWORK, POD_NETWORK):
        run(["ip", "route", "replace", network, "via", NODE_ADDRESS, "dev", HOST_LINK])


def leftovers() -> list[str]:
    """The links and routes of a cluster that this machine still has, in words."""
    found = []
    if run(["ip", "link", "show", HOST_LINK], check=False).returncode == 0:
        found.append(f"link {HOST_LINK}")
    for route in _routes():
        if route.get("dst") in _NETWORKS and (
            route.get("dev") == HOST_LINK
            or (route.get("type") == "unreachable" and str(route.get("metric")) == _GUARD_METRIC)
        ):
            found.append(f"route {route['dst']}")
    return found


def disconnect() -> None:
    """Remove link and routes, whichever of them exist."""
    run(["ip", "link", "delete", HOST_LINK], check=False)
    for network in _NETWORKS:
        run(["ip", "route", "delete", "unreachable", network, "metric", _GUARD_METRIC], check=False)
    if left := leftovers():
        raise ClusterError(f"could not remove {', '.join(left)}")
