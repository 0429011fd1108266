"""The model in a loop that is not ours: Gymnasium's, a vector environment's, stable-baselines3's.

    agent = ldm.load("runs/quickstart/train/model").agent(env)
    obs, _ = env.reset(seed=0)
    while True:
        obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
        agent.observe(reward, terminated, truncated)

The model sees what each step paid and how episodes end, so `observe` follows every step; after an
end the next `act` begins an episode. `predict` and `callback` are the same for stable-baselines3.
"""

from typing import Any

import numpy as np

from ldm.envs import legal, spaces
from ldm.envs.interface import Arrays, TimeStep
from ldm.errors import LdmError
from ldm.policy.actor import ModelActor
from ldm.policy.wrapped import Wrapped


class Agent:
    """Acts in one environment, or in the streams of a vector environment; made by `Policy.agent`.

    Where `env.final_shown`, the observation after an end is the episode's last, the next step's
    being the first of a new one (Gymnasium's NEXT_STEP autoreset, its wrapper Autoreset); else it
    is already the next episode's.
    """

    def __init__(self, actor: ModelActor, env: Wrapped):
        if actor.spans_episodes and not env.final_shown and env.streams > 1:
            raise LdmError(
                "this environment's hidden state spans episodes, so the model must see how each "
                "ends: make the vector environment with AutoresetMode.NEXT_STEP"
            )
        self.actor, self.env = actor, env
        self._leaves = spaces.leaves(env.action)
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next `act` begins an episode in every stream."""
        n = self.env.streams
        self._started: np.ndarray = np.ones(n, bool)
        self._ended: np.ndarray = np.zeros(n, bool)
        self._reward: np.ndarray = np.zeros(n)
        self._terminated: np.ndarray = np.zeros(n, bool)
        self._truncated: np.ndarray = np.zeros(n, bool)
        self._last = [legal.resting(leaf, n) for leaf in self._leaves]
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
        arrays = self.env.flat(observation)
        self._close_episodes()
        self._seen = arrays
        chosen = self.actor.act(self._timestep(arrays))
        self._last = [legal.executable(leaf, x) for leaf, x in zip(self._leaves, chosen)]
        self._observed = False
        return self.env.native(self._last)

    def observe(self, reward: Any, terminated: Any, truncated: Any) -> None:
        """What the last step paid and whether it ended the episode: numbers, or arrays (N,).

        Raises LdmError where no action came before it.
        """
        n = self.env.streams
        if self._observed:
            raise LdmError(
                "agent.observe was called without agent.act before it: it follows each action "
                "once; where several steps repeat one, give the sum of what they paid"
            )
        self._reward = np.array(reward, np.float64).reshape(n)
        self._terminated = np.array(terminated, bool).reshape(n)
        self._truncated = np.array(truncated, bool).reshape(n) & ~self._terminated
        self._started = self._ended & self.env.final_shown
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
            self.observe(*np.zeros((3, self.env.streams)))
        if episode_start is not None:
            self._ended |= np.array(episode_start, bool).reshape(self.env.streams)
        return self.act(observation), None

    def callback(self, local: dict, _: dict) -> None:
        """For `evaluate_policy`: its local variables hold what the last step paid and ended, in all
        streams; it calls once for each of them."""
        if self._observed:
            return
        done = np.array(local["dones"], bool)
        cut = np.array([info.get("TimeLimit.truncated", False) for info in local["infos"]], bool)
        self.observe(local["rewards"], done & ~cut, done & cut)

    def _close_episodes(self) -> None:
        """Where the observation is already the next episode's: it starts there.

        A model whose memory spans episodes is told of the end first. The final observation is not
        there to be shown; what stands in for it is forgotten at once.
        """
        if self.env.final_shown or not self._ended.any():
            return
        if self.actor.spans_episodes and self._seen is not None:
            self.actor.read(self._timestep(self._seen))
        self._started = self._ended
        self._reward = np.where(self._ended, 0.0, self._reward)
        self._terminated, self._truncated, self._ended = np.zeros((3, self.env.streams), bool)

    def _timestep(self, observation: Arrays) -> TimeStep:
        return TimeStep(
            observation, self._last, self._reward, self._terminated, self._truncated, self._started
        )
