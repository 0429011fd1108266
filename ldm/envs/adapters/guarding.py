"""Guarding machines and accounts: variants of our own of textbook problems. Rewards are near one a
period."""

import numpy as np
from gymnasium.spaces import Box, Discrete

from ldm.envs.periods import Periods


def build(make: str, split: str, **options):
    """`make`: a key of GUARDS."""
    return GUARDS[make](**options)


class Patching(Periods):
    """Which machine to patch first (Dey, Lahiri, Zhang 2015).

    A hole of severity 0 … 1 (uniform) opens on a machine without one with probability `opens` a
    period, and is used with probability `used` · severity, at a loss of the machine's worth; then
    and when it is patched the machine is whole. Action: 0 nothing, n: machine n is patched, at
    `cost`. Reward: 1 − losses − cost. Observation: severities of open holes, zero where none is.
    """

    def __init__(self, machines=6, opens=0.2, used=0.3, cost=0.2, horizon=100):
        self.machines, self.opens, self.used = machines, opens, used
        self.cost, self.horizon = cost, horizon
        self.worth = np.linspace(0.5, 2, machines)
        self.action_space = Discrete(machines + 1)
        self.observation_space = Box(0, 1, (machines,))

    def _start(self):
        self.holes = np.zeros(self.machines)
        self._open()

    def _open(self):
        draws, severities = self.np_random.random((2, self.machines))
        fresh = (self.holes == 0) & (draws < self.opens)
        self.holes = np.where(fresh, severities, self.holes)

    def _act(self, action):
        if action:
            self.holes[action - 1] = 0
        hit = self.np_random.random(self.machines) < self.used * self.holes
        self.holes = np.where(hit, 0, self.holes)
        self._open()
        return 1 - (hit * self.worth).sum() - self.cost * (action > 0), False

    def _observe(self):
        return self.holes


class Triage(Periods):
    """Sorting mail by a score (signal detection; Green and Swets 1966).

    A mail is phishing with probability `share`; its score is normal, with mean `apart` for
    phishing, 0 else. Action: 0 deliver, 1 quarantine, 2 let somebody look, at `look`, who is right.
    Reward: 1, less 10 for phishing delivered and 2 for honest mail in quarantine. Observation: the
    score.
    """

    def __init__(self, share=0.1, apart=2.0, look=0.5, horizon=100):
        self.share, self.apart, self.look, self.horizon = share, apart, look, horizon
        self.action_space = Discrete(3)
        self.observation_space = Box(-np.inf, np.inf, (1,))

    def _start(self):
        self.bad = bool(self.np_random.random() < self.share)
        self.score = self.apart * self.bad + self.np_random.standard_normal()

    def _act(self, action):
        wrong = {0: 10.0 * self.bad, 1: 2.0 * (not self.bad), 2: self.look}[int(action)]
        self._start()
        return 1 - wrong, False

    def _observe(self):
        return [self.score]


class Lockout(Periods):
    """When to lock an account (sequential test; Wald 1947).

    Somebody new is at the door when the last one left: a thief with probability `thieves`. An owner
    mistypes with probability `typos` and is in at the first success; a thief guesses right with
    probability `guesses`. Action: 1 locks him out, 0 lets him try. Reward: +1 for an owner in, −20
    for a thief in, −2 for an owner locked out, +1 for a thief locked out, −0.05 a try. Observation:
    failures in a row / 5.
    """

    def __init__(self, thieves=0.2, typos=0.3, guesses=0.02, horizon=100):
        self.thieves, self.typos, self.guesses = thieves, typos, guesses
        self.horizon = horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(0, np.inf, (1,))

    def _start(self):
        self.thief, self.failures = bool(self.np_random.random() < self.thieves), 0

    def _act(self, action):
        thief = self.thief
        if action:
            self._start()
            return (1.0 if thief else -2.0), False
        if self.np_random.random() < (self.guesses if thief else 1 - self.typos):
            self._start()
            return (-20.0 if thief else 1.0) - 0.05, False
        self.failures += 1
        return -0.05, False

    def _observe(self):
        return [self.failures / 5]


class MovingTarget(Periods):
    """Changing addresses before an intruder has mapped them (moving target defence; Evans 2011).

    The intruder finds one of `parts` parts a period with probability `speed`; each part known costs
    0.02 a period, all of them 3 more. Action: 1 changes the addresses, at `cost`: he begins anew.
    What he found is seen with a lag of `lag` periods. Reward: 1 − costs. Observation: parts known
    then / `parts`, periods since the last change / 10.
    """

    def __init__(self, parts=5, speed=0.4, cost=1.5, lag=2, horizon=100):
        self.parts, self.speed, self.cost, self.lag = parts, speed, cost, lag
        self.horizon = horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(0, np.inf, (2,))

    def _start(self):
        self.known, self.since, self.past = 0, 0, [0] * (self.lag + 1)

    def _act(self, action):
        if action:
            self._start()
        self.known = min(self.known + (self.np_random.random() < self.speed), self.parts)
        self.past, self.since = [*self.past[1:], self.known], self.since + 1
        lost = 0.02 * self.known + 3 * (self.known == self.parts)
        return 1 - lost - self.cost * (action > 0), False

    def _observe(self):
        return [self.past[0] / self.parts, self.since / 10]


class Backup(Periods):
    """How often to back up what ransomware may take (checkpoint interval; Young 1974).

    Work is done at a rate drawn anew each period, exponential of mean `rate`. Ransomware strikes
    with probability `strikes` and takes all since the last backup. Action: 1 backs up, at `cost`.
    Reward: 1 − loss / 10 − cost. Observation: work since the last backup / 10, rate now.
    """

    def __init__(self, rate=1.0, strikes=0.03, cost=0.3, horizon=100):
        self.rate, self.strikes, self.cost, self.horizon = rate, strikes, cost, horizon
        self.action_space = Discrete(2)
        self.observation_space = Box(0, np.inf, (2,))

    def _start(self):
        self.work, self.now = 0.0, self.np_random.exponential(self.rate)

    def _act(self, action):
        self.work = (0.0 if action else self.work) + self.now
        struck = self.np_random.random() < self.strikes
        lost = self.work * struck
        self.work -= lost
        self.now = self.np_random.exponential(self.rate)
        return 1 - lost / 10 - self.cost * (action > 0), False

    def _observe(self):
        return [self.work / 10, self.now]


class Jamming(Periods):
    """Choosing a channel that is not jammed (anti-jamming games; Wu and others 2012).

    The jammer moves on by `stride` channels with probability `moves`, stays else; it is seen where
    it was, with probability `seen`. Action: the channel. Reward: 1 on a free channel, less `switch`
    for a change, less a half on its neighbours. Observation: the jammer's last seen channel,
    one-hot, periods since / 5, own channel, one-hot.
    """

    def __init__(self, channels=6, stride=1, moves=0.9, seen=1.0, switch=0.1, horizon=100):
        self.channels, self.stride, self.moves = channels, stride, moves
        self.seen, self.switch, self.horizon = seen, switch, horizon
        self.action_space = Discrete(channels)
        self.observation_space = Box(0, np.inf, (2 * channels + 1,))

    def _start(self):
        self.jammer, self.own = (int(x) for x in self.np_random.integers(self.channels, size=2))
        self.shown, self.since = self.jammer, 0

    def _act(self, action):
        changed, self.own = int(action) != self.own, int(action)
        if self.np_random.random() < self.moves:
            self.jammer = (self.jammer + self.stride) % self.channels
        self.since += 1
        if self.np_random.random() < self.seen:
            self.shown, self.since = self.jammer, 0
        away = abs(self.own - self.jammer)
        away = min(away, self.channels - away)
        return {0: 0.0, 1: 0.5}.get(away, 1.0) - self.switch * changed, False

    def _observe(self):
        at = np.arange(self.channels)
        return np.concatenate([at == self.shown, [self.since / 5], at == self.own])


GUARDS = {
    "patching": Patching,
    "triage": Triage,
    "lockout": Lockout,
    "moving-target": MovingTarget,
    "backup": Backup,
    "jamming": Jamming,
}
