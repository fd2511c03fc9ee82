"""A coverage-guided fuzzer over all properties: ``python -m tests.fuzz SECONDS COUNT``.

It writes the number of inputs to the file COUNT. It needs atheris (the extra ``fuzz``), which must be set up before the
package's modules are imported.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def main(seconds: int, count_file: str) -> None:
    """Fuzz. A failure ends the process with a traceback and the input that led to it."""
    import atheris

    with atheris.instrument_imports(include=["git_credential_bbjwt"]):
        from tests.properties import PROPERTIES, SEEDS

    names = list(PROPERTIES)
    tried = 0

    def one_input(data: bytes) -> None:
        nonlocal tried
        tried += 1
        # libFuzzer ends the process itself, so the count must be written before that.
        if tried % 1000 == 1:
            os.pwrite(count.fileno(), str(tried).encode(), 0)
        if data:
            # The first byte chooses the property.
            PROPERTIES[names[data[0] % len(names)]](data[1:])

    with tempfile.TemporaryDirectory() as folder, open(count_file, "wb") as count:
        for number, name in enumerate(names):
            for position, seed in enumerate(SEEDS[name]):
                (Path(folder) / f"{name}-{position}").write_bytes(bytes([number]) + seed)
        options = [f"-max_total_time={seconds}", "-max_len=4096", "-verbosity=0", f"-artifact_prefix={folder}/"]
        atheris.Setup([sys.argv[0], folder, *options], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
