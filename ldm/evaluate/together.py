"""Many environments played at once by one model: `ldm evaluate`'s inner loop.

Two halves take turns: while the simulators of one step, the model reads the other. Who acts with
whom depends on nothing but the list, so the same list gives the same returns.
"""

from collections.abc import Callable

from ldm.envs.interface import TimeStep, VectorEnv
from ldm.envs.rollout import Tally
from ldm.policy.actor import SharedActor
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
    for game in games:
        actor.join(game.streams)
    halves = [list(games[0::2]), list(games[1::2])]
    for half in halves:
        _act(actor, half)
    while any(halves):
        for half in halves:
            for game in [game for game in half if game.receive()]:
                ended(game)
                half.remove(game)
                actor.leave(game.streams)
                game.env.close()
            _act(actor, half)


def _act(actor: SharedActor, half: list[Game]) -> None:
    if not half:
        return
    actions = actor.act([(game.streams, game.timestep) for game in half])
    for game, action in zip(half, actions):
        game.env.send(action)
