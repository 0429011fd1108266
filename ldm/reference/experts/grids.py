"""Grid2Op: the operator's baseline that leaves the grid alone and takes lines back into service."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

SIZES = {  # generators and lines of each grid; others have 6 and 20
    "rte_case5_example": (2, 8),
    "rte_case14_realistic": (5, 20),
    "rte_case14_test": (5, 20),
    "rte_case14_opponent": (5, 20),
    "l2rpn_neurips_2020_track1": (22, 59),
    "l2rpn_icaps_2021": (22, 59),
    "l2rpn_idf_2023": (62, 186),
}


@expert("grid2op/*-lines")
def reconnect(spec: EnvSpec) -> Markov:
    """Reconnects the first line that is out of service, else does nothing. The observation starts
    with the generators, the hour and the lines' states. Actions: 0 nothing, then every line out,
    then every line in."""
    generators, lines = SIZES.get(spec.make, (6, 20))

    def act(observation: Arrays) -> Arrays:
        out = observation[0][:, generators + 1 : generators + 1 + lines] < 0.5
        return [np.where(out.any(1), 1 + lines + out.argmax(1), 0).astype(np.int32)]

    return Markov("scripted/reconnect@1", act)


@expert("grid2op/*-buses")
def leave_alone(spec: EnvSpec) -> Markov:
    return Markov(
        "scripted/do-nothing@1", lambda observation: [np.zeros(len(observation[0]), np.int32)]
    )
