if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella, not a package of its own: write 'from lamella import backend'")
