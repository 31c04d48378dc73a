"""Floor 7: measurements that check their answer first; what ``lamella bench`` runs."""

import sys

if not __name__.startswith("lamella."):
    if "_pytest.main" not in sys.modules:
        raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import benchmarks'")
    # pytest imports what it collects by its path, so by this bare name: it gets the room itself
    import lamella.benchmarks

    sys.modules[__name__] = lamella.benchmarks
