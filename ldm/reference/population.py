"""Augmented random search (Mania et al. 2018) whose members play side by side, one a stream.

sb3-contrib's ARS decides where to go; it plays one member after another, which leaves a vector
environment idle. Here a batch of matrix products acts for all of them at once. Members play short
stretches first, which say more of a direction for the same steps (docs/decisions/0021).
"""

from typing import Any

import numpy as np
import torch
from sb3_contrib import ARS
from torch.nn.utils import parameters_to_vector

from ldm.reference.sb3_env import Normalised

# Steps of a member at first: at least, and of the longest episode a quarter, so that the third rung
# plays all of it and has returns for a learning curve.
FIRST, SHARE = 50, 4


class PopulationARS(ARS):
    """Its population is as large as its environment has streams; one episode scores a member, or
    its first `limit` steps: a quarter of the longest one at first, twice as many in every call of
    `learn` and after a generation whose members all earned the same.

    Continuous actions are clipped to [-1, 1]; of a discrete one the class of the largest score is
    taken. Hidden layers have tanh between them.
    """

    weights: Any  # a tensor; None only while the base class builds

    def __init__(self, env: Normalised, horizon: int, **arguments):
        self.source = env
        arguments["policy_kwargs"]["activation_fn"] = torch.nn.Tanh
        self.horizon, self.limit = horizon, max(FIRST, -(-horizon // SHARE))
        super().__init__("MlpPolicy", env, n_delta=env.num_envs // 2, **arguments)

    def learn(self, *arguments, **keywords):
        if self.num_timesteps:
            self.play_longer()
        try:
            return super().learn(*arguments, **keywords)
        except _Over:
            return self

    def play_longer(self) -> None:
        """Twice the steps of a member; not for ever, where all earn the same for ever."""
        self.limit = max(self.limit, min(2 * self.limit, self.horizon))

    def set_parameters(self, load_path_or_dict, exact_match=True, device="auto"):
        parameters = dict(load_path_or_dict)
        self.limit = int(parameters.pop("limit"))
        super().set_parameters(parameters, exact_match, device)
        self.weights = parameters_to_vector(self.policy.parameters()).detach()

    def get_parameters(self):
        return super().get_parameters() | {"limit": torch.tensor(self.limit)}

    def evaluate_candidates(self, candidate_weights, callback, async_eval):
        """What every member earned, float32 (members,). Raises _Over where the callback ends
        the search: what the members have played by then is lost."""
        env, layers = self.source, self._members(candidate_weights)
        total, running = np.zeros(self.pop_size), np.ones(self.pop_size, bool)
        observation: Any = env.reset()
        steps = 0
        while running.any() and steps < self.limit:
            observation, _, done, _ = env.step(self._act(layers, observation))
            total += np.where(running, env.get_original_reward(), 0.0)
            running &= ~done
            steps += 1
            self.num_timesteps += self.pop_size
            if not callback.on_step():
                raise _Over
        if (total == total[0]).all():
            self.play_longer()
        return torch.from_numpy(total.astype(np.float32))

    def _members(self, weights: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(weight, bias) of every linear layer, each with the members in front."""
        parts, begin = [], 0
        for parameter in self.policy.parameters():
            end = begin + parameter.numel()
            parts.append(weights[:, begin:end].reshape(len(weights), *parameter.shape))
            begin = end
        return list(zip(parts[::2], parts[1::2]))

    def _act(self, layers, observation) -> np.ndarray:
        x = torch.from_numpy(observation.astype(np.float32))[..., None]
        for index, (weight, bias) in enumerate(layers):
            x = torch.baddbmm(bias[..., None], weight, x if index == 0 else torch.tanh(x))
        output = x[..., 0].numpy()
        if hasattr(self.action_space, "n"):
            return output.argmax(1)
        return output.clip(-1, 1)


class _Over(Exception):
    """The callback said so."""
