"""What a run would need of a cluster before there is one: memory, time, data, cores."""
