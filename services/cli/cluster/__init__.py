"""`headrace cluster`: the release on Kubernetes, as the API server knows it."""
