"""Reading and writing diffusers' pipelines and files of weights; nothing here distils.

Reading order: hub (where files come from), folders, loading, weights, tensor_names, prediction,
single_file, publish. Of SDXL alone are tensor_names, prediction, single_file and sdxl_files, with
the configs in `sdxl/`.
"""
