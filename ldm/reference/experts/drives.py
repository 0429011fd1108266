"""Every electric drive of the library, by one-step prediction with an identified model.

A few seconds of random play give, by least squares, how the currents c of one step follow from
those of the last: c' = c + W · (c, ω c, ω, 1) + B · v, where v are the voltages in the frame of the
currents (the windings' phases turned by the rotor's angle), and the torque as a quadratic form of
the currents. Exact for all drives but those whose rotor currents are hidden (SCIM), where it is an
approximation. The law picks the voltages whose currents in the next step come nearest to their
references; for torque, to the smallest currents that give it; for speed, to those of a torque
proportional to the error.
"""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

STEPS = 3000  # of random play
FOUR_QUADRANTS = np.array([0.0, 1.0, -1.0, 0.0])  # voltage of the switches of one winding
BRIDGE = np.array([[1.0 if k >> (2 - phase) & 1 else -1.0 for phase in range(3)] for k in range(8)])
PHASES = -np.arange(3) * 2 * np.pi / 3


class Drive:
    """What the law needs of a drive: where things stand, how actions become voltages."""

    def __init__(self, spec: EnvSpec):
        from ldm.envs.adapters.motors import build

        self.env = build(spec.make, "train", **spec.options)
        plain = self.env.unwrapped
        system = plain.physical_system
        self.names = list(system.state_names)
        self.column = {name: i for i, name in enumerate(self.names)}
        self.targets = list(plain.reference_generator.reference_names)
        self.poles = system.electrical_motor.motor_parameter.get("p", 1)
        self.tau, self.top = system.tau, float(system.limits[self.column["omega"]])
        self.turns = "epsilon" in self.column
        vector = [f"i_{axis}" for axis in ("sd", "sq", "sx", "sy", "rd", "rq", "e")]
        direct = [n for n in ("i", "i_a", "i_e") if not self.turns]
        self.currents = [self.column[n] for n in (direct or vector) if n in self.column]
        self.choices = self._choices(spec.make, plain.action_space)

    def _choices(self, make: str, space) -> np.ndarray | None:
        """The voltages (choices, windings' phases) of every choice, or None where continuous."""
        if make.startswith("Cont"):
            return None
        counts = np.atleast_1d(space.nvec if hasattr(space, "nvec") else space.n)
        parts = [BRIDGE if count == 8 else FOUR_QUADRANTS[:, None] for count in counts]
        grid = np.stack(np.meshgrid(*(range(c) for c in counts), indexing="ij"), -1)
        self.indices = grid.reshape(-1, len(counts))
        return np.concatenate([p[self.indices[:, i]] for i, p in enumerate(parts)], 1)

    def turned(self, state: np.ndarray, phases: int) -> np.ndarray:
        """Matrices (N, frame, phases) from phase voltages to the frame of the currents: every three
        phases are turned by the angle, and back by it too (harmonics go that way); others stay."""
        windings = phases // 3 if self.turns else 0
        result = np.zeros((len(state), phases + windings, phases))
        for winding in range(windings):
            for row, sign in ((0, 1), (2, -1)):
                offset = sign * self._angle(state)[:, None] + PHASES
                axes = np.stack([np.cos(offset), -np.sin(offset)], 1)
                first = 4 * winding + row
                result[:, first : first + 2, 3 * winding : 3 * winding + 3] = axes
        for phase in range(3 * windings, phases):
            result[:, phase + windings, phase] = 1
        return result

    def _angle(self, state: np.ndarray) -> np.ndarray:
        """Of the frame of the currents, half a step ahead."""
        speed = self.poles * self.top * state[:, self.column["omega"]]
        angle = np.pi * state[:, self.column["epsilon"]]
        if (
            "i_sa" in self.column
        ):  # an induction machine's frame is the flux's: the currents show it
            a, b, c, d, q = (state[:, self.column[f"i_s{axis}"]] for axis in "abcdq")
            still = np.arctan2((b - c) / 3**0.5, (2 * a - b - c) / 3)
            angle = np.where(np.hypot(d, q) > 1e-3, still - np.arctan2(q, d), angle)
        return angle + speed * self.tau / 2

    def features(self, state: np.ndarray) -> np.ndarray:
        c, omega = state[:, self.currents], state[:, self.column["omega"], None]
        return np.concatenate([c, omega * c, omega, np.ones_like(omega)], 1)


class Model:
    """The identified drive."""

    def __init__(self, drive: Drive):
        self.drive = drive
        before, voltage, after = self._play()
        self.phases = voltage.shape[1]
        turned = np.einsum("nfp,np->nf", drive.turned(before, self.phases), voltage)
        inputs = np.concatenate([drive.features(before), turned], 1)
        change = after[:, drive.currents] - before[:, drive.currents]
        weights = np.linalg.lstsq(inputs, change, rcond=None)[0].T
        known = inputs.shape[1] - turned.shape[1]
        self.drift, self.effect = weights[:, :known], weights[:, known:]
        c = after[:, drive.currents]
        self.pairs = np.triu_indices(c.shape[1])
        torque = after[:, drive.column["torque"]]
        self.quadratic = np.linalg.lstsq(self._squares(c), torque, rcond=None)[0]
        self.limit = np.quantile(np.abs(torque), 0.99)
        self.ways = {sign: self._way(sign) for sign in (1, -1)}

    def _play(self):
        env, drive = self.drive.env, self.drive
        draws = np.random.default_rng(0)
        rows, (observation, _) = [], env.reset(seed=0)
        held = None
        for step in range(STEPS):
            if step % 4 == 0 or held is None:
                if drive.choices is None:
                    held = draws.uniform(-1, 1, env.action_space.shape)
                    voltage = held
                else:
                    pick = draws.integers(len(drive.choices))
                    held, voltage = drive.indices[pick], drive.choices[pick]
                    held = int(held[0]) if len(held) == 1 else held
            state = observation[0]
            observation, _, terminated, truncated, _ = env.step(held)
            if terminated or truncated:
                observation, _ = env.reset()
                held = None
            else:
                rows.append((state, voltage, observation[0]))
        return tuple(np.array(part, np.float64) for part in zip(*rows))

    def _squares(self, c: np.ndarray) -> np.ndarray:
        return np.concatenate([c, c[:, self.pairs[0]] * c[:, self.pairs[1]]], 1)

    def _way(self, sign: int) -> np.ndarray:
        """The direction of currents that gives most torque of this sign per current."""
        draws = np.random.default_rng(1).standard_normal((4000, len(self.drive.currents)))
        draws /= np.linalg.norm(draws, axis=1, keepdims=True)
        torque = sign * (self._squares(0.3 * draws) @ self.quadratic)
        return draws[torque.argmax()]

    def currents_for(self, torque: np.ndarray) -> np.ndarray:
        """Currents (N, c) that give `torque` (N,) along the best direction of its sign."""
        result = np.zeros((len(torque), len(self.drive.currents)))
        size = np.linspace(0, 1, 201)
        for sign, way in self.ways.items():
            given = sign * (self._squares(size[:, None] * way) @ self.quadratic)
            given = np.maximum.accumulate(given)
            enough = np.searchsorted(given, sign * torque)
            rows = (sign * torque > 0) & (given[-1] > 0)  # no way at all: no current
            result[rows] = size[np.minimum(enough, given.argmax())][rows, None] * way
        return result


@expert("motors/*")
def predictive(spec: EnvSpec) -> Markov:
    drive = Drive(spec)
    model = Model(drive)
    controlled = [drive.column[name] for name in drive.targets]
    weight: np.ndarray = np.ones(len(drive.currents))
    if set(controlled) <= set(drive.currents):
        weight = np.isin(drive.currents, controlled) + 1e-3

    def aim(state: np.ndarray, reference: np.ndarray) -> np.ndarray:
        if drive.targets == ["omega"]:
            error = reference[:, 0] - state[:, drive.column["omega"]]
            return model.currents_for(np.clip(30 * error, -1, 1) * model.limit)
        if drive.targets == ["torque"]:
            return model.currents_for(reference[:, 0])
        wanted = np.zeros((len(state), len(drive.currents)))
        for i, column in enumerate(controlled):
            wanted[:, drive.currents.index(column)] = reference[:, i]
        return wanted

    def law(observation: Arrays) -> Arrays:
        state, reference = (part.astype(np.float64) for part in observation)
        free = state[:, drive.currents] + drive.features(state) @ model.drift.T
        effect = model.effect @ drive.turned(state, model.phases)  # (N, currents, phases)
        missing = aim(state, reference) - free
        if drive.choices is None:
            scaled = effect * weight[:, None]
            square = scaled.transpose(0, 2, 1) @ scaled
            ridge = 1e-4 * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(model.phases)
            right = scaled.transpose(0, 2, 1) @ (weight * missing)[..., None]
            voltage = np.linalg.solve(square + ridge, right)[..., 0]
            return [np.clip(voltage, -1, 1).astype(np.float32)]
        miss = missing[:, None] - np.einsum("ncp,kp->nkc", effect, drive.choices)
        best = ((weight * miss) ** 2).sum(-1).argmin(1)
        chosen = drive.indices[best].astype(np.int32)
        return [chosen if chosen.shape[1] > 1 else chosen[:, 0]]

    return Markov("scripted/predictive-drive@1", law)
