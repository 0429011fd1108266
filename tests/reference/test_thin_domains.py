"""References of driving, inventory, cybersecurity, trading and energy: legal, causal, and better
than random."""

import importlib

import numpy as np
import pytest

from ldm.config import load_recipe
from ldm.envs import legal, spaces
from ldm.envs.catalogue import load
from ldm.envs.interface import TimeStep
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.envs.spec import DOMAINS
from ldm.reference import experts


class Direct:
    """One stream of a worker environment in this process, for actors that want timesteps."""

    def __init__(self, id: str, split: str = "test"):
        self.spec = load()[id]
        adapter = importlib.import_module(f"ldm.envs.adapters.{self.spec.adapter}")
        self.env = adapter.build(self.spec.make, split, **self.spec.options)
        self.observation = spaces.describe(self.env.observation_space)
        self.action = spaces.describe(self.env.action_space)

    def play(self, actor, seed: int) -> float:
        sample, _ = self.env.reset(seed=seed)
        timestep = self._timestep(sample, True)
        total = 0.0
        for _ in range(self.spec.horizon):
            action = actor.act(timestep)
            for leaf, array in zip(spaces.leaves(self.action), action):
                assert array.shape == (1, *leaf.shape) and array.dtype == leaf.dtype
                assert not legal.violation(leaf, array)
                if leaf.kind == spaces.CONTINUOUS:
                    flat = array.reshape(-1)
                    assert (flat >= leaf.low).all() and (flat <= leaf.high).all()
            chosen = spaces.unflatten(self.action, [array[0] for array in action])
            sample, reward, terminated, truncated, _ = self.env.step(chosen)
            total += reward
            if terminated or truncated:
                break
            timestep = self._timestep(sample, False)
        return total

    def _timestep(self, sample, started: bool) -> TimeStep:
        flat = [array[None] for array in spaces.flatten(self.observation, sample)]
        no = np.zeros(1, bool)
        return TimeStep(flat, [], np.zeros(1), no, no, np.array([started]))


def test_every_environment_of_the_quick_start_has_a_reference():
    specs = [load()[id] for id in load_recipe("quickstart").environments]
    assert {spec.domain for spec in specs} == set(DOMAINS)
    assert [spec.id for spec in specs if experts.find(spec.id) is None] == []


BETTER = {  # episodes that tell the reference from random
    "inventory/LostSales-v0": 2,
    "inventory/Products-v0": 2,
    "inventory/SerialSlow-v0": 2,
    "motors/Cont-CC-PermExDc-v0": 2,
    "motors/Cont-CC-PMSM-v0": 3,
    "nasim/SmallHoneypotPO": 2,
    "rddl/SysAdmin-1": 4,
    "rddl/HVAC-1": 2,
    "rddl/PowerGenDiscrete-0": 6,
    "rddl/ReservoirContinuous-0": 2,
    "rddl/SupplyChain-0": 2,
    "trading/MeanRevertingCostly-v0": 8,
    "trading/Momentum-v0": 8,
}


@pytest.mark.parametrize("id", BETTER)
def test_the_reference_beats_random_on_the_test_split(id):
    direct = Direct(id)
    actor, noise = experts.find(id).factory(direct.spec), RandomActor(direct.action, 0)
    reference = [direct.play(actor, seed) for seed in range(BETTER[id])]
    random = [direct.play(noise, seed) for seed in range(BETTER[id])]
    assert np.mean(reference) > np.mean(random) + np.std(random) / len(random) ** 0.5


DRIVING = {  # the least return that a working reference reaches, far above random
    "envpool/highway-fast-v0": 20,
    "envpool/merge-v0": 11,
    "envpool/roundabout-v0": 10,
    "envpool/intersection-v0": 2,
    "envpool/lane-keeping-v0": 198,
    "envpool/parking-v0": -20,
    "envpool/racetrack-oval-v0": 25,
}


@pytest.mark.parametrize("id", DRIVING)
def test_the_driver_reaches_its_score(id):
    env = make(id, 16, seed=0)
    try:
        scores = returns(env, experts.find(id).factory(env.spec), 16)
    finally:
        env.close()
    assert scores.mean() > DRIVING[id]


def test_the_attack_plan_is_the_optimum_that_the_tiny_scenario_states():
    """Six actions at cost 1 for two hosts worth 100, where every exploit works at once."""
    direct = Direct("nasim/Tiny")
    actor = experts.find("nasim/Tiny").factory(direct.spec)
    assert max(direct.play(actor, seed) for seed in range(12)) == 194


def test_all_views_of_a_network_lead_to_the_same_attack():
    scores = []
    for view in ("", "PO", "VA", "POVA"):
        direct = Direct(f"nasim/SmallLinear{view}")
        scores.append(direct.play(experts.find(direct.spec.id).factory(direct.spec), 7))
    assert len(set(scores)) == 1 and scores[0] > 170


def test_a_remembered_network_is_forgotten_when_an_episode_starts():
    direct = Direct("nasim/TinyPO")
    actor = experts.find("nasim/TinyPO").factory(direct.spec)
    first = actor.act(direct._timestep(direct.env.reset(seed=0)[0], True))
    direct.play(actor, 1)
    again = actor.act(direct._timestep(direct.env.reset(seed=0)[0], True))
    np.testing.assert_array_equal(first[0], again[0])


def test_the_order_up_to_level_is_the_newsvendor_quantile():
    from scipy.stats import poisson

    from ldm.reference.experts.inventory import quantile

    for mean in (0.5, 4.0, 15.0, 60.0):
        for share in (0.1, 0.9, 0.95):
            assert quantile(mean, share) == poisson.ppf(share, mean)


@pytest.mark.parametrize("step", [-4, 4])
def test_base_stock_levels_lie_at_the_least_cost(step):
    """Moving the level away from the quantile costs more, on the same demand."""
    direct = Direct("inventory/Backlog-v0")
    actor = experts.find(direct.spec.id).factory(direct.spec)

    class Moved:
        def act(self, timestep):
            (rows,) = timestep.observation
            level = np.clip(20 + step - rows[:, :-1].sum(1), 0, 20)
            return [level.astype(np.int32)]

    best = np.mean([direct.play(actor, seed) for seed in range(6)])
    assert best > np.mean([direct.play(Moved(), seed) for seed in range(6)])
