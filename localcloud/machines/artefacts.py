"""What the internet serves to machines of the local cloud: an IB Gateway installer and IBC's zip.

Their bytes never change, so a stack pins their sha256 as it would pin the real ones', and a wrong pin fails
on the machine as in life: `python -m localcloud.machines.artefacts` prints both. Neither holds any of IBKR's
or IBC's code: the installer makes the folders that the real one makes, and the programs are stand-ins.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile

_INSTALLER = """\
#!/bin/sh
# Makes what IB Gateway's installer makes, as far as IBC looks at it.
set -eu
while [ "$#" -gt 0 ]; do
    case $1 in
    -dir) directory=$2; shift ;;
    esac
    shift
done
mkdir -p "$directory/jars" "$directory/.install4j"
echo "-Xmx768m" > "$directory/ibgateway.vmoptions"
echo "Finishing installation ..."
"""

_IBC_FILES = {
    "config.ini": "# The settings that IBC ships.\n",
    "gatewaystart.sh": '#!/bin/sh\nexec /opt/ibc/scripts/ibcstart.sh "$@"\n',
    "scripts/ibcstart.sh": (
        "#!/bin/sh\necho 'the local cloud runs its own gateway in place of this one' >&2\nexit 1\n"
    ),
}


def installer() -> bytes:
    """The stand-in for ibgateway-*-standalone-linux-x64.sh."""
    return _INSTALLER.encode("ascii")


def ibc_zip() -> bytes:
    """The stand-in for IBCLinux-*.zip: stored, undated, so the same bytes everywhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in _IBC_FILES.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, whatever this runs on: it is part of the bytes
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


def served(url: str) -> bytes | None:
    """What the internet has at an address, or None: the installer at IBKR's or in a bucket, IBC at GitHub."""
    if re.search(r"ibgateway[^/]*\.sh(\?|$)", url):
        return installer()
    if re.search(r"IBCLinux[^/]*\.zip(\?|$)", url):
        return ibc_zip()
    return None


if __name__ == "__main__":
    print("gateway_sha256", hashlib.sha256(installer()).hexdigest())
    print("ibc_sha256", hashlib.sha256(ibc_zip()).hexdigest())
