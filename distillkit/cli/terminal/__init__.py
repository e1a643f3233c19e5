"""What commands share: options, the console, tables, progress."""
