"""What a recipe takes before it starts: a dry run on the meta device, counted."""
