"""Training: the critics, one iteration, the schedule, the loop, and the state that resumes it."""
