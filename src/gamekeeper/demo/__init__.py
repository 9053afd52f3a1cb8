"""The bundled workload: Connect Four from self-play to promotion, in numpy.

It uses `gamekeeper.client` and nothing else of the product, so that a user's own game looks the same.
"""
