"""The last steps of every stream as they came from the environment, and a choice among tokens."""

from collections.abc import Sequence

import numpy as np

from ldm.data.batch import Tokens
from ldm.envs.interface import Arrays, TimeStep

Step = tuple[Arrays, np.ndarray, np.ndarray, np.ndarray]  # action, reward, terminated, truncated


class Memory:
    """A ring a stream of `steps` steps and the present observation.

    Rows are R streams; R × (steps + 1) in what `recall` gives, stream after stream, oldest first.
    """

    def __init__(self, num_envs: int, steps: int):
        self.steps = steps
        self._rows = np.arange(num_envs)
        self._now_W = np.zeros(num_envs, np.int64)  # place of the present observation
        self._observation: Arrays = []
        self._step: Arrays = []  # reward, terminated, truncated, then the leaves of the action

    def add_step(self, timestep: TimeStep, where_W: np.ndarray) -> None:
        """The step that led to `timestep` joins the observation before it in `where_W`."""
        arrays = (
            timestep.reward.astype(np.float32),
            timestep.terminated,
            timestep.truncated,
            *timestep.action,
        )
        self._step = self._step or self._rings(arrays)
        rows = self._rows[where_W]
        for ring, array in zip(self._step, arrays):
            ring[rows, self._now_W[rows]] = array[rows]
        self._now_W[rows] = (self._now_W[rows] + 1) % (self.steps + 1)

    def add_observation(self, observation: Arrays) -> None:
        """What every stream sees now."""
        self._observation = self._observation or self._rings(observation)
        for ring, array in zip(self._observation, observation):
            ring[self._rows, self._now_W] = array

    def last_step(self) -> Step:
        """The step that led to the present observation of every stream."""
        place_W = (self._now_W - 1) % (self.steps + 1)
        reward, terminated, truncated, *action = (r[self._rows, place_W] for r in self._step)
        return action, reward, terminated, truncated

    def recall(self, rows) -> tuple[Arrays, Step]:
        """Observations and steps of some streams; each stream's last step is meaningless."""
        places = (self._now_W[rows, None] + 1 + np.arange(self.steps + 1)) % (self.steps + 1)
        index = self._rows[rows, None], places
        flat = lambda ring: ring[index].reshape(-1, *ring.shape[2:])
        reward, terminated, truncated, *action = map(flat, self._step)
        return list(map(flat, self._observation)), (action, reward, terminated, truncated)

    def _rings(self, arrays) -> Arrays:
        return [np.zeros((len(a), self.steps + 1, *a.shape[1:]), a.dtype) for a in arrays]


def select(tokens: Tokens[np.ndarray], keep_N: np.ndarray) -> Tokens[np.ndarray]:
    """The tokens where `keep_N`, in order; arrays are numpy."""
    counts_N = np.diff(tokens.bag_offsets_N1)
    offsets = np.zeros(np.count_nonzero(keep_N) + 1, np.int32)
    np.cumsum(counts_N[keep_N], out=offsets[1:])
    kept_B = np.repeat(keep_N, counts_N)
    kept_P = keep_N[tokens.patch_tokens_P]
    place_N = np.cumsum(keep_N, dtype=np.int32) - 1
    return Tokens(
        kinds_N=tokens.kinds_N[keep_N],
        bag_ids_B=tokens.bag_ids_B[kept_B],
        bag_weights_B=tokens.bag_weights_B[kept_B],
        bag_offsets_N1=offsets,
        features_NG=tokens.features_NG[keep_N],
        patches_PX=tokens.patches_PX[kept_P],
        patch_tokens_P=place_N[tokens.patch_tokens_P[kept_P]],
    )


def joined(parts: Sequence[Tokens[np.ndarray]]) -> Tokens[np.ndarray]:
    """The tokens of several parts, one after another; arrays are numpy."""
    if len(parts) == 1:
        return parts[0]
    entries = np.cumsum([0] + [len(part.bag_ids_B) for part in parts])
    tokens = np.cumsum([0] + [len(part.kinds_N) for part in parts])
    offsets = [part.bag_offsets_N1[1:] + e for part, e in zip(parts, entries)]
    patches = [part.patch_tokens_P + t for part, t in zip(parts, tokens)]
    side_by_side = lambda name: np.concatenate([getattr(part, name) for part in parts])
    return Tokens(
        kinds_N=side_by_side("kinds_N"),
        bag_ids_B=side_by_side("bag_ids_B"),
        bag_weights_B=side_by_side("bag_weights_B"),
        bag_offsets_N1=np.concatenate([[0], *offsets], dtype=np.int32, casting="unsafe"),
        features_NG=side_by_side("features_NG"),
        patches_PX=side_by_side("patches_PX"),
        patch_tokens_P=np.concatenate(patches, dtype=np.int32, casting="unsafe"),
    )
