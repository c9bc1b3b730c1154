"""Run as a script by `shared.reporting.typeset`: JSON on stdin to PDF on stdout; imports only typst."""

import json
import resource
import sys

import typst

_CPU_SECONDS = 30
_MEMORY_BYTES = 4 * 1024**3


def main() -> None:
    """Compile what stdin names; everything the document may read lies below ``root``."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    order = json.load(sys.stdin)
    pdf = typst.compile(
        order["template"],
        root=order["root"],
        font_paths=order["fonts"],
        sys_inputs={"data": order["data"]},
        pdf_standards=order["standards"],
        timestamp=order["timestamp"],
    )
    sys.stdout.buffer.write(pdf)


main()
