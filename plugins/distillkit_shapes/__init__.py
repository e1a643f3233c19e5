"""The embedded world: captioned pictures drawn by code, an oracle that reads them, a tiny teacher.

Reading order: scenes (what can be said), pictures (what is drawn), oracle (what is read back),
features and metrics (how sets of pictures are compared), build (the teacher's configs), train.
"""
