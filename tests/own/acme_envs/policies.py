"""What is good at them."""


def follow(observation):
    """Of Camera: towards the brighter half."""
    left, right = observation["image"][:, :12].sum(), observation["image"][:, 12:].sum()
    return int(right > left)
