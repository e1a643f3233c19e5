"""NitroFusion (Chen et al. 2024): a one-step student trained against a pool of discriminator heads.

Reading order: plugin (the names in recipes), views and heads (what a discriminator sees, and how
it judges), pool (which heads are drawn), refresh (which are re-initialised), losses (what both
players minimise), refinement (from 1 to 4 steps).
"""
