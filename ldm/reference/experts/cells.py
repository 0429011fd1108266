"""mobile-env: every phone at the base station that it receives best."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

STATIONS = {"small": 3, "medium": 3, "large": 13}


@expert("mobile-env/*")
def strongest_signal(spec: EnvSpec) -> Markov:
    """Connects a phone to the station of its strongest signal, then takes it off the others, the
    first first. Action k switches the connection to station k, 0 none."""
    count = STATIONS[spec.id.rpartition("/")[2]]

    def act(observation: Arrays) -> Arrays:
        phones = observation[0].reshape(len(observation[0]), -1, 2 * count + 1)
        on, signal = phones[..., :count] > 0.5, phones[..., count : 2 * count]
        best = np.arange(count) == signal.argmax(2)[..., None]
        lacking = ~(on & best).any(2)
        others = on & ~best
        switch = np.where(lacking, best.argmax(2), others.argmax(2)) + 1
        return [np.where(lacking | others.any(2), switch, 0).astype(np.int32)]

    return Markov("scripted/strongest-signal@1", act)
