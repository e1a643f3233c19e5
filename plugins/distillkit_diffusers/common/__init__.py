"""What the families share: networks in main memory, the VAE's formulas, LoRAs, pipeline folders."""
