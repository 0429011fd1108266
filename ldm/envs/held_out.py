"""Which base tasks are never trained on: a rule over their names, so that nobody picks them."""

import hashlib

SHARE = 0.05


def held_out(domains: dict[str, str]) -> set[str]:
    """The base tasks held out of `domains` (base task → domain).

    Those whose `score` is below SHARE, and the one with the lowest score of every domain, so that
    no domain lacks one. All variants of a base task share its fate.
    """
    chosen = {task for task in domains if score(task) < SHARE}
    for domain in set(domains.values()):
        chosen.add(min((task for task in domains if domains[task] == domain), key=score))
    return chosen


def score(base_task: str) -> float:
    """A number in [0, 1) that only the name decides: the first 8 bytes of its BLAKE2b digest."""
    digest = hashlib.blake2b(base_task.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
