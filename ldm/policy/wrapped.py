"""An environment that is not ours: its spaces, and its samples as flat arrays and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ldm.envs import spaces
from ldm.envs.interface import Arrays
from ldm.envs.padding import Pad, Padding
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError, nearest
from ldm.parallel.progress import console

# Wrappers that leave what is seen, done and paid as it was.
HARMLESS = {
    "Autoreset", "DictInfoToList", "HumanRendering", "OrderEnforcing", "PassiveEnvChecker",
    "RecordEpisodeStatistics", "RecordVideo", "RenderCollection", "TimeLimit", "VecCheckNan",
    "VecMonitor", "VecVideoRecorder",
}  # fmt: skip


@dataclass(frozen=True)
class Wrapped:
    """What kind of environment an agent was asked for: trees of one stream's spaces, num_envs (None
    for a single one), whether final observations are shown, and the library's name for it."""

    observation: spaces.Tree
    action: spaces.Tree
    num_envs: int | None
    final_shown: bool
    name: str
    pads: tuple[Pad, Pad]  # of an observation and an action; nothing where all sizes are fixed

    @property
    def streams(self) -> int:
        return 1 if self.num_envs is None else self.num_envs

    def flat(self, observation: Any) -> Arrays:
        """An observation as the environment gives it, one array (streams, *shape) a leaf.

        Raises LdmError where it does not fit the space.
        """
        try:
            picked = (
                [self.pads[0].there(observation)]
                if self.num_envs is None
                else [row(self.observation, observation, i) for i in range(self.num_envs)]
            )
            rows = [spaces.flatten(self.observation, sample) for sample in picked]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise LdmError(
                f"the observation does not fit the environment's space: {error}"
            ) from None
        return [np.stack(leaf) for leaf in zip(*rows)]

    def native(self, arrays: Arrays) -> Any:
        """Actions, executable, as the environment takes them."""
        if self.num_envs is None:
            sample = spaces.unflatten(self.action, [array[0] for array in arrays])
            return self.pads[1].back(sample)
        samples = [
            spaces.unflatten(self.action, [array[i] for array in arrays])
            for i in range(self.num_envs)
        ]
        return stacked(self.action, samples)


def wrapped(env: Any) -> Wrapped:
    """Gymnasium's Env and VectorEnv, stable-baselines3's VecEnv, and what `ldm.make` makes.

    Raises LdmError for anything else, and for a space that has no flat form.
    """
    spec = getattr(env, "spec", None)
    if isinstance(spec, EnvSpec):
        plain = (Pad(None), Pad(None))
        return Wrapped(env.observation, env.action, env.num_envs, True, spec.id, plain)
    name = str(getattr(spec, "id", ""))
    if hasattr(env, "single_observation_space"):
        mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode", "NEXT_STEP")
        parts = env.single_observation_space, env.single_action_space, env.num_envs
        shown = "NEXT" in str(mode).upper()  # else the user, or the same step, has begun anew
        inner = getattr(env, "unwrapped", env)
        if not name and hasattr(inner, "get_attr"):  # a vector put together by hand
            name = str(getattr(inner.get_attr("spec")[0], "id", ""))
    elif hasattr(env, "step_async"):
        parts, shown = (env.observation_space, env.action_space, env.num_envs), False
        name = str(getattr(env.get_attr("spec")[0], "id", ""))
    elif hasattr(env, "observation_space") and hasattr(env, "step"):
        shown = "Autoreset" in [type(layer).__name__ for layer in _layers(env)]
        parts = env.observation_space, env.action_space, None
    else:
        raise LdmError(
            f"expected an environment of Gymnasium, stable-baselines3 or ldm.make, got "
            f"{type(env).__name__}"
        )
    padding = Padding()
    pads = padding.of(parts[0], "observation"), padding.of(parts[1], "action")
    if padding.lines and parts[2] is not None:
        raise LdmError(
            f"{'; '.join(padding.lines)}: expected a single environment where a space has no fixed "
            "size, got a vector of them"
        )
    try:
        observation, action = (spaces.describe(pad.space) for pad in pads)
    except spaces.UnsupportedSpace as error:
        raise LdmError(str(error)) from None
    for line in padding.lines:
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    return Wrapped(observation, action, parts[2], shown, name, pads)


def _layers(env: Any) -> list[Any]:
    """`env` and what it wraps, outermost first."""
    inner = getattr(env, "venv" if hasattr(env, "step_async") else "env", None)
    return [env, *(_layers(inner) if hasattr(inner, "step") else [])]


def changed_by(env: Any) -> list[str]:
    """The wrappers of the user's, around an environment and not registered with it, that change
    what is seen, done or paid."""
    if hasattr(env, "single_observation_space") or hasattr(env, "step_async"):
        *outer, _ = [type(layer).__name__ for layer in _layers(env)]
    else:
        outer = [w.name for w in getattr(getattr(env, "spec", None), "additional_wrappers", ())]
    return [name for name in outer if name not in HARMLESS]


def known_as(environments: dict[str, dict], env: Wrapped, environment: str | None) -> str:
    """The id under which a model knows `env`: `environment`, else the one of its name and spaces;
    "" where it knows none.

    Raises LdmError where it does not know `environment`, or with other spaces, or knows several.
    """
    if environment is None:
        found = [
            id for id, entry in environments.items() if env.name in names(id) and fits(entry, env)
        ]
        if len(found) > 1:
            raise LdmError(
                f'the model knows {len(found)} environments "{env.name}" with these spaces; say '
                f"which it is: agent(env, environment=ID), one of {', '.join(found)}"
            )
        return found[0] if found else ""
    if environment not in environments:
        raise LdmError(
            f'the model does not know "{environment}"{nearest(environment, environments)}; it '
            f"knows {len(environments)}: {', '.join(environments)}; without `environment` random "
            "steps make it known"
        )
    if not fits(environments[environment], env):
        raise LdmError(
            f'the model knows "{environment}" with other spaces than this environment has'
        )
    return environment


def names(id: str) -> set[str]:
    """What an environment of that id may be called by its library."""
    return {id, id.partition("/")[2], id.rpartition(":")[2]} - {""}


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
