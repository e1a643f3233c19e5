"""Transformers that predict a flow: what the families sd3, z_image and flux2 share.

A family's room has its sizes, how its texts are encoded, and how its network is called; all else
is here. Reading order: family, configs, teacher, dit (the critics' backbone), student, loading,
publish.
"""
