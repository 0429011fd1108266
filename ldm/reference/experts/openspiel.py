"""OpenSpiel's games: tree searches hosted by the environment, from what the player sees."""

from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Hosted, expert

SLOW = ("Amazons", "Checkers", "Go7", "Ludo", "NineMensMorris", "Othello", "Oware", "Yacht")
HIDDEN = ("KuhnPoker*", "LeducPoker*", "Bargaining*", "Euchre*", "OhHell*")


@expert("open-spiel/*-*-*", hosted="mcts-1000")
def tree_search(spec: EnvSpec) -> Hosted:
    """Monte Carlo tree search (Kocsis and Szepesvári 2006) with 1,000 playouts a move."""
    return Hosted("hosted/mcts-1000@1")


@expert(*(f"open-spiel/{game}*-*-*" for game in SLOW), hosted="mcts-200")
def short_tree_search(spec: EnvSpec) -> Hosted:
    """The same with 200, where playouts are long."""
    return Hosted("hosted/mcts-200@1")


@expert(
    *(f"open-spiel/{game}-{seat}" for game in HIDDEN for seat in ("First", "Second")),
    hosted="ismcts-1000",
)
def information_set_search(spec: EnvSpec) -> Hosted:
    """Tree search over deals drawn from what the player knows (Cowling and others 2012)."""
    return Hosted("hosted/ismcts-1000@1")


@expert("open-spiel/Goofspiel*", "open-spiel/Soccer-*", "open-spiel/Duel*", hosted="flat-30")
def flat_monte_carlo(spec: EnvSpec) -> Hosted:
    """The best mean over 30 random playouts a move, where both move at once."""
    return Hosted("hosted/flat-30@1")


HABITS = ("Copies", "Replies", "Cycles", "Leans")


@expert(*(f"open-spiel/*-{habit}" for habit in HABITS), hosted="plan")
def against_a_habit(spec: EnvSpec) -> Hosted:
    """Backward induction over the opponent's habit; fictitious play where it is unknown."""
    return Hosted("hosted/habit-plan@1")
