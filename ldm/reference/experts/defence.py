"""Defending networks: what is hidden is inferred by Bayes' rule from the steps seen so far, and the
action is the best for that belief."""

import numpy as np

from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, Markov, expert, memory
from ldm.reference.experts.search import search


def problem(spec: EnvSpec):
    from ldm.envs.adapters.defence import build

    return build(spec.make, "train", **spec.options)


class Cleaner:
    """Keeps each host's probability of infection and cleans the host where it, times one and the
    expected number of hosts that it would infect, is largest, where it is worth the cost."""

    id = "scripted/containment@1"

    def __init__(self, p):
        self.p, self.belief = p, NOTHING

    def act(self, timestep: TimeStep) -> Arrays:
        p, (alerts,) = self.p, timestep.observation
        started = timestep.started[:, None]
        self.belief = memory(timestep, self.belief, (p.hosts,))
        before = self.belief.copy()
        if len(timestep.action):
            rows = np.flatnonzero(~timestep.started & (timestep.action[0] > 0))
            before[rows, timestep.action[0][rows] - 1] = 0
        escapes = np.exp(np.log1p(-p.spread * before) @ p.links) * (1 - p.outside / p.hosts)
        prior = np.where(started, 1 / p.hosts, 1 - (1 - before) * escapes)
        seen = np.where(alerts, p.seen, 1 - p.seen) * prior
        false = (1 - p.seen) / 10
        unseen = np.where(alerts, false, 1 - false) * (1 - prior)
        self.belief = seen / np.maximum(seen + unseen, 1e-12)
        worth = self.belief * (1 + p.spread * ((1 - self.belief) @ p.links))
        best = worth.argmax(1)
        cleans = 3 / p.hosts * worth[np.arange(len(best)), best] * 5 > p.cost  # five periods' harm
        return [np.where(cleans, best + 1, 0).astype(np.int32)]


@expert("defence/Containment*")
def containment(spec: EnvSpec) -> Cleaner:
    return Cleaner(problem(spec))


class Detector:
    """Keeps the probability of an attack and stops above a threshold that backward induction gives
    for the time left."""

    id = "exact/intrusion-detection@1"

    def __init__(self, p):
        from scipy.stats import poisson

        self.p, self.belief, self.time = p, NOTHING, NOTHING
        counts = np.arange(int(p.loud + 10 * p.loud**0.5) + 4)
        self.quiet, self.loud = poisson.pmf(counts, p.quiet), poisson.pmf(counts, p.loud)
        grid = np.linspace(0, 1, 201)
        stop, value = 20 * grid - 10, np.zeros(len(grid))
        self.threshold = np.full(p.horizon + 1, 2.0)  # by periods left
        after, chance = self.update(grid[:, None])
        attacked = self.begun(grid)
        for left in range(1, p.horizon + 1):
            ahead = (np.interp(after, grid, value) * chance).sum(1)
            wait = 1 - attacked - p.loss * attacked + ahead
            if (stop >= wait).any():
                self.threshold[left] = grid[(stop >= wait).argmax()]
            value = np.maximum(stop, wait)

    def begun(self, belief: np.ndarray) -> np.ndarray:
        return belief + (1 - belief) * self.p.begins

    def update(self, belief: np.ndarray, alerts=slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Belief after a period with so many alerts, and the chance of that."""
        attacked = self.begun(belief)
        chance = attacked * self.loud[alerts] + (1 - attacked) * self.quiet[alerts]
        return attacked * self.loud[alerts] / np.maximum(chance, 1e-300), chance

    def act(self, timestep: TimeStep) -> Arrays:
        self.belief = memory(timestep, self.belief)
        self.time = memory(timestep, self.time, dtype=np.int64)
        alerts = np.rint(timestep.observation[0][:, 0] * self.p.loud).astype(int)
        after, _ = self.update(self.belief, np.minimum(alerts, len(self.quiet) - 1))
        self.belief = np.where(timestep.started, 0.0, after)
        self.time = np.where(timestep.started, 0, self.time + 1)
        left = np.clip(self.p.horizon - self.time, 0, self.p.horizon)
        return [(self.belief >= self.threshold[left]).astype(np.int32)]


@expert("defence/Detection*")
def detection(spec: EnvSpec) -> Detector:
    return Detector(problem(spec))


@expert("defence/FlipIt*")
def flip(spec: EnvSpec) -> Markov:
    """A periodic attacker shows its phase once it is caught: the move comes right after its next
    one. A memoryless one is answered in a rhythm, which is searched for."""
    p = problem(spec)

    def family(wait: int):
        def move(rows: np.ndarray) -> np.ndarray:
            since, shown = np.rint(rows * p.every).T
            return (since >= wait - shown * p.periodic).astype(np.int32)

        return move

    policy = family(p.every) if p.periodic else search(p, family, (p.every,))
    return Markov("scripted/flipit@1", lambda o: [policy(o[0].astype(np.float64))])


class Trapper:
    """Keeps the probability of every host to hold the intruder and traps the likeliest next one."""

    id = "exact/honeypot@1"

    def __init__(self, p):
        self.p, self.belief = p, NOTHING
        size = p.layers * p.width
        self.moves = np.zeros((size + 1, size + 1))  # the last one: out of the network
        for layer in range(p.layers):
            for host in range(p.width):
                here, out = layer * p.width + host, layer + 1 == p.layers
                ahead = slice((layer + 1) * p.width, (layer + 2) * p.width)
                self.moves[here, here] = p.rests
                if out:
                    self.moves[here, -1] = 1 - p.rests
                else:
                    self.moves[here, ahead] = (1 - p.rests) * p.moves[layer, host]
        self.stays = np.eye(size + 1) * self.moves

    def act(self, timestep: TimeStep) -> Arrays:
        p, (shown,) = self.p, timestep.observation
        size = p.layers * p.width
        fresh = np.zeros(size)
        fresh[: p.width] = 1 / p.width
        self.belief = memory(timestep, self.belief, (size,))
        after = (self.belief @ self.moves[:size, :size]).copy()
        if len(timestep.action):  # not caught: it is not where the trap was, unless it rested there
            rows, trap = np.arange(len(after)), timestep.action[0]
            after[rows, trap] = self.belief[rows, trap] * p.rests
        ended = timestep.started | (np.abs(timestep.reward) > 0.5)
        after = np.where(ended[:, None] | (after.sum(1, keepdims=True) < 1e-9), fresh, after)
        seen = shown.any(1, keepdims=True)
        self.belief = np.where(seen, shown, after / after.sum(1, keepdims=True))
        ahead = self.belief @ (self.moves - self.stays)[:size, :size]
        return [ahead.argmax(1).astype(np.int32)]


@expert("defence/Honeypot*")
def honeypot(spec: EnvSpec) -> Trapper:
    return Trapper(problem(spec))


@expert("defence/Filtering*")
def filtering(spec: EnvSpec) -> Markov:
    """Lets quiet sources pass, and of those that flood (floods last) what room is left."""
    p = problem(spec)

    def act(observation: Arrays) -> Arrays:
        floods = observation[0] * 10 > 4 * p.mean
        spare = p.room - p.mean * (~floods).sum(1, keepdims=True)
        share = spare / np.maximum(10 * p.mean * floods.sum(1, keepdims=True), 1e-9)
        return [np.where(floods, np.clip(share, 0, 1), 1).astype(np.float32)]

    return Markov("scripted/filtering@1", act)
