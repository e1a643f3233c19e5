"""The embedded world: captioned pictures rendered by code, an oracle for them, a tiny teacher.

Reading order: scenes (the grammar of captions), pictures (how a scene is rendered), oracle (how it
is read back), features and distances (how sets of pictures are compared); then the parts: prompts,
teacher, metrics; then architecture and train (how the shipped teachers were made: teacher/ is
SDXL-class, teacher_dit/ a transformer of Stable Diffusion 3's class).
"""
