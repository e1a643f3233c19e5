"""Losses. A file holds an objective's terms and its config; `adversarial` applies it to a panel."""
