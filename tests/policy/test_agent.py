"""An agent in other people's loops does what the actor does in ours."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from ldm.envs import legal, spaces
from ldm.envs.interface import TimeStep
from ldm.envs.make import make
from ldm.errors import LdmError
from ldm.policy.policy import Policy
from ldm.policy.unknown import explore
from ldm.policy.wrapped import wrapped
from tests.envs.ragged import Ragged
from tests.policy.made_timesteps import SPACES, entry


class Walk(gymnasium.Env):
    """Shows what it drew from its seed; pays the action; episodes of 3 to 6 steps."""

    def __init__(self, kind: str = "vector"):
        self.observation_space, self.action_space = deepcopy(SPACES[kind])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.left = int(self.np_random.integers(3, 7))
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.left -= 1
        paid = float(np.sum(action[0] if isinstance(action, tuple) else action))
        return self.observation_space.sample(), paid, self.left == 0, False, {}


def policy(model, tokens, kind: str, spans: bool = False) -> Policy:
    return Policy(model, tokens, {f"test/{kind}": entry(kind, spans)}, "0" * 64)


def by_hand(made: Policy, env: gymnasium.Env, kind: str, steps: int) -> list:
    """The actions of an actor that is handed every TimeStep, the final ones included."""
    from ldm.envs import spaces

    trees = [spaces.describe(space) for space in SPACES[kind]]
    actor, leaves = made.actor(f"test/{kind}", 1), spaces.leaves(trees[1])
    no = np.zeros(1, bool)

    def shown(observation, action, reward, terminated, started):
        flat = [array[None] for array in spaces.flatten(trees[0], observation)]
        return TimeStep(flat, action, np.full(1, reward), no | terminated, no, no | started)

    rest = [legal.resting(leaf, 1) for leaf in leaves]
    found, timestep = [], shown(env.reset(seed=3)[0], rest, 0.0, False, True)
    while len(found) < steps:
        chosen = [legal.executable(*pair) for pair in zip(leaves, actor.act(timestep))]
        if timestep.terminated[0]:
            timestep = shown(env.reset()[0], chosen, 0.0, False, True)
            continue
        found.append(chosen)
        sample = spaces.unflatten(trees[1], [array[0] for array in chosen])
        observation, reward, terminated, _, _ = env.step(sample)
        timestep = shown(observation, chosen, reward, terminated, False)
    return found


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("spans", [False, True])
def test_a_gymnasium_loop(kind, spans, model, tokens):
    made, env = policy(model, tokens, kind, spans), Walk(kind)
    expected = by_hand(made, Walk(kind), kind, 40)
    agent = made.agent(env, environment=f"test/{kind}")
    observation, _ = env.reset(seed=3)
    for chosen in expected:
        action = agent.act(observation)
        parts = action if isinstance(action, tuple) else (action,)
        assert all(np.array_equal(a, c[0]) for a, c in zip(parts, chosen, strict=True))
        observation, reward, terminated, truncated, _ = env.step(action)
        agent.observe(reward, terminated, truncated)
        if terminated or truncated:
            observation, _ = env.reset()


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_loop_gives_what_single_ones_give(kind, mode, model, tokens):
    made = policy(model, tokens, kind)
    envs = SyncVectorEnv([lambda: Walk(kind)] * 3, autoreset_mode=mode)
    agent = made.agent(envs, environment=f"test/{kind}")
    observation, _ = envs.reset(seed=[3, 3, 3])
    paid, ended = [[] for _ in range(3)], np.zeros(3, bool)
    for _ in range(60):
        observation, reward, terminated, truncated, _ = envs.step(agent.act(observation))
        agent.observe(reward, terminated, truncated)
        for i in range(3):
            if mode is AutoresetMode.SAME_STEP or not ended[i]:
                paid[i].append(float(reward[i]))
        ended = terminated | truncated
        if mode is AutoresetMode.DISABLED and ended.any():
            observation, _ = envs.reset(options={"reset_mask": ended})
            ended &= False
    first = Walk(kind)
    expected = []
    alone = made.agent(first, environment=f"test/{kind}")
    observation, _ = first.reset(seed=3)
    while len(expected) < 30:
        observation, reward, terminated, truncated, _ = first.step(alone.act(observation))
        alone.observe(reward, terminated, truncated)
        expected.append(reward)
        if terminated:
            observation, _ = first.reset()
    for rewards in paid:
        np.testing.assert_allclose(rewards[:30], expected, rtol=1e-4, atol=1e-4)


def test_stable_baselines3_evaluates_it(model, tokens):
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    made = policy(model, tokens, "vector")

    def loop() -> list[float]:
        env = Walk()
        agent = made.agent(env, environment="test/vector")
        observation, _ = env.reset(seed=3)
        totals = [0.0]
        while len(totals) <= 8:
            observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
            agent.observe(reward, terminated, truncated)
            totals[-1] += reward
            if terminated:
                totals.append(0.0)
                observation, _ = env.reset()
        return totals[:8]

    from stable_baselines3.common.vec_env import DummyVecEnv

    env = DummyVecEnv([Walk])
    env.seed(3)
    agent = made.agent(env, environment="test/vector")
    found, _ = evaluation.evaluate_policy(
        agent, env, n_eval_episodes=8, callback=agent.callback, return_episode_rewards=True,
        warn=False,
    )  # fmt: skip
    assert found == pytest.approx(loop())


def test_an_environment_of_ours(model, tokens):
    made = policy(model, tokens, "vector")
    env = make("envpool/CartPole-v1", 2, 0)
    known = entry("vector") | {"id": env.spec.id}
    from ldm.envs import spaces

    known |= {"observation": spaces.to_json(env.observation), "action": spaces.to_json(env.action)}
    known["statistics"]["observation"] = [
        {k: [v] * 4 for k, v in {"mean": 0.0, "std": 1.0, "min": -5.0, "max": 5.0}.items()}
    ]
    known["statistics"]["action"] = [{}]
    made.environments[env.spec.id] = known
    agent, actor = made.agent(env), made.actor(env.spec.id, 2)
    timestep = env.reset()
    for _ in range(5):
        action = agent.act(timestep)
        assert np.array_equal(action[0], actor.act(timestep)[0])
        timestep = env.step(action)
    env.close()


KINDS = {
    "gymnasium": Walk,
    "vector": lambda: SyncVectorEnv([Walk] * 2),
    "stable-baselines3": lambda: vec_env([Walk] * 2),
    "ours": lambda: make("envpool/CartPole-v1", 2, 0),
}


def vec_env(makers: list):
    return pytest.importorskip("stable_baselines3.common.vec_env").DummyVecEnv(makers)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_environment_is_explored_then_frozen(kind, model, tokens, capsys):
    made = policy(model, tokens, "mixed")

    entries = [explore(env, wrapped(env), 0, 30, "new") for env in (KINDS[kind](), KINDS[kind]())]
    assert entries[0] == entries[1]
    env = KINDS[kind]()
    agent = made.agent(env, probe_steps=30)
    assert ": 30 random steps in it say what it is like" in capsys.readouterr().err
    observation = env.reset() if kind in ("ours", "stable-baselines3") else env.reset(seed=1)[0]
    for _ in range(12):
        action = agent.act(observation)
        if kind == "ours":
            observation = env.step(action)
            continue
        observation, reward, done, cut = env.step(action)[:4]
        cut = np.zeros_like(done) if kind == "stable-baselines3" else cut
        agent.observe(reward, done, cut)
        if kind == "gymnasium" and (done or cut):
            observation, _ = env.reset()
    assert list(made.environments) == ["test/mixed"]


def test_an_environment_of_a_known_name_with_other_spaces_is_explored(model, tokens, capsys):
    made, env = policy(model, tokens, "mixed"), Walk()
    env.spec = gymnasium.envs.registration.EnvSpec("mixed", Walk)
    made.agent(env, probe_steps=8)
    assert "the model knows test/mixed with other spaces: 8 random steps" in capsys.readouterr().err


def test_temperature_sharpens_and_flattens_what_is_sampled(model, tokens):
    made, env = policy(model, tokens, "mixed"), Walk("mixed")
    observation, _ = env.reset(seed=3)
    moment = None

    def drawn(decode: str, temperature: float) -> list:
        nonlocal moment
        agent = made.agent(env, "test/mixed", decode, 1, temperature)
        flat, no = agent.env.flat(observation), np.zeros(200, bool)
        many = made.actor("test/mixed", 200, decode, 1, temperature)
        moment = TimeStep(
            [np.repeat(a, 200, 0) for a in flat],
            [np.repeat(a, 200, 0) for a in agent._last], np.zeros(200), no, no, ~no,
        )  # fmt: skip
        return many.act(moment)

    cold, likeliest = drawn("sampled", 1e-4), drawn("likeliest", 1.0)
    classes = [a for a, leaf in zip(cold, made_leaves(made)) if leaf.kind == "discrete"]
    best = [a for a, leaf in zip(likeliest, made_leaves(made)) if leaf.kind == "discrete"]
    assert all(np.array_equal(a, b) for a, b in zip(classes, best, strict=True))
    spread = [sum(a.astype(float).std() for a in drawn("sampled", t)) for t in (1e-4, 1.0)]
    assert spread[0] < spread[1]
    with pytest.raises(LdmError, match="temperature: expected more than 0, got 0"):
        made.agent(env, "test/mixed", "sampled", temperature=0)


def made_leaves(made: Policy) -> tuple:
    return spaces.leaves(spaces.from_json(made.environments["test/mixed"]["action"]))


class Choosy(Ragged):
    """Takes no more classes than the model of these tests has."""

    action_space = Ragged.action_space.spaces[0]

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.show(), 0.0, False, False, {}


def test_spaces_without_a_fixed_size(model, tokens, capsys):
    env = Choosy()
    agent = policy(model, replace(tokens, context=400), "mixed").agent(env, probe_steps=8)
    assert "observation/words: a Sequence of any length is padded to 16" in capsys.readouterr().err
    observation, _ = env.reset(seed=0)
    for _ in range(3):  # the environment asserts that its actions are of its space
        observation, *paid = env.step(agent.act(observation))[:4]
        agent.observe(*paid)
    with pytest.raises(LdmError, match="a single environment where a space has no fixed size"):
        policy(model, tokens, "mixed").agent(SyncVectorEnv([Ragged]))


def test_what_an_unknown_environment_shows_is_checked(model, tokens):
    class Bad(Walk):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, float("nan"), *rest

    with pytest.raises(LdmError, match="Bad: the reward of random step 1 is NaN"):
        policy(model, tokens, "mixed").agent(Bad(), probe_steps=8)


@pytest.mark.parametrize("way", ["likeliest", "sampled", "expected"])
def test_how_actions_are_read_can_be_overridden(way, model, tokens):
    made, env = policy(model, tokens, "mixed"), Walk("mixed")
    agent = made.agent(env, "test/mixed", way, 5)
    actor = made.actor("test/mixed", 1, way, 5)
    observation, _ = env.reset(seed=3)
    flat = agent.env.flat(observation)
    no, rest = np.zeros(1, bool), agent._last
    expected = actor.act(TimeStep(flat, rest, np.zeros(1), no, no, ~no))
    agent.act(observation)
    for got, wanted in zip(agent._last, expected):
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_a_vector_put_together_by_hand_is_known_by_its_environments(kind, model, tokens, capsys):
    made = policy(model, tokens, "vector")
    envs = kind([named_walk] * 2)
    try:
        made.agent(gymnasium.wrappers.vector.RecordEpisodeStatistics(envs), probe_steps=8)
    finally:
        envs.close()
    assert capsys.readouterr().err == ""


def named_walk():
    env = Walk()
    env.spec = gymnasium.envs.registration.EnvSpec("vector", "tests.policy.test_agent:Walk")
    return env


def earned(agent, env, steps: int = 30) -> list[float]:
    """What a loop of Gymnasium's was paid, from seed 3 on; Autoreset begins episodes by itself."""
    observation, _ = env.reset(seed=3)
    paid, ended = [], False
    while len(paid) < steps:
        anew = ended and isinstance(env, gymnasium.wrappers.Autoreset)
        observation, reward, *flags, _ = env.step(agent.act(observation))
        agent.observe(reward, *flags)
        paid += [] if anew else [reward]
        ended = any(flags)
        if ended and not isinstance(env, gymnasium.wrappers.Autoreset):
            observation, _ = env.reset()
    return paid


@pytest.mark.parametrize("spans", [False, True])
def test_a_wrapper_that_begins_episodes_by_itself(spans, model, tokens):
    made = policy(model, tokens, "vector", spans)
    plain, by_itself = Walk(), gymnasium.wrappers.Autoreset(Walk())
    expected = earned(made.agent(plain, environment="test/vector"), plain)
    assert earned(made.agent(by_itself, environment="test/vector"), by_itself) == expected


WRAPPERS = {
    "RecordEpisodeStatistics": gymnasium.wrappers.RecordEpisodeStatistics,
    "NormalizeObservation": gymnasium.wrappers.NormalizeObservation,
    "vector.NormalizeReward": lambda env: gymnasium.wrappers.vector.NormalizeReward(
        SyncVectorEnv([lambda: env])
    ),
    "VecNormalize": lambda env: normalized(env),
}


def normalized(env):
    return pytest.importorskip("stable_baselines3.common.vec_env").VecNormalize(
        vec_env([lambda: env])
    )


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_that_change_what_is_seen_are_told(name, model, tokens, capsys):
    env = Walk()
    env.spec = gymnasium.envs.registration.EnvSpec("vector", Walk)
    policy(model, tokens, "vector").agent(WRAPPERS[name](env), environment="test/vector")
    told = f"test/vector: the model was trained without {name.rpartition('.')[2]} around it"
    assert (told in capsys.readouterr().err) == ("ormalize" in name)


def test_an_agent_goes_to_another_process_and_acts_as_before(model, tokens):
    made = policy(model, tokens, "vector")
    first, env = made.agent(Walk(), environment="test/vector"), Walk()
    second = pickle.loads(pickle.dumps(first))
    assert earned(second, env) == earned(first, env)


def test_agents_of_one_model_do_not_disturb_each_other(model, tokens):
    made = policy(model, tokens, "vector")
    agents = [made.agent(Walk(), environment="test/vector") for _ in range(4)]
    alone = earned(agents[0], Walk())
    with ThreadPoolExecutor(3) as pool:
        for paid in pool.map(lambda agent: earned(agent, Walk()), agents[1:]):
            assert paid == alone


def test_what_cannot_be_right_is_an_error_in_words(model, tokens):
    made, env = policy(model, tokens, "vector"), Walk()
    made.environments["other/Two"] = made.environments["more/Two"] = entry("vector")
    env.spec = gymnasium.envs.registration.EnvSpec("Two", Walk)
    with pytest.raises(LdmError, match=r'knows 2 environments "Two".* one of other/Two, more/Two'):
        made.agent(env)
    with pytest.raises(LdmError, match=r'does not know "test/vektor" \(nearest: "test/vector"\)'):
        made.agent(env, environment="test/vektor")
    with pytest.raises(LdmError, match="with other spaces"):
        made.agent(Walk("mixed"), environment="test/vector")
    with pytest.raises(LdmError, match="expected an environment of Gymnasium"):
        made.agent("CartPole-v1")
    agent = made.agent(env, environment="test/vector")
    observation, _ = env.reset(seed=0)
    agent.act(observation)
    with pytest.raises(LdmError, match=r"twice without agent\.observe"):
        agent.act(observation)
    agent.observe(1.0, False, False)
    with pytest.raises(LdmError, match=r"observe was called without agent\.act before"):
        agent.observe(1.0, False, False)
    agent.reset()
    with pytest.raises(LdmError, match="does not fit the environment's space"):
        agent.act(np.zeros(4, np.float32))
