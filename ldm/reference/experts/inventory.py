"""Base-stock policies: order up to a level S, a quantile of the demand over a few periods.

One stage: S = F⁻¹(b / (b + h)) over lead + 1 periods, optimal with backlogs (Karlin and Scarf 1958)
and asymptotically so with lost sales (Huh, Janakiraman, Muckstadt, Rusmevichientong 2009). Two
stages: the echelon levels of Shang and Song (2003).
"""

import math

import numpy as np

from ldm.envs.interface import Actor, Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

HOLDING, SHORTAGE, LARGEST = 1.0, 9.0, 20  # defaults of the adapter


@expert("inventory/Backlog*", "inventory/LostSales*", "inventory/Products*")
def order_up_to(spec: EnvSpec) -> Actor:
    o = spec.options
    lead, shortage = o.get("lead", 1), o.get("shortage", SHORTAGE)
    fractile = shortage / (shortage + o.get("holding", HOLDING))
    # The order arrives `lead` steps from now, before that period's demand.
    levels = np.array([quantile(mean * (lead + 1), fractile) for mean in o["demand"]])

    def rule(observation: Arrays) -> Arrays:
        rows = observation[0].reshape(len(observation[0]), len(levels), -1)
        position = rows[:, :, :-1].sum(2)  # stock and all that is on its way
        order = np.clip(levels - position, 0, o.get("largest", LARGEST)).astype(np.int32)
        return [order if len(levels) > 1 else order[:, 0]]

    return Markov("scripted/base-stock@1", rule)


@expert("inventory/Serial*")
def echelons(spec: EnvSpec) -> Actor:
    """Level of an echelon: the mean of two newsvendor quantiles that bound it. With echelon holding
    costs g₁ = h_shop − h_warehouse, g₂ = h_warehouse: shop F⁻¹((b + g₂) / (b + g₁ + g₂)); both
    F⁻¹(b / (b + g₂)) and F⁻¹(b / (b + g₁ + g₂)), over the periods that an order takes to the
    shop."""
    o = spec.options
    inbound, outbound = o.get("lead", (1, 1))
    upper, total = o.get("holding", (0.5, 1.0))
    b, mean = o.get("shortage", SHORTAGE), o["demand"]
    shop = quantile(mean * (outbound + 1), (b + upper) / (b + total))
    far = mean * (inbound + outbound + 1)
    both = round((quantile(far, b / (b + upper)) + quantile(far, b / (b + total))) / 2)

    def rule(observation: Arrays) -> Arrays:
        (rows,) = observation
        warehouse, near = rows[:, : inbound + 1].sum(1), rows[:, inbound + 1 : -1].sum(1)
        orders = np.column_stack([both - warehouse - near, shop - near])
        return [np.clip(orders, 0, o.get("largest", LARGEST)).astype(np.int32)]

    return Markov("scripted/echelon-base-stock@1", rule)


def quantile(mean: float, share: float) -> int:
    """The least k with P(Poisson(mean) ≤ k) ≥ share."""
    k, term = 0, math.exp(-mean)
    total = term
    while total < share:
        k += 1
        term *= mean / k
        total += term
    return k
