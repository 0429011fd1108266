"""Three environments, as a package of a user's has them."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Timed(gymnasium.Env):
    """`length` steps, each of which shows something new."""

    length = 20

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.show(), {}

    def step(self, action):
        paid = float(self.pay(action))
        self.count += 1
        return self.show(), paid, False, self.count == self.length, {}


class Lock(Timed):
    """Numbers: opens where the action is the largest of three."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def show(self):
        self.numbers = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.numbers

    def pay(self, action):
        return action == self.numbers.argmax()


class Camera(Timed):
    """An image in a Dict: a lamp shines left or right, and what follows it is paid by its power."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (24, 24, 3), np.uint8),
            "power": spaces.Box(0, 1, (1,), np.float32),
        }
    )
    action_space = spaces.Discrete(2)

    def show(self):
        self.right, self.power = int(self.np_random.integers(2)), self.np_random.uniform(0.2, 1)
        image = self.np_random.integers(0, 60, (24, 24, 3), np.uint8)
        row, column = (
            self.np_random.integers(0, 16),
            self.np_random.integers(0, 4) + 12 * self.right,
        )
        image[row : row + 8, column : column + 8] = 255
        return {"image": image, "power": np.array([self.power], np.float32)}

    def pay(self, action):
        return self.power * (1 if action == self.right else -1)


class Dials(Timed):
    """Symbols: two dials are to be turned to what two others show, the second backwards."""

    length = 10
    observation_space = spaces.MultiDiscrete([4, 4])
    action_space = spaces.MultiDiscrete([4, 4])

    def show(self):
        self.dials = self.np_random.integers(0, 4, 2)
        return self.dials

    def pay(self, action):
        return (action[0] == self.dials[0]) + (action[1] == 3 - self.dials[1])


for make in (Lock, Camera, Dials):
    gymnasium.register(f"acme/{make.__name__}-v0", make)
