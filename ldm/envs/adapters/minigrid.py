"""MiniGrid and BabyAI, with the bot that BabyAI ships as a hosted expert."""

import gymnasium
import minigrid  # noqa: F401 (registers its environments)
from minigrid.utils.baby_ai_bot import BabyAIBot
from minigrid.wrappers import RGBImgPartialObsWrapper


class _Remembering(gymnasium.Wrapper):
    """Keeps the last action, which the bot wants to know of when it was not its own."""

    last_action = None

    def reset(self, **arguments):
        self.last_action = None
        return self.env.reset(**arguments)

    def step(self, action):
        self.last_action = action
        return self.env.step(action)


def build(make: str, split: str, tile_pixels: int = 0, **options):
    """With `tile_pixels` the view is drawn, that many pixels a cell side, instead of coded."""
    env = gymnasium.make(make, disable_env_checker=True, **options)
    if tile_pixels:
        env = RGBImgPartialObsWrapper(env, tile_size=tile_pixels)
    return _Remembering(env)


def babyai_bot(env):
    """The bot for one episode of a BabyAI level."""
    bot = BabyAIBot(env.unwrapped)
    return lambda: int(bot.replan(env.last_action))


EXPERTS = {"babyai-bot": babyai_bot}
