"""This machine's access token, as its service account.

Imported by render-config; run as a program it prints the HTTP header that carries the token.
"""

import json
import os
import urllib.request

METADATA_HOST = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - an address


def access_token(timeout=10):
    """A token for Google's APIs, within the scopes of the machine. Raises OSError or ValueError."""
    request = urllib.request.Request(
        "http://" + METADATA_HOST + TOKEN_PATH, headers={"Metadata-Flavor": "Google"}
    )
    with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310 - http, set above
        return json.load(response)["access_token"]


if __name__ == "__main__":
    print("Authorization: Bearer " + access_token())
