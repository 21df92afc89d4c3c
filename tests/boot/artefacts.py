"""What the internet serves to a gateway VM here: an installer of IB Gateway, and IBC's zip."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

_STAND_INS = Path(__file__).parent / "stand_ins"


def installer() -> bytes:
    """Self-extracting: a script, and behind it the program that it unpacks."""
    return (_STAND_INS / "installer.sh").read_bytes() + (_STAND_INS / "java").read_bytes()


def ibc_zip() -> bytes:
    """As IBC's: no folder above, and nothing executable."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {
            "config.ini": b"IbLoginId=edemo\n",
            "version": b"3.24.2\n",
            "gatewaystart.sh": b"#!/bin/bash\n",
            "scripts/ibcstart.sh": (_STAND_INS / "ibcstart.sh").read_bytes(),
        }.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
