"""Network of a family whose configurations may name it, such as `series`. No torch."""

from __future__ import annotations

from collections.abc import Collection

from ripieno.errors import ModelError
from ripieno.types import Configuration


def choose_network(group: str, networks: Collection[str], family: str, configuration: Configuration) -> str:
    """Return the one of `networks` that is `family`, or that the configuration of the family `group` names.

    Raises ModelError when there is none, or when the two contradict each other.
    """
    known = f"one of {', '.join(networks)}"
    own = "" if family == group else family
    network = configuration.get("network", own)
    if not network:
        raise ModelError(f"family {group} has no network: name {known}, in the space as network or as the family")
    if network not in networks:
        raise ModelError(f"network is {network!r}: it must be {known}")
    if own not in ("", network):
        raise ModelError(f"network is {network!r}, but the family is {family}: leave one of them out")
    return str(network)
