"""Defending networks: variants of our own of textbook problems. Rewards are near one a period."""

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary

from ldm.envs.periods import Periods


def build(make: str, split: str, **options):
    """`make`: "containment", "detection", "flipit", "honeypot" or "filtering"."""
    return DEFENCES[make](**options)


class Containment(Periods):
    """Malware that spreads over a network (Kephart and White 1991).

    An infected host infects each neighbour with probability `spread` a period; one host a period
    is infected from outside with probability `outside`. Action: 0 nothing, n: host n is cleaned and
    costs `cost` of a host's work. Reward: 1 − the share of infected hosts · 3 − cost. Observation:
    alerts, of an infected host with probability `seen`, of another with 1 − seen in ten.
    The network of `hosts` is a random tree with as many edges again, drawn from `network_seed`.
    """

    def __init__(
        self, hosts=10, network_seed=0, spread=0.1, outside=0.2, seen=1.0, cost=0.1, horizon=100
    ):
        draws = np.random.default_rng(network_seed)
        self.links = np.zeros((hosts, hosts), bool)
        ends = [(int(draws.integers(host)), host) for host in range(1, hosts)]
        ends += [tuple(draws.choice(hosts, 2, replace=False)) for _ in range(hosts)]
        for a, b in ends:
            self.links[a, b] = self.links[b, a] = True
        self.hosts, self.spread, self.outside = hosts, spread, outside
        self.seen, self.cost, self.horizon = seen, cost, horizon
        self.action_space = Discrete(hosts + 1)
        self.observation_space = MultiBinary(hosts)

    def _start(self):
        self.infected = np.zeros(self.hosts, bool)
        self.infected[self.np_random.integers(self.hosts)] = True

    def _act(self, action):
        if action:
            self.infected[action - 1] = False
        escapes = (1 - self.spread) ** (self.links & self.infected).sum(1)
        caught = self.np_random.random(self.hosts) > escapes
        if self.np_random.random() < self.outside:
            caught[self.np_random.integers(self.hosts)] = True
        self.infected |= caught
        return 1 - 3 * self.infected.mean() - self.cost * (action > 0), False

    def _observe(self):
        chance = np.where(self.infected, self.seen, (1 - self.seen) / 10)
        return (self.np_random.random(self.hosts) < chance).astype(np.int8)


class Detection(Periods):
    """When to shut an intruder out (Hammar and Stadler 2022, optimal stopping).

    The intrusion begins with probability `begins` a period. Alerts are Poisson with mean `quiet`
    before, `loud` after. Action: 0 go on, 1 shut the service down, which ends the episode. Reward:
    1 for a period of safe service, −`loss` for one under attack, +10 for shutting an intruder out,
    −10 for shutting down for nothing. Observation: this period's alerts and their running mean,
    over `loud`.
    """

    def __init__(self, begins=0.02, quiet=3.0, loud=6.0, loss=3.0, horizon=100):
        self.begins, self.quiet, self.loud = begins, quiet, loud
        self.loss, self.horizon = loss, horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(np.zeros(2, np.float32), np.full(2, np.inf, np.float32))

    def _start(self):
        self.attacked, self.mean, self.alerts = False, self.quiet, self.quiet

    def _act(self, action):
        if action:
            return (10 if self.attacked else -10), True
        self.attacked |= self.np_random.random() < self.begins
        self.alerts = self.np_random.poisson(self.loud if self.attacked else self.quiet)
        self.mean += 0.2 * (self.alerts - self.mean)
        return (-self.loss if self.attacked else 1.0), False

    def _observe(self):
        return np.array([self.alerts / self.loud, self.mean / self.loud], np.float32)


class FlipIt(Periods):
    """Taking a resource back without knowing who holds it (van Dijk, Juels, Oprea, Rivest 2013).

    The attacker takes it every `every` periods from a hidden phase on, or with probability 1 /
    `every` where not `periodic`. Action: 1 takes it back, at `cost`, and shows for how long the
    attacker had it. Reward: 1 in a period that begins as ours, less costs. Observation: periods
    since our last move and what it showed, both over `every`.
    """

    def __init__(self, every=8, cost=2.0, periodic=True, horizon=100):
        self.every, self.cost, self.periodic, self.horizon = every, cost, periodic, horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(np.zeros(2, np.float32), np.full(2, np.inf, np.float32))

    def _start(self):
        self.phase = int(self.np_random.integers(self.every))
        self.since = self.lost = self.shown = 0

    def _act(self, action):
        reward = 1.0 if not self.lost else 0.0
        self.since += 1
        if action:
            reward -= self.cost
            self.shown, self.since, self.lost = self.lost, 0, 0
        if self.periodic:
            strikes = self.period % self.every == self.phase
        else:
            strikes = self.np_random.random() < 1 / self.every
        if self.lost or strikes:
            self.lost += 1
        return reward, False

    def _observe(self):
        return np.array([self.since / self.every, self.shown / self.every], np.float32)


class Honeypot(Periods):
    """Catching an intruder who walks towards the data (security games; Tambe 2011).

    Layers of `width` hosts; the intruder starts in the first and moves each period to a host of the
    next one, by preferences drawn from `network_seed`, or stays with probability `rests`. Action:
    which host (layer by layer) is a trap this period. Reward: +1 and a new intruder when it steps
    there, −1 and a new one when it leaves the last layer. Observation: the intruder's host,
    one-hot, seen with probability `seen`, else zeros.
    """

    def __init__(self, layers=4, width=4, network_seed=0, rests=0.3, seen=1.0, horizon=100):
        draws = np.random.default_rng(network_seed)
        self.layers, self.width, self.rests, self.seen = layers, width, rests, seen
        self.horizon = horizon
        self.moves = draws.dirichlet(np.full(width, 0.5), (layers, width))
        self.action_space = Discrete(layers * width)
        self.observation_space = MultiBinary(layers * width)

    def _start(self):
        self.layer, self.host = 0, int(self.np_random.integers(self.width))

    def _act(self, action):
        if self.np_random.random() < self.rests:
            return 0.0, False
        chances = self.moves[self.layer, self.host]
        self.layer, self.host = self.layer + 1, int(self.np_random.choice(self.width, p=chances))
        if self.layer == self.layers:
            self._start()
            return -1.0, False
        if action == self.layer * self.width + self.host:
            self._start()
            return 1.0, False
        return 0.0, False

    def _observe(self):
        shown = np.zeros(self.layers * self.width, np.int8)
        if self.np_random.random() < self.seen:
            shown[self.layer * self.width + self.host] = 1
        return shown


class Filtering(Periods):
    """Keeping a server up under a flood (throttling; Yau and others 2005).

    Each of `sources` sends Poisson traffic, ten times as much while it floods; floods begin with
    probability `begins` and end with 0.1 a period. Action: the share of each source's traffic that
    may pass. Reward: the share of honest traffic served, all of it alike where more than `room` ·
    sources arrives. Observation: traffic of each source, over 10.
    """

    def __init__(self, sources=5, mean=5.0, begins=0.05, room=8.0, horizon=100):
        self.sources, self.mean, self.begins = sources, mean, begins
        self.room, self.horizon = room * sources, horizon
        self.action_space = Box(0, 1, (sources,))
        self.observation_space = Box(0, np.inf, (sources,))

    def _start(self):
        self.floods = np.zeros(self.sources, bool)
        self.traffic = np.full(self.sources, self.mean)

    def _act(self, action):
        changes = self.np_random.random(self.sources)
        self.floods = np.where(self.floods, changes > 0.1, changes < self.begins)
        honest = self.np_random.poisson(self.mean, self.sources).astype(np.float64)
        self.traffic = honest + self.floods * self.np_random.poisson(9 * self.mean, self.sources)
        passes = np.asarray(action, np.float64)
        served = min(1.0, self.room / max((passes * self.traffic).sum(), 1e-9))
        return (passes * honest).sum() * served / max(honest.sum(), 1), False

    def _observe(self):
        return np.float32(self.traffic / 10)


DEFENCES = {
    "containment": Containment,
    "detection": Detection,
    "flipit": FlipIt,
    "honeypot": Honeypot,
    "filtering": Filtering,
}
