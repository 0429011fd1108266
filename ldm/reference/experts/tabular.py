"""Exact policies of small Markov decision processes, by value iteration on their tables."""

from functools import partial

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

Table = dict[int, dict[int, list[tuple[float, int, float, bool]]]]  # gymnasium's P


def greedy_policy(
    transitions: Table, discount: float = 0.999, tolerance: float = 1e-6
) -> np.ndarray:
    """The optimal action of every state, int32 (states,).

    transitions[state][action]: (probability, next state, reward, terminated) of every outcome.
    Among actions whose values agree to 1e-9 the first wins, so rounding does not decide.
    """
    width = max(len(outcomes) for actions in transitions.values() for outcomes in actions.values())
    padded = [
        [list(outcomes) + [(0.0, 0, 0.0, True)] * (width - len(outcomes)) for outcomes in by_action]
        for by_action in (
            [transitions[s][a] for a in range(len(transitions[s]))] for s in range(len(transitions))
        )
    ]
    probability, successor, reward, terminated = np.moveaxis(np.asarray(padded, np.float64), -1, 0)
    successor = successor.astype(np.int64)
    weight = discount * probability * (1 - terminated)
    expected = (probability * reward).sum(-1)
    value = np.zeros(len(padded))
    while True:
        action_value = expected + (weight * value[successor]).sum(-1)
        updated = action_value.max(1)
        if np.abs(updated - value).max() < tolerance:
            return (action_value > updated[:, None] - 1e-9).argmax(1).astype(np.int32)
        value = updated


def look_up(table: np.ndarray, observation: Arrays) -> Arrays:
    return [table[observation[0]]]


PORTS = {  # envpool's name: gymnasium's, and its options
    "FrozenLake-v1": ("FrozenLake-v1", {}),
    "FrozenLake8x8-v1": ("FrozenLake8x8-v1", {}),
    "Taxi-v3": ("Taxi-v4", {}),
    "CliffWalking-v0": ("CliffWalking-v1", {}),
    "CliffWalking-v1": ("CliffWalking-v1", {}),
    "CliffWalkingSlippery-v1": ("CliffWalking-v1", {"is_slippery": True}),
}


@expert(*(f"envpool/{name}" for name in PORTS))
def ported(spec: EnvSpec) -> Markov:
    """envpool's ports number states and actions like the originals, whose tables are public."""
    name, options = PORTS[spec.make]
    return from_gymnasium(name, options)


@expert("gymnasium/FrozenLake*", "gymnasium/Taxi-*", "gymnasium/CliffWalking*")
def toy_text(spec: EnvSpec) -> Markov:
    return from_gymnasium(spec.make, spec.options)


def from_gymnasium(name: str, options: dict) -> Markov:
    import gymnasium

    environment = gymnasium.make(name, disable_env_checker=True, **options)
    table = greedy_policy(vars(environment.unwrapped)["P"])
    environment.close()
    return Markov("exact/value-iteration@1", partial(look_up, table))


@expert("envpool/NChain-v0")
def chain(spec: EnvSpec) -> Markov:
    """Five states in a row; forward pays 10 at the end, back pays 2 and returns to the start; the
    other action happens with probability 0.2."""
    forward = {s: (min(s + 1, 4), 10.0 if s == 4 else 0.0) for s in range(5)}
    outcomes = {s: [forward[s], (0, 2.0)] for s in range(5)}
    table = {
        s: {a: [(0.8, *outcomes[s][a], False), (0.2, *outcomes[s][1 - a], False)] for a in range(2)}
        for s in range(5)
    }
    return Markov("exact/value-iteration@1", partial(look_up, greedy_policy(table, 0.99)))


@expert("envpool/Blackjack-v1", "gymnasium/Blackjack-v1")
def blackjack(spec: EnvSpec) -> Markov:
    """Hit where that wins more than to stick (infinite deck, the dealer stands on 17)."""
    hit = blackjack_policy()

    def act(observation: Arrays) -> Arrays:
        total, dealer, ace = observation[0].T if len(observation) == 1 else observation
        return [hit[np.minimum(total, 22), dealer, ace]]

    return Markov("exact/blackjack@1", act)


CARDS = {card: (4 if card == 10 else 1) / 13 for card in range(1, 11)}


def add_card(total: int, ace: int, card: int) -> tuple[int, int]:
    """The best total of a hand after one more card, and whether an ace counts 11 in it."""
    total += card
    if card == 1 and total + 10 <= 21:
        return total + 10, 1
    if total > 21 and ace:
        return total - 10, 0
    return total, ace


def dealer_outcomes(total: int, ace: int) -> np.ndarray:
    """Probabilities of the dealer's final total, (23,); index 22 is bust."""
    if total >= 17:
        return np.eye(23)[min(total, 22)]
    outcomes = [p * dealer_outcomes(*add_card(total, ace, card)) for card, p in CARDS.items()]
    return np.sum(outcomes, axis=0)


def blackjack_policy() -> np.ndarray:
    """int32 (23, 11, 2): 1 where to hit, by the player's total, the dealer's card, a usable ace."""
    hit = np.zeros((23, 11, 2), np.int32)
    for shown in range(1, 11):
        final = dealer_outcomes(*add_card(0, 0, shown))
        value = {(total, ace): -1.0 for total in range(22, 32) for ace in (0, 1)}
        # A hand with a usable ace of 11 can only turn into a larger one or a hard one: hard first.
        order = [(t, 0) for t in range(21, 11, -1)] + [(t, 1) for t in range(21, 11, -1)]
        for total, ace in order + [(t, 0) for t in range(11, 3, -1)]:
            stick = final[22] + final[:total].sum() - final[total + 1 : 22].sum()
            draw = sum(p * value[add_card(total, ace, card)] for card, p in CARDS.items())
            hit[total, shown, ace] = draw > stick
            value[total, ace] = max(draw, stick)
    return hit


@expert("envpool/Catch-*", "bsuite/catch*")
def catch(spec: EnvSpec) -> Markov:
    """Step towards the column of the falling ball; the paddle is the mark in the last row."""

    def act(observation: Arrays) -> Arrays:
        board = observation[0]
        ball = board[:, :-1].any(1).argmax(1)
        paddle = board[:, -1].argmax(1)
        return [(np.sign(ball - paddle) + 1).astype(np.int32)]

    return Markov("scripted/catch@1", act)
