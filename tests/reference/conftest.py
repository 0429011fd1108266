import torch

torch.set_num_threads(1)  # threads would only wait for each other: the networks are tiny
