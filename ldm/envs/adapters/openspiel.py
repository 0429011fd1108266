"""Games of OpenSpiel for one player: the others are part of the environment.

Learner and opponents see what OpenSpiel's observation (or information state) shows their seat.
A move that the rules forbid stands for the next one that they allow, counted on from it and round,
so that a policy needs no rules to play on, and random play is play. Reward: what the game pays the
learner's seat, mostly once, at the end. A game that ends before the learner's first move is dealt
anew.
"""

import gymnasium
import numpy as np
import pyspiel
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

EXPLORATION = 1.5  # of UCT (Kocsis and Szepesvári 2006)
MEGABYTES = 200  # a search tree may hold
DEPTH = 120  # moves and draws of a playout where players move at once
PERFECT = pyspiel.GameType.Information.PERFECT_INFORMATION


def build(
    make: str,
    split: str,
    seat: int = 0,
    opponent: int = 0,
    shows: str = "numbers",
    **parameters,
):
    """`make`: OpenSpiel's name of the game, `parameters` its own. `opponent`: playouts of its tree
    search (MCTS) a move; 0 moves at random. `shows`: "numbers", "binary", or "cells" where exactly
    one plane of the observation is set at every cell, whose number then stands for it."""
    return Match(pyspiel.load_game(make, parameters), seat, opponent, shows)


class Match(gymnasium.Env):
    def __init__(self, game, seat: int, opponent: int, shows: str):
        self.game, self.seat, self.playouts, self.shows = game, seat, opponent, shows
        kind = game.get_type()
        self.informed = kind.provides_information_state_tensor and kind.information != PERFECT
        shape = tuple(
            game.information_state_tensor_shape()
            if self.informed
            else game.observation_tensor_shape()
        )
        self.shape = shape
        board = {
            "cells": lambda: MultiDiscrete(np.full(shape[1:], shape[0])),
            "binary": lambda: MultiBinary(shape),
            "numbers": lambda: Box(-np.inf, np.inf, shape),
        }[shows]()
        moves = game.num_distinct_actions()
        self.action_space = Discrete(moves)
        self.observation_space = Dict({"board": board, "legal": MultiBinary(moves)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        while True:
            self.state, self.paid = self.game.new_initial_state(), 0.0
            self._advance()
            if not self.state.is_terminal():
                self._pay()
                return self._observe(), {}

    def step(self, action):
        legal = self.state.legal_actions(self.seat)
        move = next((move for move in legal if move >= action), legal[0])
        if self.state.is_simultaneous_node():
            self.state.apply_actions(
                [move if i == self.seat else self._drawn(i) for i in range(self.game.num_players())]
            )
        else:
            self.state.apply_action(move)
        self._advance()
        return self._observe(), self._pay(), self.state.is_terminal(), False, {}

    def _advance(self) -> None:
        """Chance and the other players move until it is the learner's turn, or over."""
        state = self.state
        while not state.is_terminal():
            if state.is_chance_node():
                deal(state, self.np_random)
            elif state.is_simultaneous_node() or state.current_player() == self.seat:
                return
            elif self.playouts:
                seed = int(self.np_random.integers(2**31))
                state.apply_action(search(self.game, state, self.playouts, seed))
            else:
                state.apply_action(self._drawn(state.current_player()))

    def _drawn(self, player: int) -> int:
        legal = self.state.legal_actions(player) or [0]
        return legal[int(self.np_random.integers(len(legal)))]

    def _pay(self) -> float:
        before, self.paid = self.paid, self.state.returns()[self.seat]
        return float(self.paid - before)

    def _observe(self) -> dict:
        state = self.state
        shown = (
            state.information_state_tensor(self.seat)
            if self.informed
            else state.observation_tensor(self.seat)
        )
        board = np.asarray(shown, np.float32).reshape(self.shape)
        if self.shows == "cells":
            board = board.argmax(0)
        legal = np.zeros(self.action_space.n, np.int8)
        if not state.is_terminal():
            legal[state.legal_actions(self.seat)] = 1
        dtype = self.observation_space["board"].dtype
        return {"board": board.astype(dtype), "legal": legal}


def deal(state, draws: np.random.Generator) -> None:
    """Chance moves."""
    outcomes, chances = zip(*state.chance_outcomes())
    place = int(np.searchsorted(np.cumsum(chances), draws.random(), side="right"))
    state.apply_action(outcomes[min(place, len(outcomes) - 1)])


def search(game, state, playouts: int, seed: int) -> int:
    """A move by tree search with playouts at random, from what all players see."""
    evaluator = pyspiel.RandomRolloutEvaluator(1, seed)
    bot = pyspiel.MCTSBot(game, evaluator, EXPLORATION, playouts, MEGABYTES, True, seed, False)
    return bot.step(state)


def guess(game, state, playouts: int, seed: int) -> int:
    """A move by tree search over what may be hidden (ISMCTS; Cowling and others 2012): worlds are
    drawn from what the player to move knows."""
    evaluator = pyspiel.RandomRolloutEvaluator(1, seed)
    return pyspiel.ISMCTSBot(seed, evaluator, EXPLORATION, playouts).step(state)


def try_all(match: Match, playouts: int, seed: int) -> int:
    """The move with the best mean over playouts in which everybody moves at random (flat Monte
    Carlo), where players move at once."""
    draws = np.random.default_rng(seed)
    pick = lambda legal: legal[int(draws.integers(len(legal)))] if legal else 0
    seat, players = match.seat, match.game.num_players()
    legal = match.state.legal_actions(seat)
    totals = []
    for move in legal if len(legal) > 1 else legal[:0]:
        total = 0.0
        for _ in range(playouts):
            state, first = match.state.clone(), move
            for _ in range(DEPTH):
                if state.is_terminal():
                    break
                if state.is_chance_node():
                    deal(state, draws)
                    continue
                moves = [pick(state.legal_actions(i)) for i in range(players)]
                moves[seat], first = (moves[seat], None) if first is None else (first, None)
                state.apply_actions(moves)
            total += state.returns()[seat]
        totals.append(total)
    return legal[int(np.argmax(totals))] if totals else legal[0]


def _searching(playouts: int):
    return lambda match: lambda: search(match.game, match.state, playouts, 0)


EXPERTS = {
    "mcts-200": _searching(200),
    "mcts-1000": _searching(1000),
    "ismcts-1000": lambda match: lambda: guess(match.game, match.state, 1000, 0),
    "flat-30": lambda match: lambda: try_all(match, 30, 0),
}
