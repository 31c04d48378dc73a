"""Floor 6: other people's programs and files. Nothing comes with the room: ``from lamella.interop import plot``."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import interop'")
