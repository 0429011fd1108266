"""A user's own policies and data as references: they act as they did, and no code of a zip runs."""

import io
import json
import os
import pickle
import zipfile
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces as gym

from ldm.config import Recipe, ReferenceConfig, load_recipe
from ldm.data.manifest import read_manifest, write_manifest
from ldm.envs import spaces
from ldm.envs.catalogue import find
from ldm.envs.gym_spaces import flatten
from ldm.envs.interface import TimeStep, is_memoryless
from ldm.errors import LdmError, MachineError
from ldm.recipe_check import require_policies
from ldm.record.run import record_stage
from ldm.reference import given, recorded, sb3_zip
from ldm.reference import run as stage
from ldm.reference.admission import read_card
from ldm.reference.choose import own_policy
from ldm.reference.load import load_reference
from ldm.reference.run import admit, has_card

sb3 = pytest.importorskip("stable_baselines3")
contrib = pytest.importorskip("sb3_contrib")
CARTPOLE = "envpool/CartPole-v1"

DICT = gym.Dict({"image": gym.Box(0, 255, (40, 40, 3), np.uint8), "at": gym.Box(-1, 1, (3,))})
SYMBOLS = gym.MultiDiscrete([3, 5])
NUMBERS, VECTOR = gym.Box(-2, 2, (2,)), gym.Box(-1, 1, (4,))
SMALL = {"net_arch": [8], "activation_fn": torch.nn.ELU}
MODELS = {
    "ppo": (sb3.PPO, "MlpPolicy", VECTOR, gym.Discrete(3), {}),
    "ppo of numbers": (sb3.PPO, "MlpPolicy", VECTOR, NUMBERS, {"policy_kwargs": SMALL}),
    "ppo with sde": (sb3.PPO, "MlpPolicy", VECTOR, NUMBERS, {"use_sde": True}),
    "ppo of symbols": (sb3.PPO, "MlpPolicy", SYMBOLS, gym.MultiDiscrete([2, 4]), {}),
    "a2c of a dict": (sb3.A2C, "MultiInputPolicy", DICT, gym.Discrete(2), {}),
    "ppo of an image": (sb3.PPO, "CnnPolicy", DICT["image"], gym.Discrete(2), {}),
    "dqn": (sb3.DQN, "MlpPolicy", VECTOR, gym.Discrete(3), {}),
    "qrdqn": (contrib.QRDQN, "MlpPolicy", gym.Discrete(7), gym.Discrete(3), {}),
    "sac": (sb3.SAC, "MlpPolicy", VECTOR, NUMBERS, {}),
    "tqc with sde": (contrib.TQC, "MlpPolicy", VECTOR, NUMBERS, {"use_sde": True}),
    "td3": (sb3.TD3, "MlpPolicy", VECTOR, NUMBERS, {}),
}  # fmt: skip


class Any(gymnasium.Env):
    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def timestep(observation: list) -> TimeStep:
    n = len(observation[0])
    no = np.zeros(n, bool)
    return TimeStep(observation, [], np.zeros(n), no, no, ~no)


@pytest.mark.parametrize("name", MODELS)
def test_a_zip_acts_as_stable_baselines3_does(name, tmp_path, monkeypatch):
    algorithm, policy, observation, action, options = MODELS[name]
    model = algorithm(policy, Any(observation, action), seed=1, device="cpu", **options)
    model.save(tmp_path / "model.zip")
    trees = spaces.describe(observation), spaces.describe(action)
    with monkeypatch.context() as patch:  # nothing of it is unpickled
        patch.setattr(pickle, "loads", None)
        patch.setattr("cloudpickle.loads", None)
        actor, said = given.keep(f"sb3:{tmp_path / 'model.zip'}", tmp_path / "home", *trees)
        again = given.load(tmp_path / "home")
    observation.seed(3)
    samples = [observation.sample() for _ in range(9)]
    batch = (
        {key: np.stack([s[key] for s in samples]) for key in DICT}
        if observation is DICT
        else np.stack(samples)
    )
    theirs, _ = model.predict(batch, deterministic=True)
    expected = flatten(trees[1], theirs)
    for ours in (actor, again):
        (found,) = ours.act(timestep(flatten(trees[0], batch)))
        np.testing.assert_array_equal(found, expected[0])
    assert said["id"] == actor.id == again.id and len(said["sha256"]) == 64


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("sb3") / "lock.zip"
    sb3.PPO("MlpPolicy", Any(VECTOR, gym.Discrete(3)), device="cpu").save(path)
    return path


def changed(path, to, name, content) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for member in old.namelist():
            new.writestr(member, content if member == name else old.read(member))


class Code:
    def __reduce__(self):
        return os.mkdir, ("run-by-the-zip",)


def pickled(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


WRONG = {
    "code": ("policy.pth", pickled({"a": Code()}), 'more than tensors.*"my.module:function"'),
    "no tensors": ("policy.pth", pickled({"a": 3}), "expected a JSON object and tensors"),
    "another policy": ("policy.pth", pickled({"a": torch.zeros(1)}), "none of stable-baselines3's"),
    "not JSON": ("data", b"{", "no zip that stable-baselines3 saved"),
    "own features": (
        "data",
        json.dumps({"policy_kwargs": {"features_extractor_class": "<class 'mine.Net'>"}}).encode(),
        "its features come from code of its own, <class 'mine.Net'>",
    ),
    "own activation": (
        "data",
        json.dumps({"policy_kwargs": {"activation_fn": "<class 'mine.Bend'>"}}).encode(),
        "its activation is <class 'mine.Bend'>",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_zip_with_code_or_of_another_form(case, saved, tmp_path, monkeypatch):
    name, content, words = WRONG[case]
    changed(saved, tmp_path / "bad.zip", name, content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LdmError, match=rf"bad\.zip.*{words}"):
        sb3_zip.read(tmp_path / "bad.zip")
    assert os.listdir(tmp_path) == ["bad.zip"]


def test_a_zip_that_is_cut_or_not_there(saved, tmp_path):
    (tmp_path / "cut.zip").write_bytes(saved.read_bytes()[:-2000])
    with pytest.raises(LdmError, match=r"cut\.zip is no zip that .* or is cut"):
        sb3_zip.read(tmp_path / "cut.zip")
    with pytest.raises(LdmError, match="expected a zip that stable-baselines3 saved"):
        given.require(f"sb3:{tmp_path / 'none.zip'}")


def test_a_zip_of_another_environment(saved):
    tree = spaces.describe(gym.Box(-1, 1, (5,)))
    with pytest.raises(LdmError, match="x does not fit the environment's spaces: size mismatch"):
        sb3_zip.build("x", sb3_zip.read(saved), tree, spaces.describe(gym.Discrete(3)))


POLICIES = '''
def lean(observation):
    """Pushes the cart to where the pole falls."""
    assert observation.shape == (4,)
    return int(observation[2] + observation[3] > 0)


class Counting:
    """Pushes left, right, left ... in every episode."""

    def __init__(self):
        self.count = 0

    def __call__(self, observation):
        self.count += 1
        return (self.count - 1) % 2


number = 3


def falls(observation):
    raise RuntimeError("no weights")
'''


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    (folder / "my_policies.py").write_text(POLICIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


def run(folder, policy: str) -> Recipe:
    """The reference stage, in this process."""
    recipe = Recipe("own", [CARTPOLE], workers=1)
    reference = replace(
        recipe.reference, episodes=8, budget_steps=0, policies={CARTPOLE: policy} if policy else {}
    )
    record = replace(recipe.record, transitions=1600, shard_transitions=1600)
    spec = find(CARTPOLE)
    if not has_card(spec, reference, 0, folder):
        given.require(own_policy(spec, reference, folder))
        admit(spec, reference, 0, folder)
    return replace(recipe, reference=reference, record=record)


def test_a_function_is_a_reference(policies, tmp_path):
    run(tmp_path, "my_policies:lean")
    card = read_card(find(CARTPOLE), tmp_path)
    assert card.admitted and card.policy["kind"] == "given"
    assert card.policy["id"] == f"my_policies:lean@{card.policy['sha256'][:12]}"
    assert card.given == f"my_policies:lean@{card.policy['sha256']}"
    actor = load_reference(find(CARTPOLE), tmp_path)
    assert actor.id == card.policy["id"] and is_memoryless(actor)


def test_a_class_gets_an_instance_an_episode(policies, tmp_path):
    tree = spaces.describe(VECTOR)
    actor, _ = given.keep("my_policies:Counting", tmp_path, tree, spaces.describe(gym.Discrete(2)))
    moment = timestep([np.zeros((2, 4), np.float32)])
    go_on = moment._replace(started=np.array([False, True]))
    played = [actor.act(t)[0].tolist() for t in (moment, go_on, go_on)]
    assert played == [[0, 0], [1, 0], [0, 0]] and not is_memoryless(actor)


def test_only_a_zip_and_a_search_need_a_learner(policies, saved, tmp_path, monkeypatch):
    def lacks(name):
        raise LdmError(f"{name} is not installed")

    monkeypatch.setattr(stage, "run_jobs", lambda admit, jobs, *_: [admit(*job) for job in jobs])
    for module in (stage, given):
        monkeypatch.setattr(module, "require_module", lacks)
    unknown = "gym:gymnasium.envs.classic_control:CartPoleEnv"
    needs = ReferenceConfig(episodes=8, budget_steps=100)
    function = replace(needs, policies={unknown: "my_policies:lean"})
    recipe = Recipe("own", [unknown], workers=1, reference=function)
    stage.reference_stage(recipe, tmp_path)
    assert read_card(find(unknown), tmp_path).admitted
    for config in (needs, replace(needs, policies={unknown: f"sb3:{saved}"})):
        with pytest.raises(LdmError, match="stable_baselines3 is not installed"):
            stage.reference_stage(replace(recipe, reference=config), tmp_path)


def test_another_policy_is_another_card(policies, saved, tmp_path):
    run(tmp_path, "my_policies:lean")
    first = read_card(find(CARTPOLE), tmp_path)
    run(tmp_path, "my_policies:lean")
    assert read_card(find(CARTPOLE), tmp_path) == first
    run(tmp_path, "my_policies:falls")
    card = read_card(find(CARTPOLE), tmp_path)
    assert card.reason == "my_policies:falls raised RuntimeError: no weights"
    run(tmp_path, "")
    assert read_card(find(CARTPOLE), tmp_path).policy["kind"] == "scripted"


@pytest.mark.parametrize(
    "policy, words",
    [
        ("my_policies:lena", 'my_policies:lena" raised AttributeError'),
        ("my_policies:number", "is int, not callable"),
        ("lean", r'"lean": expected "sb3:file.zip", "my.module:function" or "data"'),
        ("data", r"has none: .ldm data import DATASET --as envpool/CartPole-v1 --out"),
    ],
)
def test_what_is_no_policy_is_said(policies, tmp_path, policy, words):
    with pytest.raises(LdmError, match=words):
        run(tmp_path, policy)


def test_a_module_that_is_not_there_is_the_machines_fault():
    with pytest.raises(MachineError, match='"nowhere_" is not installed'):
        given.require("nowhere_.policies:f")


def test_what_was_changed_since_is_refused(policies, saved, tmp_path):
    trees = spaces.describe(VECTOR), spaces.describe(gym.Discrete(3))
    given.keep(f"sb3:{saved}", tmp_path, *trees)
    weights = tmp_path / given.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(LdmError, match="is not the file that its card was made with"):
        given.load(tmp_path)


def test_data_alone_is_a_reference(policies, tmp_path):
    recipe = run(tmp_path, "my_policies:lean")
    record_stage(recipe, tmp_path)
    content = read_manifest(tmp_path / "data")
    (entry,) = content["environments"]
    assert entry["policy"] == read_card(find(CARTPOLE), tmp_path).policy["id"]
    write_manifest(  # as `ldm data import --as` leaves it
        tmp_path / "data", {"environments": [entry | {"card": None, "policy": "data/mine"}]}
    )
    for policy in ("", "data"):  # asked for or not
        run(tmp_path, policy)
        card = read_card(find(CARTPOLE), tmp_path)
        assert card.admitted and card.policy["kind"] == "data"
        assert card.policy["id"] == "data/mine" and card.given.startswith("data@")
        (kept,) = read_manifest(tmp_path / "data")["environments"]
        earned = recorded.returns(kept, tmp_path)
        assert card.reference.episodes == len(earned)
        assert card.reference.mean == pytest.approx(earned.mean())
        record_stage(recipe, tmp_path)  # has nothing to do, and starts no process
        (kept,) = read_manifest(tmp_path / "data")["environments"]
        assert kept["shards"] == entry["shards"] and kept["card"]["policy"] == card.policy
    with pytest.raises(LdmError, match="its reference is recorded data, which cannot act"):
        load_reference(find(CARTPOLE), tmp_path)


def test_the_data_is_read_once_for_all_that_ask_and_again_when_it_changed(tmp_path, monkeypatch):
    reads = []

    def read(data):
        reads.append(data)
        return json.loads((data / "manifest.json").read_text())

    monkeypatch.setattr(recorded, "read_recorded", read)

    def answers(ids):
        return [recorded.entry_of(replace(find(CARTPOLE), id=name), tmp_path) for name in ids]

    def entry(name, kind):
        return {"id": name, "card": {"policy": {"kind": kind}}}

    assert answers(["a"]) == [None] and not reads
    entries = [entry("a", "data"), entry("b", "expert")]
    write_manifest(tmp_path / "data", {"environments": entries})
    assert answers(["a", "b", "c"] * 5) == [entries[0], None, None] * 5
    assert len(reads) == 1
    write_manifest(tmp_path / "data", {"environments": [entry("b", "data")]})
    assert answers(["a", "b"]) == [None, entry("b", "data")]
    assert len(reads) == 2


def test_names_and_paths_in_a_recipe(tmp_path):
    (tmp_path / "own.toml").write_text(
        f'name = "own"\nenvironments = ["{CARTPOLE}"]\n[reference.policies]\n'
        f'"{CARTPOLE}" = "sb3:models/lock.zip"\n'
    )
    recipe = load_recipe(str(tmp_path / "own.toml"))
    assert recipe.reference.policies == {CARTPOLE: f"sb3:{tmp_path}/models/lock.zip"}
    require_policies(recipe, [])
    lost = replace(recipe, reference=replace(recipe.reference, policies={"envpool/Cart": "data"}))
    with pytest.raises(LdmError, match=r'no environment "envpool/Cart" .*nearest: "envpool/CartPo'):
        require_policies(lost, [])
