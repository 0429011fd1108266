"""What an environment was given, for the check: values and types, at once and RETAINED steps later.

Standard library and numpy only: this file also runs inside foreign interpreters.
"""

import hashlib

import numpy as np

RETAINED = 50  # steps after which what was handed over must still be what it was
SHOWN = 6  # numbers of an array that a description shows


class Witness:
    """An environment that is played through it, and an account of the actions it got.

    account: a pair of descriptions an action, when it was given and RETAINED steps later (or at the
    end). The action itself is kept until then, as environments do that penalise its changes.
    """

    def __init__(self, env):
        self.env, self._account, self._kept = env, [], []

    def __getattr__(self, name: str):
        return getattr(self.env, name)

    def step(self, action):
        self._account.append([described(action), ""])
        self._kept.append(action)
        if len(self._kept) > RETAINED:
            self._look_again(self._kept.pop(0))
        return self.env.step(action)

    def account(self) -> list:
        while self._kept:
            self._look_again(self._kept.pop(0))
        return self._account

    def _look_again(self, action) -> None:
        """At the oldest that is kept."""
        self._account[len(self._account) - len(self._kept) - 1][1] = described(action)


def described(value) -> str:
    """Type and value of an action; equal where both are, to the bit."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {described(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(described, value)) + ")"
    if not isinstance(value, np.ndarray):
        return f"{type(value).__name__} {value!r}"
    first = ", ".join(str(number) for number in value.reshape(-1)[:SHOWN])
    more = ""
    if value.size > SHOWN:
        more = f", … {hashlib.blake2b(value.tobytes(), digest_size=4).hexdigest()}"
    return f"{value.dtype} {value.shape} [{first}{more}]"


def difference(ours: list, theirs: list) -> str:
    """The first action of two accounts that was not the same, in words; empty where all
    that both hold were."""
    for stream, (mine, their) in enumerate(zip(ours, theirs)):
        for count, (a, b) in enumerate(zip(mine, their)):
            where = f"stream {stream}, action {count}"
            if a[0] != b[0]:
                return f"{where}: it was given {a[0]}, the library's own environment {b[0]}"
            if a[1] != b[1]:
                return (
                    f"{where}: it was given {a[0]}, which {RETAINED} steps later was {a[1]} (in "
                    f"the library's own environment {b[1]}): somebody writes to memory that was "
                    "handed over"
                )
    return ""
