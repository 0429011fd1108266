"""Many environments played at once by one model: `ldm evaluate`'s inner loop.

Two halves take turns: while the simulators of one step, the model reads the other. Who acts with
whom depends on nothing but the list, so the same list gives the same returns.
"""

from collections import deque
from collections.abc import Callable
from itertools import count

from ldm.envs.interface import TimeStep, VectorEnv
from ldm.envs.rollout import Tally
from ldm.policy.actor import SharedActor, UnderWay
from ldm.policy.streams import Streams


class Game:
    """An environment, the model's streams in it, and what they earned so far."""

    def __init__(self, env: VectorEnv, streams: Streams, episodes: int):
        self.env, self.streams = env, streams
        self.tally = Tally(env, episodes)
        self.timestep: TimeStep = env.reset()

    def receive(self) -> bool:
        """Takes the step in; whether all episodes are over."""
        self.timestep = self.env.receive()
        self.tally.add(self.timestep)
        return self.tally.complete


def play_together(actor: SharedActor, games: list[Game], ended: Callable[[Game], None]) -> None:
    """Plays all to their ends; `ended` is called with each as it is over, before it is closed."""
    for number, game in enumerate(games):
        actor.join(game.streams, number % 2)
    halves = [list(games[0::2]), list(games[1::2])]
    asked: deque[tuple[list[Game], UnderWay]] = deque()  # a half each, and no half twice
    for turn in count():
        if not (any(halves) or asked):
            return
        half = halves[turn % 2]
        if asked and asked[0][0] is half:  # the other one is over
            _send(asked.popleft())
        for game in [game for game in half if turn >= len(halves) and game.receive()]:
            ended(game)
            half.remove(game)
            actor.leave(game.streams)
            game.env.close()
        if half:
            asked.append((half, actor.begin([(game.streams, game.timestep) for game in half])))
        # A GPU has the next pass before it is done with this one, and never waits for the host.
        while asked and (len(asked) == len(halves) or asked[0][1].ready):
            _send(asked.popleft())


def _send(asked: tuple[list[Game], UnderWay]) -> None:
    half, under_way = asked
    for game, action in zip(half, under_way.actions()):
        game.env.send(action)
