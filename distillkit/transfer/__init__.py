"""A student's difference to its base, put onto another checkpoint (paper, section 4.6)."""
