"""Which parts are installed: entry points of plugins, the core's own parts, name -> config class."""
