"""The simplest part of every socket, each a whole plugin module of its own.

The docs show these files, `distillkit plugins new` copies them, and `distillkit.testing` lets them
play the other parts. They are no plugin of this installation: no recipe can name them.

Legend: B batch, C latent channels, H, W latent cells, K patch logits, N heads in a pool.
"""
