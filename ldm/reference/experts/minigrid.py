"""MiniGrid and BabyAI in Python: the bot that BabyAI ships, hosted by the environment."""

from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Hosted, expert


@expert("minigrid/BabyAI-*", hosted="babyai-bot")
def babyai(spec: EnvSpec) -> Hosted:
    """Plans with the part of the level that the agent has seen."""
    return Hosted("hosted/babyai-bot@1")
