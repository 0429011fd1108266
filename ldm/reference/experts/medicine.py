"""Medicine: insulin by the patient's own basal rate, and the exact policy of the sepsis model."""

import csv
from pathlib import Path

import numpy as np

from ldm.envs.groups import group
from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


def package_file(spec: EnvSpec, path: str) -> Path:
    """A file of a package in the environment's group."""
    return next(group(spec.group).folder.glob(f"lib/python*/site-packages/{path}"))


@expert("simglucose/*")
def basal(spec: EnvSpec) -> Markov:
    """The rate that keeps the patient steady without meals, u2ss · weight / 6000 U/min as the
    simulator's parameters have it, and more in proportion to the reading above 140 mg/dl."""
    with package_file(spec, "simglucose/params/vpatient_params.csv").open() as file:
        patient = next(row for row in csv.DictReader(file) if row["Name"] == spec.make)
    rate = float(patient["u2ss"]) * float(patient["BW"]) / 6000

    def act(observation: Arrays) -> Arrays:
        reading = observation[0].astype(np.float64)
        return [np.maximum(rate * (1 + 2 * (reading - 140) / 140), 0).astype(np.float32)]

    return Markov("scripted/basal-proportional@1", act)


@expert("icu-sepsis/v2")
def sepsis(spec: EnvSpec) -> Markov:
    """Value iteration on the published transition table; survival pays 1."""
    data = np.load(package_file(spec, "icu_sepsis/envs/assets/dynamics.npz"))
    chances, rewards = data["tx_mat"].astype(np.float64), data["r_mat"].astype(np.float64)
    paid = (chances * rewards).sum(2) if rewards.ndim == 3 else rewards
    value = np.zeros(len(chances))
    for _ in range(500):  # the horizon
        value = (paid + chances @ value).max(1)
    best = (paid + chances @ value).round(9).argmax(1).astype(np.int32)
    return Markov("exact/sepsis@1", lambda observation: [best[observation[0]]])
