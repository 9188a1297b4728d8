"""A Kubernetes API server in one process, with no more in it than helm, kubectl and Python's client ask for."""
