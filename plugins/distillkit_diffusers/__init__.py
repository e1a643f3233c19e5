"""The SDXL family: teachers, the UNet-encoder backbone, UNet students, and their publication.

Reading order: configs (what recipes say), assets (where files come from), loading (files ->
teacher), denoiser, solvers, teacher, backbone, student, publish, timestep_shift_lcm.
"""
