"""The model in a loop that is not ours: Gymnasium's, a vector environment's, stable-baselines3's.

    agent = ldm.load("runs/quickstart/train/model").agent(env)
    obs, _ = env.reset(seed=0)
    while True:
        obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
        agent.observe(reward, terminated, truncated)

The model sees what each step paid and how episodes end, so `observe` follows every step; after an
end the next `act` begins an episode. `predict` and `callback` are the same for stable-baselines3.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ldm.envs import spaces
from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, nearest
from ldm.policy.actor import ModelActor


class Agent:
    """Acts in one environment (num_envs None) or in the `num_envs` streams of a vector environment.

    observation, action: trees of one stream's spaces. final_shown: whether the observation after an
    end is the episode's last, the next step's being the first of a new one (Gymnasium's NEXT_STEP
    autoreset), and not already the next episode's.
    """

    def __init__(
        self,
        actor: ModelActor,
        observation: spaces.Tree,
        action: spaces.Tree,
        num_envs: int | None,
        final_shown: bool,
    ):
        if actor.spans_episodes and not final_shown and (num_envs or 1) > 1:
            raise LdmError(
                "this environment's hidden state spans episodes, so the model must see how each "
                "ends: make the vector environment with AutoresetMode.NEXT_STEP"
            )
        self.actor, self.num_envs = actor, num_envs
        self._observation, self._action = observation, action
        self._leaves = spaces.leaves(action)
        self._final_shown = final_shown
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next `act` begins an episode in every stream."""
        n = self._streams
        self._started: np.ndarray = np.ones(n, bool)
        self._ended: np.ndarray = np.zeros(n, bool)
        self._reward: np.ndarray = np.zeros(n)
        self._terminated: np.ndarray = np.zeros(n, bool)
        self._truncated: np.ndarray = np.zeros(n, bool)
        self._last = [spaces.resting(leaf, n) for leaf in self._leaves]
        self._seen: Arrays | None = None
        self._observed = True

    def act(self, observation: Any) -> Any:
        """The action for an observation as the environment gives it, in the environment's types.

        Of an environment that `ldm.make` made: the actions for a TimeStep.

        Raises LdmError where the observation does not fit the space, or where `observe` was not
        called after the last action.
        """
        if isinstance(observation, TimeStep):
            return self.actor.act(observation)
        if not self._observed:
            raise LdmError(
                "agent.act was called twice without agent.observe(reward, terminated, truncated) "
                "in between: the model sees what a step paid; or begin anew with agent.reset()"
            )
        arrays = self._flat(observation)
        self._close_episodes()
        self._seen = arrays
        chosen = self.actor.act(self._timestep(arrays))
        self._last = [spaces.executable(leaf, x) for leaf, x in zip(self._leaves, chosen)]
        self._observed = False
        return self._native(self._last)

    def observe(self, reward: Any, terminated: Any, truncated: Any) -> None:
        """What the last step paid and whether it ended the episode: numbers, or arrays (N,)."""
        n = self._streams
        self._reward = np.array(reward, np.float64).reshape(n)
        self._terminated = np.array(terminated, bool).reshape(n)
        self._truncated = np.array(truncated, bool).reshape(n) & ~self._terminated
        self._started = self._ended & self._final_shown
        self._ended = self._terminated | self._truncated
        self._observed = True

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, None]:
        """stable-baselines3's: (action, None). What steps paid comes through `callback`, as in

            evaluate_policy(agent, env, callback=agent.callback)

        Without it every reward counts as 0. episode_start: (N,), where episodes begin.
        """
        if not self._observed:
            self.observe(*np.zeros((3, self._streams)))
        if episode_start is not None:
            self._ended |= np.array(episode_start, bool).reshape(self._streams)
        return self.act(observation), None

    def callback(self, local: dict, _: dict) -> None:
        """For `evaluate_policy`: its local variables hold what the last step paid and ended."""
        done = np.array(local["dones"], bool)
        cut = np.array([info.get("TimeLimit.truncated", False) for info in local["infos"]], bool)
        self.observe(local["rewards"], done & ~cut, done & cut)

    @property
    def _streams(self) -> int:
        return 1 if self.num_envs is None else self.num_envs

    def _close_episodes(self) -> None:
        """Where the observation is already the next episode's: it starts there.

        A model whose memory spans episodes is told of the end first. The final observation is not
        there to be shown; what stands in for it is forgotten at once.
        """
        if self._final_shown or not self._ended.any():
            return
        if self.actor.spans_episodes and self._seen is not None:
            self.actor.read(self._timestep(self._seen))
        self._started = self._ended
        self._reward = np.where(self._ended, 0.0, self._reward)
        self._terminated, self._truncated, self._ended = np.zeros((3, self._streams), bool)

    def _timestep(self, observation: Arrays) -> TimeStep:
        return TimeStep(
            observation, self._last, self._reward, self._terminated, self._truncated, self._started
        )

    def _flat(self, observation: Any) -> Arrays:
        picked = (
            [observation]
            if self.num_envs is None
            else [row(self._observation, observation, i) for i in range(self.num_envs)]
        )
        try:
            rows = [spaces.flatten(self._observation, sample) for sample in picked]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise LdmError(
                f"the observation does not fit the environment's space: {error}"
            ) from None
        return [np.stack(leaf) for leaf in zip(*rows)]

    def _native(self, arrays: Arrays) -> Any:
        if self.num_envs is None:
            return spaces.unflatten(self._action, [array[0] for array in arrays])
        samples = [
            spaces.unflatten(self._action, [array[i] for array in arrays])
            for i in range(self.num_envs)
        ]
        return stacked(self._action, samples)


@dataclass(frozen=True)
class Wrapped:
    """What kind of environment an agent was asked for: trees of one stream's spaces, num_envs (None
    for a single one), whether final observations are shown, and the library's name for it."""

    observation: spaces.Tree
    action: spaces.Tree
    num_envs: int | None
    final_shown: bool
    name: str


def wrapped(env: Any) -> Wrapped:
    """Gymnasium's Env and VectorEnv, stable-baselines3's VecEnv, and what `ldm.make` makes.

    Raises LdmError for anything else, and for a space that has no flat form.
    """
    spec = getattr(env, "spec", None)
    if isinstance(spec, EnvSpec):
        return Wrapped(env.observation, env.action, env.num_envs, True, spec.id)
    name = str(getattr(spec, "id", ""))
    if hasattr(env, "single_observation_space"):
        mode = str(getattr(env, "metadata", {}).get("autoreset_mode", "NEXT_STEP"))
        parts = env.single_observation_space, env.single_action_space, env.num_envs
        shown = "SAME_STEP" not in mode.upper() and "SAMESTEP" not in mode.upper()
    elif hasattr(env, "step_async"):
        parts, shown = (env.observation_space, env.action_space, env.num_envs), False
        name = str(getattr(env.get_attr("spec")[0], "id", ""))
    elif hasattr(env, "observation_space") and hasattr(env, "step"):
        parts, shown = (env.observation_space, env.action_space, None), False
    else:
        raise LdmError(
            f"expected an environment of Gymnasium, stable-baselines3 or ldm.make, got "
            f"{type(env).__name__}"
        )
    try:
        observation, action = (spaces.describe(space) for space in parts[:2])
    except spaces.UnsupportedSpace as error:
        raise LdmError(str(error)) from None
    return Wrapped(observation, action, parts[2], shown, name)


def entry_of(environments: dict[str, dict], env: Wrapped, environment: str | None) -> str:
    """The id under which a model knows `env`: `environment`, else the one of its name and spaces.

    Raises LdmError where the model does not know it, or has other spaces under that id.
    """
    named = [id for id in environments if env.name in (id, id.partition("/")[2])]
    found = [environment] if environment else [id for id in named if fits(environments[id], env)]
    if len(found) != 1:
        raise LdmError(
            f'the model knows {len(found) or "no"} environments "{env.name}" with these spaces; '
            f"say which it is: agent(env, environment=ID), one of {', '.join(environments)}"
        )
    if found[0] not in environments:
        raise LdmError(
            f'the model does not know "{found[0]}"{nearest(found[0], environments)}; it knows '
            f"{len(environments)}: {', '.join(environments)}"
        )
    if not fits(environments[found[0]], env):
        raise LdmError(f'the model knows "{found[0]}" with other spaces than this environment has')
    return found[0]


def fits(entry: dict, env: Wrapped) -> bool:
    """Whether the spaces of a manifest entry have the leaves that `env` has."""
    form = lambda tree: [(x.path, x.kind, x.shape, x.counts, x.start) for x in spaces.leaves(tree)]
    pairs = ((entry["observation"], env.observation), (entry["action"], env.action))
    return all(form(spaces.from_json(known)) == form(tree) for known, tree in pairs)


def row(tree: spaces.Tree, batch: Any, i: int) -> Any:
    """Stream i's sample of a batch in which every leaf has a first axis of streams."""
    if isinstance(tree, dict):
        return {key: row(sub, batch[key], i) for key, sub in tree.items()}
    if isinstance(tree, list):
        return [row(sub, part, i) for sub, part in zip(tree, batch, strict=True)]
    return batch[i]


def stacked(tree: spaces.Tree, samples: list) -> Any:
    """Samples as a batch in which every leaf has a first axis of streams."""
    if isinstance(tree, dict):
        return {key: stacked(sub, [s[key] for s in samples]) for key, sub in tree.items()}
    if isinstance(tree, list):
        return tuple(stacked(sub, [s[k] for s in samples]) for k, sub in enumerate(tree))
    return np.array(samples)
