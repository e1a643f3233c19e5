"""NitroFusion (Chen et al., 2024): a one-step student taught by a pool of changing critics.

Reading order: plugin (the names), configs and loss_configs (what a recipe can say), views and heads
(who looks, and how), pool (who is drawn), refresh (who is replaced), objectives and adversarial
(what the players minimise), regression (warm-up), refinement (1 -> 4 steps).
"""
