"""Finished students for other software, and the SDXL family as files.

Reading order: configs, exporters, comfyui, lora_extraction, layout.
"""
