"""Several nodes, one chat service: leases, links, and the sessions of other nodes."""

from moim.chat.cluster.service import Cluster

__all__ = ["Cluster"]
