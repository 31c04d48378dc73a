"""The one exception of the simulator: what went wrong in which kernel, and where."""

from __future__ import annotations


class KernelError(RuntimeError):
    """A kernel that does not compile, a launch that is refused, or a bug that showed while the kernel ran.

    Attributes:
        kind: ``"compile"``, ``"launch"``, ``"out of bounds"``, ``"misaligned"``, ``"read-only"``, ``"race"``,
            ``"uninitialised"``, ``"divergence"``, ``"warp mask"``, ``"asynchrony"``, ``"overflow"``, ``"endless"``,
            ``"assertion"`` or ``"trap"``.
        kernel: the kernel's name, where known.
        file: the source file's name, where known.
        line: the line in it, where known.
        other_line: for a race, the line of the other access, where known.
        block: the block's index, for a bug that showed while the kernel ran.
        thread: the thread's index in the block, likewise.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        kernel: str | None = None,
        file: str | None = None,
        line: int | None = None,
        other_line: int | None = None,
        block: tuple[int, ...] | None = None,
        thread: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.kernel, self.file, self.line, self.other_line = kind, kernel, file, line, other_line
        self.block, self.thread = block, thread
