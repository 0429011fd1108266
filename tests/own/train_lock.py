"""A zip of stable-baselines3 for Lock, in seconds."""

import acme_envs  # noqa: F401 (it registers)
import torch
from stable_baselines3 import PPO

torch.set_num_threads(1)
settings = {"n_steps": 512, "batch_size": 128, "n_epochs": 20, "learning_rate": 3e-3, "gamma": 0.0}
model = PPO("MlpPolicy", "acme/Lock-v0", seed=0, device="cpu", **settings)
model.learn(5_000)
model.save("lock.zip")
