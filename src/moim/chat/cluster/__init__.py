"""Several nodes, one chat service: leases, links, and the sessions of other nodes."""

from moim.chat.cluster.home import RoomsHome
from moim.chat.cluster.seats import Seats
from moim.chat.cluster.secret import shared_secret
from moim.chat.cluster.service import Cluster
from moim.chat.cluster.steering import Steering

__all__ = ["Cluster", "RoomsHome", "Seats", "Steering", "shared_secret"]
