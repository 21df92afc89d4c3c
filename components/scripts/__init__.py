"""Programs that the engine runs during `up` and `destroy`; the standard library is all they need."""
