"""Commands that look at what a run made: `eval`, `compare`, `report`."""
