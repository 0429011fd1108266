"""EconGym's markets and auctions from one seat: the others play by a rule of the textbook.

Bertrand's rivals undercut the lowest price of the others by one step, and begin at the top again
where that no longer pays (the cycle of Edgeworth). Cournot's, and those of differentiated goods, go
half of the way to their best reply to what everybody did last. Bidders bid as in the symmetric
equilibrium. Whom a public good is shared with gives nearly what the others gave on average
(Fischbacher, Gächter and Fehr 2001). One time in ten each does anything instead, bidders apart.

Observation: what everybody did last, the seat first (prices of Bertrand as numbers of its grid);
of an auction what the lot is worth to the seat. An auction that ends is followed by another; an
episode lasts as long as the catalogue says.
"""

import econgym
import gymnasium
import numpy as np
from gymnasium import spaces

TREMBLE = 0.1
GENEROSITY = 0.9  # of what others give, given back
SEAT = 0


def build(make: str, split: str, **options):
    """`make`: the name of one of its classes. `options`: its arguments."""
    return Seat(getattr(econgym, make)(**options), RULES[make])


def undercut(env, last: np.ndarray, i: int) -> int:
    price = np.delete(last, i).min() - 1
    return price if env.grid[price] > env.c and price >= 0 else env.K - 1


def half_reply(env, last: np.ndarray, i: int) -> float:
    return (last[i] + env.best_response(last)[i]) / 2


def reciprocate(env, last: np.ndarray, i: int) -> float:
    return GENEROSITY * np.delete(last, i).mean()


def equilibrium_bid(env, values: list[float], i: int) -> float:
    bid = env.equilibrium().get("bid_fn", lambda value: value)  # the second price: the value itself
    return bid(values[i])


RULES = {
    "BertrandEnv": undercut,
    "CournotEnv": half_reply,
    "BertrandDiffEnv": half_reply,
    "PublicGoodsEnv": reciprocate,
    "FirstPriceAuctionEnv": equilibrium_bid,
    "SecondPriceEnv": equilibrium_bid,
}


class Seat(gymnasium.Env):
    def __init__(self, env, rule):
        self.env, self.rule, self.auction = env, rule, rule is equilibrium_bid
        mine = env.action_space[SEAT]
        low, high = (np.float32(getattr(mine, edge, 0)) for edge in ("low", "high"))
        count = 1 if self.auction else env.n
        if hasattr(mine, "n"):
            self.action_space = spaces.Discrete(mine.n)
            self.observation_space = spaces.MultiDiscrete([mine.n] * count)
        else:
            self.action_space = spaces.Box(low, high, (1,))
            self.observation_space = spaces.Box(low, high, (count,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._begin(), {}

    def _begin(self):
        seen = self.env.reset(rng=self.np_random)
        self.last = np.array(seen) if self.auction else self.env._prev
        return self._shown()

    def step(self, action):
        mine = int(action) if hasattr(self.action_space, "n") else float(action[0])
        joint = [mine if i == SEAT else self._rival(i) for i in range(self.env.n)]
        _, rewards, ended, _, _ = self.env.step(joint)
        self.last = np.array(joint)
        return self._begin() if ended else self._shown(), float(rewards[SEAT]), False, False, {}

    def _rival(self, i: int):
        if not self.auction and self.np_random.random() < TREMBLE:
            return self.env.action_space[i].sample(self.np_random)
        return self.rule(self.env, self.last, i)

    def _shown(self):
        shown = self.last[:1] if self.auction else self.last
        return shown.astype(self.observation_space.dtype)
