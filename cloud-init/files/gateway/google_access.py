"""What the metadata server says: this machine's access token, as its service account, and who it is.

Imported by render-config and health; run as a program it prints the HTTP header that carries the token.
"""

import json
import os
import urllib.request

METADATA_HOST = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
TOKEN_PATH = "instance/service-accounts/default/token"  # noqa: S105 - an address


def metadata(path, timeout=10):
    """An entry of the machine's metadata. Raises OSError."""
    address = f"http://{METADATA_HOST}/computeMetadata/v1/{path}"
    request = urllib.request.Request(address, headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310 - http, as set above
        return response.read().decode()


def access_token(timeout=10):
    """A token for Google's APIs, within the scopes of the machine. Raises OSError or ValueError."""
    return json.loads(metadata(TOKEN_PATH, timeout))["access_token"]


if __name__ == "__main__":
    print("Authorization: Bearer " + access_token())
