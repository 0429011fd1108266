"""The learning rate of every step."""

import math

from ldm.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """AdamW's rate at `step`: linear warm-up to `lr`, then by `schedule` down to `final_lr` × `lr`.

    "cosine" falls from the end of the warm-up on. "wsd" (warm-up, stable, decay; Hu et al.,
    arXiv 2404.06395) keeps `lr` and falls linearly over the last `decay` share of the steps.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    begin = config.warmup
    if config.schedule == "wsd":
        begin = max(begin, config.steps - round(config.decay * config.steps))
    progress = (step - begin) / max(1, config.steps - begin)
    progress = min(1.0, max(0.0, progress))
    left = 1 - progress if config.schedule == "wsd" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (config.final_lr + (1 - config.final_lr) * left)
