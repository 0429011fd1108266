"""Linear plants and partial differential equations of controlgym, with a linear-quadratic-Gaussian
controller as a hosted expert.

An episode lasts as long as the catalogue says; a cost beyond `reward_limit` ends it, which the
library calls a truncation. What step() shows was measured before the action took effect.
"""

import importlib

import gymnasium
import numpy as np
from bare_package import bare
from scipy.linalg import solve_discrete_are

EPSILON = 1e-4  # of the differences that linearise an equation
FLOOR_PLANT, FLOOR_SENSOR = 1e-8, 1e-6  # covariances without which the equations have no solution
SPREAD = 1.0  # covariance of where an equation begins, around nothing


def build(make: str, split: str, **options):
    """`make`: the library's name ("ac1", "burgers"). `options`: its arguments."""
    bare("controlgym")  # it would import its learners, and torch with them
    library = importlib.import_module("controlgym.envs.registrations")
    return Plant(library.make(make, n_steps=10**9, **options))


class Plant(gymnasium.Env):
    """The library's environment; `seen` and `done` are the last observation and action."""

    def __init__(self, env):
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.gains: Gains | None = None

    def reset(self, *, seed=None, options=None):
        self.seen, _ = self.env.reset(seed=seed)
        self.done = None
        return self.seen, {}

    def step(self, action):
        self.done = np.asarray(action, np.float64)
        self.seen, reward, _, beyond, _ = self.env.step(self.done)
        return self.seen, reward, beyond, False, {}


class Gains:
    """Matrices of a plant and of its controller; states n, actions m, observations p.

    The regulator and the stationary filter that predicts the state from what was seen, each of its
    own Riccati equation (Anderson and Moore 1990, Optimal Control, chapters 2 and 7).
    """

    def __init__(self, env):
        n = env.n_state
        if env.category == "linear":
            self.A, self.B, cross = env.A, env.B2, env.S
            plant, sensor = (env.noise_cov * m @ m.T for m in (env.B1, env.D21))
            both = env.noise_cov * env.B1 @ env.D21.T
            self.start, spread = env.init_state, env.random_init_state_cov
        else:
            self.A, self.B = linearised(env)
            cross, both = np.zeros((n, env.n_action)), np.zeros((n, env.n_observation))
            plant = env.process_noise_cov * np.eye(n)
            sensor = env.sensor_noise_cov * np.eye(env.n_observation)
            self.start, spread = env.target_state, SPREAD
        self.C = env.C
        plant, sensor = _above(plant, FLOOR_PLANT), _above(sensor, FLOOR_SENSOR)
        cost, effort = _above(env.Q, FLOOR_PLANT), _above(env.R, FLOOR_PLANT)
        value = solve_discrete_are(self.A, self.B, cost, effort, s=cross)
        self.K = np.linalg.solve(
            effort + self.B.T @ value @ self.B, self.B.T @ value @ self.A + cross.T
        )
        error = solve_discrete_are(self.A.T, self.C.T, plant, sensor, s=both)
        seen = self.C @ error @ self.C.T + sensor
        self.L = np.linalg.solve(seen.T, (self.A @ error @ self.C.T + both).T).T
        first = spread * self.C @ self.C.T + sensor
        self.first = np.linalg.solve(first.T, spread * self.C).T  # of the first observation


def _above(covariance: np.ndarray, floor: float) -> np.ndarray:
    return (covariance + covariance.T) / 2 + floor * np.eye(len(covariance))


def linearised(env) -> tuple[np.ndarray, np.ndarray]:
    """(A, B) of an equation around its target, by central differences of a step without noise."""
    n, m = env.n_state, env.n_action
    noise, env.process_noise_cov, draws = env.process_noise_cov, 0.0, env.rng
    env.rng = np.random.default_rng(0)  # what is drawn here is not the episode's

    def after(state: np.ndarray, action: np.ndarray) -> np.ndarray:
        env.state = state
        env.step(action)
        return env.state

    before = env.state
    origin, still = env.target_state, np.zeros(m)
    steps = EPSILON * np.eye(n), EPSILON * np.eye(m)
    by_state = [after(origin + d, still) - after(origin - d, still) for d in steps[0]]
    by_action = [after(origin, d) - after(origin, -d) for d in steps[1]]
    env.process_noise_cov, env.rng, env.state, env.step_count = noise, draws, before, 0
    return np.stack(by_state, 1) / (2 * EPSILON), np.stack(by_action, 1) / (2 * EPSILON)


def regulator(plant: Plant):
    """Acts on an estimate of the state that only what was seen and done goes into."""
    gains = plant.gains = plant.gains or Gains(plant.env)
    estimate = gains.start + gains.first @ (plant.seen - gains.C @ gains.start)

    def act() -> np.ndarray:
        nonlocal estimate
        if plant.done is not None:
            correction = gains.L @ (plant.seen - gains.C @ estimate)
            estimate = gains.A @ estimate + gains.B @ plant.done + correction
        action = -gains.K @ estimate
        return np.clip(action, -plant.env.action_limit, plant.env.action_limit)

    return act


EXPERTS = {"regulator": regulator}
