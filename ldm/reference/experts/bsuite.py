"""bsuite: each experiment has a known best policy; hidden wiring (which arm pays, where down is)
is drawn once from a published seed and is the same in every episode."""

import numpy as np

from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, Markov, expert, memory


def number(spec: EnvSpec) -> int:
    """Which of the experiment's settings."""
    return int(spec.id.rpartition("-")[2])


def constant(id: str, action: int) -> Markov:
    return Markov(id, lambda observation: [np.full(len(observation[0]), action, np.int32)])


@expert("bsuite/bandit-*", "bsuite/bandit_noise-*")
def best_arm(spec: EnvSpec) -> Markov:
    """Eleven arms pay 0, 0.1 ... 1, shuffled by the setting's seed; noise has mean zero."""
    seed = number(spec) % 4 if "noise" in spec.id else number(spec)
    order = np.random.RandomState(seed).choice(range(11), size=11, replace=False)
    return constant("exact/bsuite-bandit@1", int(order.argmax()))


@expert("bsuite/discounting_chain-*")
def best_delay(spec: EnvSpec) -> Markov:
    """The first action chooses when the one reward comes; one of the five is 1.1 instead of 1."""
    return constant("exact/bsuite-discounting-chain@1", number(spec) % 5)


@expert("bsuite/deep_sea-*", "bsuite/deep_sea_stochastic-*")
def dive(spec: EnvSpec) -> Markov:
    """Right in every row: which action that is in which cell is drawn from seed 42."""
    size = 10 + 2 * number(spec)
    right = np.random.RandomState(42).binomial(1, 0.5, [size, size]).astype(np.float32)
    return Markov(
        "exact/bsuite-deep-sea@1",
        lambda observation: [(observation[0] * right).sum((1, 2)).astype(np.int32)],
    )


@expert("bsuite/memory_len-*", "bsuite/memory_size-*")
def recall(spec: EnvSpec) -> Actor:
    """The bits show as ±1 in the first observation, the number of the one asked for in the last."""

    class Recall:
        id, bits = "exact/bsuite-memory@1", NOTHING

        def act(self, timestep: TimeStep) -> Arrays:
            row = timestep.observation[0][:, 0]
            self.bits = memory(timestep, self.bits, (row.shape[1] - 2,))
            shown = (row[:, 2:] != 0).any(1, keepdims=True)
            self.bits[:] = np.where(shown, row[:, 2:], self.bits)
            asked = row[:, 1:2].astype(np.int64)
            return [(np.take_along_axis(self.bits, asked, 1)[:, 0] > 0).astype(np.int32)]

    return Recall()


@expert("bsuite/umbrella_length-*", "bsuite/umbrella_distract-*")
def umbrella(spec: EnvSpec) -> Markov:
    """Take it if the forecast says so; nothing else can be decided."""
    return Markov(
        "exact/bsuite-umbrella@1", lambda observation: [observation[0][:, 0, 0].astype(np.int32)]
    )


@expert("bsuite/cartpole_noise-*", "bsuite/cartpole_scale-*")
def balance(spec: EnvSpec) -> Markov:
    """Push to the side that linear feedback of angle, its velocity and the cart's says."""
    gains = np.array([0.15, 0.45, 1.0, 0.0, 0.35])  # x / 3, its velocity / 3, sine, cosine, ω

    def act(observation: Arrays) -> Arrays:
        return [np.where(observation[0][:, 0, :5] @ gains > 0, 2, 0).astype(np.int32)]

    return Markov("scripted/bsuite-cartpole@1", act)


@expert("bsuite/cartpole_swingup-*")
def swing_up(spec: EnvSpec) -> Markov:
    """Pumps energy while the pole is low, keeping the cart central, then holds it by linear
    feedback; no push (each costs 0.1) inside dead bands."""

    def act(observation: Arrays) -> Arrays:
        x, speed, sine, cosine, spin = observation[0][:, 0, :5].T.astype(np.float64)
        x, speed, angle = 3 * x, 3 * speed, np.arctan2(sine, cosine)
        feedback = angle + 0.36 * spin + 0.045 * x + 0.12 * speed
        hold = np.where(np.abs(feedback) > 0.035, np.sign(feedback), 0)
        energy = spin**2 / 2 + 14.7 * (cosine - 1)  # above the upright rest; 14.7 = g / (4 l / 3)
        pump = np.sign(energy) * np.sign(spin * cosine) * (np.abs(energy) > 0.35)
        push = pump - 0.54 * x - 0.3 * speed
        swing = np.where(np.abs(push) > 0.2, np.sign(push), 0)
        return [(np.where(cosine > 0.49, hold, swing) + 1).astype(np.int32)]

    return Markov("scripted/bsuite-swing-up@1", act)


@expert("bsuite/mountain_car_noise-*", "bsuite/mountain_car_scale-*")
def climb(spec: EnvSpec) -> Markov:
    """As on the original: along the velocity, turning round a little early far up on the left."""

    def act(observation: Arrays) -> Arrays:
        position, velocity = observation[0][:, 0, :2].T
        offset = position + 0.5
        right = velocity > -0.0017 + 0.0288 * offset - 0.0289 * offset**2
        return [np.where(right, 2, 0).astype(np.int32)]

    return Markov("scripted/bsuite-mountain-car@1", act)
