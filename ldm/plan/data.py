"""What a run must have recorded, where it is kept, and the CPU cores that keep up with the GPUs."""

from dataclasses import dataclass

from ldm.config import Recipe

# measured on two cores: the quick start's mix and recordings, and the audit of 557 environments
RECORDED, MIXED = 30.0, 17.6  # bytes a transition recorded, and a token mixed
GENERATED = 1270.0  # transitions a core and second, all libraries (557 M in 122 core hours)
MIX = 130_000.0  # transitions a core and second
ACTED = 300.0  # environment steps a core and second beside a model, many environments an actor
EPISODE = 200.0  # transitions, about
CHECKPOINT = 16.0  # bytes a parameter: weights twice, two moments, all fp32


@dataclass(frozen=True)
class Data:
    """transitions: different ones that are recorded; passes: how often the run sees each."""

    tokens: float
    transitions: float
    passes: float
    recorded: float  # bytes
    mixed: float
    checkpoints: float
    generation_hours: float  # of one core
    mix_hours: float
    evaluation_hours: float


def data(
    recipe: Recipe, tokens: float, environments: int, parameters: int, per_transition: float
) -> Data:
    """Of a run over `tokens` tokens in `environments` environments."""
    seen = tokens / per_transition
    record = recipe.record
    asked = min(record.episodes * EPISODE, record.most_transitions)
    transitions = min(seen, environments * max(float(record.transitions), asked))
    kept = recipe.train.keep
    if recipe.train.keep_every:
        kept += recipe.train.steps // recipe.train.keep_every
    steps = environments * recipe.evaluate.episodes * EPISODE
    return Data(
        tokens,
        transitions,
        seen / max(transitions, 1),
        RECORDED * transitions,
        MIXED * per_transition * transitions,
        kept * CHECKPOINT * parameters,
        transitions / GENERATED / 3600,
        transitions / MIX / 3600,
        steps / ACTED / 3600,
    )
