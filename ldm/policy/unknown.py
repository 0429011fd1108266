"""An environment that the model was not trained on, made known by random steps in it, then frozen.

The rule is that of evaluation (ldm/data/explored.py); the steps are taken in the user's own object,
with its wrappers, which is reset before them and has to be reset after.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ldm.data import explored
from ldm.envs import legal, spaces
from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.parallel.progress import console
from ldm.policy.wrapped import Wrapped
from ldm.seeds import seed_for

Moment = tuple[Arrays, np.ndarray]  # observation, (streams, *shape) a leaf; reward (streams,)


def explore(env: Any, form: Wrapped, seed: int, steps: int, why: str) -> dict:
    """The entry of `env` from `steps` random steps of all its streams together, and a line that
    says so. Raises LdmError where it shows or pays what is no finite number of its spaces."""
    name = form.name or type(env).__name__
    seed = seed_for("explore", seed, name)
    seen: list[Arrays] = []
    rewards = []
    for count, (observation, reward) in enumerate(_moments(env, form, seed, steps)):
        for leaf, array in zip(spaces.leaves(form.observation), observation):
            if wrong := legal.violation(leaf, array):
                raise LdmError(f"{name}: observation of random step {count}: {wrong}")
        if not np.isfinite(reward).all():
            raise LdmError(f"{name}: the reward of random step {count} is NaN or infinite")
        seen.append(observation)
        rewards.append(reward)
    console.print(
        f"{name}: {why}: {(len(seen) - 1) * form.streams:,} random steps in it say what it is like,"
        " and no more is learnt of it; reset it before the agent acts",
        style="yellow", markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    fields = {"id": name, "hidden_state_spans_episodes": False}
    paid = np.concatenate(rewards[1:])
    return explored.entry(fields, form.observation, form.action, seen, paid)


def _moments(env: Any, form: Wrapped, seed: int, steps: int) -> Iterator[Moment]:
    """The first observation, and what each random step showed and paid."""
    rng, leaves = np.random.default_rng(seed), spaces.leaves(form.action)
    step = _stepper(env, form, seed)
    yield step(None)
    for _ in range(-(-steps // form.streams)):
        yield step([legal.sample(leaf, form.streams, rng) for leaf in leaves])


def _stepper(env: Any, form: Wrapped, seed: int):
    """A function of actions, None for a first reset, that gives the next moment."""
    if isinstance(getattr(env, "spec", None), EnvSpec):

        def ours(action: Arrays | None) -> Moment:
            timestep = env.reset() if action is None else env.step(action)
            return timestep.observation, timestep.reward

        return ours
    ended = False

    def theirs(action: Arrays | None) -> Moment:
        nonlocal ended
        if action is None:
            if hasattr(env, "step_async") and hasattr(env, "seed"):  # stable-baselines3's VecEnv
                env.seed(seed)
                return form.flat(env.reset()), np.zeros(form.streams)
            return form.flat(env.reset(seed=seed)[0]), np.zeros(form.streams)
        if ended:  # of a single environment, which does not begin anew by itself
            env.reset()
        observation, reward, *flags = env.step(form.native(action))
        ended = form.num_envs is None and bool(flags[0] or flags[1])
        return form.flat(observation), np.array(reward, np.float64).reshape(form.streams)

    return theirs
