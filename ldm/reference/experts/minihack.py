"""MiniHack: find the stairs, use the thing that lies about, open the door.

One rule plays every level: answer what the game asks; use the level's item, once it is found; go to
the stairs where they are known; else to the nearest place that shows something new.
"""

import numpy as np

from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import expert
from ldm.reference.experts.dungeon import COMPASS, Level, choices, letter_of, text, toward

EVERY = """
N E S W NE SE SW NW FarN FarE FarS FarW FarNE FarSE FarSW FarNW DOWN WAIT MORE ADJUST APPLY
ATTRIBUTES CALL CAST CHAT CLOSE DIP DROP DROPTYPE EAT ENGRAVE ENHANCE ESC FIGHT FIRE FORCE INVENTORY
INVENTTYPE INVOKE JUMP KICK LOOK LOOT MONSTER MOVE MOVEFAR OFFER OPEN PAY PICKUP PRAY PUTON QUAFF
QUIVER READ REMOVE RIDE RUB RUSH RUSH2 SEARCH SEEARMOR SEERINGS SEETOOLS SEETRAP SEEWEAPON SHELL SIT
SWAP TAKEOFF TAKEOFFALL THROW TIP TURN TWOWEAPON UNTRAP VERSIONSHORT WEAR WIELD WIPE ZAP PLUS QUOTE
DOLLAR SPACE"""
FULL = EVERY.split()
LETTERS = """
N k E l S j W h NE u SE n SW b NW y APPLY a CLOSE c DROP d EAT e FIRE f INVENTORY i MOVE m OPEN o
PAY p QUAFF q READ r SEARCH s THROW t VERSIONSHORT v WIELD w SWAP x ZAP z"""
KEYS = dict(zip(LETTERS.split()[::2], LETTERS.split()[1::2]))  # that are letters too
RESTRICTED = {
    "LavaCross-Levitate-Potion": "PICKUP QUAFF FIRE",
    "LavaCross-Levitate-Ring": "PICKUP PUTON FIRE READ",
    "LavaCross-Levitate": "PICKUP WEAR QUAFF PUTON FIRE READ",
    "LavaCross": "PICKUP ZAP WEAR APPLY QUAFF PUTON FIRE READ",
    "Levitate-Boots": "PICKUP WEAR FIRE",
    "Levitate-Potion": "PICKUP QUAFF FIRE",
    "Levitate-Ring": "PICKUP PUTON FIRE READ",
    "Freeze-Horn": "PICKUP APPLY FIRE",
    "Freeze-Wand": "PICKUP ZAP FIRE",
    "Freeze": "PICKUP ZAP APPLY FIRE",
    "WoD": "PICKUP ZAP FIRE",
}
NAVIGATION = {
    "Corridor-": "OPEN KICK SEARCH",
    "ExploreMaze": "OPEN KICK SEARCH EAT",
    "KeyRoom": "PICKUP APPLY",
    "Sokoban": "OPEN EAT PICKUP",
}
SKILLED = """
Closed Eat Freeze LavaCross Levitate Locked Pray PutOn Quest Read Sink Wear Wield WoD Zap"""
SKILLS = tuple(SKILLED.split())

# What the level is about: the item's characters, the command that uses it.
ITEMS = {
    "Eat": {"%": "EAT"},
    "Wield": {")": "WIELD"},
    "Wear": {"[": "WEAR"},
    "PutOn": {'"': "PUTON", "=": "PUTON"},
    "Zap": {"/": "ZAP"},
    "Read": {"?": "READ"},
    "Pray": {"_": "PRAY"},
    "Sink": {"#": "QUAFF"},
    "KeyRoom": {"(": "APPLY"},
}
ANY = {"/": "ZAP", "(": "APPLY", "!": "QUAFF", "=": "PUTON", "[": "WEAR"}
ITEMS |= dict.fromkeys(("Freeze", "Levitate", "LavaCross", "WoD", "Quest"), ANY)
FIXED = "_#%"  # used where they lie


def commands(level: str) -> list[str]:
    """The names of a level's actions, in their order."""
    for names, wanted in ((RESTRICTED, "-Restricted" in level), (NAVIGATION, True)):
        for prefix, more in names.items():
            if wanted and level.startswith(prefix):
                return [*COMPASS, *more.split()]
    return FULL if level.startswith(SKILLS) else list(COMPASS)


@expert("minihack/*")
def descend(spec: EnvSpec) -> "Crawler":
    return Crawler(spec.id.partition("/")[2])


class Crawler:
    """An actor with a player a stream."""

    id = "scripted/dungeon-crawler@1"

    def __init__(self, level: str):
        self.level, self.commands = level, commands(level)
        self.items = next((i for name, i in ITEMS.items() if level.startswith(name)), {})
        self.players: list[Player] = []

    def act(self, timestep: TimeStep) -> Arrays:
        if len(self.players) != len(timestep.started):
            self.players = [Player(self.items, self.commands) for _ in timestep.started]
        stats, chars, colours, messages = timestep.observation
        actions = []
        for row, started in enumerate(timestep.started):
            if started:
                self.players[row] = Player(self.items, self.commands)
            player = self.players[row]
            here = int(stats[row, 0]), int(stats[row, 1])
            half = chars.shape[1] // 2
            corner = here[0] - half, here[1] - half
            player.level.look(chars[row], colours[row], corner, here)
            name = player.choose(text(messages[row]))
            actions.append(self.commands.index(name) if name in self.commands else 0)
        return [np.array(actions, np.int32)]


class Player:
    """One hero: the level, the item, what is being done with it."""

    def __init__(self, items: dict[str, str], commands: list[str]):
        self.level, self.items, self.commands = Level(), items, commands
        self.letters = {KEYS[name]: name for name in commands if name in KEYS}
        self.item = ""  # its character, once it is in hand
        self.letter = "f"  # what it is called there
        self.aim = "E"
        self.uses = 0
        self.lifted: dict[tuple[int, int], int] = {}

    def choose(self, message: str) -> str:
        """The name of the next action."""
        self.notice(message)
        return (
            self.answer(message)
            or self.use()
            or self.descend()
            or self.doors(message)
            or self.fetch()
            or self.level.explore()
            or self.stuck()
        )

    def notice(self, message: str) -> None:
        """Takes note of what was picked up."""
        if (letter := letter_of(message)) and not self.item and self.items:
            self.letter = letter
            words = {"wand": "/", "horn": "(", "key": "(", "potion": "!", "ring": "=", "boots": "["}
            named = [char for word, char in words.items() if word in message]
            self.item = named[0] if named else next(iter(self.items))

    def answer(self, message: str) -> str | None:
        """What the game asks for."""
        if "direction" in message and "?" in message:
            return self.aim
        if "[yn" in message or "Improvise" in message:
            return "NW"  # the key y
        if "ight or left" in message or "[rl" in message:
            return "READ"  # the key r
        if offered := choices(message):
            letter = self.letter if self.letter in offered else offered[-1]
            return self.letters.get(letter)
        return None

    def use(self) -> str | None:
        """Uses the item: at once where it is only to be used, on lava from beside it."""
        level = self.level
        fixed = [char for char in self.items if char in FIXED]
        if fixed and level.under.get(level.here) in fixed:
            self.uses += 1
            return self.items[fixed[0]] if self.uses < 40 else None
        if not self.item or self.uses >= 8:
            return None
        command = self.items.get(self.item, "APPLY")
        lava = level.cells("}")
        if command in ("ZAP", "APPLY") and lava:
            aligned = [c for c in lava if c[1] == level.here[1] and abs(c[0] - level.here[0]) <= 6]
            if not aligned:
                near = min(lava, key=lambda c: abs(c[0] - level.here[0]))
                return level.approach(lambda c: c[1] == near[1])
            self.aim = toward(level.here, aligned[0])
        if command == "APPLY" and "ZAP" not in self.commands and "KICK" not in self.commands:
            doors = [c for c in level.adjacent("+") if level.is_door(c)]
            if "FIRE" not in self.commands and not doors:  # a key: only at its door
                closed = [c for c in level.cells("+") if level.is_door(c)]
                beside = {
                    (c[0] + dx, c[1] + dy) for c in closed for dx, dy in list(COMPASS.values())[:4]
                }
                return level.approach(lambda c: c in beside) if closed else None
        if command in ("ZAP", "APPLY") and (foes := level.cells("H")):
            self.aim = toward(level.here, foes[0])
        self.uses += 1
        return command

    def descend(self) -> str | None:
        stairs = set(self.level.cells(">"))
        return self.level.approach(lambda c: c in stairs) if stairs else None

    def doors(self, message: str) -> str | None:
        """Kicks in a door that is locked."""
        near = [c for c in self.level.adjacent("+") if self.level.is_door(c)]
        straight = [c for c in near if c[0] == self.level.here[0] or c[1] == self.level.here[1]]
        if straight and "KICK" in self.commands and ("locked" in message or "WHAMM" in message):
            self.aim = toward(self.level.here, straight[0])
            return "KICK"
        return None

    def fetch(self) -> str | None:
        """Goes to the item and picks it up."""
        wanted = [char for char in self.items if char not in FIXED]
        fixed = [char for char in self.items if char in FIXED]
        level = self.level
        if not self.item and wanted and level.under.get(level.here, ".") in wanted:
            tries = self.lifted[level.here] = self.lifted.get(level.here, 0) + 1
            if tries <= 3:
                return "PICKUP"
        places = {
            c for c, char in level.under.items() if char in (fixed if self.item else wanted + fixed)
        }
        places -= {c for c, tries in self.lifted.items() if tries > 3}
        return level.approach(lambda c: c in places) if places else None

    def stuck(self) -> str:
        """Looks for hidden ways, and about."""
        if "SEARCH" in self.commands and self.level.stood.get(self.level.here, 0) % 12 < 8:
            return "SEARCH"
        return self.level.wander() or "SEARCH"
