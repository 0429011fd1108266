"""How much a label of each environment counts."""

import torch

from ldm.config import Recipe
from ldm.data.codec import Codec


def balance(recipe: Recipe, environments: list[dict]) -> torch.Tensor | None:
    """weights_E in fp32, one more for labels that only fill a capacity; None where all are alike.

    An action of many components has a label for each: a hand of 45 joints would count as much as 45
    games of one choice. A label's weight is 1 / (labels a transition) ** train.balance, over the
    mean of that over the labels of the mix, so that the gradient's size hardly changes.
    """
    power = recipe.train.balance
    if not power:
        return None
    parts_E, labels_E = [], []
    for entry in environments:
        parts = len(Codec(entry, recipe.tokens).components.slots)
        parts_E.append(parts)
        labels_E.append(parts * entry["transitions"] * recipe.mix.weights.get(entry["id"], 1.0))
    weights_E = torch.tensor(parts_E, dtype=torch.float64) ** -power
    share_E = torch.tensor(labels_E, dtype=torch.float64)
    weights_E /= (weights_E * share_E).sum() / share_E.sum()
    return torch.cat([weights_E, weights_E.new_zeros(1)]).float()
