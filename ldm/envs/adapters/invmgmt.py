"""Supply networks of gym-invmgmt, with base-stock ordering as a hosted expert."""

from pathlib import Path

import gym_invmgmt
import numpy as np
from gym_invmgmt import CoreEnv

TOPOLOGIES = Path(gym_invmgmt.__file__).with_name("topologies")
SAFETY = 1.3  # of the demand while orders are on their way


def build(make: str, split: str, mu: float = 20.0, demand: str = "stationary", **options):
    """`make`: "network", "serial" (built in), or the name of a topology that the library ships.
    `demand`: the library's type, `mu` its mean where the topology leaves it open."""
    shape = {"type": demand, "base_mu": mu, "use_goodwill": False}
    if make in ("network", "serial"):
        return CoreEnv(scenario=make, demand_config=shape, **options)
    path = str(TOPOLOGIES / f"{make}.yaml")
    return CoreEnv(scenario="custom", config_path=path, demand_config=shape, **options)


def base_stock(env):
    """Orders up to what is needed until the next order arrives (Clark and Scarf 1960), each node by
    itself, at the mean demand so far; several suppliers of one node share alike."""
    network = env.network
    suppliers = {
        node: [link for link in network.reorder_links if link[1] == node]
        for node in network.main_nodes
    }

    def flow(node: int, sold: np.ndarray) -> float:
        """Units a period that a node sends on."""
        sales = (sold[i] for i, link in enumerate(network.retail_links) if link[0] == node)
        total = float(sum(sales))
        for source, target in network.reorder_links:
            if source == node:
                total += flow(target, sold) / len(suppliers[target])
        return total / network.graph.nodes[node].get("v", 1.0)

    def act() -> np.ndarray:
        t = env.period
        sold = env.D[:t].mean(0) if t else np.full(len(network.retail_links), 20.0)
        orders = np.zeros(len(network.reorder_links))
        for node, links in suppliers.items():
            wait = max(network.lead_times[link] for link in links) + 1
            owed = sum(
                env.U[t - 1, i]
                for i, link in enumerate(network.retail_links)
                if t and link[0] == node
            )
            coming = sum(env.Y[t, network.reorder_map[link]] for link in links)
            held = env.X[t, network.node_map[node]] + coming - owed
            missing = max(SAFETY * wait * flow(node, sold) - held, 0.0)
            for link in links:
                orders[network.reorder_map[link]] = missing / len(links)
        return np.clip(orders, env.action_space.low, env.action_space.high)

    return act


EXPERTS = {"base-stock": base_stock}
