"""Lines of a scores.jsonl as a run over many environments leaves them."""

import numpy as np

from ldm.envs.spec import DOMAINS
from ldm.evaluate import rows
from ldm.reference.admission import score

EPISODES = 40


def made(count: int, seed: int = 0) -> tuple[dict, list[dict]]:
    """`count` environments: two variants a base task, one in twenty held out, one in ten weak."""
    rng = np.random.default_rng(seed)
    head = {
        "schema": rows.SCHEMA,
        "name": "made",
        "seed": 0,
        "model": {"parameters": 12_000_000, "step": 30_000, "sha256": "ab" * 32},
        "training": {
            **{name: [] for name in ("step", "loss", "useful_tokens_per_s")},
            **{name: [] for name in ("bin_fill", "loader_wait")},
            "setup": {},
            "damage": [],
        },
        "seconds": {"record": 900.0, "train": 21_000.0},
        "versions": {"python": "3.11"},
        "not_admitted": [],
        "not_played": [],
        "recipe": {},
    }
    return head, [line(i, rng) for i in range(count)]


def line(i: int, rng: np.random.Generator) -> dict:
    task, domain = i // 2, DOMAINS[(i // 2) % len(DOMAINS)]
    reached = float(np.clip(1.05 - rng.exponential(0.25), -0.3, 1.3))
    random, reference = (score(rng.normal(m, 5, 48)) for m in (-10.0, 90.0))
    plain = lambda s: {"mean": s.mean, "ci": list(s.ci), "episodes": s.episodes}
    library = f"library{task % 25}"
    return {
        "id": f"{library}/Task{task}-v{i % 2}",
        "base_task": f"Task{task}",
        "domain": domain,
        "library": library,
        "modality": "vector",
        "held_out": task % 20 == 7,
        "held_out_data": domain == "trading",
        "weak": "below half of the way to the best known" if task % 10 == 3 else "",
        "policy": "scripted/rule@1",
        "kind": "scripted",
        "random": plain(random),
        "reference": plain(reference),
        "returns": rng.normal(-10 + 100 * reached, 12, EPISODES).tolist(),
        "seed": i,
        "faults": 0,
        "unseen": [f"Task{task}: observation[0]: cut"] if task % 9 == 0 else [],
        "curve": np.linspace(3, 0.4, 24).round(4).tolist(),
    }
