"""Who may use which random numbers, and which range of replayed data, for which purpose.

The table PURPOSES is all there is: whoever draws at random asks `seed_for`, whoever builds an
environment to play in asks `split_for`, both by the name of the purpose, so no two of them ever see
the same episodes by design, and nothing that shapes a model sees the range that it is scored on.
"""

import hashlib

from ldm.errors import LdmError

TRAIN, TEST = "train", "test"  # the ranges of an environment that replays data
NONE = ""  # builds no environment

PURPOSES: dict[str, str] = {
    # references are searched for on the training range and admitted on the other
    "probe": TRAIN,  # is the environment deterministic?
    "learn": TRAIN,  # a learner's environments
    "trial": TRAIN,  # scores learners while they are compared
    "learner": NONE,  # a learner's own random numbers
    "fit": NONE,  # random actions that standardise its observations
    "score": TEST,  # the returns on the admission card
    "actions": NONE,  # random actions on that card
    # what the model learns from
    "record": TRAIN,
    "noise": NONE,
    "mix": NONE,
    "shuffle": NONE,
    "model": NONE,  # its first weights
    # what it is judged by, or shown in
    "explore": TRAIN,  # random steps that make known what was not trained on
    "evaluate": TEST,
    "decode": NONE,  # actions that are sampled
    "bootstrap": NONE,  # intervals
    "play": TEST,
    "restart": NONE,  # a worker that failed starts anew, on the range that it had
}


def seed_for(purpose: str, seed: int, *parts: int | str) -> int:
    """The seed in [0, 2³¹) that `purpose` draws from under a recipe's seed; parts: which of several
    draws (environment, shard …)."""
    _require(purpose)
    return derive(seed, purpose, *parts)


def split_for(purpose: str, replays_data: bool) -> str:
    """The range of data that `purpose` plays; where an environment replays none there is but one,
    "train"."""
    _require(purpose)
    if not (split := PURPOSES[purpose]):
        raise LdmError(f'seeds.py: the purpose "{purpose}" plays in no environment')
    return split if replays_data else TRAIN


def derive(*parts: int | str) -> int:
    """A seed in [0, 2³¹): the same parts give the same seed, on every machine."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1


def _require(purpose: str) -> None:
    if purpose not in PURPOSES:
        raise LdmError(f'seeds.py: no purpose "{purpose}"; known: {", ".join(PURPOSES)}')
