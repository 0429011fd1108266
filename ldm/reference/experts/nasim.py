"""Attack planning for NASim: the cheapest path through the attack graph to the sensitive hosts.

The plan minimises the expected cost Σ cost / success probability over service exploits, privilege
escalations and subnet scans (an action that fails is tried again), found by A*. What is known of
the hosts is read from the observations; a partially observed network is remembered.
"""

import heapq
from itertools import count
from typing import NamedTuple

import numpy as np

from ldm.envs.interface import TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, expert, memory

ROOT = 2


class Known(NamedTuple):
    """What decides the next action: access (0 none, 1 user, 2 root) and discovery of hosts."""

    access: tuple[int, ...]
    discovered: tuple[bool, ...]


class Move(NamedTuple):
    """A way to raise the access of a host, or a subnet scan on it (gain 0)."""

    host: int
    gain: int
    needs: int  # access on the host itself (escalation, scan) or on a pivot (exploit)
    service: str | None  # of an exploit
    price: float  # cost / probability
    action: np.ndarray


@expert("nasim/*")
def attack(spec: EnvSpec):
    from nasim import make_benchmark_scenario

    options = dict(spec.options)
    scenario = make_benchmark_scenario(spec.make, options.get("scenario_seed"))
    return Attacker(scenario, flat=options.get("flat_actions", True))


class Attacker:
    """Plays the first move of the cheapest plan; ties go to the move listed first."""

    id = "exact/nasim-attack-graph@1"

    def __init__(self, scenario, flat: bool):
        self.planner = Planner(scenario, flat)
        subnets, hosts = scenario.address_space_bounds
        base = (
            subnets + hosts
        )  # a host's row: subnet, host, compromised, reachable, discovered, ...
        self.columns = [base + 2, base + 5]  # discovered, access
        self.shape = (len(scenario.address_space), 2)
        self.plans: dict[Known, np.ndarray] = {}
        self.known = NOTHING

    def act(self, timestep: TimeStep) -> list[np.ndarray]:
        (observation,) = timestep.observation
        rows = observation.reshape(len(observation), self.shape[0] + 1, -1)
        known = self.known = memory(timestep, self.known, self.shape)
        known[:] = np.maximum(known, rows[:, :-1, self.columns])
        return [np.stack([self._move(known[i]) for i in range(len(known))])]

    def _move(self, stream: np.ndarray) -> np.ndarray:
        known = Known(tuple(stream[:, 1].astype(int)), tuple(stream[:, 0] > 0))
        if known not in self.plans:
            self.plans[known] = self.planner.first(known)
        return self.plans[known]


class Planner:
    """A* over what is known, for one scenario."""

    def __init__(self, scenario, flat: bool):
        self.scenario = scenario
        self.addresses = list(scenario.address_space)
        self.topology = np.asarray(scenario.topology)
        self.goals = [self.addresses.index(a) for a in scenario.sensitive_addresses]
        self.moves = [m for i, a in enumerate(self.addresses) for m in self._moves(i, a, flat)]
        self.rest = {goal: self._cheapest_root(goal) for goal in self.goals}

    def _moves(self, index: int, address, flat: bool):
        """Every move on a host that its configuration lets succeed, in the action space's order."""
        s, host = self.scenario, self.scenario.hosts[address]
        per_host = 4 + len(s.exploits) + len(s.privescs)

        def action(offset: int, kind: int, parts=(0, 0, 0)) -> np.ndarray:
            if flat:
                return np.array(index * per_host + offset, np.int32)
            return np.array([kind, address[0] - 1, address[1], *parts], np.int32)

        def number(names, name, first=0) -> int:
            return names.index(name) + first if name is not None else 0

        for i, e in enumerate(s.exploits.values()):
            if host.services[e["service"]] and (e["os"] is None or host.os[e["os"]]):
                parts = (number(s.os, e["os"], 1), number(s.services, e["service"]), 0)
                price = e["cost"] / e["prob"]
                yield Move(index, e["access"], 1, e["service"], price, action(4 + i, 0, parts))
        for i, p in enumerate(s.privescs.values()):
            runs = p["process"] is None or host.processes[p["process"]]
            if runs and (p["os"] is None or host.os[p["os"]]):
                parts = (number(s.os, p["os"], 1), 0, number(s.processes, p["process"]))
                escalate = action(4 + len(s.exploits) + i, 1, parts)
                yield Move(index, p["access"], 1, None, p["cost"] / p["prob"], escalate)
        yield Move(index, 0, 1, None, s.subnet_scan_cost, action(2, 4))

    def _cheapest_root(self, host: int) -> float:
        """A lower bound of the price of root on a host, from nothing."""
        mine = [m for m in self.moves if m.host == host]
        direct = [m.price for m in mine if m.service and m.gain == ROOT]
        stepwise = [
            m.price + p.price
            for m in mine
            for p in mine
            if m.service and not p.service and p.gain == ROOT
        ]
        return min(direct + stepwise)

    def first(self, known: Known) -> np.ndarray:
        """The first action of the cheapest plan. Raises ValueError where there is none."""
        order = count()
        queue = [(self._bound(known), next(order), 0.0, known, None)]
        done = set()
        while queue:
            _, _, price, state, begin = heapq.heappop(queue)
            if state in done:
                continue
            done.add(state)
            if all(state.access[goal] == ROOT for goal in self.goals):
                return begin if begin is not None else self.moves[-1].action
            for move in self.moves:
                after = self._after(state, move)
                if after is not None and after not in done:
                    first = move.action if begin is None else begin
                    total = price + move.price - self._worth(state, after)
                    bound = total + self._bound(after)
                    heapq.heappush(queue, (bound, next(order), total, after, first))
        raise ValueError("no plan reaches the sensitive hosts")

    def _bound(self, known: Known) -> float:
        prices = [self.rest[g] if known.access[g] == 0 else 0.0 for g in self.goals]
        return float(sum(prices))

    def _worth(self, before: Known, after: Known) -> float:
        """Negative value (a honeypot) gained by root; what is worth having is the goal itself."""
        new = [i for i, a in enumerate(after.access) if a == ROOT and before.access[i] < ROOT]
        return sum(min(self.scenario.hosts[self.addresses[i]].value, 0.0) for i in new)

    def _after(self, known: Known, move: Move) -> Known | None:
        """What is known once the move succeeds; None where it cannot, or gains nothing."""
        access, found = known
        if not found[move.host] or (move.gain and access[move.host] >= move.gain):
            return None
        if move.service:
            if not self._reaches(access, move):
                return None
        elif access[move.host] < move.needs:
            return None
        if not move.gain:
            subnet = self.addresses[move.host][0]
            seen = tuple(
                f or bool(self.topology[subnet][a[0]]) for f, a in zip(found, self.addresses)
            )
            return Known(access, seen) if seen != found else None
        raised = (*access[: move.host], move.gain, *access[move.host + 1 :])
        return Known(raised, found)

    def _reaches(self, access, move: Move) -> bool:
        """Whether subnet and host firewalls let the exploit through from anywhere that is held."""
        target = self.addresses[move.host]
        public = self.topology[target[0]][0] == 1
        held = [i for i, a in enumerate(access) if a]
        near = public or any(self.topology[self.addresses[i][0]][target[0]] for i in held)
        pivot = public or any(
            access[i] >= move.needs
            and self._permitted(self.addresses[i][0], target[0], move.service)
            for i in held
        )
        host = self.scenario.hosts[target]
        sources = (
            a
            for i, a in enumerate(self.addresses)
            if access[i] or self.topology[a[0]][0] == 1  # the library lets public hosts through
        )
        return (
            near
            and pivot
            and any(
                self._permitted(a[0], target[0], move.service)
                and host.traffic_permitted(a, move.service)
                for a in sources
            )
        )

    def _permitted(self, source: int, target: int, service: str | None) -> bool:
        if source == target:
            return True
        linked = self.topology[source][target] == 1
        return bool(linked and service in self.scenario.firewall[source, target])
