"""Current control of electric drives: feed-forward of the steady state plus a proportional term.

From the motor's own equation L di/dt = u − R i − e(ω, i), one step of τ seconds that removes the
share k of the current error takes u = R i* + e + k (L / τ) (i* − i). k = 1 is deadbeat control.
"""

import numpy as np

from ldm.envs.interface import Actor, Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


@expert("motors/Cont-CC-PermExDc-v0", "motors/Cont-CC-SeriesDc-v0")
def dc_current(spec: EnvSpec) -> Actor:
    system, motor, limits = _system(spec)
    if "psi_e" in motor:  # permanent magnets: the back-EMF is ψ ω
        resistance, inductance = motor["r_a"], motor["l_a"]
        magnets, mutual, share = motor["psi_e"], 0.0, 0.8
    else:  # series excitation: the back-EMF is L' ω i
        resistance, inductance = motor["r_a"] + motor["r_e"], motor["l_a"] + motor["l_e"]
        magnets, mutual, share = 0.0, motor["l_e_prime"], 0.05
    stiffness = share * inductance / system.tau

    def law(observation: Arrays) -> Arrays:
        state, reference = observation
        omega, current = state[:, 0] * limits["omega"], state[:, 2] * limits["i"]
        target = reference[:, 0] * limits["i"]
        volts = resistance * target + (magnets + mutual * target) * omega
        volts = volts + stiffness * (target - current)
        return [np.clip(volts / limits["u_sup"], -1, 1).astype(np.float32)[:, None]]

    return Markov("scripted/current-feedforward@1", law)


@expert("motors/Cont-CC-PMSM-v0")
def pmsm_current(spec: EnvSpec) -> Actor:
    """In the rotor's frame (d, q), ω_e = p ω: e_d = −ω_e L_q i_q, e_q = ω_e (L_d i_d + ψ). The
    voltages are turned into the stator's three phases at the angle half a step ahead."""
    system, motor, limits = _system(spec)
    column = {name: i for i, name in enumerate(system.state_names)}
    ld, lq = motor["l_d"], motor["l_q"]
    share = 0.3

    def law(observation: Arrays) -> Arrays:
        state, reference = observation[0].astype(np.float64), observation[1] * limits["i_sd"]
        speed = motor["p"] * state[:, column["omega"]] * limits["omega"]
        i_d, i_q = (state[:, column[name]] * limits[name] for name in ("i_sd", "i_sq"))
        to_d, to_q = reference[:, 0], reference[:, 1]
        u_d = motor["r_s"] * to_d - speed * lq * to_q + share * ld / system.tau * (to_d - i_d)
        u_q = motor["r_s"] * to_q + speed * (ld * to_d + motor["psi_p"])
        u_q = u_q + share * lq / system.tau * (to_q - i_q)
        angle = np.pi * state[:, column["epsilon"]] + speed * system.tau / 2
        phases = angle[:, None] - np.arange(3) * 2 * np.pi / 3
        volts = u_d[:, None] * np.cos(phases) - u_q[:, None] * np.sin(phases)
        return [np.clip(volts / limits["u_a"], -1, 1).astype(np.float32)]

    return Markov("scripted/dq-current@1", law)


def _system(spec: EnvSpec):
    """The library's physical system, its motor parameters (SI units) and limits by state name."""
    from ldm.envs.adapters.motors import build

    system = build(spec.make, "train").unwrapped.physical_system
    limits = dict(zip(system.state_names, np.asarray(system.limits, np.float64)))
    return system, system.electrical_motor.motor_parameter, limits
