"""A reference policy of a run, ready to act."""

from pathlib import Path

from ldm.envs.interface import Actor
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.reference import experts
from ldm.reference.admission import card_folder, read_card


def hosted_expert(spec: EnvSpec, folder: Path) -> str | None:
    """What `make(spec, ..., expert=...)` needs so that the reference can act; None for most."""
    return read_card(spec, folder).chosen.get("hosted")


def load_reference(spec: EnvSpec, folder: Path) -> Actor:
    """The admitted reference policy of `spec` in the run `folder`.

    Raises LdmError where there is no card, the environment was not admitted, or the expert that the
    card names is another one now.
    """
    card = read_card(spec, folder)
    again = f'delete {card_folder(spec, folder)} and run "ldm reference" again'
    if not card.admitted:
        raise LdmError(f"{spec.id} has no reference policy: {card.reason}")
    actor: Actor | None
    if card.chosen["kind"] == "data":
        raise LdmError(f"{spec.id}: its reference is recorded data, which cannot act")
    if card.chosen["kind"] == "given":
        from ldm.reference import given

        actor, found = given.load(card_folder(spec, folder)), []
    elif card.chosen["kind"] == "learnt":
        from ldm.reference.network import checksum, load_network

        path = card_folder(spec, folder) / "policy.safetensors"
        network = load_network(path)
        if checksum(path) != card.chosen.get("weights"):
            raise LdmError(f"{path} is not the file that its card was made with; {again}")
        actor, found = network, [network.id]
    else:
        actor, found = named_expert(spec, card.chosen["id"])
    if actor is None or actor.id != card.chosen["id"]:
        names = ", ".join(found) or "none"
        raise LdmError(f"{spec.id}: card says {card.chosen['id']}, found {names}; {again}")
    return actor


def named_expert(spec: EnvSpec, id: str) -> tuple[Actor | None, list[str]]:
    """The expert of `spec` that acts under the id, or None and the ids that there are."""
    found = []
    for expert in experts.find_all(spec.id, spec.experts):
        actor = expert.factory(spec)
        if actor.id == id:
            return actor, [id]
        found.append(actor.id)
    return None, found
