"""What trains: the student and the critics, their optimizers, and the batch that both see."""
