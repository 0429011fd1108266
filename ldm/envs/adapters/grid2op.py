"""Grid2Op: keep a power grid running, with the small grids that its package ships.

Loads and generation replay recorded series, a few of every grid: the last quarter (at least one)
is the "test" range. What an operator may do is `acts`: switch lines, move them between the two bus
bars of a substation, or change what generators feed in.
"""

import warnings

import gymnasium
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import grid2op
    from grid2op.gym_compat import BoxGymActSpace, BoxGymObsSpace, DiscreteActSpace, GymEnv

OBSERVED = [
    *("rho", "line_status", "topo_vect", "gen_p", "load_p", "load_q", "timestep_overflow"),
    *("time_before_cooldown_line", "time_before_cooldown_sub", "hour_of_day", "minute_of_hour"),
]


def build(make: str, split: str, acts: str = "lines"):
    """`make`: a grid, "rte_case14_realistic". `acts`: "lines", "buses" or "redispatch"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Grid(grid2op.make(make, test=True), split, acts)


class Grid(gymnasium.Env):
    def __init__(self, grid, split: str, acts: str):
        self.env = GymEnv(grid)
        self.env.observation_space.close()
        self.env.observation_space = BoxGymObsSpace(grid.observation_space, attr_to_keep=OBSERVED)
        self.env.action_space = _actions(grid, acts)
        self.observation_space, self.action_space = (
            self.env.observation_space,
            self.env.action_space,
        )
        series = len(grid.chronics_handler.subpaths)
        held = max(1, series // 4) if series > 1 else 0
        self.series = (
            np.arange(series - held)
            if split == "train" or not held
            else (np.arange(series - held, series))
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        number = int(self.np_random.choice(self.series))
        seed = int(self.np_random.integers(2**31 - 1))
        observation, info = self.env.reset(seed=seed, options={"time serie id": number})
        return observation, info

    def step(self, action):
        return self.env.step(action)


def _actions(grid, acts: str):
    space = grid.action_space
    if acts == "redispatch":
        return BoxGymActSpace(space, attr_to_keep=["redispatch"])
    kept = {"lines": "set_line_status_simple", "buses": "set_bus"}[acts]
    return DiscreteActSpace(space, attr_to_keep=[kept])
