"""Which parts are installed: plugins by entry point, the core's own; name -> config class."""
