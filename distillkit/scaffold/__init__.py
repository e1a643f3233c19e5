"""`distillkit plugins new`: a plugin as a package of its own."""
